// The figure of a recording: waveforms, spectrogram and loudness above one axis of time.
const STEPS = [
  ...[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
  ...[1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400],
];
export const GAP = 16;
const BOTTOM = 30;
export const TOP = 8;

export function clock(seconds, digits = 1) {
  const sign = seconds < 0 ? "−" : "";
  const factor = 10 ** digits;
  const rounded = Math.round(Math.abs(seconds) * factor) / factor;
  const minutes = Math.floor(rounded / 60);
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  if (minutes < 60) return `${sign}${minutes}:${rest}`;
  return `${sign}${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

export const hertz = (hz) =>
  hz >= 1000 ? `${Number((hz / 1000).toPrecision(3))} kHz` : `${Number(hz.toPrecision(3))} Hz`;

function timeTicks(from, to, width) {
  const most = Math.max(2, width / 85);
  const step = STEPS.find((s) => (to - from) / s <= most) ?? STEPS.at(-1);
  const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
  const values = [];
  for (let n = Math.ceil(from / step - 1e-9); n * step <= to + 1e-9; n++) values.push(n * step);
  return { tickvals: values, ticktext: values.map((value) => clock(value, digits)) };
}

export class Figure {
  constructor(element, marks, playhead) {
    Object.assign(this, { element, marks, playhead });
    this.from = 0;
    this.to = 1;
    this.whole = null; // drawing of the whole recording
    this.detail = null; // drawing of what is in view
    this.other = null; // { drawing, shift } of the duplicate
    this.apart = false;
    this.places = [];
    this.left = 52;
    this.right = 10;
  }

  get width() {
    return Math.max(50, this.element.clientWidth - this.left - this.right);
  }

  // Second at a position on the screen.
  secondAt(clientX) {
    const x = clientX - this.element.getBoundingClientRect().left - this.left;
    return this.from + (x / this.width) * (this.to - this.from);
  }

  position(second) {
    return this.left + ((second - this.from) / (this.to - this.from)) * this.width;
  }

  get rows() {
    const { channels } = this.whole;
    const lanes = this.apart ? channels : 1;
    const rows = [["wave", lanes === 1 ? 130 : lanes * Math.max(34, Math.min(90, 420 / lanes))]];
    if (this.other) rows.push(["other", 100]);
    rows.push(["levels", 210], ["loudness", 90]);
    return rows;
  }

  render() {
    if (!this.whole) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const rows = this.rows;
    const height = rows.reduce((sum, [, size]) => sum + size + GAP, -GAP);
    const layout = {
      height: height + TOP + BOTTOM,
      width: this.element.clientWidth,
      margin: { l: this.left, r: this.right, t: TOP, b: BOTTOM },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("--muted") },
      showlegend: false,
      xaxis: {
        range: [this.from, this.to],
        anchor: "y4",
        gridcolor: colour("--line"),
        zeroline: false,
        ticks: "outside",
        tickcolor: colour("--line"),
        ...timeTicks(this.from, this.to, this.width),
      },
      images: [],
      shapes: this.shapes(colour),
      annotations: [],
    };
    const axis = { wave: "yaxis", other: "yaxis2", levels: "yaxis3", loudness: "yaxis4" };
    let top = height;
    for (const [name, size] of rows) {
      const domain = [Math.max(0, (top - size) / height), top / height];
      layout[axis[name]] = { domain, anchor: "x", fixedrange: true, zeroline: false,
        gridcolor: colour("--line"), ...this[`${name}Axis`]() };
      top -= size + GAP;
    }
    const traces = [
      ...this.waveTraces("y", [this.whole, this.detail], 0, colour("--accent"), this.apart),
      ...this.loudnessTraces(colour),
      { x: [null], y: [null], yaxis: "y3", mode: "lines" },
    ];
    if (this.other) {
      const drawings = [this.other.whole, this.other.detail];
      traces.push(...this.waveTraces("y2", drawings, -this.other.shift, colour("--warn"), false));
    }
    layout.images = [this.whole, this.detail].filter((d) => d?.drawn).map((d) => this.image(d));
    Plotly.react(this.element, traces, layout, { staticPlot: true });
    this.placeMarks();
  }

  waveAxis() {
    const { channels } = this.whole;
    if (!this.apart || channels === 1) {
      return { range: [-1.05, 1.05], tickvals: [-1, 0, 1], ticktext: ["−1", "0", "1"] };
    }
    const lanes = [...Array(channels).keys()];
    return {
      range: [-2 * channels + 1, 1],
      tickvals: lanes.map((lane) => -2 * lane),
      ticktext: lanes.map((lane) => `ch ${lane + 1}`),
    };
  }

  otherAxis() {
    return { range: [-1.05, 1.05], tickvals: [0], ticktext: ["B"] };
  }

  levelsAxis() {
    const { hz } = this.detail ?? this.whole;
    const wanted = [20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000];
    const isLinear = Math.abs(hz[2] - 2 * hz[1] + hz[0]) < 1e-6 * hz[1];
    const top = hz.at(-1) * (isLinear ? 1 : Math.sqrt(hz.at(-1) / hz.at(-2)));
    const step = [50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000]
      .find((s) => top / s <= 6) ?? 100000;
    const values = isLinear ? [...Array(Math.floor(top / step)).keys()].map((n) => (n + 1) * step)
      : wanted.filter((f) => f >= hz[0] * 0.99 && f <= top * 1.001);
    return { range: [0, hz.length], tickvals: values.map((f) => this.band(f, hz)),
      ticktext: values.map(hertz), showgrid: false };
  }

  // Place of a frequency among the bands, as a number of bands from the lowest edge.
  band(frequency, hz) {
    const isLinear = Math.abs(hz[2] - 2 * hz[1] + hz[0]) < 1e-6 * hz[1];
    if (isLinear) return frequency / (hz[1] - hz[0]);
    return Math.log(frequency / hz[0]) / Math.log(hz[1] / hz[0]) + 0.5;
  }

  loudnessAxis() {
    const loudest = this.whole.momentary.reduce((most, lufs) => (lufs > most ? lufs : most), 0);
    return { range: [-60, loudest], tickvals: [-60, -40, -20, 0], ticktext: ["−60", "−40", "−20", "0"] };
  }

  image(drawing) {
    const start = drawing.start / drawing.rate;
    return { source: drawing.source, xref: "x", yref: "y3", x: start, y: drawing.hz.length,
      sizex: drawing.stop / drawing.rate - start, sizey: drawing.hz.length,
      sizing: "stretch", layer: "above" };
  }

  // Columns of the detail where it is drawn, and of the whole beside it.
  *visible([whole, detail]) {
    const until = detail?.drawn ? [detail.start / detail.rate, detail.drawnSecond] : [0, 0];
    const margin = (this.to - this.from) / 10;
    for (const drawing of [whole, detail]) {
      if (!drawing?.drawn) continue;
      for (let column = 0; column < drawing.drawn; column++) {
        const second = drawing.second(column);
        if (drawing === whole && second >= until[0] && second < until[1]) continue;
        yield [second, drawing, column];
      }
    }
  }

  waveTraces(axis, drawings, shift, colour, apart) {
    const columns = [...this.visible(drawings)]
      .map(([second, drawing, column]) => [second + shift, drawing, column])
      .filter(([second]) => second >= this.from - 60 && second <= this.to + 60)
      .sort((one, two) => one[0] - two[0]);
    const lanes = apart ? this.whole.channels : 1;
    return [...Array(lanes).keys()].map((lane) => {
      const upper = [], lower = [], x = [];
      for (const [second, drawing, column] of columns) {
        const size = drawing.columns;
        const channels = apart ? [lane] : [...Array(drawing.channels).keys()];
        let low = Infinity, high = -Infinity;
        for (const channel of channels) {
          low = Math.min(low, drawing.minima[channel * size + column]);
          high = Math.max(high, drawing.maxima[channel * size + column]);
        }
        x.push(second);
        upper.push(high - 2 * lane);
        lower.push(low - 2 * lane);
      }
      return { x: [...x, ...x.reverse()], y: [...upper, ...lower.reverse()], yaxis: axis,
        mode: "lines", fill: "toself", fillcolor: colour, line: { width: 1, color: colour } };
    });
  }

  loudnessTraces(colour) {
    const columns = [...this.visible([this.whole, this.detail])].sort((one, two) => one[0] - two[0]);
    const x = columns.map(([second]) => second);
    const line = (name) => columns.map(([, drawing, column]) => {
      const value = drawing[name][column];
      return Number.isFinite(value) ? value : null;
    });
    const style = (width, name) => ({ mode: "lines", yaxis: "y4", line: { width, color: colour(name) } });
    return [
      { x, y: line("momentary"), ...style(1, "--muted") },
      { x, y: line("shortTerm"), ...style(2.5, "--accent") },
    ];
  }

  shapes(colour) {
    return this.places.filter((place) => place.second >= this.from && place.second <= this.to)
      .map((place) => ({ type: "line", xref: "x", yref: "paper", x0: place.second,
        x1: place.second, y0: 0, y1: 1, opacity: 0.7,
        line: { width: 1, dash: "dot", color: colour(place.broken ? "--bad" : "--warn") } }));
  }

  placeMarks() {
    const visible = this.places.filter((p) => p.second >= this.from && p.second <= this.to);
    this.marks.replaceChildren(...visible.map((place) => {
      const mark = document.createElement("i");
      mark.className = place.broken ? "broken" : "";
      mark.title = `${clock(place.second, 3)} ${place.text}`;
      mark.style.left = `${this.position(place.second)}px`;
      mark.dataset.second = place.second;
      return mark;
    }));
  }

  movePlayhead(second, isOther) {
    const isVisible = this.whole && second >= this.from && second <= this.to;
    this.playhead.hidden = !isVisible;
    this.playhead.classList.toggle("b", isOther);
    this.playhead.style.transform = `translateX(${this.position(second)}px)`;
  }
}
