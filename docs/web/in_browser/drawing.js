/** What is drawn on canvases: pictures, heat maps, picks and patches. */

const CROP = 48; // pixels of the picture around a patch that are shown
const HEAT = [255, 90, 0]; // the color of what is suspicious
const STRONGEST = 0.75; // share of that color
const NUMBERED = 9; // picks

/** An ImageData of RGB pixels. */
function imageData(pixels, side) {
  const image = new ImageData(side, side);
  for (let from = 0, to = 0; from < pixels.length; from += 3, to += 4) {
    image.data[to] = pixels[from];
    image.data[to + 1] = pixels[from + 1];
    image.data[to + 2] = pixels[from + 2];
    image.data[to + 3] = 255;
  }
  return image;
}

/** Draw a picture of shape (side, side, 3). */
export function drawPixels(canvas, pixels, side) {
  canvas.getContext("2d").putImageData(imageData(pixels, side), 0, 0);
}

/**
 * Draw a picture tinted by its anomaly map: not where the map is below 0.6 of `scale`, most from
 * 1.2 of it on.
 */
export function drawHeat(canvas, pixels, map, scale) {
  const side = canvas.width;
  const image = imageData(pixels, side);
  map.forEach((value, at) => {
    const share = STRONGEST * Math.min(1, Math.max(0, (value / scale - 0.6) / 0.6));
    for (let channel = 0; channel < 3; channel++) {
      const place = 4 * at + channel;
      image.data[place] = (1 - share) * image.data[place] + share * HEAT[channel];
    }
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/**
 * Draw which patches were chosen: the later, the lighter.
 *
 * @param {{patch: number, order: number}[]} picks places on the grid, and the order of the choice
 * @param {number} grid patches along a side
 * @param {number} count of all picks
 */
export function drawPicks(canvas, picks, grid, count) {
  const context = canvas.getContext("2d");
  const step = canvas.width / grid;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.font = "bold 26px sans-serif";
  for (const { patch, order } of [...picks].reverse()) {
    const x = ((patch % grid) + 0.5) * step;
    const y = (Math.floor(patch / grid) + 0.5) * step;
    context.fillStyle = `hsl(28 100% ${45 + (45 * order) / count}%)`;
    context.beginPath();
    context.arc(x, y, order < NUMBERED ? 18 : 6, 0, 2 * Math.PI);
    context.fill();
    if (order >= NUMBERED) continue;
    context.fillStyle = "black";
    context.fillText(order + 1, x, y);
  }
}

/** Draw the surroundings of a patch, enlarged, with its own square framed. */
export function drawCrop(canvas, pixels, patch, grid, side) {
  const step = side / grid;
  const [column, row] = [patch % grid, Math.floor(patch / grid)];
  const left = (column + 0.5) * step - CROP / 2;
  const top = (row + 0.5) * step - CROP / 2;
  const whole = new OffscreenCanvas(side, side);
  whole.getContext("2d").putImageData(imageData(pixels, side), 0, 0);
  const context = canvas.getContext("2d");
  const zoom = canvas.width / CROP;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  context.drawImage(whole, left, top, CROP, CROP, 0, 0, canvas.width, canvas.height);
  context.strokeStyle = `rgb(${HEAT})`;
  context.lineWidth = 2;
  const edge = ((CROP - step) / 2) * zoom;
  context.strokeRect(edge, edge, step * zoom, step * zoom);
}
