// SPDX-License-Identifier: Apache-2.0
// Connects controls, sound sources, the worker with the model, and the display.

import { Microphone, decodeFile, explainMicrophone } from "./audio.js";
import { Table, describe, explainPoints, setFact, showModel, showResult } from "./panels.js";
import { Timeline, clock, isVoiceless } from "./timeline.js";

const ANNOUNCED_EVERY = 5; // seconds, to screen readers while the microphone runs

const $ = (id) => document.getElementById(id);
const state = {
  id: 0, // of the clip or recording; later messages of earlier ones are dropped
  isReady: false,
  microphone: null,
  clip: null, // prediction for the whole of a file
  windows: [],
  announced: -Infinity,
  durations: [], // of predictions, in milliseconds
};
// For tests, and for the console: what is shown, as numbers.
window.audioEmotion = state;

let config;
let timeline;
let table;
let worker;

main().catch((error) => fail(error.message));

async function main() {
  prepareTheme();
  const response = await fetch("model.json");
  if (!response.ok) throw new Error(`model.json could not be loaded (status ${response.status}).`);
  config = await response.json();
  timeline = new Timeline($("chart"), config);
  table = new Table(config);
  showModel(config);
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => receive(data);
  worker.onerror = (event) => fail(event.message || "the model's worker did not start.");
  worker.postMessage({ type: "load", config });
  $("sample").hidden = !config.sample;
  $("microphone").onclick = () => (state.microphone ? stopMicrophone() : startMicrophone());
  $("open").onclick = () => $("file").click();
  $("file").onchange = () => openFile($("file").files[0]);
  $("sample").onclick = playSample;
  $("download").onclick = download;
  $("cursor").oninput = () => inspect(Number($("cursor").value));
  $("player").ontimeupdate = () => inspect($("player").currentTime);
  $("chart").onpointerdown = (event) => {
    if (!$("cursor").disabled) inspect(timeline.timeAt(event.clientX), true);
  };
  acceptDrops();
}

function prepareTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => $("theme").setAttribute("aria-pressed", String(isDark()));
  $("theme").onclick = () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("audio-emotion-theme", root.dataset.theme);
    } catch {
      // Storage is blocked: the choice lasts as long as the page.
    }
    show();
  };
  system.addEventListener("change", show);
  show();
}

/** Handle a message of the worker. */
function receive(message) {
  if (message.type === "progress") return showProgress(message.part);
  if (message.type === "ready") return ready(message.seconds);
  if (message.type === "error" && (message.id === undefined || message.id === state.id)) return fail(message.message);
  if (message.id !== state.id) return undefined;
  if (message.type === "levels") timeline.addLevels(message.levels, message.seconds);
  if (message.type === "clip") showClip(message);
  if (message.type === "window") showWindow(message);
  if (message.type === "done") finish();
  return undefined;
}

function ready(seconds) {
  state.isReady = true;
  state.loadSeconds = seconds;
  $("progress").classList.add("idle");
  enable(true);
  status("Ready.");
  setFact("started in", `${seconds.load.toFixed(1)} s`);
  setFact("one prediction", `${Math.round(1000 * seconds.window)} ms for ${config.window} s of sound, on this device`);
}

function enable(isEnabled) {
  for (const id of ["open", "sample"]) $(id).disabled = !isEnabled;
  $("microphone").disabled = !state.isReady;
}

/** Forget the last recording. */
function begin() {
  state.id += 1;
  state.clip = null;
  state.windows = [];
  state.durations = [];
  state.announced = -Infinity;
  state.isDone = false;
  timeline.clear();
  table.clear();
  $("cursor").disabled = true;
  $("player").hidden = true;
  $("player").pause();
  if ($("player").src) URL.revokeObjectURL($("player").src);
  $("player").removeAttribute("src");
  return state.id;
}

async function startMicrophone() {
  const id = begin();
  enable(false);
  status("Waiting for the microphone. Allow it where the browser asks.");
  const microphone = new Microphone(
    (samples) => {
      const arrival = performance.timeOrigin + performance.now();
      worker.postMessage({ type: "samples", id, samples, arrival }, [samples.buffer]);
    },
    () => stopMicrophone(),
  );
  try {
    const rate = await microphone.start();
    worker.postMessage({ type: "start", id, rate });
  } catch (error) {
    await microphone.stop();
    enable(true);
    fail(explainMicrophone(error));
    return;
  }
  state.microphone = microphone;
  enable(true);
  timeline.isLive = true;
  document.body.classList.add("is-live");
  $("microphone-label").textContent = "Stop";
  status("The microphone is on. Speak for a second or longer.");
  explainPoints(config, Boolean(config.streaming));
  showResult(null, liveTitle());
}

function liveTitle() {
  return config.streaming ? "Since the last pause" : `Last ${config.window} seconds`;
}

async function stopMicrophone() {
  const { microphone, id } = state;
  state.microphone = null;
  await microphone?.stop();
  timeline.isLive = false;
  document.body.classList.remove("is-live");
  $("microphone-label").textContent = "Start microphone";
  worker.postMessage({ type: "stop", id });
}

async function openFile(file) {
  if (!file) return;
  if (state.microphone) await stopMicrophone();
  const id = begin();
  enable(false);
  status(`Reading ${file.name}`);
  explainPoints(config, false);
  showResult(null, "Whole recording");
  try {
    const { rate, channels } = await decodeFile(await file.arrayBuffer());
    if (id !== state.id) return;
    $("player").src = URL.createObjectURL(file);
    $("player").hidden = false;
    worker.postMessage({ type: "clip", id, rate, channels });
    state.name = file.name;
  } catch (error) {
    fail(`${file.name}: ${error.message}`);
  }
  $("file").value = ""; // the same file can be chosen again
}

async function playSample() {
  const response = await fetch(config.sample.file);
  const content = await response.blob();
  await openFile(new File([content], config.sample.title, { type: "audio/flac" }));
  $("player").play().catch(() => {}); // a browser may forbid sound that nobody started
}

function showClip(clip) {
  if (clip.dimensions) {
    state.clip = clip;
    showResult(clip, "Whole recording");
    announce(clip);
  } else {
    state.clip = { ...clip, isAverage: true };
    showResult(null, "Whole recording", "Predicting");
  }
  status(`Predicting windows of ${state.name}`);
}

function showWindow(row) {
  state.windows.push(row);
  state.durations.push(row.ms);
  timeline.addWindow(row);
  table.add(row);
  if (state.microphone) {
    showResult(row, liveTitle());
    if (row.end - state.announced >= ANNOUNCED_EVERY) announce(row);
    const lag = Math.round(row.lag);
    setFact("one prediction", `${Math.round(row.ms)} ms, shown ${lag} ms after its last sound arrived`);
  } else {
    showProgress(row.end / timeline.seconds);
  }
}

/** The recording is complete. */
function finish() {
  $("progress").classList.add("idle");
  enable(true);
  const spoken = state.windows.filter((row) => !isVoiceless(row));
  const isFile = Boolean(state.clip);
  if (!state.clip || state.clip.isAverage) {
    state.clip = averageOf(spoken, state.clip ?? { start: 0, end: timeline.seconds, flags: commonFlags(state.windows) });
  }
  if (state.clip) showResult(state.clip, isFile ? "Whole recording" : "Average of your recording");
  if (state.clip && !isFile) announce(state.clip);
  $("cursor").max = timeline.seconds;
  $("cursor").value = 0;
  $("cursor").disabled = state.windows.length < 2;
  const sorted = [...state.durations].sort((a, b) => a - b);
  const middle = sorted[Math.floor(sorted.length / 2)];
  if (middle !== undefined) setFact("one prediction", `${Math.round(middle)} ms (median of ${sorted.length})`);
  const what = isFile ? state.name : "Your recording, which was not saved";
  const advice = state.windows.length > 1 ? " Move along the time line to see each moment." : "";
  status(`${what}: ${clock(timeline.seconds)}.${advice}`);
  state.isDone = true;
  timeline.requestDraw();
}

/** The mean of windows, for a recording that is too long for one prediction, or that has no end before it stops. */
function averageOf(rows, { start, end, flags }) {
  if (!rows.length) return null;
  const mean = (key, name) => rows.reduce((sum, row) => sum + row[key][name], 0) / rows.length;
  const all = (key, names) => Object.fromEntries(names.map((name) => [name, mean(key, name)]));
  const found = { dimensions: all("dimensions", config.dimensions), emotions: all("emotions", config.emotions) };
  return { start, end, flags, isAverage: true, ...found };
}

/** The flags of at least half of the windows, and clipping wherever it was. */
function commonFlags(rows) {
  const all = rows.flatMap((row) => row.flags);
  return [...new Set(all)].filter((flag) => {
    return flag === "clipped" || 2 * all.filter((each) => each === flag).length >= rows.length;
  });
}

/** Show the window that ends next after a moment. */
function inspect(seconds, isSeek = false) {
  if (!state.windows.length || state.microphone) return;
  const row = state.windows.find((each) => each.end >= seconds - 1e-6) ?? state.windows.at(-1);
  timeline.cursor = seconds;
  timeline.requestDraw();
  $("cursor").value = seconds;
  $("cursor").setAttribute("aria-valuetext", `${seconds.toFixed(1)} seconds; ${describe(row, config)}`);
  showResult(row, `From ${row.start.toFixed(1)} to ${row.end.toFixed(1)} s`);
  if (isSeek && !$("player").hidden) $("player").currentTime = seconds;
}

function announce(row) {
  state.announced = row.end;
  $("announcement").textContent = describe(row, config);
}

function showProgress(part) {
  $("progress").classList.remove("idle");
  $("progress").value = part;
}

function status(text) {
  $("status").classList.remove("error");
  $("status").textContent = text;
}

function fail(message) {
  $("progress").classList.add("idle");
  $("status").classList.add("error");
  $("status").textContent = message;
  if (state.isReady) enable(true);
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table.csv()], { type: "text/csv" }));
  link.download = "emotions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function acceptDrops() {
  const body = document.body;
  addEventListener("dragover", (event) => {
    event.preventDefault();
    body.classList.toggle("dropping", state.isReady);
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) body.classList.remove("dropping");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    body.classList.remove("dropping");
    if (state.isReady) openFile(event.dataTransfer.files[0]);
  });
}
