/**
 * From the file of a picture to the pixels that the network sees.
 *
 * The Python twins are `patchcore_helpers.data.images.read_image` and
 * `patchcore_helpers.core.extractor.resized`.
 */

import { resizedHeight, resizedWidth, resizingWeights } from "./resize.js";

export const SIDE = 256; // pixels of the square that the network sees
const MOST_PIXELS = 89_478_485; // as many as Pillow opens
const STRIP = 2 ** 22; // pixels that are taken from a picture at a time; phones allow 16 million

/**
 * Read a picture, upright, at the size that the network sees.
 *
 * @param {File} file
 * @returns {Promise<Uint8Array>} RGB, shape (256, 256, 3)
 * @throws {Error} one line that names the file and says what to do
 */
export async function readPicture(file) {
  const bitmap = await decode(file);
  try {
    if (bitmap.width * bitmap.height > MOST_PIXELS) {
      const size = `${bitmap.width} x ${bitmap.height} pixels`;
      throw new Error(`${file.name}: too large (${size}); make it smaller`);
    }
    const narrow = narrowed(bitmap, file.name);
    return resizedHeight(narrow, SIDE, resizingWeights(bitmap.height, SIDE));
  } finally {
    bitmap.close();
  }
}

/** The values as they are in the file: no color management, no multiplication by the opacity. */
async function decode(file) {
  const asStored = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  try {
    return await createImageBitmap(file, asStored); // it turns a picture by its EXIF entry
  } catch {
    const hint = "a browser reads PNG, JPEG, WebP, GIF and BMP";
    throw new Error(`${file.name}: cannot be read as a picture; replace or remove it (${hint})`);
  }
}

/** A picture 256 pixels wide, taken from the bitmap strip by strip. */
function narrowed(bitmap, name) {
  const { width, height } = bitmap;
  const columns = resizingWeights(width, SIDE);
  const stripHeight = Math.min(height, Math.max(1, Math.floor(STRIP / width)));
  const canvas = new OffscreenCanvas(width, stripHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const narrow = new Uint8Array(height * SIDE * 3);
  for (let top = 0; top < height; top += stripHeight) {
    const rows = Math.min(stripHeight, height - top);
    context.clearRect(0, 0, width, stripHeight);
    context.drawImage(bitmap, 0, -top);
    const { data } = context.getImageData(0, 0, width, rows);
    refuseTransparency(data, name);
    narrow.set(resizedWidth(data, width, rows, columns), top * SIDE * 3);
  }
  return narrow;
}

/** A canvas does not keep the colors of transparent pixels, so their scores would be others. */
function refuseTransparency(rgba, name) {
  for (let at = 3; at < rgba.length; at += 4) {
    if (rgba[at] !== 255) {
      throw new Error(`${name}: has transparent pixels; save it without transparency`);
    }
  }
}
