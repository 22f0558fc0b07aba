// SPDX-License-Identifier: Apache-2.0
// The time line: waveform, one lane per dimension, and the most probable emotion, as SVG.

const SVG = "http://www.w3.org/2000/svg";
const LEVEL_FRAME = 0.05; // seconds per level
const AXIS = 24; // pixels
const GAP = 12; // pixels between lanes
const MARGIN = 7; // pixels to the right of the newest point
const LIVE_PIXELS_PER_SECOND = 24;
const DRAWN_EVERY = 90; // milliseconds, while the microphone runs

// Colors of emotions by name; each is mixed with the background, so that text on it is readable in both themes.
const COLORS = {
  ...{ angry: "#d2453a", happy: "#d99a00", sad: "#3f7fd1", fearful: "#8a5cc9", disgust: "#5d8f2f" },
  ...{ neutral: "#8a959b", calm: "#3aa3a0", surprised: "#d0569a" },
};
const OTHERS = ["#b07d3c", "#4f6fae", "#9b5f80", "#5f9b7a"];

export class Timeline {
  /**
   * @param {HTMLElement} place where to draw
   * @param {object} config `model.json`
   */
  constructor(place, config) {
    this.place = place;
    this.config = config;
    new ResizeObserver(() => this.requestDraw()).observe(place);
    this.clear();
  }

  clear() {
    this.drawn = -Infinity;
    this.levels = [];
    this.rows = []; // windows
    this.seconds = 0;
    this.cursor = null;
    this.isLive = false;
    this.requestDraw();
  }

  addLevels(levels, seconds) {
    for (const level of levels) this.levels.push(level);
    this.seconds = seconds;
    if (!this.isLive || performance.now() - this.drawn > DRAWN_EVERY) this.requestDraw();
  }

  addWindow(row) {
    this.rows.push(row);
    this.requestDraw();
  }

  requestDraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.drawn = performance.now();
      this.#draw();
    });
  }

  /** The seconds that are drawn: all of a file; of a running recording as many of the last as there is room for. */
  span() {
    const end = Math.max(this.seconds, this.isLive ? this.#liveSeconds() : 1);
    return this.isLive ? [end - this.#liveSeconds(), end] : [0, end];
  }

  #plotWidth() {
    return this.width - this.gutter - MARGIN;
  }

  #liveSeconds() {
    return Math.max(10, Math.round(this.#plotWidth() / LIVE_PIXELS_PER_SECOND));
  }

  /** The time at a horizontal position of the pointer. */
  timeAt(clientX) {
    const box = this.place.getBoundingClientRect();
    const [from, to] = this.span();
    const part = (clientX - box.left - this.gutter) / this.#plotWidth();
    return Math.min(Math.max(from + part * (to - from), 0), this.seconds);
  }

  #draw() {
    this.width = this.place.clientWidth;
    this.gutter = this.width < 480 ? 82 : 92;
    this.place.style.setProperty("--gutter", `${this.gutter}px`);
    this.place.parentElement.style.setProperty("--gutter", `${this.gutter}px`);
    const lane = this.width < 480 ? 72 : 104;
    const { dimensions, emotions } = this.config;
    let y = 0;
    const parts = [];
    parts.push(this.#wave(y, 52));
    y += 52 + GAP;
    for (const name of dimensions) {
      parts.push(this.#dimension(name, y, lane));
      y += lane + GAP;
    }
    if (emotions.length) {
      parts.push(this.#emotions(y, 30));
      y += 30;
    }
    parts.push(this.#axis(y));
    if (this.cursor !== null) {
      parts.push(element("line", { class: "at", x1: this.#x(this.cursor), x2: this.#x(this.cursor), y1: 0, y2: y }));
    }
    if (this.seconds === 0) {
      const x = this.gutter + this.#plotWidth() / 2;
      parts.push(element("text", { class: "empty", x, y: 31 }, "Sound appears here"));
    }
    const height = y + AXIS;
    const svg = element("svg", { viewBox: `0 0 ${this.width} ${height}`, height, role: "img" }, parts);
    svg.setAttribute("aria-label", this.#description());
    this.place.replaceChildren(svg);
  }

  #x(seconds) {
    const [from, to] = this.span();
    return this.gutter + ((seconds - from) / (to - from)) * this.#plotWidth();
  }

  #wave(y, height) {
    const [from, to] = this.span();
    const first = Math.max(0, Math.floor(from / LEVEL_FRAME));
    const last = Math.min(this.levels.length, Math.ceil(to / LEVEL_FRAME));
    const columns = Math.max(1, Math.round(this.#plotWidth() / 3));
    const step = Math.max(1, Math.ceil((to - from) / LEVEL_FRAME / columns));
    const most = this.levels.slice(first, last).reduce((a, b) => Math.max(a, b), 0.1);
    const middle = y + height / 2;
    let path = "";
    for (let i = first - (first % step); i < last; i += step) {
      let level = 0;
      for (let k = i; k < Math.min(i + step, last); k++) level = Math.max(level, this.levels[k]);
      const x = this.#x(i * LEVEL_FRAME);
      const width = Math.max(1, this.#x((i + step) * LEVEL_FRAME) - x - 1);
      if (x < this.gutter) continue;
      const half = Math.max(0.75, (Math.min(level, 1) / most) * (height / 2));
      path += `M${round(x)} ${round(middle - half)}h${round(width)}v${round(2 * half)}h${round(-width)}z`;
    }
    return element("g", {}, [
      element("text", { class: "name", x: 0, y: y + 14 }, "sound"),
      element("path", { class: "wave", d: path }),
    ]);
  }

  #dimension(name, y, height) {
    const [low, high] = this.config.dimension_ends[name] ?? ["lowest", "highest"];
    const color = `var(--${["activation", "valence", "dominance"].includes(name) ? name : "brand"})`;
    const [from, to] = this.span();
    const at = (value) => y + height * (1 - value);
    const lines = [[]];
    let previous = -Infinity;
    for (const row of this.rows) {
      if (row.end < from || row.end > to + 0.01) continue;
      if (row.end - previous > 2.5 * row.hop) lines.push([]); // a pause of a stream
      previous = row.end;
      if (isVoiceless(row)) lines.push([]);
      else lines.at(-1).push([this.#x(row.end), at(row.dimensions[name])]);
    }
    const drawn = lines.filter((line) => line.length);
    const curve = drawn.map((line) => `M${line.map(([a, b]) => `${round(a)} ${round(b)}`).join("L")}`).join("");
    const area = drawn
      .map((line) => {
        const points = line.map(([a, b]) => `L${round(a)} ${round(b)}`).join("");
        return `M${round(line[0][0])} ${round(at(0.5))}${points}L${round(line.at(-1)[0])} ${round(at(0.5))}z`;
      })
      .join("");
    const end = drawn.at(-1)?.at(-1);
    const title = element("text", { class: "name", x: 0, y: y + height / 2 + 4 }, name);
    title.style.fill = color;
    const line = element("path", { class: "curve", d: curve });
    line.style.stroke = color;
    const below = element("path", { class: "area", d: area });
    below.style.fill = color;
    const dot = element("circle", { cx: round(end?.[0] ?? 0), cy: round(end?.[1] ?? 0), r: end ? 4 : 0 });
    dot.style.fill = color;
    return element("g", {}, [
      element("line", { class: "grid", x1: this.gutter, x2: this.width - MARGIN, y1: y, y2: y }),
      element("line", { class: "middle", x1: this.gutter, x2: this.width - MARGIN, y1: at(0.5), y2: at(0.5) }),
      element("line", { class: "grid", x1: this.gutter, x2: this.width - MARGIN, y1: y + height, y2: y + height }),
      ...[title, element("text", { x: 0, y: y + 11 }, high), element("text", { x: 0, y: y + height - 2 }, low)],
      ...[below, line, dot],
    ]);
  }

  #emotions(y, height) {
    const [from] = this.span();
    const blocks = [];
    for (const row of this.rows) {
      const start = Math.max(row.end - row.hop, blocks.at(-1)?.end ?? row.start, 0);
      const label = isVoiceless(row) ? null : topEmotion(row)[0];
      const previous = blocks.at(-1);
      if (previous && previous.label === label && start - previous.end < 0.05) previous.end = row.end;
      else blocks.push({ start, end: row.end, label });
    }
    const shapes = [element("text", { class: "name", x: 0, y: y + height / 2 + 4 }, "emotion")];
    for (const { start, end, label } of blocks) {
      if (end < from || label === null) continue;
      const x = Math.max(this.#x(start), this.gutter);
      const width = Math.max(this.#x(end) - x - 1.5, 1);
      const color = emotionColor(label, this.config.emotions);
      const back = element("rect", { x: round(x), y, width: round(width), height, rx: 4 });
      back.style.fill = `color-mix(in srgb, ${color} 26%, var(--card))`;
      const strip = element("rect", { x: round(x), y, width: round(width), height: 4, rx: 2 });
      strip.style.fill = color;
      shapes.push(element("g", {}, [element("title", {}, `${label}, ${start.toFixed(1)} to ${end.toFixed(1)} s`), back, strip]));
      if (width > label.length * 7 + 8) {
        shapes.push(element("text", { class: "emotion-label", x: round(x + 6), y: y + height / 2 + 6 }, label));
      }
    }
    return element("g", {}, shapes);
  }

  #axis(y) {
    const [from, to] = this.span();
    const room = Math.max(2, Math.floor(this.#plotWidth() / 64));
    const step = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((s) => (to - from) / s <= room) ?? 7200;
    const marks = [];
    for (let k = Math.max(0, Math.ceil(from / step - 1e-9)); k * step <= to + 1e-9; k++) {
      const x = this.#x(k * step);
      const anchor = x > this.width - 14 ? "end" : x < this.gutter + 4 ? "start" : "middle";
      const mark = element("text", { class: "tick", x: round(x), y: y + 18 }, clock(k * step, step));
      mark.style.textAnchor = anchor;
      marks.push(mark);
    }
    return element("g", {}, marks);
  }

  #description() {
    const rows = this.rows.filter((row) => !isVoiceless(row));
    if (!rows.length) return "Time line, empty.";
    const ranges = this.config.dimensions.map((name) => {
      const values = rows.map((row) => row.dimensions[name]);
      return `${name} from ${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)}`;
    });
    return `Time line of ${this.seconds.toFixed(0)} seconds: ${ranges.join(", ")}. The table below holds all values.`;
  }
}

/** Whether a window holds nothing that a prediction could be about. */
export function isVoiceless(row) {
  return row.flags.includes("silence") || row.flags.includes("no_speech");
}

/** The most probable emotion and its probability; null where the model has no emotions. */
export function topEmotion(row) {
  return Object.entries(row.emotions).reduce((best, each) => (best && best[1] >= each[1] ? best : each), null);
}

export function emotionColor(label, all) {
  return COLORS[label] ?? OTHERS[all.indexOf(label) % OTHERS.length] ?? OTHERS[0];
}

/** Seconds as a reader of a time line expects them. */
export function clock(seconds, step = 1) {
  if (seconds < 60 && step < 60) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
}

function round(value) {
  return Math.round(value * 10) / 10;
}

function element(name, attributes, content = []) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...(Array.isArray(content) ? content : [content]));
  return made;
}
