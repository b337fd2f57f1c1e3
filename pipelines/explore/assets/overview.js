// The charts of labels and added columns come later: they may need to be read from all shards.
const place = document.getElementById("class-charts");

async function load() {
  const answer = await fetch(place.dataset.source, { headers: { Accept: "application/json" } });
  if (answer.ok) {
    place.innerHTML = await answer.text();
    return;
  }
  say((await answer.json()).error);
  if (answer.status === 503) setTimeout(start, 1000);
}

function say(message) {
  place.firstElementChild.textContent = message;
}

function start() {
  load().catch((error) => say(`The server does not answer: ${error.message}`));
}

if (place) start();
