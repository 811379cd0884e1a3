/**
 * From patch scores to an anomaly map: resized bilinearly, then smoothed by a Gaussian.
 *
 * Both act on rows and columns separately, so for one axis they are one matrix. The Python twin is
 * `patchcore_helpers.core.smoothing`.
 */

const TRUNCATE = 4; // standard deviations after which the Gaussian is cut off
export const SIGMA = 4; // pixels

/**
 * The matrix of one axis, from n numbers to `length` pixels.
 *
 * @param {number} n
 * @param {number} length
 * @param {number} sigma standard deviation of the Gaussian, in pixels
 * @returns {Float64Array} shape (length, n)
 */
export function smoothingMatrix(n, length, sigma) {
  const gaussian = gaussianWeights(sigma);
  const radius = (gaussian.length - 1) / 2;
  const matrix = new Float64Array(length * n);
  for (let pixel = 0; pixel < length; pixel++) {
    gaussian.forEach((weight, shift) => {
      const seen = mirrored(pixel + shift - radius, length);
      const place = Math.min(Math.max(((seen + 0.5) * n) / length - 0.5, 0), n - 1);
      const left = Math.floor(place);
      const right = Math.min(left + 1, n - 1);
      matrix[pixel * n + left] += weight * (1 - (place - left));
      matrix[pixel * n + right] += weight * (place - left);
    });
  }
  return matrix;
}

function gaussianWeights(sigma) {
  const radius = Math.trunc(TRUNCATE * sigma + 0.5);
  const weights = [];
  for (let at = -radius; at <= radius; at++) weights.push(Math.exp(-0.5 * (at / sigma) ** 2));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

/** A position beyond a border, brought back inside by mirroring at the border. */
function mirrored(position, length) {
  const within = (position + 2 * length) % (2 * length);
  return within < length ? within : 2 * length - 1 - within;
}

/**
 * The anomaly map of one image.
 *
 * @param {Float32Array} patchScores shape (grid, grid)
 * @param {number} grid patches along a side
 * @param {Float64Array} matrix from `smoothingMatrix`, shape (side, grid)
 * @returns {Float32Array} shape (side, side)
 */
export function anomalyMap(patchScores, grid, matrix) {
  const side = matrix.length / grid;
  const wide = new Float64Array(grid * side); // the columns are enlarged, not yet the rows
  for (let row = 0; row < grid; row++) {
    for (let x = 0; x < side; x++) {
      let sum = 0;
      for (let at = 0; at < grid; at++) sum += matrix[x * grid + at] * patchScores[row * grid + at];
      wide[row * side + x] = sum;
    }
  }
  const map = new Float32Array(side * side);
  for (let y = 0; y < side; y++) {
    for (let row = 0; row < grid; row++) {
      const weight = matrix[y * grid + row];
      if (weight === 0) continue;
      for (let x = 0; x < side; x++) map[y * side + x] += weight * wide[row * side + x];
    }
  }
  return map;
}
