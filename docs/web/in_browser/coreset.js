/**
 * Which patches the memory bank keeps: greedy k-center, which always takes the patch that is
 * farthest from everything taken before.
 *
 * The Python twins are `k_center_greedy_reference` and `k_center_greedy` of
 * `patchcore_helpers.core.coreset`. The picks are theirs. Most comparisons are left out here too,
 * for two reasons: by the triangle inequality a new center cannot be the nearest one of a patch
 * whose own center is twice as far from it as the patch is; and a sum of squares is not finished
 * once it is too large.
 */

const TAKEN = -1; // stands for a center's distance: below all distances, so it is never the farthest
const ROUNDING = 1 + 1e-9;
const PIECE = 8; // numbers that are added up before a sum is looked at

/**
 * Choose rows by greedy k-center.
 *
 * Every prefix is a coreset too: the first j entries are what a run for j rows would have chosen.
 *
 * @param {Float32Array} vectors patch vectors, shape (n, channels)
 * @param {number} channels
 * @param {number} nCenters how many rows to choose, from 1 to n
 * @param {number} first the row to begin with
 * @yields {number} how many rows have been chosen, after each
 * @returns {{indices: number[], radii: number[]}} the rows in the order of the choice, and after
 *   each the largest distance of any patch to its nearest center
 */
export function* kCenterGreedy(vectors, channels, nCenters, first = 0) {
  const n = vectors.length / channels;
  const nearest = new Float64Array(n).fill(Infinity); // squared distance to the nearest center
  const owner = new Int32Array(n); // which center that is: its place in `indices`
  const indices = [];
  const radii = [];
  let farthest = first;
  while (indices.length < nCenters) {
    indices.push(farthest);
    const toCenters = indices.map((center) => distance(vectors, center, farthest, channels));
    nearest[farthest] = TAKEN;
    const center = farthest;
    let radius = TAKEN;
    for (let row = 0; row < n; row++) {
      const isOutOfReach = toCenters[owner[row]] > 4 * nearest[row] * ROUNDING;
      if (!isOutOfReach) {
        const squared = distance(vectors, row, center, channels, nearest[row]);
        if (squared < nearest[row]) {
          nearest[row] = squared;
          owner[row] = indices.length - 1;
        }
      }
      if (nearest[row] > radius) {
        radius = nearest[row];
        farthest = row;
      }
    }
    radii.push(Math.sqrt(Math.max(0, radius)));
    yield indices.length;
  }
  return { indices, radii };
}

/** Squared distance between two rows of one matrix; anything at or above `limit` where it is. */
function distance(vectors, one, other, channels, limit = Infinity) {
  return squaredDistance(vectors, one * channels, vectors, other * channels, channels, limit);
}

/**
 * Squared distance between two vectors.
 *
 * @param {Float32Array} a
 * @param {number} i where the first vector begins in `a`
 * @param {Float32Array} b
 * @param {number} j where the second vector begins in `b`
 * @param {number} channels numbers in a vector
 * @param {number} limit a distance of which only matters that it is not below this may stay
 *   unfinished
 * @returns {number}
 */
export function squaredDistance(a, i, b, j, channels, limit = Infinity) {
  let sum = 0;
  for (let start = 0; start < channels; start += PIECE) {
    const stop = Math.min(start + PIECE, channels);
    for (let at = start; at < stop; at++) {
      const difference = a[i + at] - b[j + at];
      sum += difference * difference;
    }
    if (sum >= limit) return sum;
  }
  return sum;
}
