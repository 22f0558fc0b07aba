// SPDX-License-Identifier: Apache-2.0
// Runs in the audio thread: collects the microphone's samples and passes them on in larger blocks.

const BLOCK = 2048; // samples; 43 ms at 48 kHz

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(BLOCK);
    this.filled = 0;
  }

  process([channels]) {
    const samples = channels[0];
    if (!samples) return true; // the source is muted, or not connected yet
    for (let at = 0; at < samples.length; ) {
      const count = Math.min(samples.length - at, BLOCK - this.filled);
      this.block.set(samples.subarray(at, at + count), this.filled);
      this.filled += count;
      at += count;
      if (this.filled === BLOCK) {
        this.port.postMessage(this.block, [this.block.buffer]);
        this.block = new Float32Array(BLOCK);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
