/**
 * Resizing as Pillow does it, to the last bit: bilinear with antialiasing, the width first, then
 * the height. A browser's own resizing gives other pixels, and so other scores.
 *
 * The Python twin is `patchcore_helpers.core.extractor.resized`.
 */

const BITS = 22; // of a weight behind the binary point
const HALF = 1 << (BITS - 1); // rounds to the nearest whole number
const TRIANGLE = (x) => Math.max(0, 1 - Math.abs(x)); // the bilinear filter

/**
 * For each pixel of a resized line: which pixels of the line it is made from, and their weights.
 *
 * @param {number} length pixels of the line
 * @param {number} newLength pixels of the resized line
 * @returns {{start: number, weights: Int32Array}[]} whole numbers; each pixel's weights sum up to
 *   2 ** 22, but for rounding
 */
export function resizingWeights(length, newLength) {
  const scale = length / newLength;
  const reach = Math.max(1, scale); // of the triangle, in pixels of the line
  const lines = [];
  for (let pixel = 0; pixel < newLength; pixel++) {
    const center = (pixel + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - reach + 0.5));
    const stop = Math.min(length, Math.trunc(center + reach + 0.5));
    const shares = [];
    for (let at = start; at < stop; at++) shares.push(TRIANGLE((at - center + 0.5) * (1 / reach)));
    const sum = shares.reduce((total, share) => total + share, 0);
    const weights = shares.map((share) => Math.trunc(0.5 + (share / sum) * (1 << BITS)));
    lines.push({ start, weights: Int32Array.from(weights) });
  }
  return lines;
}

/**
 * Rows of pixels at another width. The fourth value of each pixel, its opacity, is left behind.
 *
 * @param {Uint8ClampedArray} rgba shape (height, width, 4)
 * @param {number} width
 * @param {number} height
 * @param {{start: number, weights: Int32Array}[]} columns from `resizingWeights`
 * @returns {Uint8Array} shape (height, columns.length, 3)
 */
export function resizedWidth(rgba, width, height, columns) {
  const resized = new Uint8Array(height * columns.length * 3);
  let next = 0;
  for (let row = 0; row < height; row++) {
    for (const { start, weights } of columns) {
      let [red, green, blue] = [HALF, HALF, HALF];
      let from = (row * width + start) * 4;
      for (const weight of weights) {
        red += rgba[from] * weight;
        green += rgba[from + 1] * weight;
        blue += rgba[from + 2] * weight;
        from += 4;
      }
      resized[next++] = red >> BITS;
      resized[next++] = green >> BITS;
      resized[next++] = blue >> BITS;
    }
  }
  return resized;
}

/**
 * An image at another height.
 *
 * @param {Uint8Array} rgb shape (height, width, 3)
 * @param {number} width
 * @param {{start: number, weights: Int32Array}[]} rows from `resizingWeights`
 * @returns {Uint8Array} shape (rows.length, width, 3)
 */
export function resizedHeight(rgb, width, rows) {
  const stride = width * 3;
  const resized = new Uint8Array(rows.length * stride);
  let next = 0;
  for (const { start, weights } of rows) {
    for (let place = 0; place < stride; place++) {
      let value = HALF;
      let from = start * stride + place;
      for (const weight of weights) {
        value += rgb[from] * weight;
        from += stride;
      }
      resized[next++] = value >> BITS;
    }
  }
  return resized;
}
