// SPDX-License-Identifier: Apache-2.0
// Resampling by a windowed sinc, in pieces of any length. Its band edges are those of soxr's high quality, which the
// Python package uses: the browsers' own resamplers have a wider transition band, and Firefox has none for microphones.

const PASSBAND = 0.913; // of the lower Nyquist frequency; above 1 nothing is left
const KAISER_BETA = 11; // about -110 dB in the stopband
const HALF_WIDTH = 84; // zero crossings

/** Converts a signal from one rate to another. */
export class Resampler {
  /**
   * @param {number} from rate of the input in hertz
   * @param {number} to rate of the output in hertz
   */
  constructor(from, to) {
    const divisor = greatestCommonDivisor(Math.round(from), Math.round(to));
    this.up = Math.round(to) / divisor;
    this.down = Math.round(from) / divisor;
    this.isIdentity = this.up === this.down;
    const scale = Math.min(1, to / from);
    this.half = Math.ceil(HALF_WIDTH / scale); // input samples
    this.filters = this.isIdentity ? [] : polyphase(this.up, this.half, (scale * (1 + PASSBAND)) / 2);
    this.history = new Float32Array(this.half); // silence before the first sample
    this.first = -this.half; // position in the input of the first sample in `history`
    this.received = 0;
    this.sent = 0;
  }

  /**
   * Resample the next piece.
   * @param {Float32Array} samples of the input
   * @returns {Float32Array} all output that no later input changes
   */
  push(samples) {
    this.received += samples.length;
    if (this.isIdentity) return samples;
    const input = new Float32Array(this.history.length + samples.length);
    input.set(this.history);
    input.set(samples, this.history.length);
    return this.#filter(input, Infinity);
  }

  /** The rest of the output, after the last input. */
  flush() {
    if (this.isIdentity) return new Float32Array(0);
    const input = new Float32Array(this.history.length + this.half + 1);
    input.set(this.history);
    return this.#filter(input, Math.round((this.received * this.up) / this.down));
  }

  #filter(input, total) {
    const end = this.first + input.length;
    const output = [];
    for (; this.sent < total; this.sent++) {
      const position = this.sent * this.down;
      const center = Math.floor(position / this.up);
      if (center + this.half >= end) break;
      const filter = this.filters[position % this.up];
      const start = center - this.half + 1 - this.first;
      let sum = 0;
      for (let tap = 0; tap < filter.length; tap++) sum += filter[tap] * input[start + tap];
      output.push(sum);
    }
    const next = Math.floor((this.sent * this.down) / this.up) - this.half + 1;
    const kept = Math.max(0, Math.min(input.length, next - this.first));
    this.history = input.slice(kept);
    this.first += kept;
    return Float32Array.from(output);
  }
}

/**
 * Resample a whole signal.
 * @param {Float32Array} samples
 * @param {number} from rate in hertz
 * @param {number} to rate in hertz
 */
export function resample(samples, from, to) {
  const resampler = new Resampler(from, to);
  if (resampler.isIdentity) return samples;
  const head = resampler.push(samples);
  const tail = resampler.flush();
  const output = new Float32Array(head.length + tail.length);
  output.set(head);
  output.set(tail, head.length);
  return output;
}

/** One filter of `2 * half` taps for each fraction of an input sample that an output sample can lie at. */
function polyphase(phases, half, cutoff) {
  const besselOfBeta = bessel(KAISER_BETA);
  return Array.from({ length: phases }, (_, phase) => {
    const taps = new Float64Array(2 * half);
    let sum = 0;
    for (let tap = 0; tap < taps.length; tap++) {
      const time = tap - half + 1 - phase / phases; // input samples from the output sample
      const edge = time / half;
      const window = Math.abs(edge) >= 1 ? 0 : bessel(KAISER_BETA * Math.sqrt(1 - edge * edge)) / besselOfBeta;
      const angle = Math.PI * cutoff * time;
      taps[tap] = window * (angle === 0 ? 1 : Math.sin(angle) / angle);
      sum += taps[tap];
    }
    return taps.map((value) => value / sum);
  });
}

/** Modified Bessel function of the first kind and order 0, by its power series. */
function bessel(x) {
  let sum = 1;
  for (let term = 1, k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function greatestCommonDivisor(a, b) {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
