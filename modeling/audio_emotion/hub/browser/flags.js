// SPDX-License-Identifier: Apache-2.0
// Flags of a recording, by the rules and thresholds of `audio_flags.py`; `limits` in `model.json` is written from there.

/** Measurements of every 50 ms of a source, before downmix and resampling, which hide problems. */
export class Measurements {
  /**
   * @param {number} rate of the source in hertz
   * @param {object} limits thresholds, see `model.json`
   */
  constructor(rate, limits) {
    this.rate = rate;
    this.limits = limits;
    this.length = Math.round(limits.frame * rate); // samples in a frame
    this.frames = [];
    this.powers = []; // of each channel, times its number of samples
    this.pending = null;
  }

  /**
   * Measure the whole frames that are complete with the next samples.
   * @param {Float32Array[]} channels of equal length
   */
  push(channels) {
    const joined = this.pending ? channels.map((channel, c) => join(this.pending[c], channel)) : channels;
    let at = 0;
    for (; at + this.length <= joined[0].length; at += this.length) this.#measure(joined, at, at + this.length);
    this.pending = joined.map((channel) => channel.slice(at));
  }

  /** Measure the last frame, which may be incomplete. */
  flush() {
    if (this.pending?.[0].length) this.#measure(this.pending, 0, this.pending[0].length);
    this.pending = null;
  }

  #measure(channels, from, to) {
    const { full_scale: fullScale } = this.limits;
    const count = to - from;
    const found = { seconds: count / this.rate, peak: 0, swing: 0, clipped: 0, kept: 0, independent: 0 };
    found.start = (this.frames.length * this.length) / this.rate;
    const mean = new Float64Array(count);
    const byChannel = [];
    channels.forEach((channel, c) => {
      let high = -Infinity;
      let low = Infinity;
      let sum = 0;
      let squares = 0;
      for (let i = from; i < to; i++) {
        const value = channel[i];
        if (value > high) high = value;
        if (value < low) low = value;
        sum += value;
        squares += value * value;
        mean[i - from] += value / channels.length;
      }
      const average = sum / count;
      const power = Math.max(squares / count - average * average, 0);
      const peak = Math.max(high, -low);
      found.peak = Math.max(found.peak, peak);
      found.swing = Math.max(found.swing, high - average, average - low);
      found.independent += power / channels.length ** 2;
      byChannel.push(power);
      this.powers[c] = (this.powers[c] ?? 0) + power * count;
      if (peak >= fullScale && hasThreeInARow(channel, from, to, peak * (1 - 1e-5))) {
        found.clipped = Math.max(found.clipped, peak);
      }
    });
    found.kept = variance(mean, 0, count);
    const [first, second] = [...byChannel].sort((a, b) => b - a);
    found.dominant = first > this.limits.dominant * second ? byChannel.indexOf(first) : -1; // -1 with one channel
    this.frames.push(found);
  }

  /** The frames of a part, in seconds, as `AudioClip.flags_between` chooses them. */
  between(start, end) {
    const slack = this.limits.frame / 100;
    const first = lowerBound(this.frames, start + slack) - 1;
    return this.frames.slice(Math.max(first, 0), lowerBound(this.frames, end - slack));
  }
}

/** Whether the channels cancel each other in their mean. */
export function isCanceled(frames, limits) {
  let kept = 0;
  let independent = 0;
  for (const frame of frames) {
    kept += frame.kept * frame.seconds;
    independent += frame.independent * frame.seconds;
  }
  return kept < limits.canceled * independent;
}

/** Whether different channels dominate at different times, as those of two speakers on a telephone line. */
function doChannelsDiffer(frames, limits) {
  const most = frames.reduce((high, frame) => Math.max(high, frame.independent), 0);
  const loud = frames.filter((frame) => frame.independent >= limits.quiet * most);
  const counts = {};
  for (const { dominant } of loud) if (dominant >= 0) counts[dominant] = (counts[dominant] ?? 0) + 1;
  return Object.values(counts).filter((count) => count >= limits.often * loud.length).length > 1;
}

/**
 * The flags of a clip, or of a part of one.
 * @param {object[]} frames of `Measurements`
 * @param {Float32Array} waveform input of the model
 * @param {number} rate of the waveform in hertz
 * @param {boolean} isNarrowBand whether the whole clip is: a part, such as a vowel, is too short to decide
 * @param {object} limits thresholds
 * @returns {string[]}
 */
export function findFlags(frames, waveform, rate, isNarrowBand, limits) {
  const highest = (key) => frames.reduce((most, frame) => Math.max(most, frame[key]), 0);
  const peak = highest("peak");
  const seconds = frames.reduce((sum, frame) => sum + frame.seconds, 0);
  const isSilent = highest("swing") < limits.silence;
  const power = framePowers(waveform, Math.round(limits.frame * rate));
  const flags = {
    silence: isSilent,
    clipped: peak >= limits.full_scale && highest("clipped") >= peak * (1 - 1e-5),
    short: seconds < limits.short * (1 - 1e-9),
    out_of_range: peak > 1,
    canceled: isCanceled(frames, limits),
    channels_differ: !isSilent && doChannelsDiffer(frames, limits),
    narrow_band: !isSilent && isNarrowBand,
    pauses: !isSilent && isMostlyPauses(power, limits),
    no_speech: !isSilent && isSteady(power, limits),
  };
  return Object.keys(flags).filter((flag) => flags[flag]);
}

/** Power spectrum of a signal, summed over its blocks, as far as needed for `narrow_band`. */
export class Band {
  constructor(rate, limits) {
    this.rate = rate;
    this.limits = limits;
    this.length = limits.block;
    this.taper = Float32Array.from({ length: this.length }, (_, i) => {
      return 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (this.length - 1));
    });
    this.speech = 0;
    this.high = 0;
    this.pending = new Float32Array(0);
  }

  push(samples) {
    const joined = join(this.pending, samples);
    let at = 0;
    for (; at + this.length <= joined.length; at += this.length) {
      const real = Float64Array.from(this.taper, (value, i) => value * joined[at + i]);
      const power = powerSpectrum(real);
      for (let bin = 0; bin < power.length; bin++) {
        const frequency = (bin * this.rate) / this.length;
        if (frequency > this.limits.rumble) this.speech += power[bin];
        if (frequency > this.limits.telephone) this.high += power[bin];
      }
    }
    this.pending = joined.slice(at);
  }

  get isNarrow() {
    return this.high < this.limits.narrow * this.speech;
  }
}

function isMostlyPauses(power, limits) {
  if (power.length === 0) return false;
  const loud = limits.quiet * maximum(power);
  let pauses = 0;
  for (let frame = 0; frame < power.length; frame++) {
    let isSpeech = false;
    const last = Math.min(frame + limits.bridged, power.length - 1);
    for (let near = Math.max(frame - limits.bridged, 0); near <= last; near++) isSpeech ||= power[near] >= loud;
    pauses += isSpeech ? 0 : 1;
  }
  return pauses / power.length > limits.pauses;
}

/** Whether the level is too steady for speech: a tone, a hum, a noise. */
function isSteady(power, limits) {
  const most = maximum(power);
  if (power.length < limits.short / limits.frame || most === 0) return false;
  const levels = Float64Array.from(power.filter((each) => each >= limits.quiet * most).map((p) => 10 * Math.log10(p)));
  return Math.sqrt(variance(levels, 0, levels.length)) < limits.steady;
}

function framePowers(waveform, length) {
  const powers = new Float64Array(Math.floor(waveform.length / length));
  for (let frame = 0; frame < powers.length; frame++) {
    powers[frame] = variance(waveform, frame * length, (frame + 1) * length);
  }
  return powers;
}

function variance(values, from, to) {
  let mean = 0;
  for (let i = from; i < to; i++) mean += values[i] / (to - from);
  let sum = 0;
  for (let i = from; i < to; i++) sum += (values[i] - mean) ** 2;
  return sum / (to - from);
}

function maximum(values) {
  return values.reduce((most, value) => Math.max(most, value), 0);
}

function hasThreeInARow(values, from, to, least) {
  for (let i = from, count = 0; i < to; i++) {
    count = Math.abs(values[i]) >= least ? count + 1 : 0;
    if (count === 3) return true;
  }
  return false;
}

/** Number of frames that start before `seconds`. */
function lowerBound(frames, seconds) {
  let low = 0;
  let high = frames.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (frames[middle].start < seconds) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function join(first, second) {
  const joined = new Float32Array(first.length + second.length);
  joined.set(first);
  joined.set(second, first.length);
  return joined;
}

/** Squared magnitudes of the first half of the Fourier transform; the length is a power of two. */
function powerSpectrum(real) {
  const size = real.length;
  const imaginary = new Float64Array(size);
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]];
  }
  const { cosines, sines } = roots(size);
  for (let length = 2; length <= size; length <<= 1) {
    for (let start = 0; start < size; start += length) {
      for (let k = 0; k < length / 2; k++) {
        const cosine = cosines[(k * size) / length];
        const sine = sines[(k * size) / length];
        const even = start + k;
        const odd = even + length / 2;
        const r = real[odd] * cosine - imaginary[odd] * sine;
        const i = real[odd] * sine + imaginary[odd] * cosine;
        real[odd] = real[even] - r;
        imaginary[odd] = imaginary[even] - i;
        real[even] += r;
        imaginary[even] += i;
      }
    }
  }
  return Float64Array.from({ length: size / 2 + 1 }, (_, bin) => real[bin] ** 2 + imaginary[bin] ** 2);
}

const tables = new Map();

/** The first half of the complex roots of unity, computed once per size. */
function roots(size) {
  if (!tables.has(size)) {
    const angles = Float64Array.from({ length: size / 2 }, (_, k) => (-2 * Math.PI * k) / size);
    tables.set(size, { cosines: angles.map(Math.cos), sines: angles.map(Math.sin) });
  }
  return tables.get(size);
}
