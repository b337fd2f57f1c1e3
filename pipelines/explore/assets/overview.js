// The charts of labels and added columns come later: they may need to be read from all shards.
const place = document.getElementById("class-charts");

async function load() {
  const answer = await fetch(place.dataset.source, { headers: { Accept: "application/json" } });
  if (answer.ok) {
    place.innerHTML = await answer.text();
    return;
  }
  const { error } = await answer.json();
  place.firstElementChild.textContent = error;
  if (answer.status === 503) setTimeout(load, 1000);
}

if (place) load();
