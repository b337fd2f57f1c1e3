// One chunk: its features drawn value by value, and its sound.
import { ChunkPlayer, problemOf } from "./chunk_player.js";

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const plots = read("plots");
const colourMap = read("colour-map").map((colour, i, all) => [i / (all.length - 1), colour]);
const types = { float32: Float32Array, int16: Int16Array, int32: Int32Array };
const margin = { l: 64, r: 76, t: 8, b: 44 };
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const playButton = document.getElementById("play");
const problem = document.getElementById("problem");
const lines = [];
const player = new ChunkPlayer(
  document.getElementById("sound"),
  Number(playButton.dataset.partSeconds),
  () => {
    const isPlaying = player.button !== null;
    playButton.setAttribute("aria-pressed", isPlaying);
    playButton.textContent = isPlaying ? "Stop" : "Play";
    if (isPlaying) {
      problem.hidden = true;
      requestAnimationFrame(moveLines);
    }
    for (const line of lines) line.element.hidden = !isPlaying;
  },
  (button, message) => {
    problem.textContent = message;
    problem.hidden = false;
  },
);
playButton.addEventListener("click", () => player.toggle(playButton));
document.getElementById("repeat").addEventListener("change", (event) => {
  player.repeat = event.target.checked;
});

// The lines that show, in plots over time, what is heard.
function moveLines() {
  if (!player.button) return;
  for (const { element, drawing } of lines) {
    const [low, high] = drawing.layout.xaxis.range;
    const share = (player.second - low) / (high - low);
    const width = drawing.clientWidth - margin.l - margin.r;
    element.hidden = share < 0 || share > 1;
    element.style.left = `${margin.l + share * width}px`;
  }
  requestAnimationFrame(moveLines);
}

function axis(title, more) {
  const colours = { color: css("--muted"), gridcolor: css("--line"), linecolor: css("--line") };
  return { title: { text: title }, zeroline: false, ticks: "outside", ...colours, ...more };
}

function layoutOf(plot) {
  const isMap = plot.form === "heatmap";
  const ticks = plot.ticks.length
    ? { tickvals: plot.ticks.map((t) => t[0]), ticktext: plot.ticks.map((t) => t[1]) }
    : {};
  const padding = plot.padding_from === null ? [] : [plot.padding_from];
  return {
    margin,
    height: isMap ? Math.min(460, Math.max(240, 60 + 2 * plot.shape[0])) : 240,
    paper_bgcolor: css("--surface"),
    plot_bgcolor: css("--surface"),
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: css("--text") },
    xaxis: axis(plot.x.title, { showgrid: !isMap, range: rangeOf(plot) }),
    yaxis: axis(plot.y.title, { showgrid: !isMap, ...ticks }),
    shapes: padding.map((x) => ({
      type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper",
      line: { color: css("--focus"), width: 2, dash: "dash" },
    })),
    annotations: padding.map((x) => ({
      x, y: 1, yref: "paper", text: "padding from here", showarrow: false, xanchor: "left",
      yanchor: "top", bgcolor: css("--surface"), font: { color: css("--text"), size: 12 },
    })),
    hovermode: "closest",
    dragmode: "zoom",
  };
}

// From the left side of the first value to the right side of the last.
function rangeOf(plot) {
  const half = plot.form === "heatmap" ? 0.5 : 0;
  const { start, step } = plot.x;
  return [start - half * step, start + (plot.shape.at(-1) - 1 + half) * step];
}

function traceOf(plot, values, range) {
  const shared = { x0: plot.x.start, dx: plot.x.step, hoverinfo: "none" };
  if (plot.form === "line") {
    return { ...shared, type: "scatter", mode: values.length > 64 ? "lines" : "lines+markers",
      y: values, line: { width: 1, color: css("--accent") } };
  }
  const [rows, columns] = plot.shape;
  const z = Array.from({ length: rows }, (_, i) => values.subarray(i * columns, (i + 1) * columns));
  return { ...shared, type: "heatmap", z, zsmooth: false, colorscale: colourMap,
    zauto: false, ...limits(plot, values, range),
    colorbar: { thickness: 12, outlinewidth: 0, title: { text: plot.unit, side: "top" } } };
}

// The values of the first and the last colour, as in the pictures on walls.
function limits(plot, values, range) {
  if (range === "dataset") return { zmin: plot.range.low, zmax: plot.range.high };
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) [low, high] = [0, 0];
  return { zmin: low, zmax: high > low ? high : low + 1 };
}

// All digits that a float32 needs.
const exactly = (value) => String(Number(value.toPrecision(9)));

function describe(plot, values, row, column) {
  const { x, y, unit } = plot;
  const width = plot.shape.at(-1);
  const value = exactly(values[row * width + column]) + (unit ? ` ${unit}` : "");
  const time = x.unit ? ` at ${(x.start + column * x.step).toFixed(4)} ${x.unit}` : "";
  const hz = plot.centres_hz.length ? ` (${plot.centres_hz[row].toFixed(1)} Hz)` : "";
  const band = plot.form === "heatmap" ? `${y.word} ${row}${hz}, ` : "";
  return `${value} · ${band}${x.word} ${column}${time}`;
}

// The arrow keys go from value to value in the plot that has the focus.
function walk(plot, drawing, choose) {
  const [rows, columns] = plot.form === "heatmap" ? plot.shape : [1, plot.shape[0]];
  let [row, column] = [0, 0];
  const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };
  drawing.addEventListener("keydown", (event) => {
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    const size = event.shiftKey ? 10 : 1;
    const clamp = (n, most) => Math.min(most - 1, Math.max(0, n));
    row = clamp(row + steps[event.key][0] * size, rows);
    column = clamp(column + steps[event.key][1] * size, columns);
    choose(row, column);
    event.preventDefault();
    event.stopPropagation();
  });
  return (r, c) => { [row, column] = [r, c]; };
}

async function draw(section) {
  const drawing = section.querySelector(".drawing");
  const readout = section.querySelector(".readout");
  const plot = plots[drawing.dataset.plot];
  const answer = await fetch(drawing.dataset.values, { headers: { Accept: "application/json" } });
  if (!answer.ok) {
    readout.textContent = await problemOf(answer);
    readout.className = "error";
    return;
  }
  const values = new types[plot.dtype](await answer.arrayBuffer());
  const select = section.querySelector(".range");
  const trace = traceOf(plot, values, select ? select.value : "own");
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  await Plotly.newPlot(drawing, [trace], layoutOf(plot), config);
  const choose = (row, column) => { readout.textContent = describe(plot, values, row, column); };
  const remember = walk(plot, drawing, choose);
  drawing.on("plotly_hover", ({ points: [point] }) => {
    const [row, column] = plot.form === "heatmap" ? point.pointNumber : [0, point.pointNumber];
    remember(row, column);
    choose(row, column);
  });
  select?.addEventListener("change", () => Plotly.restyle(drawing, limits(plot, values, select.value)));
  addEventListener("themechange", () => {
    const { xaxis, yaxis } = drawing.layout;
    const layout = layoutOf(plot);
    layout.xaxis.range = xaxis.range;
    layout.yaxis.range = yaxis.range;
    const [trace] = drawing.data;
    Plotly.react(drawing, [plot.form === "line" ? { ...trace, line: { width: 1, color: css("--accent") } } : trace], layout, config);
  });
  if (plot.x.unit === "s") {
    const element = Object.assign(document.createElement("div"), { className: "heard", hidden: true });
    drawing.append(element);
    lines.push({ element, drawing });
  }
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea, button")) return;
  if (event.key === " ") {
    player.toggle(playButton);
    event.preventDefault();
  } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    document.querySelector(`a[rel=${event.key === "ArrowLeft" ? "prev" : "next"}]`)?.click();
  } else if (event.key === "Escape") {
    player.stop();
  }
});

for (const section of document.querySelectorAll(".plot")) draw(section);
