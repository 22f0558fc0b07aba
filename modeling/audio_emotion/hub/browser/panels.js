// SPDX-License-Identifier: Apache-2.0
// Everything but the time line: the current result, flags, caution, facts, the table.

import { emotionColor, isVoiceless, topEmotion } from "./timeline.js";

// A score is a probability that was calibrated over several corpora; below these, the words become careful.
const LIKELY = 0.6;
const POSSIBLE = 0.4;

// Labels of corpora that are no adjectives.
const ADJECTIVES = {
  ...{ anger: "angry", contempt: "contemptuous", disgust: "disgusted", fear: "fearful", happiness: "happy" },
  ...{ joy: "joyful", sadness: "sad", surprise: "surprised" },
};

const FLAGS = {
  silence: "There is no sound to predict from.",
  clipped: "The recording is too loud for its device: its peaks are cut off.",
  short: "Less than a second of sound.",
  out_of_range: "Samples are louder than full scale.",
  canceled: "The channels cancel each other; the louder one was used.",
  channels_differ: "Different voices are in the channels; the mean of all was used.",
  narrow_band: "Nothing above 4 kHz, as on a telephone.",
  pauses: "Most of it is far quieter than its loudest part.",
  no_speech: "The level is too steady for speech.",
  unlike_training: "It is unlike all that the model was trained on: the result means little.",
  long: "One result for the whole of a long recording says little: see the time line.",
};

const $ = (id) => document.getElementById(id);

function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Build the parts that depend on the model alone. */
export function showModel(config) {
  $("model-name").textContent = config.name;
  explainPoints(config, false);
  $("emotions").replaceChildren(
    ...config.emotions.map((label) => {
      const bar = make("span", { className: "bar", ariaHidden: "true" }, make("span"));
      const name = make("span", { textContent: label, className: "label" });
      name.style.setProperty("--own", emotionColor(label, config.emotions));
      return make("li", {}, name, bar, make("span", { className: "number" }));
    }),
  );
  $("dimensions").replaceChildren(
    ...config.dimensions.map((name) => {
      const [low, high] = config.dimension_ends[name] ?? ["lowest", "highest"];
      const item = make(
        "li",
        {},
        make("div", { className: "head" }, make("span", { textContent: name }), make("span", { className: "number" })),
        make("div", { className: "track", ariaHidden: "true" }, make("span")),
        make("div", { className: "ends" }, make("span", { textContent: low }), make("span", { textContent: high })),
      );
      const known = ["activation", "valence", "dominance"].includes(name);
      item.style.setProperty("--own", `var(--${known ? name : "brand"})`);
      return item;
    }),
  );
  for (const id of ["emotions", "dimensions"]) $(id).previousElementSibling.hidden = !config[id].length;
  $("caution").replaceChildren(...config.caution.map((textContent) => make("li", { textContent })));
  $("about").replaceChildren(...Object.entries(config.about).flatMap(fact));
  showResult(null, "Now");
}

/** State what a point of the curves is. */
export function explainPoints(config, isStream) {
  const what = isStream ? "for the sound since the last pause" : `from the ${config.window} seconds before it`;
  $("timeline-note").textContent = `Each point is the prediction ${what}. Gaps: no voice found.`;
}

function fact([name, value]) {
  return [make("dt", { textContent: name }), make("dd", { textContent: value, id: `about-${name.replaceAll(" ", "-")}` })];
}

/** Add a measured fact, or replace its value. */
export function setFact(name, value) {
  const id = `about-${name.replaceAll(" ", "-")}`;
  if ($(id)) $(id).textContent = value;
  else $("about").append(...fact([name, value]));
}

/**
 * Show one prediction.
 * @param {object | null} row prediction with its flags; null for none
 * @param {string} title what it is the prediction for
 * @param {string} pending what is shown in place of a result
 */
export function showResult(row, title, pending = "No sound yet") {
  $("now-title").textContent = title;
  const isEmpty = !row || (isVoiceless(row) && row.flags.includes("silence"));
  const top = isEmpty ? null : topEmotion(row);
  [...$("emotions").children].forEach((item) => {
    const label = item.firstChild.textContent;
    const value = isEmpty ? 0 : row.emotions[label];
    item.classList.toggle("top", top?.[0] === label);
    item.children[1].style.setProperty("--value", value);
    item.children[2].textContent = isEmpty ? "–" : `${Math.round(100 * value)} %`;
  });
  $("dimensions").classList.toggle("none", isEmpty);
  [...$("dimensions").children].forEach((item) => {
    const [name, number] = item.firstChild.children;
    const value = isEmpty ? 0.5 : row.dimensions[name.textContent];
    item.children[1].style.setProperty("--value", value);
    number.textContent = isEmpty ? "–" : value.toFixed(2);
  });
  const none = { verdict: pending, note: "The result appears here." };
  const { verdict, note } = row ? formatVerdict(row, top) : none;
  $("verdict").textContent = verdict;
  $("verdict-note").textContent = note;
  showFlags(row ? row.flags : null);
}

/** A careful sentence about one prediction. */
function formatVerdict(row, top) {
  if (row.flags.includes("silence")) return { verdict: "Silence", note: "There is no sound to predict from." };
  if (row.flags.includes("no_speech")) return { verdict: "No voice found", note: "The numbers below mean little." };
  if (!top) return { verdict: "See the dimensions", note: "This model has no emotion categories." };
  const [label, score] = top;
  const adjective = ADJECTIVES[label] ?? label;
  const note = "How the voice sounds to the model, not what the speaker feels.";
  if (score >= LIKELY) return { verdict: `Sounds ${adjective}`, note };
  if (score >= POSSIBLE) return { verdict: `Perhaps ${adjective}`, note };
  const second = Object.entries(row.emotions).filter(([name]) => name !== label);
  const other = second.reduce((best, each) => (best && best[1] >= each[1] ? best : each), null);
  return { verdict: "Unclear", note: other ? `Between ${label} and ${other[0]}, among others. ${note}` : note };
}

function showFlags(flags) {
  const items = (flags ?? []).map((flag) => {
    const name = make("strong", { textContent: `${flag.replaceAll("_", " ")}: ` });
    return make("li", { className: "set" }, name, FLAGS[flag] ?? "See the documentation.");
  });
  const none = flags ? "None: nothing wrong was found with the recording." : "None yet.";
  $("flags").replaceChildren(...(items.length ? items : [make("li", { textContent: none })]));
}

/** One sentence for screen readers. */
export function describe(row, config) {
  const { verdict } = formatVerdict(row, topEmotion(row));
  const values = config.dimensions.map((name) => `${name} ${row.dimensions[name].toFixed(2)}`);
  return [verdict, isVoiceless(row) ? "" : values.join(", "), row.flags.length ? `flags: ${row.flags.join(", ")}` : ""]
    .filter(Boolean)
    .join("; ");
}

/** The windows as a table. */
export class Table {
  constructor(config) {
    this.config = config;
    this.clear();
  }

  clear() {
    this.rows = [];
    const { dimensions, emotions } = this.config;
    const heads = ["start", "end", ...dimensions, ...(emotions.length ? ["emotion", "score"] : []), "flags"];
    const cells = heads.map((textContent) => {
      return make("th", { textContent, scope: "col", className: isText(textContent) ? "text" : "" });
    });
    this.body = make("tbody");
    $("table").replaceChildren(make("thead", {}, make("tr", {}, ...cells)), this.body);
    $("download").disabled = true;
  }

  add(row) {
    this.rows.push(row);
    const top = topEmotion(row);
    const values = {
      ...{ start: row.start.toFixed(2), end: row.end.toFixed(2) },
      ...Object.fromEntries(this.config.dimensions.map((name) => [name, row.dimensions[name].toFixed(3)])),
      ...(top ? { emotion: top[0], score: top[1].toFixed(3) } : {}),
      flags: row.flags.join(" "),
    };
    this.body.append(
      make("tr", {}, ...Object.entries(values).map(([name, textContent]) => {
        return make("td", { textContent, className: isText(name) ? "text" : "" });
      })),
    );
    $("download").disabled = false;
  }

  /** All values, with a column per emotion. */
  csv() {
    const { dimensions, emotions } = this.config;
    const lines = [["start", "end", "flags", ...dimensions, ...emotions]];
    for (const row of this.rows) {
      const numbers = [...dimensions.map((name) => row.dimensions[name]), ...emotions.map((name) => row.emotions[name])];
      lines.push([row.start.toFixed(3), row.end.toFixed(3), row.flags.join(" "), ...numbers.map((n) => n.toFixed(6))]);
    }
    return lines.map((line) => line.join(",")).join("\r\n") + "\r\n";
  }
}

function isText(column) {
  return column === "emotion" || column === "flags";
}
