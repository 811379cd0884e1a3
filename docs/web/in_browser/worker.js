/**
 * What computes, beside the page: it reads pictures, learns and judges, so that the page stays
 * free to answer. Calls are answered one after the other.
 */

import { MOST_ROWS, RATIOS, imageScore, keptCount, nestedNearest } from "./bank.js";
import { readBank, writeBank } from "./bank_file.js";
import { kCenterGreedy } from "./coreset.js";
import { extract, startNetwork, threadCount } from "./features.js";
import { readPicture } from "./pictures.js";

const PICKS_AT_A_TIME = 16; // are reported to the page

let ort = null; // ONNX Runtime
let session = null;
let template = null; // the texts of a bank file
let bank = null; // { vectors, channels, nVectors, ratios, sizes }
const known = new Map(); // patch vectors of good pictures, by the picture's number

const calls = { start, read, learn, judge, save, open };
let last = Promise.resolve();
self.onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};

async function answer({ id, call, given }) {
  const report = (progress) => self.postMessage({ id, progress });
  try {
    const result = await calls[call](given, report);
    self.postMessage({ id, result });
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
}

/** Start the network from the parts of the page, which are compressed and written as text. */
async function start({ runtime, wasm, graph, texts }) {
  template = texts;
  const source = new Blob([runtime], { type: "text/javascript" });
  ort = await import(URL.createObjectURL(source));
  session = await startNetwork(ort, await unpacked(wasm), await unpacked(graph));
  return { threads: threadCount() };
}

/** The bytes that were compressed by gzip and written in base 64. */
async function unpacked(text) {
  const packed = await fetch(`data:application/gzip;base64,${text}`);
  const stream = packed.body.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function read({ file }) {
  return readPicture(file);
}

/** Fill the memory bank from pictures, and score those that are held out at every size of it. */
async function learn({ learned, heldOut }, report) {
  const pictures = [...learned, ...heldOut];
  for (const [done, picture] of pictures.entries()) {
    report({ pictures: done, of: pictures.length });
    if (!known.has(picture.number)) known.set(picture.number, await vectorsOf(picture.pixels));
  }
  for (const number of known.keys()) {
    if (!pictures.some((picture) => picture.number === number)) known.delete(number);
  }
  const { vectors, channels, grid } = stacked(learned.map(({ number }) => known.get(number)));
  const nVectors = vectors.length / channels;
  const ratios = RATIOS.filter((ratio) => keptCount(ratio, nVectors) <= MOST_ROWS);
  const sizes = ratios.map((ratio) => keptCount(ratio, nVectors));
  const { indices, radii } = choose(vectors, channels, sizes.at(-1), report);
  const kept = new Float32Array(indices.length * channels);
  indices.forEach((index, row) => {
    kept.set(vectors.subarray(index * channels, (index + 1) * channels), row * channels);
  });
  bank = { vectors: kept, channels, nVectors, ratios, sizes };
  const heldOutScores = heldOut.map(({ number }) => scoresBySize(known.get(number).vectors));
  return { indices, radii, grid, ratios, sizes, nVectors, heldOutScores };
}

async function vectorsOf(pixels) {
  return extract(ort, session, pixels);
}

/** The patch vectors of several pictures, one below the other. */
function stacked(parts) {
  const [{ channels, rows: grid }] = parts;
  const vectors = new Float32Array(parts.length * parts[0].vectors.length);
  parts.forEach((part, at) => vectors.set(part.vectors, at * part.vectors.length));
  return { vectors, channels, grid };
}

function choose(vectors, channels, count, report) {
  const search = kCenterGreedy(vectors, channels, count);
  let step = search.next();
  while (!step.done) {
    if (step.value % PICKS_AT_A_TIME === 0) report({ picks: step.value, of: count });
    step = search.next();
  }
  return step.value;
}

/** Image scores at every size of the bank. */
function scoresBySize(vectors) {
  const n = vectors.length / bank.channels;
  const { distances } = nestedNearest(vectors, bank.vectors, bank.channels, bank.sizes);
  return bank.sizes.map((_, step) => imageScore(distances.subarray(step * n, (step + 1) * n)));
}

/** Patch scores and nearest rows of a picture, at every size of the bank. */
async function judge({ pixels }) {
  const { vectors, rows: grid } = await vectorsOf(pixels);
  return { grid, ...nestedNearest(vectors, bank.vectors, bank.channels, bank.sizes) };
}

/** A bank file with the rows of one position of the slider. */
function save({ step, threshold }) {
  const { vectors, channels, nVectors, ratios, sizes } = bank;
  const kept = vectors.subarray(0, sizes[step] * channels);
  return writeBank(template, { vectors: kept, channels, ratio: ratios[step], nVectors, threshold });
}

/** Take the bank of a file. */
function open({ content, name }) {
  const { vectors, channels, ratio, nVectors, threshold } = readBank(content, name, template);
  const rows = vectors.length / channels;
  const ratios = [...RATIOS.filter((share) => keptCount(share, nVectors) < rows), ratio];
  const sizes = ratios.map((share) => Math.min(rows, keptCount(share, nVectors)));
  sizes[sizes.length - 1] = rows;
  bank = { vectors, channels, nVectors, ratios, sizes };
  return { ratios, sizes, nVectors, threshold };
}
