// Judging by keyboard: while a recording is heard, the next one is loaded up to its defect, so that
// it sounds as soon as a key is pressed.
import { draw as drawPicture } from "/assets/recording_drawing.js";

const parameters = new URLSearchParams(location.search);
const element = (id) => document.getElementById(id);
const skipped = []; // put off by the person
const judged = [];
let queue = [];
let current = null;

const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

async function json(address, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  const answer = await fetch(address, { ...options, headers });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

// Seconds at which the defects of a recording are heard: one second before each.
const places = (recording) =>
  recording.findings.filter((f) => f.second !== null).map((f) => Math.max(0, f.second - 1));

function prepare(recording) {
  const audio = new Audio();
  audio.preload = "auto";
  const start = places(recording)[0] ?? recording.start;
  audio.src = `/recordings/${encodeURIComponent(recording.recording_id)}/sound.wav#t=${start}`;
  return { recording, audio, start, place: 0 };
}

const shownIds = () =>
  [...queue, ...(current ? [current] : [])].map((item) => item.recording.recording_id);

async function fill() {
  const wanted = new URLSearchParams(parameters);
  // The verdicts of the last ones may not be stored yet.
  const hidden = [...skipped, ...judged.slice(-50).map((one) => one.recording_id), ...shownIds()];
  hidden.slice(-500).forEach((id) => wanted.append("skip", id));
  const answer = await json(`/verdicts/queue?${wanted}`);
  element("left").textContent = answer.left;
  for (const recording of answer.recordings) {
    const id = recording.recording_id; // another answer may have brought it meanwhile
    const known = [...skipped, ...judged.map((one) => one.recording_id), ...shownIds()];
    if (queue.length < 2 && !known.includes(id)) queue.push(prepare(recording));
  }
}

// Frees the sound of a recording: a browser has few players.
function silence(item) {
  if (!item) return;
  item.audio.pause();
  item.audio.onerror = null;
  item.audio.removeAttribute("src");
  item.audio.load();
}

function show(item) {
  if (current !== item) silence(current);
  current = item;
  const { recording, audio } = item;
  element("uri").textContent = recording.uri;
  element("open").href = `/recordings/${encodeURIComponent(recording.recording_id)}`;
  const [from, to] = recording.segment;
  const segment = from === undefined ? "" : `; the recording is from ${clock(from)} to ${clock(to)}`;
  element("length").textContent = (recording.seconds === null ? "?" : clock(recording.seconds)) + segment;
  element("note").value = recording.note;
  element("note-field").hidden = true;
  const lines = recording.findings.map((finding) => {
    const line = document.createElement("li");
    const place = finding.second === null ? "" : ` at ${clock(finding.second)}`;
    line.textContent = `${finding.reason}: ${finding.measure} ${finding.reading}${place}`;
    return line;
  });
  element("findings").replaceChildren(...lines);
  audio.ontimeupdate = () => {
    element("time").textContent = clock(audio.currentTime);
    draw();
  };
  audio.onerror = () => {
    element("message").textContent = `This recording cannot be heard: ${audio.error?.message || "its file cannot be read"}. Open it to see why.`;
    element("message").hidden = false;
  };
  element("message").hidden = true;
  element("review").hidden = false;
  element("waveform").dataset.ready = "";
  audio.play().catch((error) => {
    if (error.name === "NotAllowedError") {
      element("message").textContent = "Press space to play: the browser waits for a first key.";
      element("message").hidden = false;
    }
  });
  drawWaveform(item).catch(report);
}

async function next() {
  if (!queue.length) {
    const last = current;
    last?.audio.pause();
    current = null; // keys wait for the next recording
    await fill().catch((error) => {
      current = last;
      throw error;
    });
    silence(last);
  }
  const item = queue.shift();
  if (!item) {
    silence(current);
    current = null;
    element("review").hidden = true;
    element("message").hidden = false;
    element("message").textContent = skipped.length
      ? "Only recordings that you put off are left. Load the page again to judge them."
      : "Nothing is left to judge here.";
    return;
  }
  show(item);
  fill().catch(report);
}

function report(error) {
  element("message").textContent = error.message;
  element("message").hidden = false;
}

// Verdicts are stored one after the other, in the order of the keys.
let stored = Promise.resolve();

function send(recording, verdict, note) {
  const sent = stored.then(() => post(recording, verdict, note));
  stored = sent.catch(() => {});
  return sent;
}

async function post(recording, verdict, note) {
  await json(`/verdicts/${encodeURIComponent(recording.recording_id)}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ verdict, note }),
  });
}

function judge(verdict) {
  if (!current) return;
  const { recording } = current;
  recording.note = element("note").value;
  judged.push(recording);
  next().catch(report);
  send(recording, verdict, recording.note).catch((error) => {
    judged.splice(judged.indexOf(recording), 1); // it comes back
    element("failed").textContent = `Not stored: the verdict on ${recording.uri}. ${error.message}`;
    element("failed").hidden = false;
  });
}

async function undo() {
  const recording = judged.pop();
  if (!recording) return;
  await send(recording, "", "");
  if (current) queue.unshift(prepare(current.recording));
  show(prepare(recording));
}

const actions = {
  ok: () => judge("ok"),
  reject: () => judge("reject"),
  skip: () => {
    if (!current) return;
    skipped.push(current.recording.recording_id);
    next().catch(report);
  },
  undo: () => undo().catch(report),
  play: () => {
    if (!current) return;
    element("message").hidden = true;
    if (current.audio.paused) current.audio.play().catch(report);
    else current.audio.pause();
  },
  defect: () => {
    const starts = current ? places(current.recording) : [];
    if (!starts.length) return;
    current.place = (current.place + 1) % starts.length;
    current.audio.currentTime = starts[current.place];
    current.audio.play().catch(report);
  },
  note: () => {
    element("note-field").hidden = false;
    element("note").focus();
  },
};
const keys = { o: "ok", r: "reject", s: "skip", u: "undo", " ": "play", d: "defect", n: "note" };

addEventListener("keydown", (event) => {
  if (event.target === element("note")) {
    if (event.key === "Enter" || event.key === "Escape") element("note").blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
  if (event.key === " " && event.target.closest("button, a, summary")) return;
  event.preventDefault();
  if (!event.repeat) actions[keys[event.key]]();
});
for (const button of document.querySelectorAll("[data-action]")) {
  button.addEventListener("click", () => actions[button.dataset.action]());
}

element("waveform").addEventListener("click", (event) => {
  if (!current?.recording.seconds) return;
  const share = event.offsetX / element("waveform").clientWidth;
  current.audio.currentTime = share * current.recording.seconds;
  current.audio.play().catch(report);
});

// Without a picture, the recording is judged by ear; the player says what is wrong with it.
async function drawWaveform(item) {
  const changed = (drawing) => {
    item.picture = drawing;
    if (item === current) draw();
  };
  changed(null);
  const wanted = { only: "waveform", columns: 800 };
  const { drawing } = await drawPicture(item.recording.recording_id, wanted, [], null, changed);
  if (drawing) changed(drawing);
}

function draw() {
  if (!current) return;
  const canvas = element("waveform");
  const width = (canvas.width = canvas.clientWidth * devicePixelRatio);
  const height = (canvas.height = canvas.clientHeight * devicePixelRatio);
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name);
  const context = canvas.getContext("2d");
  const seconds = current.recording.seconds;
  context.fillStyle = color("--accent");
  const picture = current.picture;
  if (picture) {
    // Channels lie over each other: the page of the recording draws them apart.
    for (let place = 0; place < picture.minima.length; place++) {
      const column = place % picture.columns;
      if (column >= picture.drawn) continue;
      const top = ((1 - picture.maxima[place]) / 2) * height;
      const bottom = ((1 - picture.minima[place]) / 2) * height;
      const x = Math.floor((column / picture.columns) * width);
      context.fillRect(x, top, Math.max(1, width / picture.columns), Math.max(1, bottom - top));
    }
  }
  if (!seconds) return;
  context.fillStyle = color("--bad");
  for (const finding of current.recording.findings) {
    if (finding.second !== null) context.fillRect((finding.second / seconds) * width, 0, 2, height);
  }
  context.fillStyle = color("--text");
  context.fillRect((current.audio.currentTime / seconds) * width, 0, 2, height);
}

addEventListener("themechange", draw);
next().catch(report);
