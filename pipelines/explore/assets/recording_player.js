// Plays a recording from its source: WAV files of at most an hour, one after the other.
export class Player {
  // `told` is called with a message when the sound cannot be played.
  constructor(id, partSeconds, told) {
    this.id = id;
    this.partSeconds = partSeconds;
    this.told = told;
    this.channel = "";
    this.seconds = Infinity; // length of the recording, once it is known
    this.part = -1;
    this.wanted = null; // place in the part to go to when its header is there
    this.audio = new Audio();
    this.audio.preload = "auto";
    this.audio.dataset.recording = id;
    document.body.append(this.audio);
    this.audio.addEventListener("loadedmetadata", () => {
      if (this.wanted !== null) this.audio.currentTime = this.wanted;
      this.wanted = null;
    });
    this.audio.addEventListener("ended", () => this.goOn());
    this.audio.addEventListener("error", () => this.explain());
  }

  get isPlaying() {
    return !this.audio.paused && !this.audio.ended;
  }

  get time() {
    if (this.part < 0) return 0;
    return this.part * this.partSeconds + (this.wanted ?? this.audio.currentTime);
  }

  address(part) {
    const channel = this.channel === "" ? "" : `&channel=${this.channel}`;
    return `/recordings/${encodeURIComponent(this.id)}/sound.wav?part=${part}${channel}`;
  }

  seek(time) {
    const part = Math.floor(time / this.partSeconds);
    const within = time - part * this.partSeconds;
    if (part !== this.part || this.audio.error) {
      this.part = part;
      this.wanted = within;
      this.audio.src = this.address(part);
    } else if (this.audio.readyState > 0) {
      this.audio.currentTime = within;
    } else {
      this.wanted = within;
    }
  }

  async play() {
    if (this.part < 0 || this.audio.error) this.seek(this.time);
    try {
      await this.audio.play();
    } catch (error) {
      // Another place was chosen meanwhile, or the event "error" says more.
      if (error.name === "NotAllowedError") this.told("The browser blocked the sound: press Play.");
    }
  }

  pause() {
    this.audio.pause();
  }

  choose(channel) {
    const { time, isPlaying } = this;
    this.channel = channel;
    if (this.part < 0) return;
    this.part = -1;
    this.seek(time);
    if (isPlaying) this.play();
  }

  goOn() {
    const next = (this.part + 1) * this.partSeconds;
    if (next >= this.seconds) return;
    this.seek(next);
    this.play();
  }

  async explain() {
    const headers = { Accept: "application/json", Range: "bytes=44-47" };
    const answer = await fetch(this.address(this.part), { headers });
    if (answer.ok) this.told("The sound ends here: the rest cannot be decoded.");
    else this.told((await answer.json()).error);
  }
}
