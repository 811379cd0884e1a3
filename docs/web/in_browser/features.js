/**
 * The network: from pixels to patch vectors.
 *
 * ONNX Runtime runs the graph that `patchcore_helpers.core.onnx_graph.build_features_graph` has
 * made; normalization and aggregation are in it. The Python twin is
 * `patchcore_helpers.core.extractor.extract`.
 */

import { SIDE } from "./pictures.js";

const MOST_THREADS = 4;

/**
 * Start ONNX Runtime on the processor, with as many threads as the page may have.
 *
 * @param {object} ort the module of ONNX Runtime
 * @param {Uint8Array} wasm its compiled part
 * @param {Uint8Array} graph from `build_features_graph`
 * @returns {Promise<object>} a session
 */
export async function startNetwork(ort, wasm, graph) {
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = threadCount();
  return ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
}

/** A page may have threads where its server isolates it from other pages; else one. */
export function threadCount() {
  return self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
}

/**
 * The patch vectors of one image.
 *
 * @param {object} ort the module of ONNX Runtime
 * @param {object} session from `startNetwork`
 * @param {Uint8Array} pixels RGB, shape (256, 256, 3)
 * @returns {Promise<{vectors: Float32Array, rows: number, columns: number, channels: number}>}
 *   vectors of shape (rows, columns, channels)
 */
export async function extract(ort, session, pixels) {
  const input = new ort.Tensor("uint8", pixels, [1, SIDE, SIDE, 3]);
  const { patches } = await session.run({ pixels: input });
  const [, rows, columns, channels] = patches.dims;
  return { vectors: Float32Array.from(patches.data), rows, columns, channels };
}
