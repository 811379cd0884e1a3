/**
 * Memory banks as safetensors files: eight bytes with the length of a header, the header in JSON,
 * then the numbers. `patchcore-course predict` reads what is written here, and the other way round.
 *
 * The Python twin is `patchcore_helpers.core.bank_file`, which says what the texts mean. A file is
 * checked before any of it is used; nothing in it can name a file to open or code to run.
 */

import { sha256 } from "./sha256.js";

const LARGEST_HEADER = 1e6; // bytes
const LARGEST_FILE = 2 ** 28; // bytes
const NUMBER_BYTES = 4;
// A bank is only of use here if it was made as this page makes one.
const OF_THE_BANK = ["metric", "index", "n_neighbors", "sampler"];
const OF_THE_DETECTOR = [
  "backbone",
  "layers",
  "image_size",
  "aggregation",
  "neighborhood",
  "image_score",
  "sigma",
  "weights_hash",
];

/**
 * Write a bank file.
 *
 * @param {object} template the texts of a bank that Python has saved: `format`, `bank`, `detector`
 * @param {object} bank
 * @param {Float32Array} bank.vectors the rows, shape (rows, channels)
 * @param {number} bank.channels
 * @param {number} bank.ratio share of the patches that was kept
 * @param {number} bank.nVectors how many patches there were
 * @param {number|null} bank.threshold
 * @returns {Uint8Array} the content of the file
 */
export function writeBank(template, { vectors, channels, ratio, nVectors, threshold }) {
  const record = JSON.parse(template.bank);
  record.settings.coreset_ratio = ratio;
  record.n_vectors = nVectors;
  const detector = { ...JSON.parse(template.detector), threshold };
  const texts = [JSON.stringify(record), JSON.stringify(detector)];
  const numbers = littleEndian(vectors);
  const header = {
    __metadata__: {
      format: template.format,
      bank: texts[0],
      detector: texts[1],
      digest: digestOf([numbers], texts),
    },
    vectors: {
      dtype: "F32",
      shape: [vectors.length / channels, channels],
      data_offsets: [0, numbers.length],
    },
  };
  return joined([withLength(JSON.stringify(header)), numbers]);
}

/**
 * Read a bank file.
 *
 * @param {Uint8Array} content
 * @param {string} name of the file, for messages
 * @param {object} template as for `writeBank`
 * @returns {object} vectors, channels, ratio, nVectors and threshold, as `writeBank` takes them
 * @throws {Error} one line, if the file is damaged, no bank, or one that was made otherwise
 */
export function readBank(content, name, template) {
  try {
    return checkedBank(content, template);
  } catch (error) {
    throw new Error(`${name}: not a memory bank for this page (${error.message})`);
  }
}

function checkedBank(content, template) {
  const { header, numbers } = split(content);
  const { __metadata__: texts = {}, ...arrays } = header;
  if (texts.format !== template.format) throw new Error("its metadata do not say that it is one");
  const { vectors: entry, ...others } = arrays;
  if (!entry || Object.keys(others).length) throw new Error("it does not hold vectors alone");
  const [rows, channels] = checkedShape(entry, numbers);
  const digest = digestOf([numbers], [texts.bank, texts.detector]);
  if (digest !== texts.digest) throw new Error("it is damaged: its checksum is another");
  const [record, detector] = [JSON.parse(texts.bank), JSON.parse(texts.detector || "null")];
  if (!detector) throw new Error("it holds no detector");
  const expected = [JSON.parse(template.bank).settings, JSON.parse(template.detector)];
  compare(record.settings, expected[0], OF_THE_BANK);
  compare(detector, expected[1], OF_THE_DETECTOR);
  const vectors = fromLittleEndian(numbers);
  if (!vectors.every(Number.isFinite)) throw new Error("it holds numbers that are not finite");
  const { n_vectors: nVectors, settings } = record;
  if (!Number.isSafeInteger(nVectors) || nVectors < rows) throw new Error("n_vectors is wrong");
  return { vectors, channels, ratio: settings.coreset_ratio, nVectors, threshold: detector.threshold };
}

/** The header and the numbers of a file, whose sizes are checked before either is read. */
function split(content) {
  if (content.length < 8 || content.length > LARGEST_FILE) throw new Error("its size");
  const view = new DataView(content.buffer, content.byteOffset);
  const length = Number(view.getBigUint64(0, true));
  if (length > LARGEST_HEADER || 8 + length > content.length) throw new Error("its header's size");
  const text = new TextDecoder("utf-8", { fatal: true }).decode(content.subarray(8, 8 + length));
  return { header: JSON.parse(text), numbers: content.slice(8 + length) };
}

function checkedShape({ dtype, shape, data_offsets: offsets }, numbers) {
  const isMatrix = dtype === "F32" && Array.isArray(shape) && shape.length === 2;
  if (!isMatrix || !shape.every((side) => Number.isSafeInteger(side) && side > 0)) {
    throw new Error("its vectors are no matrix of 32-bit numbers");
  }
  const bytes = shape[0] * shape[1] * NUMBER_BYTES;
  if (offsets?.[0] !== 0 || offsets[1] !== bytes || numbers.length !== bytes) {
    throw new Error("its vectors do not fill it");
  }
  return shape;
}

function compare(settings, expected, names) {
  for (const name of names) {
    const [here, there] = [expected[name], settings?.[name]].map((value) => JSON.stringify(value));
    if (here !== there) throw new Error(`${name} is ${there}, and ${here} here`);
  }
}

/** SHA-256 over arrays and texts, each preceded by its length: `sha256` of `files.py`. */
function digestOf(arrays, texts) {
  const encoder = new TextEncoder();
  const parts = [...arrays, ...texts.map((text) => encoder.encode(text))];
  return sha256(joined(parts.flatMap((part) => [encoder.encode(`${part.length}:`), part])));
}

function withLength(header) {
  const bytes = new TextEncoder().encode(header);
  const filled = new Uint8Array(Math.ceil(bytes.length / 8) * 8).fill(0x20); // with spaces
  filled.set(bytes);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(filled.length), true);
  return joined([length, filled]);
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function littleEndian(numbers) {
  const view = new DataView(new ArrayBuffer(numbers.length * NUMBER_BYTES));
  numbers.forEach((number, at) => view.setFloat32(at * NUMBER_BYTES, number, true));
  return new Uint8Array(view.buffer);
}

function fromLittleEndian(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.length / NUMBER_BYTES }, (_, at) =>
    view.getFloat32(at * NUMBER_BYTES, true),
  );
}
