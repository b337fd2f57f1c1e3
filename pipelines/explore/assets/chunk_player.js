// Plays the sound of chunks: one at a time, from its start to the end of its real samples.
// A recording's sound comes in parts of an hour; a chunk may begin in one and end in the next.
export class ChunkPlayer {
  // `audio`: audio element; `changed(button)`: called when a button's chunk starts or stops;
  // `failed(button, message)`: called when its sound cannot be had.
  constructor(audio, partSeconds, changed, failed) {
    Object.assign(this, { audio, partSeconds, changed, failed, button: null, repeat: false });
    audio.addEventListener("timeupdate", () => this.#check());
    audio.addEventListener("ended", () => this.#goOn());
    audio.addEventListener("error", () => this.#explain());
  }

  // Second in the recording that is heard; null if nothing is.
  get second() {
    return this.button ? this.part * this.partSeconds + this.audio.currentTime : null;
  }

  toggle(button) {
    if (this.button === button) this.stop();
    else this.play(button);
  }

  play(button) {
    this.stop();
    this.button = button;
    this.start = Number(button.dataset.start);
    this.end = Number(button.dataset.stop);
    this.changed(button);
    this.#from(this.start);
  }

  stop() {
    const { button } = this;
    if (!button) return;
    this.button = null;
    this.audio.pause();
    this.changed(button);
  }

  #from(second) {
    this.part = Math.floor(second / this.partSeconds);
    const inPart = (s) => s - this.part * this.partSeconds;
    const query = new URLSearchParams({ part: this.part });
    if ("channel" in this.button.dataset) query.set("channel", this.button.dataset.channel);
    const address = `/recordings/${this.button.dataset.recording}/sound.wav?${query}`;
    const end = inPart(this.end) <= this.partSeconds ? `,${inPart(this.end)}` : "";
    this.audio.src = `${address}#t=${inPart(second)}${end}`;
    this.audio.play().then(
      () => this.#watch(),
      // Another chunk was chosen meanwhile, or the element's error event says more.
      (error) => error.name === "NotAllowedError" && this.#fail(error.message),
    );
  }

  // The event timeupdate comes four times a second; each picture of the screen is checked, too.
  #watch() {
    if (!this.button) return;
    this.#check();
    requestAnimationFrame(() => this.#watch());
  }

  #check() {
    if (!this.button || this.audio.seeking) return;
    if (this.second >= this.end - 0.001) this.#goOn();
  }

  #goOn() {
    if (!this.button) return;
    const next = (this.part + 1) * this.partSeconds;
    if (this.end > next && this.audio.ended) this.#from(next);
    else if (this.repeat) this.#from(this.start);
    else this.stop();
  }

  async #explain() {
    if (!this.button || !this.audio.currentSrc) return;
    const headers = { Accept: "application/json", Range: "bytes=0-43" };
    const answer = await fetch(this.audio.currentSrc.split("#")[0], { headers });
    const isExplained = answer.headers.get("content-type")?.startsWith("application/json");
    this.#fail(isExplained ? (await answer.json()).error : "the browser cannot play this sound");
  }

  #fail(message) {
    const { button } = this;
    if (!button) return;
    this.stop();
    this.failed(button, `No sound: ${message}`);
  }
}

// What a request failed with, for people.
export async function problemOf(answer) {
  const isExplained = answer.headers.get("content-type")?.startsWith("application/json");
  return isExplained ? (await answer.json()).error : `the server answered ${answer.status}`;
}
