// A wall of chunks by keyboard and mouse, and the progress of the search for unusual chunks.
import { ChunkPlayer, problemOf } from "./chunk_player.js";

const wall = document.getElementById("wall");
const pictures = [...wall.querySelectorAll(".chunk-picture")];
const buttonOf = (picture) => picture.closest(".chunk").querySelector(".play");

function show(button, message) {
  const problem = button.closest(".chunk").querySelector(".problem");
  problem.textContent = message;
  problem.hidden = false;
}

const player = new ChunkPlayer(
  document.getElementById("sound"),
  Number(wall.dataset.partSeconds),
  (button) => {
    const isPlaying = player.button === button;
    button.setAttribute("aria-pressed", isPlaying);
    button.setAttribute("aria-label", isPlaying ? "Stop" : "Play");
    button.closest(".chunk").classList.toggle("playing", isPlaying);
  },
  show,
);

wall.addEventListener("click", (event) => {
  const button = event.target.closest(".play");
  if (button) player.toggle(button);
});

// A picture that cannot be had says why.
for (const image of wall.querySelectorAll(".chunk-picture img")) {
  const explain = async () => {
    const answer = await fetch(image.src, { headers: { Accept: "application/json" } });
    if (!answer.ok) show(buttonOf(image.closest(".chunk-picture")), await problemOf(answer));
    image.hidden = !answer.ok;
  };
  image.addEventListener("error", explain, { once: true });
  if (image.complete && !image.naturalWidth && image.loading !== "lazy") explain();
}

// The picture above or below: the nearest of the next row in that direction.
function vertical(picture, isDown) {
  const place = (p) => p.getBoundingClientRect();
  const here = place(picture);
  const rows = pictures.filter((p) =>
    isDown ? place(p).top > here.top + 1 : place(p).top < here.top - 1,
  );
  const tops = rows.map((p) => place(p).top);
  const top = isDown ? Math.min(...tops) : Math.max(...tops);
  const inRow = rows.filter((p) => Math.abs(place(p).top - top) < 2);
  const distance = (p) => Math.abs(place(p).left - here.left);
  return inRow.sort((a, b) => distance(a) - distance(b))[0];
}

const moves = {
  ArrowRight: (p) => pictures[pictures.indexOf(p) + 1],
  ArrowLeft: (p) => pictures[pictures.indexOf(p) - 1],
  ArrowDown: (p) => vertical(p, true),
  ArrowUp: (p) => vertical(p, false),
  Home: () => pictures[0],
  End: () => pictures.at(-1),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea, summary")) return;
  const picture = event.target.closest(".chunk")?.querySelector(".chunk-picture");
  if (event.key in moves && pictures.length) {
    if (!picture && !event.key.startsWith("Arrow")) return;
    const next = picture ? moves[event.key](picture) : pictures[0];
    if (next) {
      next.focus();
      next.closest(".chunk").scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    event.preventDefault();
  } else if (event.key === " " && picture && event.target === picture) {
    player.toggle(buttonOf(picture));
    event.preventDefault();
  } else if (event.key === "Escape") {
    player.stop();
  }
});

const searching = document.getElementById("searching");
async function follow() {
  const query = new URLSearchParams({ feature: searching.dataset.feature });
  const headers = { Accept: "application/json" };
  const answer = await fetch(`/chunks/unusual-progress?${query}`, { headers });
  const status = searching.querySelector("[role=status]");
  if (!answer.ok) {
    status.textContent = await problemOf(answer);
    return;
  }
  const { read, done } = await answer.json();
  if (done) location.reload();
  const all = Number(searching.dataset.chunks);
  searching.querySelector("progress").value = read;
  status.textContent = `${read.toLocaleString("en")} of ${all.toLocaleString("en")} chunks compared`;
  if (!done) setTimeout(follow, 700);
}
if (searching) follow();
