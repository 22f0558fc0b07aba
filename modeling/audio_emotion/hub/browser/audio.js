// SPDX-License-Identifier: Apache-2.0
// Sound sources: the microphone, and files. Samples keep their own rate; the worker resamples them.

import { decodeWav } from "./wav.js";

/** Capture of the microphone, without the processing that changes a voice. */
export class Microphone {
  /**
   * @param {(samples: Float32Array) => void} onSamples called with successive blocks of one channel
   * @param {() => void} onEnd called where the device is unplugged or the permission withdrawn
   */
  constructor(onSamples, onEnd) {
    this.onSamples = onSamples;
    this.onEnd = onEnd;
  }

  /** Request the microphone and start; returns its rate in hertz. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("this browser gives no microphone to this address: open the page by https or on localhost.");
    }
    this.context = new AudioContext(); // before the first await: Safari starts it only in reply to a click
    const processing = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, ...processing } });
    await this.context.audioWorklet.addModule("capture-worklet.js");
    const source = this.context.createMediaStreamSource(this.stream);
    const options = { channelCount: 1, channelCountMode: "explicit" };
    this.node = new AudioWorkletNode(this.context, "capture", options);
    this.node.port.onmessage = ({ data }) => this.onSamples(data);
    source.connect(this.node);
    this.node.connect(this.context.destination); // silence: some browsers run only what leads to a loudspeaker
    this.stream.getAudioTracks()[0].addEventListener("ended", () => this.onEnd());
    await this.context.resume();
    return this.context.sampleRate;
  }

  /** Stop, and let the browser remove its recording mark. */
  async stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.node) this.node.port.onmessage = null;
    await this.context?.close();
  }
}

/** A sentence on why the microphone did not start. */
export function explainMicrophone(error) {
  const reasons = {
    NotAllowedError: "the browser was not allowed to use it. Allow the microphone for this page, and start again.",
    NotFoundError: "there is none. Connect one, or open a recording.",
    NotReadableError: "another program uses it. Close that program, and start again.",
  };
  return `The microphone did not start: ${reasons[error.name] ?? error.message}`;
}

/**
 * Decode a file: WAV by ourselves, since a browser would resample it; anything else by the browser.
 * @param {ArrayBuffer} content
 * @returns {Promise<{rate: number, channels: Float32Array[]}>}
 */
export async function decodeFile(content) {
  const wav = decodeWav(content);
  if (wav) return wav;
  // A browser resamples to the rate of the context: at the file's own rate, no sample is changed.
  const context = new OfflineAudioContext(1, 1, statedRate(new Uint8Array(content)) ?? 48000);
  let buffer;
  try {
    buffer = await context.decodeAudioData(content);
  } catch {
    throw new Error("this browser cannot decode it. Convert it to WAV, or use `audio-emotion predict`.");
  }
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c));
  return { rate: buffer.sampleRate, channels };
}

const MP3_RATES = { 3: [44100, 48000, 32000], 2: [22050, 24000, 16000], 0: [11025, 12000, 8000] }; // by MPEG version

/**
 * The rate in hertz that the header of a FLAC, Ogg Vorbis or MP3 file states, or null.
 * @param {Uint8Array} bytes content of the file
 */
export function statedRate(bytes) {
  const text = (from, to) => String.fromCharCode(...bytes.subarray(from, to));
  let rate = null;
  if (text(0, 4) === "fLaC" && bytes.length > 20) {
    rate = (bytes[18] << 12) | (bytes[19] << 4) | (bytes[20] >> 4);
  } else if (text(0, 4) === "OggS" && text(29, 35) === "vorbis" && bytes.length > 43) {
    rate = bytes[40] | (bytes[41] << 8) | (bytes[42] << 16) | (bytes[43] << 24);
  } else {
    let at = 0;
    if (text(0, 3) === "ID3") at = 10 + ((bytes[6] << 21) | (bytes[7] << 14) | (bytes[8] << 7) | bytes[9]);
    if (bytes[at] === 0xff && (bytes[at + 1] & 0xe0) === 0xe0) {
      rate = MP3_RATES[(bytes[at + 1] >> 3) & 3]?.[(bytes[at + 2] >> 2) & 3] ?? null;
    }
  }
  return rate >= 8000 && rate <= 192000 ? rate : null;
}
