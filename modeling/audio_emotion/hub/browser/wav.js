// SPDX-License-Identifier: Apache-2.0
// PCM samples of a WAV file, exactly as the Python package reads them; a browser's own decoder resamples them.

const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;

/**
 * Decode a WAV file.
 * @param {ArrayBuffer} buffer content of the file
 * @returns {{rate: number, channels: Float32Array[]} | null} null where it is no WAV file of PCM or float samples
 */
export function decodeWav(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 12 || name(view, 0) !== "RIFF" || name(view, 8) !== "WAVE") return null;
  let format = null;
  for (let at = 12; at + 8 <= buffer.byteLength; ) {
    const kind = name(view, at);
    const size = view.getUint32(at + 4, true);
    const start = at + 8;
    if (kind === "fmt " && size >= 16 && start + size <= buffer.byteLength) {
      format = {
        code: view.getUint16(start, true),
        channels: view.getUint16(start + 2, true),
        rate: view.getUint32(start + 4, true),
        bits: view.getUint16(start + 14, true),
      };
      if (format.code === EXTENSIBLE && size >= 26) format.code = view.getUint16(start + 24, true);
    } else if (kind === "data" && format) {
      // A recorder that streams writes 0 or the largest number as the size.
      const isUnknown = size === 0 || size === 0xffffffff;
      const end = isUnknown ? buffer.byteLength : Math.min(start + size, buffer.byteLength);
      return decodeSamples(view, start, end, format);
    }
    at = start + size + (size % 2);
  }
  return null;
}

function name(view, at) {
  return String.fromCharCode(...new Uint8Array(view.buffer, at, 4));
}

function decodeSamples(view, start, end, { code, channels, rate, bits }) {
  const read = reader(view, code, bits);
  if (!read || channels < 1 || rate < 1) return null;
  const bytes = bits / 8;
  const frames = Math.floor((end - start) / (bytes * channels));
  const decoded = Array.from({ length: channels }, () => new Float32Array(frames));
  for (let frame = 0, at = start; frame < frames; frame++) {
    for (let channel = 0; channel < channels; channel++, at += bytes) decoded[channel][frame] = read(at);
  }
  return { rate, channels: decoded };
}

function reader(view, code, bits) {
  if (code === FLOAT && bits === 32) return (at) => view.getFloat32(at, true);
  if (code === FLOAT && bits === 64) return (at) => view.getFloat64(at, true);
  if (code !== PCM) return null;
  if (bits === 8) return (at) => (view.getUint8(at) - 128) / 128;
  if (bits === 16) return (at) => view.getInt16(at, true) / 2 ** 15;
  if (bits === 24) return (at) => (view.getUint16(at, true) + view.getInt8(at + 2) * 2 ** 16) / 2 ** 23;
  if (bits === 32) return (at) => view.getInt32(at, true) / 2 ** 31;
  return null;
}
