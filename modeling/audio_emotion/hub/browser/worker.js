// SPDX-License-Identifier: Apache-2.0
// Runs the model beside the page, so that the page stays responsive. Samples come in; predictions go out.

import { Band, Measurements, findFlags, isCanceled, join } from "./flags.js";
import { Resampler, resample } from "./resample.js";
import { Stream, isLoud } from "./stream.js";

const FIRST = 1.0; // seconds until the first prediction of a recording; less is flagged as short
const LONGEST_CLIP = 60; // seconds; of a longer recording, the windows are averaged instead
const MOST_WINDOWS = 1200; // of a file: a longer one gets a longer hop
const PAUSE = 1.0; // seconds; after a longer one, a stream starts anew

let config;
let ort;
let session;
let streaming = null; // session of a model that carries a state, for the microphone
let maskType;
let recording = null; // of the microphone
let current = 0; // number of the clip or recording; messages of earlier ones are dropped

self.onmessage = async ({ data }) => {
  try {
    if (data.type === "load") await load(data);
    else if (data.type === "clip") await predictClip(data);
    else if (data.type === "start") start(data);
    else if (data.type === "samples") receive(data);
    else if (data.type === "stop") stop(data);
  } catch (error) {
    self.postMessage({ type: "error", id: data.id, message: error.message ?? String(error) });
  }
};

/** Fetch and start the runtime and the model. */
async function load({ config: given }) {
  config = given;
  const begin = performance.now();
  const [module, wasm, graph, streamingGraph] = await Promise.all([
    import(config.runtime.script),
    download(config.runtime.wasm),
    download(config.graph.file, config.graph.bytes),
    config.streaming && download(config.streaming.file),
  ]);
  ort = module.default ?? module;
  ort.env.wasm.numThreads = 1; // several need headers that a static host does not send
  ort.env.wasm.wasmBinary = wasm;
  const open = (content) => ort.InferenceSession.create(new Uint8Array(content), { executionProviders: ["wasm"] });
  session = await open(graph);
  if (streamingGraph) streaming = await open(streamingGraph);
  const mask = session.inputMetadata?.find((each) => each.name === "attention_mask");
  maskType = session.inputNames.includes("attention_mask") ? (mask?.type ?? "int64") : null;
  const loaded = performance.now();
  await predict(new Float32Array(config.window * config.sampling_rate)); // the first run is slower
  const warm = performance.now();
  await predict(new Float32Array(config.window * config.sampling_rate));
  const seconds = { load: (loaded - begin) / 1000, window: (performance.now() - warm) / 1000 };
  self.postMessage({ type: "ready", seconds });
}

async function download(file, expected = 0) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file} could not be loaded (status ${response.status}).`);
  const total = expected || Number(response.headers.get("Content-Length"));
  const parts = [];
  let received = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    if (expected) self.postMessage({ type: "progress", part: Math.min(received / total, 1) });
  }
  return await new Blob(parts).arrayBuffer();
}

/**
 * Run the model on one waveform.
 * @param {Float32Array} waveform at the model's rate
 * @returns {Promise<object>} `dimensions` and `emotions`, by name
 */
async function predict(waveform) {
  const shape = [1, waveform.length];
  const feeds = { input_values: new ort.Tensor("float32", waveform, shape) };
  if (maskType === "int64") {
    feeds.attention_mask = new ort.Tensor("int64", new BigInt64Array(waveform.length).fill(1n), shape);
  } else if (maskType) {
    const ones = maskType === "bool" ? Uint8Array : maskType === "int32" ? Int32Array : Float32Array;
    feeds.attention_mask = new ort.Tensor(maskType, new ones(waveform.length).fill(1), shape);
  }
  const fetches = ["dimensions", "logits", "distance"].filter((name) => session.outputNames.includes(name));
  const outputs = await session.run(feeds, fetches);
  const found = Object.fromEntries(fetches.map((name) => [name, Array.from(outputs[name].data)]));
  Object.values(outputs).forEach((tensor) => tensor.dispose());
  return named(found);
}

/** Outputs of the model, a list of numbers each, as `dimensions` and `emotions` by name, and flags of the outputs. */
function named(outputs) {
  const values = (name) => outputs[name] ?? [];
  const byName = (names, numbers) => Object.fromEntries(names.map((each, i) => [each, numbers[i]]));
  const found = {
    dimensions: byName(config.dimensions, values("dimensions")),
    emotions: byName(config.emotions, softmax(values("logits"))),
    unlike: values("distance")[0] > 1 ? ["unlike_training"] : [],
  };
  if (![...Object.values(found.dimensions), ...Object.values(found.emotions)].every(Number.isFinite)) {
    throw new Error("the model gave no finite numbers for this sound.");
  }
  return found;
}

function softmax(logits) {
  const most = Math.max(...logits);
  const powers = logits.map((each) => Math.exp(each - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((each) => each / sum);
}

/** Predict a whole file, and windows of it. */
async function predictClip({ id, rate, channels }) {
  current = id;
  const { limits, sampling_rate: target, window } = config;
  checkSamples(channels, rate);
  const measurements = new Measurements(rate, limits);
  measurements.push(channels);
  measurements.flush();
  const waveform = resample(downmix(channels, measurements), rate, target);
  const band = new Band(target, limits);
  band.push(waveform);
  const seconds = channels[0].length / rate;
  const levels = Float32Array.from(measurements.frames, (frame) => frame.peak);
  const flags = findFlags(measurements.frames, waveform, target, band.isNarrow, limits);
  self.postMessage({ type: "levels", id, levels, seconds });
  if (seconds <= LONGEST_CLIP) {
    const begin = performance.now();
    const { unlike, ...found } = await predict(waveform);
    const ms = performance.now() - begin;
    self.postMessage({ type: "clip", id, start: 0, end: seconds, ...found, flags: [...flags, ...unlike], ms });
  } else {
    self.postMessage({ type: "clip", id, start: 0, end: seconds, flags: ["long", ...flags] });
  }
  const hop = Math.max(config.hop, Math.ceil(seconds / MOST_WINDOWS / config.hop) * config.hop);
  for (const end of windowEnds(waveform.length / target, hop)) {
    await new Promise((resolve) => setTimeout(resolve)); // lets a newer message in
    if (current !== id) return;
    const start = Math.max(0, end - window);
    const part = waveform.slice(Math.round(start * target), Math.round(end * target));
    const begin = performance.now();
    const { unlike, ...found } = await predict(part);
    const ms = performance.now() - begin;
    const own = findFlags(measurements.between(start, end), part, target, band.isNarrow, limits);
    self.postMessage({ type: "window", id, start, end, hop, ...found, flags: [...own, ...unlike], ms });
  }
  self.postMessage({ type: "done", id });
}

function* windowEnds(seconds, hop) {
  let end = FIRST;
  for (; end < seconds; end += hop) yield end;
  yield seconds;
}

/** The mean of the channels, or the loudest one where they cancel each other. */
function downmix(channels, measurements) {
  if (isCanceled(measurements.frames, config.limits)) {
    return channels[measurements.powers.indexOf(Math.max(...measurements.powers))];
  }
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
}

function checkSamples(channels, rate) {
  const { shortest } = config.limits;
  const seconds = (channels[0]?.length ?? 0) / rate;
  if (seconds < shortest) {
    throw new Error(`expected at least ${shortest} s of sound, got ${seconds.toFixed(2)} s.`);
  }
  if (!channels.every((channel) => channel.every(Number.isFinite))) {
    throw new Error("expected finite samples, got some that are NaN or infinite.");
  }
}

/** Start a recording of the microphone. */
function start({ id, rate }) {
  current = id;
  recording = {
    ...{ id, due: FIRST, seconds: 0, resampled: 0, sent: 0, isBusy: false, arrival: 0 },
    measurements: new Measurements(rate, config.limits),
    band: new Band(config.sampling_rate, config.limits),
    resampler: new Resampler(rate, config.sampling_rate),
    waveform: new Float32Array(0), // the last window
    stream: streaming && new Stream(ort, streaming, config.streaming.step),
    ...{ loudest: 0, lastLoud: 0, begin: 0, fresh: new Float32Array(0) }, // of the stream
    rate,
  };
}

/** Receive samples of the microphone, and predict where a hop is complete. */
function receive({ id, samples, arrival }) {
  if (recording?.id !== id) return;
  const { measurements, band, resampler } = recording;
  measurements.push([samples]);
  const resampled = resampler.push(samples);
  band.push(resampled);
  recording.waveform = join(recording.waveform, resampled).slice(-config.window * config.sampling_rate);
  recording.seconds += samples.length / recording.rate;
  recording.resampled += resampled.length / config.sampling_rate; // a few milliseconds behind
  recording.arrival = arrival;
  const levels = Float32Array.from(measurements.frames.slice(recording.sent), (frame) => frame.peak);
  if (recording.stream) prepareStream(recording, measurements.frames.slice(recording.sent), resampled);
  recording.sent = measurements.frames.length;
  self.postMessage({ type: "levels", id, levels, seconds: recording.seconds });
  predictLatest(recording);
}

/** Keep samples for the stream, and start it anew where sound follows a pause. */
function prepareStream(own, frames, resampled) {
  for (const frame of frames) {
    if (!isLoud(frame, own.loudest, config.limits)) continue;
    if (frame.start - own.lastLoud > PAUSE) {
      own.stream = new Stream(ort, streaming, config.streaming.step);
      own.begin = Math.max(own.resampled - resampled.length / config.sampling_rate, 0);
      own.fresh = new Float32Array(0);
      own.loudest = 0;
    }
    own.loudest = Math.max(own.loudest, frame.swing);
    own.lastLoud = frame.start;
  }
  own.fresh = join(own.fresh, resampled);
}

/** The prediction for the sound since the last pause; null in a pause, and before the first step. */
async function predictStream(own) {
  const { stream, fresh } = own;
  own.fresh = new Float32Array(0);
  const outputs = await stream.feed(fresh);
  const isPause = own.resampled - own.lastLoud > PAUSE;
  return outputs && !isPause ? named(outputs) : null;
}

/** Predict the last window. Windows that a slow machine has no time for are left out. */
async function predictLatest(own) {
  if (own.isBusy || own.resampled < own.due) return;
  own.isBusy = true;
  try {
    const end = own.resampled;
    const { arrival, waveform } = own;
    const since = Math.max(0, end - waveform.length / config.sampling_rate);
    const start = own.stream ? own.begin : since;
    own.due = Math.floor(end / config.hop + 1) * config.hop;
    const begin = performance.now();
    const found = own.stream ? await predictStream(own) : await predict(waveform);
    const now = performance.now();
    if (!found) return;
    const { unlike, ...values } = found;
    const frames = own.measurements.between(since, end);
    const flags = findFlags(frames, waveform, config.sampling_rate, own.band.isNarrow, config.limits);
    const lag = performance.timeOrigin + performance.now() - arrival;
    const message = { start, end, hop: config.hop, ...values, flags: [...flags, ...unlike], ms: now - begin, lag };
    if (current === own.id) self.postMessage({ type: "window", id: own.id, ...message });
  } catch (error) {
    self.postMessage({ type: "error", id: own.id, message: error.message });
  } finally {
    own.isBusy = false;
  }
}

function stop({ id }) {
  recording = null;
  self.postMessage({ type: "done", id });
}
