// Pictures as the server draws them: read line by line, and kept as arrays of columns.

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const floatsOf = (text) => new Float32Array(bytesOf(text).buffer);

export class Drawing {
  constructor(description, colours) {
    Object.assign(this, description);
    this.colours = colours;
    this.drawn = 0;
    this.nonFinite = 0;
    const { channels, columns, hz } = this;
    this.minima = new Float32Array(channels * columns);
    this.maxima = new Float32Array(channels * columns);
    this.momentary = new Float32Array(columns).fill(NaN);
    this.shortTerm = new Float32Array(columns).fill(NaN);
    this.levels = new Uint8Array(hz.length * columns);
    this.canvas = document.createElement("canvas");
    this.canvas.width = columns;
    this.canvas.height = Math.max(1, hz.length);
  }

  // First frame of a column.
  border(column) {
    return this.start + Math.floor((column * (this.stop - this.start)) / this.columns);
  }

  // Second of the middle of a column.
  second(column) {
    return (this.border(column) + this.border(column + 1) - 1) / 2 / this.rate;
  }

  // Column of a second; -1 if it is not drawn.
  column(second) {
    const place = ((second * this.rate - this.start) * this.columns) / (this.stop - this.start);
    return place >= 0 && place < this.drawn ? Math.floor(place) : -1;
  }

  get drawnSecond() {
    return this.border(this.drawn) / this.rate;
  }

  add(part) {
    const count = part.stop - part.first;
    const copy = (from, to, rows) => {
      for (let row = 0; row < rows; row++) {
        to.set(from.subarray(row * count, (row + 1) * count), row * this.columns + part.first);
      }
    };
    copy(floatsOf(part.minima), this.minima, this.channels);
    copy(floatsOf(part.maxima), this.maxima, this.channels);
    copy(floatsOf(part.momentary), this.momentary, 1);
    copy(floatsOf(part.short_term), this.shortTerm, 1);
    const levels = bytesOf(part.levels);
    copy(levels, this.levels, this.hz.length);
    if (this.hz.length) this.paint(levels, part.first, count);
    this.drawn = part.stop;
    this.nonFinite = part.non_finite;
  }

  paint(levels, first, count) {
    const bands = this.hz.length;
    const pixels = new ImageData(count, bands);
    for (let band = 0; band < bands; band++) {
      for (let column = 0; column < count; column++) {
        const colour = this.colours[Math.min(200, levels[band * count + column])];
        pixels.data.set(colour, 4 * ((bands - 1 - band) * count + column));
      }
    }
    this.canvas.getContext("2d").putImageData(pixels, first, 0);
    this.image = null;
  }

  get source() {
    this.image ??= this.canvas.toDataURL("image/png");
    return this.image;
  }
}

// Draws a part of a recording; `changed` is called with the drawing each time it has more columns.
// The result has `drawing` and, if something went wrong, `error`.
export async function draw(id, parameters, colours, signal, changed) {
  const query = new URLSearchParams(parameters);
  const address = `/recordings/${encodeURIComponent(id)}/picture?${query}`;
  const answer = await fetch(address, { signal, headers: { Accept: "application/json" } });
  if (!answer.ok) return { drawing: null, error: (await answer.json()).error };
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let drawing = null;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return { drawing, error: "The server ended the picture early: reload the page." };
    const lines = (text + value).split("\n");
    text = lines.pop();
    let end = null;
    for (const line of lines.map((json) => JSON.parse(json))) {
      if (line.error || line.done) end = line;
      else if (drawing) drawing.add(line);
      else drawing = new Drawing(line, colours);
    }
    if (drawing) changed(drawing);
    if (end) return { drawing, error: end.error ?? null };
  }
}

// Colours for levels in half decibels below 0 dBFS, from 0 to −100 dBFS: RGBA of each.
export function colourTable(anchors) {
  const rgb = anchors.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: 201 }, (_, steps) => {
    const place = (1 - steps / 200) * (rgb.length - 1);
    const left = Math.min(rgb.length - 2, Math.floor(place));
    const mix = (i) => rgb[left][i] + (place - left) * (rgb[left + 1][i] - rgb[left][i]);
    return [mix(0), mix(1), mix(2), 255].map(Math.round);
  });
}
