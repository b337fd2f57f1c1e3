// One recording: look at it, zoom, play from any place, and compare it with its duplicates.
import { colourTable, draw } from "./recording_drawing.js";
import { Figure, GAP, TOP, clock, hertz } from "./recording_figure.js";
import { Player } from "./recording_player.js";

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const colours = colourTable(data.colours);
const figure = new Figure(element("picture"), element("marks"), element("playhead"));
const a = new Player(data.id, data.part_seconds, notify);
let other = null; // { player, shift, id }: the duplicate that is compared
let heard = a;
let length = 0; // seconds of the recording
let limit = 0; // frames that can be decoded: fewer if the recording is damaged
let rate = 1;
let drawing = null; // AbortController of the picture that is being drawn
let lastPlace = null;
figure.places = data.places;

function notify(message, kind = "error") {
  const shown = [...element("notices").children].map((line) => line.textContent);
  if (shown.includes(message) || message === data.failure) return;
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = message;
  element("notices").append(line);
}

const shiftOf = (player) => (player === a ? 0 : other.shift);
const now = () => heard.time - shiftOf(heard);

// --- pictures ---

function parameters(from, to) {
  const start = Math.max(0, Math.floor(from * rate));
  const stop = Math.max(start + 1, Math.min(limit, Math.ceil(to * rate)));
  return { start, stop, columns: Math.min(4000, Math.round(figure.width)), ...choices() };
}

function choices() {
  const chosen = { scale: element("scale").value };
  if (element("channel").value !== "") chosen.channel = element("channel").value;
  return chosen;
}

let renderWanted = false;
function renderSoon() {
  if (renderWanted) return;
  renderWanted = true;
  requestAnimationFrame(() => {
    renderWanted = false;
    figure.render();
    figure.movePlayhead(now(), heard !== a);
  });
}

async function drawInto(name, from, to) {
  if (limit && from * rate >= limit) return;
  drawing?.abort();
  drawing = new AbortController();
  const { signal } = drawing;
  const wanted = length ? parameters(from, to) : { columns: Math.round(figure.width), ...choices() };
  let lastRender = 0;
  try {
    const { error } = await draw(data.id, wanted, colours, signal, (picture) => {
      if (signal.aborted) return;
      begin(picture);
      figure[name] = picture;
      if (name === "whole") figure.detail = null;
      describe(picture);
      if (performance.now() - lastRender > 100 || picture.drawn === picture.columns) {
        lastRender = performance.now();
        renderSoon();
      }
    });
    if (error) {
      notify(error);
      showEnd();
    }
    renderSoon();
    document.body.dataset.drawn = name;
  } catch (error) {
    if (error.name !== "AbortError") notify(`The server does not answer: ${error.message}`);
  }
}

// Says what there is to see when a picture could not be drawn to its end.
function showEnd() {
  const { whole } = figure;
  if (whole) {
    limit = Math.min(limit, whole.border(whole.drawn));
    a.seconds = limit / rate;
    element("progress").textContent = `Drawn up to ${clock(whole.drawnSecond)} of ${clock(length)}.`;
    return;
  }
  document.body.classList.add("without-picture");
  element("progress").textContent =
    "There is no picture and no sound. What the dataset knows of the recording is below.";
}

function begin(picture) {
  picture.notices.forEach((notice) => notify(notice, "notice"));
  if (length) return;
  rate = picture.rate;
  length = picture.frames / rate;
  limit = picture.frames;
  a.seconds = length;
  figure.from = 0;
  figure.to = length;
  const channels = [...Array(picture.channels).keys()];
  if (picture.channels > 1) {
    element("channel").append(...channels.map((k) => new Option(`${k + 1}`, k)));
    element("apart").hidden = false;
  } else {
    element("channel").disabled = true;
  }
}

function describe(picture) {
  const share = picture.drawn / picture.columns;
  const per = (picture.stop - picture.start) / picture.columns;
  let text = share < 1 ? `Drawing… ${Math.round(100 * share)} %` : per <= 1 ? "Each sample is drawn." : `Each column has ${clock(per / picture.rate, 4).replace(/^0:0?/, "")} s.`;
  if (picture.nonFinite) {
    notify("The file has samples that are NaN or infinite: they are drawn and played as zeros.", "notice");
  }
  element("progress").textContent = text;
}

async function drawOther(name, from, to) {
  if (!other) return;
  const chosen = other;
  const [start, stop] = [from + chosen.shift, to + chosen.shift].map((t) => Math.max(0, Math.round(t * (chosen.rate ?? 1))));
  if (chosen.rate && (stop <= start || start >= chosen.frames)) return;
  const range = chosen.rate ? { start, stop: Math.min(stop, chosen.frames) } : {};
  const wanted = { only: "waveform", columns: Math.round(figure.width), ...range };
  chosen.drawing?.abort();
  chosen.drawing = new AbortController();
  try {
    const { error } = await draw(chosen.id, wanted, colours, chosen.drawing.signal, (picture) => {
      Object.assign(chosen, { rate: picture.rate, frames: picture.frames });
      chosen.player.seconds = picture.frames / picture.rate;
      chosen[name] = picture;
      renderSoon();
    });
    if (error) notify(`B: ${error}`);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
}

// --- the view ---

let drawSoon = 0;
function look(from, to) {
  if (!length) return;
  const span = Math.min(length, Math.max(32 / rate, to - from));
  figure.from = Math.min(Math.max(0, from), length - span);
  figure.to = figure.from + span;
  renderSoon();
  clearTimeout(drawSoon);
  const isWhole = span >= length && figure.whole?.drawn === figure.whole?.columns;
  if (isWhole) {
    figure.detail = null;
    describe(figure.whole);
    return;
  }
  drawSoon = setTimeout(() => {
    const isStillWhole = figure.to - figure.from >= length;
    drawInto(isStillWhole ? "whole" : "detail", figure.from, figure.to);
    drawOther("detail", figure.from, figure.to);
  }, 150);
}

function zoom(factor, centre) {
  const span = (figure.to - figure.from) * factor;
  const share = (centre - figure.from) / (figure.to - figure.from);
  look(centre - share * span, centre + (1 - share) * span);
}

function move(share) {
  const step = share * (figure.to - figure.from);
  look(figure.from + step, figure.to + step);
}

const centre = () => {
  const time = now();
  return time >= figure.from && time <= figure.to ? time : (figure.from + figure.to) / 2;
};

// --- sound ---

function playFrom(second) {
  if (heard !== a && outside(second)) hear(a);
  const last = heard.seconds - 0.05;
  heard.seek(Math.max(0, Math.min(second + shiftOf(heard), last)));
  heard.play();
}

const outside = (second) => {
  const time = second + other.shift;
  return time < 0 || time >= other.player.seconds;
};

function toggle() {
  if (heard.isPlaying) heard.pause();
  else if (heard.time >= heard.seconds - 0.05) playFrom(0);
  else heard.play();
}

function hear(player) {
  if (!player || player === heard) return;
  const time = now();
  const wasPlaying = heard.isPlaying;
  const target = time + shiftOf(player);
  if (target < 0 || target >= player.seconds) {
    notify(`${player === a ? "A" : "B"} has no sound at this place.`, "notice");
    return;
  }
  heard.pause();
  heard = player;
  player.seek(target);
  if (wasPlaying) player.play();
  element("hear-a")?.setAttribute("aria-pressed", heard === a);
  element("hear-b")?.setAttribute("aria-pressed", heard !== a);
}

function compareWith(number) {
  const { id, shift } = data.duplicates[number];
  if (other) {
    hear(a);
    other.player.audio.remove();
    other.drawing?.abort();
  }
  other = { id, shift, player: new Player(id, data.part_seconds, (text) => notify(`B: ${text}`)), whole: null, detail: null };
  figure.other = other;
  drawOther("whole", -shift, length - shift).then(() => {
    if (figure.detail) drawOther("detail", figure.from, figure.to);
  });
  renderSoon();
}

function hearOther() {
  if (!data.duplicates.length) return;
  if (!other) {
    document.querySelector("input[name=other]").checked = true;
    compareWith(0);
  }
  hear(other.player);
}

function playPlace(second) {
  lastPlace = second;
  if (second < figure.from || second > figure.to) {
    const half = (figure.to - figure.from) / 2;
    look(second - half, second + half);
  }
  playFrom(second - 1);
  document.querySelectorAll(".places button").forEach((button) => {
    button.classList.toggle("current", Number(button.dataset.second) === second);
  });
}

function nextPlace(direction) {
  const seconds = [...new Set(data.places.map((place) => place.second))].sort((x, y) => x - y);
  if (!seconds.length) return;
  const at = lastPlace ?? (direction > 0 ? -1 : Infinity);
  const next = direction > 0 ? seconds.find((s) => s > at) : seconds.findLast((s) => s < at);
  playPlace(next ?? (direction > 0 ? seconds[0] : seconds.at(-1)));
}

function tick() {
  const time = now();
  element("play").textContent = heard.isPlaying ? "Pause" : "Play";
  element("time").textContent = `${clock(time)} / ${length ? clock(length) : "?"}`;
  figure.movePlayhead(time, heard !== a);
  if (heard.isPlaying && time > figure.to && time < figure.to + 1) {
    const span = figure.to - figure.from;
    look(time, time + span);
  }
  requestAnimationFrame(tick);
}

// --- what people do ---

const picture = element("picture");
const pointers = new Map();
let drag = null;

picture.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(event.deltaX / 1000);
  else zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 200), figure.secondAt(event.clientX));
}, { passive: false });

picture.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  pointers.set(event.pointerId, event.clientX);
  picture.setPointerCapture(event.pointerId);
  drag = { x: event.clientX, from: figure.from, to: figure.to, moved: pointers.size > 1 };
  if (pointers.size === 2) drag.ends = [...pointers.values()].map((x) => figure.secondAt(x));
});

picture.addEventListener("pointermove", (event) => {
  readOut(event);
  if (!pointers.has(event.pointerId) || !drag) return;
  pointers.set(event.pointerId, event.clientX);
  if (pointers.size === 2 && drag.ends) pinch();
  else if (drag.moved || Math.abs(event.clientX - drag.x) > 4) {
    drag.moved = true;
    picture.classList.add("dragging");
    const moved = ((event.clientX - drag.x) / figure.width) * (drag.to - drag.from);
    look(drag.from - moved, drag.to - moved);
  }
});

function pinch() {
  const left = picture.getBoundingClientRect().left + figure.left;
  const [x1, x2] = [...pointers.values()].map((x) => (x - left) / figure.width);
  if (Math.abs(x1 - x2) < 0.02) return;
  const span = Math.abs((drag.ends[0] - drag.ends[1]) / (x1 - x2));
  look(drag.ends[0] - x1 * span, drag.ends[0] + (1 - x1) * span);
}

for (const name of ["pointerup", "pointercancel"]) {
  picture.addEventListener(name, (event) => {
    const isClick = name === "pointerup" && drag && !drag.moved && pointers.size === 1;
    pointers.delete(event.pointerId);
    picture.classList.remove("dragging");
    if (isClick && length) playFrom(Math.max(0, Math.min(length, figure.secondAt(event.clientX))));
    drag = null;
  });
}

function readOut(event) {
  if (!length) return;
  const second = figure.secondAt(event.clientX);
  if (second < figure.from || second > figure.to) return;
  const parts = [clock(second, 3)];
  const y = event.clientY - picture.getBoundingClientRect().top - TOP;
  let top = 0;
  for (const [name, size] of figure.rows) {
    if (name === "levels" && y >= top && y < top + size) parts.push(...levelAt(second, 1 - (y - top) / size));
    top += size + GAP;
  }
  element("readout").textContent = parts.join(" · ");
}

function levelAt(second, share) {
  const source = [figure.detail, figure.whole].find((d) => d && d.column(second) >= 0);
  if (!source) return [];
  const band = Math.min(source.hz.length - 1, Math.floor(share * source.hz.length));
  const steps = source.levels[band * source.columns + source.column(second)];
  return [hertz(source.hz[band]), steps === 255 ? "silence" : `${(-steps / 2).toFixed(1).replace("-", "−")} dBFS`];
}

element("marks").addEventListener("click", (event) => {
  if (event.target.dataset.second) playPlace(Number(event.target.dataset.second));
});
document.querySelectorAll(".places button").forEach((button) => {
  button.addEventListener("click", () => playPlace(Number(button.dataset.second)));
});
document.querySelectorAll("input[name=other]").forEach((choice) => {
  choice.addEventListener("change", () => compareWith(Number(choice.value)));
});
element("play").addEventListener("click", toggle);
element("zoom-in").addEventListener("click", () => zoom(0.5, centre()));
element("zoom-out").addEventListener("click", () => zoom(2, centre()));
element("whole").addEventListener("click", () => look(0, length));
element("help").addEventListener("click", () => element("keys").showModal());
element("hear-a")?.addEventListener("click", () => hear(a));
element("hear-b")?.addEventListener("click", hearOther);
element("apart").addEventListener("click", (event) => {
  figure.apart = !figure.apart;
  event.target.setAttribute("aria-pressed", figure.apart);
  renderSoon();
});
element("channel").addEventListener("change", (event) => {
  a.choose(event.target.value);
  redraw();
});
element("scale").addEventListener("change", () => redraw());

async function redraw() {
  await drawInto("whole", 0, length);
  if (figure.to - figure.from < length) look(figure.from, figure.to);
}

const KEYS = {
  " ": toggle,
  "+": () => zoom(0.5, centre()),
  "=": () => zoom(0.5, centre()),
  "-": () => zoom(2, centre()),
  0: () => look(0, length),
  ArrowLeft: (event) => (event.shiftKey ? playFrom(Math.max(0, now() - 5)) : move(-0.25)),
  ArrowRight: (event) => (event.shiftKey ? playFrom(Math.min(length, now() + 5)) : move(0.25)),
  Home: () => look(0, figure.to - figure.from),
  End: () => look(length - (figure.to - figure.from), length),
  d: () => nextPlace(1),
  D: () => nextPlace(-1),
  a: () => hear(a),
  b: hearOther,
  "?": () => element("keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || element("keys").open) return;
  if (target.matches("input:not([type=radio]), select, textarea")) return;
  if (key === " " && target.matches("button, a, summary, input")) return;
  if (key.startsWith("Arrow") && target.matches("input")) return;
  if (!(key in KEYS)) return;
  event.preventDefault();
  KEYS[key](event);
});
addEventListener("themechange", renderSoon);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", renderSoon);
new ResizeObserver(renderSoon).observe(element("box"));

element("colours").style.background = `linear-gradient(to right, ${data.colours.join(", ")})`;
element("progress").textContent = "Reading the recording…";
drawInto("whole", 0, 0);
tick();
