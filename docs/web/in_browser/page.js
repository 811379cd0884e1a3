/**
 * The page: takes pictures, shows what the worker answers. Nothing is computed here but maps, which
 * are small; and nothing is sent anywhere.
 */

import { conformalThreshold, imageScore } from "./bank.js";
import { SIGMA, anomalyMap, smoothingMatrix } from "./map.js";
import { SIDE } from "./pictures.js";
import { showCamera } from "./camera.js";
import { startWorker } from "./calls.js";
import { drawCrop, drawHeat, drawPicks, drawPixels } from "./drawing.js";

const USUAL_RATIO = 0.01;
const USUAL_RATE = 0.05; // of false alarms, where there are enough held-out pictures
const element = (name) => document.getElementById(`bench-${name}`);
const bench = document.getElementById("bench");
const folder = new URL(".", document.currentScript.src);

let call = null; // asks the worker; starts it first
let nextNumber = 0;
let good = []; // { number, name, pixels, item, canvas, isHeldOut }
let judged = []; // { name, pixels, item, canvases, words, found }
let learned = null; // what the worker knows of the memory bank, and which pictures it is from
let step = 0; // the position of the slider of the ratio
let isOwnThreshold = false; // whether a person has moved it
let threshold = null;
let isBusy = false;

// --- what is said ---

function say(text) {
  element("status").textContent = text;
}

function complain(lines) {
  element("problems").textContent = lines.join("\n");
  element("problems").hidden = lines.length === 0;
}

function showProgress(share) {
  element("progress").hidden = share === null;
  element("progress").value = share ?? 0;
}

/** Do one thing after the other; what goes wrong is told in one line, and the rest stays. */
async function work(task) {
  if (isBusy) return complain(["Still at work: wait until this is finished, then do it again."]);
  isBusy = true;
  complain([]);
  refresh();
  try {
    call ??= await startWorker(folder, say);
    await task();
  } catch (error) {
    complain([error.message]);
    say("That did not work.");
  } finally {
    isBusy = false;
    showProgress(null);
    refresh();
  }
}

function refresh() {
  element("learn").disabled = isBusy || good.length === 0;
  element("forget").disabled = isBusy || good.length + judged.length === 0;
  element("save").disabled = isBusy || learned === null;
  bench.dataset.state = isBusy ? "busy" : "ready";
  element("held-out").max = Math.max(0, good.length - 1);
}

// --- good pictures ---

/** Read files one by one; those that cannot be read are told, and the others are taken. */
async function readAll(files, take) {
  const problems = [];
  for (const [done, file] of files.entries()) {
    say(`Reading picture ${done + 1} of ${files.length}.`);
    showProgress(done / files.length);
    try {
      await take({ name: file.name, pixels: await call("read", { file }) });
    } catch (error) {
      problems.push(error.message);
    }
  }
  complain(problems);
  return files.length - problems.length;
}

function addGood(files) {
  return work(async () => {
    const count = await readAll(files, takeGood);
    element("held-out").value = Math.floor(good.length / 4);
    markHeldOut();
    say(`${count} of ${files.length} pictures read, ${good.length} good ones in all. Now learn.`);
  });
}

function takeGood({ name, pixels }) {
  const item = document.createElement("li");
  const canvas = newCanvas(`Good picture ${name}`);
  const words = document.createElement("span");
  words.textContent = name;
  item.append(canvas, words);
  element("good").append(item);
  const picture = { number: nextNumber++, name, pixels, item, canvas, words };
  drawPixels(canvas, pixels, SIDE);
  good.push(picture);
}

function newCanvas(label) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

/** How many pictures are held out; at least one is left to learn from. */
function heldOutCount() {
  const wish = Math.trunc(Number(element("held-out").value)) || 0;
  return Math.max(0, Math.min(wish, good.length - 1));
}

/** Hold out pictures evenly from all of them. */
function markHeldOut() {
  const count = heldOutCount();
  const places = Array.from({ length: count }, (_, at) =>
    Math.floor(((at + 0.5) * good.length) / count),
  );
  for (const [place, picture] of good.entries()) {
    picture.isHeldOut = places.includes(place);
    picture.item.classList.toggle("is-held-out", picture.isHeldOut);
    picture.words.textContent = picture.isHeldOut ? `${picture.name}, held out` : picture.name;
  }
}

function forgetAll() {
  for (const { item } of [...good, ...judged]) item.remove();
  good = [];
  judged = [];
  closeLens();
  element("lens").hidden = true;
  element("learned").textContent = learned === null ? "" : "The memory bank is that of the pictures before.";
  say("All pictures are removed; the memory bank stays.");
  complain([]);
  refresh();
}

// --- learning ---

function learn() {
  return work(async () => {
    if (good.length === 0) throw new Error("No good pictures: give at least one, better ten.");
    element("held-out").value = heldOutCount();
    markHeldOut();
    const sources = good.filter((picture) => !picture.isHeldOut);
    const heldOut = good.filter((picture) => picture.isHeldOut);
    const began = performance.now();
    const of = (pictures) => pictures.map(({ number, pixels }) => ({ number, pixels }));
    const answer = await call("learn", { learned: of(sources), heldOut: of(heldOut) }, tellLearning);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    learned = { ...answer, sources };
    isOwnThreshold = false;
    element("learned").textContent =
      `Learned from ${sources.length} pictures in ${seconds} seconds. Dots are the patches that ` +
      `the memory bank keeps of ${answer.nVectors}, the first nine numbered; the later a patch ` +
      "was chosen, the lighter its dot.";
    await useBank(Math.max(0, answer.ratios.indexOf(USUAL_RATIO)));
    say(`Learned from ${sources.length} pictures. Now drop others to judge.`);
  });
}

function tellLearning(progress) {
  if ("pictures" in progress) {
    say(`Looking at picture ${progress.pictures + 1} of ${progress.of}.`);
    showProgress((0.8 * progress.pictures) / progress.of);
  } else {
    say(`Choosing patch ${progress.picks} of ${progress.of}.`);
    showProgress(0.8 + (0.2 * progress.picks) / progress.of);
  }
}

/** Show the controls of a new bank, and judge again what is on the page. */
async function useBank(position) {
  step = position;
  const slider = element("ratio");
  slider.max = learned.ratios.length - 1;
  slider.value = step;
  element("controls").hidden = false;
  closeLens();
  for (const [done, picture] of judged.entries()) {
    say(`Judging picture ${done + 1} of ${judged.length}.`);
    picture.found = await call("judge", { pixels: picture.pixels });
    picture.drawnAs = null;
  }
  showPicks();
  show();
}

// --- judging ---

function addToJudge(files) {
  return work(async () => {
    if (learned === null) throw new Error("Nothing has been learned yet: learn good pictures first.");
    const count = await readAll(files, async (picture) => {
      const found = await call("judge", { pixels: picture.pixels });
      takeJudged({ ...picture, found });
    });
    say(`${count} of ${files.length} pictures judged.${alarmsInWords()}`);
    element("judge-title").scrollIntoView();
  });
}

function alarmsInWords() {
  if (threshold === null) return "";
  const alarms = judged.filter((picture) => imageScore(patchScores(picture)) > threshold).length;
  return ` Above the threshold: ${alarms} of ${judged.length}.`;
}

function takeJudged(picture) {
  const item = document.createElement("li");
  const canvases = [newCanvas(`Picture ${picture.name}`), newCanvas("Heat map")];
  const pair = document.createElement("div");
  pair.className = "bench-pair";
  pair.append(...canvases);
  const words = document.createElement("p");
  item.append(pair, words);
  element("results").prepend(item);
  drawPixels(canvases[0], picture.pixels, SIDE);
  const shown = { ...picture, item, canvases, words };
  judged.push(shown);
  listen(shown);
  element("lens").hidden = false; // from now on, so that nothing moves when a picture is pointed at
  show();
}

/** The patch scores of a judged picture at the present position of the ratio. */
function patchScores({ found }) {
  const n = found.grid ** 2;
  return found.distances.subarray(step * n, (step + 1) * n);
}

/** Draw everything as the sliders are now. */
function show() {
  if (!isOwnThreshold) threshold = heldOutThreshold();
  showControls();
  const scale = threshold ?? middle(judged.map((picture) => imageScore(patchScores(picture))));
  for (const picture of judged) showVerdict(picture);
  drawSoon(scale);
}

function heldOutThreshold() {
  const scores = (learned.heldOutScores ?? []).map((bySize) => bySize[step]);
  if (scores.length === 0) return learned.fileThreshold ?? null;
  return conformalThreshold(scores, promisedRate());
}

/** The smallest rate of false alarms that so many held-out pictures can promise, from 5 % on. */
function promisedRate() {
  return Math.max(USUAL_RATE, 1 / (learned.heldOutScores.length + 1));
}

function middle(numbers) {
  return [...numbers].sort((one, other) => one - other)[Math.floor(numbers.length / 2)] ?? 1;
}

function showControls() {
  const { ratios, sizes } = learned;
  const percent = Number((100 * ratios[step]).toPrecision(3));
  element("ratio-out").textContent = `${percent} %, ${sizes[step]} rows`;
  element("ratio").setAttribute("aria-valuetext", element("ratio-out").textContent);
  const slider = element("threshold");
  const highest = Math.max(0, ...judged.map((picture) => imageScore(patchScores(picture))));
  slider.max = (1.25 * Math.max(highest, threshold ?? 0, 0.1)).toFixed(2);
  slider.value = threshold ?? 0;
  element("threshold-out").textContent = threshold === null ? "none" : threshold.toFixed(2);
  slider.setAttribute("aria-valuetext", element("threshold-out").textContent);
  element("reset").disabled = !isOwnThreshold;
  element("promise").textContent = promise();
}

function promise() {
  if (isOwnThreshold) return "The threshold is where you have put it.";
  const count = (learned.heldOutScores ?? []).length;
  if (count > 0) {
    const rate = Math.round(100 * promisedRate());
    const more = count < 19 ? " For 5 in 100, hold out 19." : "";
    return (
      `The threshold comes from ${count} good pictures that were held out: of 100 further good ` +
      `pictures of this kind, at most ${rate} are expected above it.${more}`
    );
  }
  if (threshold !== null) return "The threshold is the one in the file.";
  return "No good picture was held out, so there is no threshold; move the slider to set one.";
}

function showVerdict(picture) {
  const score = imageScore(patchScores(picture));
  const isAlarm = threshold !== null && score > threshold;
  const verdict = threshold === null ? "" : isAlarm ? ", suspicious" : ", looks good";
  picture.words.textContent = `${picture.name}: score ${score.toFixed(3)}${verdict}`;
  picture.item.classList.toggle("is-alarm", isAlarm);
  picture.item.dataset.score = score;
  picture.canvases[1].setAttribute("aria-label", `Heat map of ${picture.words.textContent}`);
}

let matrix = null;
let drawing = 0; // the number of the latest request to draw

/** Draw the heat maps, a few at a time, so that the page stays free. */
function drawSoon(scale) {
  const request = ++drawing;
  const state = `${step} ${scale}`;
  const waiting = judged.filter((picture) => picture.drawnAs !== state).reverse();
  const drawSome = () => {
    const until = performance.now() + 20;
    while (request === drawing && waiting.length && performance.now() < until) {
      const picture = waiting.shift();
      const { grid } = picture.found;
      matrix ??= smoothingMatrix(grid, SIDE, SIGMA);
      const map = anomalyMap(patchScores(picture), grid, matrix);
      drawHeat(picture.canvases[1], picture.pixels, map, scale);
      picture.drawnAs = state;
    }
    if (request === drawing && waiting.length) requestAnimationFrame(drawSome);
  };
  requestAnimationFrame(drawSome);
}

/** Draw on the good pictures which of their patches the memory bank keeps, if it is from them. */
function showPicks() {
  for (const picture of good) drawPixels(picture.canvas, picture.pixels, SIDE);
  if (!learned.sources) return;
  const { indices, sizes, grid, sources } = learned;
  const perPicture = grid ** 2;
  for (const [at, picture] of sources.entries()) {
    const picks = [];
    indices.slice(0, sizes[step]).forEach((index, order) => {
      if (Math.floor(index / perPicture) === at) picks.push({ patch: index % perPicture, order });
    });
    drawPicks(picture.canvas, picks, grid, sizes[step]);
  }
}

// --- the nearest normal patch ---

function listen(picture) {
  for (const canvas of picture.canvases) {
    canvas.tabIndex = 0;
    canvas.addEventListener("pointermove", (event) => pointAt(picture, placeOf(canvas, event, picture)));
    canvas.addEventListener("pointerdown", (event) => pointAt(picture, placeOf(canvas, event, picture)));
    canvas.addEventListener("focus", () => pointAt(picture, picture.place ?? worstPlace(picture)));
    canvas.addEventListener("keydown", (event) => movePlace(picture, event));
  }
}

function placeOf(canvas, event, { found: { grid } }) {
  const box = canvas.getBoundingClientRect();
  const within = (share) => Math.min(grid - 1, Math.max(0, Math.floor(share * grid)));
  const column = within((event.clientX - box.left) / box.width);
  return within((event.clientY - box.top) / box.height) * grid + column;
}

function worstPlace(picture) {
  const scores = patchScores(picture);
  return scores.indexOf(imageScore(scores));
}

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function movePlace(picture, event) {
  const move = MOVES[event.key];
  if (!move) return;
  event.preventDefault();
  const { grid } = picture.found;
  const place = picture.place ?? worstPlace(picture);
  const within = (at) => Math.min(grid - 1, Math.max(0, at));
  const row = within(Math.floor(place / grid) + move[0]);
  pointAt(picture, row * grid + within((place % grid) + move[1]));
}

/** The nearest patches are those of another bank, or of pictures that are gone. */
function closeLens() {
  for (const name of ["lens-here", "lens-nearest"]) {
    const canvas = element(name);
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }
  element("lens-words").textContent = POINT;
}

const POINT = "Point at a picture, or tap it: that patch, beside the nearest normal one.";

function pointAt(picture, place) {
  picture.place = place;
  const { grid, rows } = picture.found;
  const distance = patchScores(picture)[place];
  const row = rows[step * grid ** 2 + place];
  drawCrop(element("lens-here"), picture.pixels, place, grid, SIDE);
  element("lens-normal").hidden = !learned.sources;
  let words = `Distance ${distance.toFixed(2)} to row ${row} of the memory bank`;
  if (learned.sources) {
    const source = learned.sources[Math.floor(learned.indices[row] / grid ** 2)];
    drawCrop(element("lens-nearest"), source.pixels, learned.indices[row] % grid ** 2, grid, SIDE);
    words += `, from ${source.name}`;
  }
  element("lens-words").textContent = `${words}.`;
}

// --- files and events ---

async function save() {
  await work(async () => {
    const content = await call("save", { step, threshold });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type: "application/octet-stream" }));
    link.download = "bank.safetensors";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    say(`Saved ${learned.sizes[step]} rows as bank.safetensors.`);
  });
}

function open([file]) {
  return work(async () => {
    const content = new Uint8Array(await file.arrayBuffer());
    const answer = await call("open", { content, name: file.name });
    learned = { ...answer, sources: null, fileThreshold: answer.threshold };
    isOwnThreshold = false;
    element("learned").textContent = "";
    await useBank(answer.sizes.length - 1);
    say(`Opened ${file.name}: ${answer.sizes.at(-1)} rows. Now drop pictures to judge.`);
  });
}

/** The solar cells that come with the page: good ones are learned, then others judged. */
async function useSamples() {
  await work(async () => {
    const { samples } = await call.parts("samples");
    const files = samples.map(({ name, picture }) => asFile(name, picture));
    const isGood = (at) => samples[at].use === "learn";
    await readAll(files.filter((_, at) => isGood(at)), takeGood);
    element("held-out").value = Math.floor(good.length / 4);
    markHeldOut();
    waitingSamples = files.filter((_, at) => !isGood(at));
  });
  if (waitingSamples.length === 0) return; // something has been complained about
  await learnAndJudgeSamples();
  sortByScore();
}

/** The highest scores first. */
function sortByScore() {
  judged.sort((one, other) => imageScore(patchScores(other)) - imageScore(patchScores(one)));
  element("results").append(...judged.map((picture) => picture.item));
}

let waitingSamples = []; // are judged once something has been learned

function asFile(name, base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new File([bytes], name, { type: "image/png" });
}

async function learnAndJudgeSamples() {
  await learn();
  if (learned === null || waitingSamples.length === 0) return;
  const files = waitingSamples;
  waitingSamples = [];
  await addToJudge(files);
}

function takeFiles(input, drop, take) {
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // the same file may be chosen again
    if (files.length) take(files);
  });
  drop?.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("is-over");
  });
  drop?.addEventListener("dragleave", () => drop.classList.remove("is-over"));
  drop?.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("is-over");
    if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
}

takeFiles(element("good-files"), element("good-drop"), addGood);
takeFiles(element("judge-files"), element("judge-drop"), addToJudge);
takeFiles(element("open"), null, open);
element("samples").addEventListener("click", useSamples);
element("learn").addEventListener("click", learnAndJudgeSamples);
element("forget").addEventListener("click", forgetAll);
element("save").addEventListener("click", save);
element("held-out").addEventListener("input", markHeldOut);
element("ratio").addEventListener("input", () => {
  step = Number(element("ratio").value);
  showPicks();
  show();
});
element("threshold").addEventListener("input", () => {
  threshold = Number(element("threshold").value);
  isOwnThreshold = true;
  show();
});
element("reset").addEventListener("click", () => {
  isOwnThreshold = false;
  show();
});
closeLens();
showCamera(element, "good-camera", addGood);
showCamera(element, "judge-camera", addToJudge);
