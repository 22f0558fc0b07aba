// SPDX-License-Identifier: Apache-2.0
// A model that carries its state: each step costs the same, however long the stream, as `runtime.py` runs it.

/** One stream of samples at the model's rate. */
export class Stream {
  /**
   * @param {object} ort onnxruntime-web
   * @param {object} session of the streaming graph: `samples` and states to outputs and `next_` states
   * @param {number} step samples of a step
   */
  constructor(ort, session, step) {
    this.ort = ort;
    this.session = session;
    this.step = step;
    this.state = {};
    for (const { name, shape } of session.inputMetadata) {
      if (name === "samples") continue;
      const sizes = [1, ...shape.slice(1)];
      const zeros = new Float32Array(sizes.reduce((a, b) => a * b, 1));
      this.state[name] = new ort.Tensor("float32", zeros, sizes);
    }
    this.context = this.state.context.dims[1]; // samples before the first step
    this.waiting = new Float32Array(0);
    this.fed = 0;
    this.outputs = null;
  }

  /**
   * Run the steps that the samples complete.
   * @param {Float32Array} samples
   * @returns {Promise<object | null>} `dimensions`, `logits` and `distance` after the last step; null before the first
   */
  async feed(samples) {
    const before = this.fed;
    this.fed += samples.length;
    const joined = new Float32Array(this.waiting.length + samples.length);
    joined.set(this.waiting);
    joined.set(samples, this.waiting.length);
    this.waiting = joined;
    if (before < this.context && this.fed >= this.context) {
      const head = this.waiting.slice(0, this.context);
      this.state.context = new this.ort.Tensor("float32", head, [1, this.context]);
      this.waiting = this.waiting.slice(this.context);
    }
    const ready = this.fed < this.context ? 0 : Math.floor(this.waiting.length / this.step) * this.step;
    if (!ready) return this.outputs;
    const part = new this.ort.Tensor("float32", this.waiting.slice(0, ready), [1, ready]);
    this.waiting = this.waiting.slice(ready);
    const found = await this.session.run({ samples: part, ...this.state });
    for (const name of Object.keys(this.state)) this.state[name] = found[`next_${name}`];
    this.outputs = {};
    for (const name of ["dimensions", "logits", "distance"]) {
      const { data, dims } = found[name] ?? {}; // (1, steps, values), or (1, steps)
      if (data) this.outputs[name] = Array.from(data.slice(-(dims[2] ?? 1)));
    }
    return this.outputs;
  }
}

/** Whether a frame of `Measurements` is as loud as speech, compared with the loudest one so far. */
export function isLoud(frame, loudest, limits) {
  return frame.swing >= Math.max(limits.silence, Math.sqrt(limits.quiet) * loudest);
}
