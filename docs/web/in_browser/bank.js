/**
 * The memory bank: rows that are kept, and how far new patches are from them.
 *
 * The Python twin is `patchcore_helpers.core.bank.MemoryBank`.
 */

import { squaredDistance } from "./coreset.js";

// Shares of all patches that the slider offers; rows beyond MOST_ROWS are not kept.
export const RATIOS = [0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1];
export const MOST_ROWS = 2048;

/**
 * How many of n rows a ratio keeps: at least one, rounded as Python rounds.
 *
 * @param {number} ratio
 * @param {number} n
 * @returns {number}
 */
export function keptCount(ratio, n) {
  const exact = ratio * n;
  const below = Math.floor(exact);
  const isTie = exact - below === 0.5;
  const rounded = isTie ? below + (below % 2) : Math.round(exact);
  return Math.max(1, rounded);
}

/**
 * Distance from every patch to its nearest row among the first s of the bank, for each s in `sizes`.
 *
 * A greedy coreset is nested, so the first s rows are the bank of size s: one pass answers for all
 * positions of the slider. The Python twin is `MemoryBank.nested_distances`.
 *
 * @param {Float32Array} vectors patch vectors, shape (n, channels)
 * @param {Float32Array} bank rows in the order of the choice, shape (rows, channels)
 * @param {number} channels
 * @param {number[]} sizes ascending, at most the rows of the bank
 * @returns {{distances: Float32Array, rows: Int32Array}} each of shape (sizes.length, n)
 */
export function nestedNearest(vectors, bank, channels, sizes) {
  const n = vectors.length / channels;
  const distances = new Float32Array(sizes.length * n);
  const rows = new Int32Array(sizes.length * n);
  for (let patch = 0; patch < n; patch++) {
    let smallest = Infinity;
    let nearest = 0;
    let row = 0;
    sizes.forEach((size, step) => {
      for (; row < size; row++) {
        const from = row * channels;
        const squared = squaredDistance(vectors, patch * channels, bank, from, channels, smallest);
        if (squared < smallest) {
          smallest = squared;
          nearest = row;
        }
      }
      distances[step * n + patch] = Math.sqrt(smallest);
      rows[step * n + patch] = nearest;
    });
  }
  return { distances, rows };
}

/**
 * The score of an image: that of its most anomalous patch.
 *
 * @param {Float32Array} patchScores shape (n,)
 * @returns {number}
 */
export function imageScore(patchScores) {
  return patchScores.reduce((highest, score) => Math.max(highest, score), 0);
}

/**
 * A threshold from the scores of normal images that are not in the memory bank: the
 * ceil((n + 1)(1 - rate))-th smallest of n scores.
 *
 * A new normal image, exchangeable with those, exceeds it with a probability of at most the rate.
 * The Python twin is `patchcore_helpers.core.threshold.conformal_threshold`.
 *
 * @param {number[]} scores at least 1 / rate - 1 of them
 * @param {number} rate above 0, below 1
 * @returns {number}
 */
export function conformalThreshold(scores, rate) {
  const ascending = [...scores].sort((one, other) => one - other);
  const rank = Math.ceil((scores.length + 1) * (1 - rate) - 1e-9);
  return ascending[rank - 1];
}
