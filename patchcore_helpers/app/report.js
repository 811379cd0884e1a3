// The report as a workbench: a threshold that moves, and everything that depends on it.
// The numbers come from the page itself (see workbench.py); nothing is asked of a server.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const numbers = JSON.parse(byId("numbers").textContent);
  const hasRegions = JSON.parse(byId("has-regions").textContent);
  const CARDS_ON_A_PAGE = 24;
  const STEPS = 1000; // of the slider
  const WIDTH = 520, HEIGHT = 250, MARGIN = 30, BINS = 40;
  const COLORS = { calibration: "#999999", normal: "#0072B2", defective: "#D55E00" };

  // --- numbers ---

  const everyScore = [...numbers.scores, ...numbers.calibration, numbers.threshold];
  const lowest = everyScore.reduce((a, b) => Math.min(a, b));
  const highest = everyScore.reduce((a, b) => Math.max(a, b));
  const span = (highest - lowest) || 1;
  const low = lowest - 0.02 * span, high = highest + 0.02 * span;
  const normal = numbers.scores.filter((_, i) => numbers.labels[i] === 0);
  const defective = numbers.scores.filter((_, i) => numbers.labels[i] === 1);

  const above = (scores, threshold) => scores.filter((score) => score > threshold).length;
  const round = (value, digits = 4) => Number(value.toPrecision(digits)).toString();
  const percent = (share) => `${round(100 * share, 3)}\u00a0%`;

  // Counts at a threshold, and the interval of the false-alarm rate from the calibration images.
  function counted(threshold) {
    const falseAlarms = above(numbers.calibration, threshold);
    return {
      normal: above(normal, threshold),
      defective: above(defective, threshold),
      calibration: falseAlarms,
      // A further normal image is as likely to be in any place of the ranking: one of n + 1.
      rate: (falseAlarms + 1) / (numbers.calibration.length + 1),
      interval: numbers.rates[falseAlarms],
    };
  }

  // --- patches ---

  function patchScores(figure) {
    const bytes = Uint8Array.from(atob(figure.dataset.patches), (c) => c.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  }

  // Patches above the threshold with those around them that are nearly as high; core/regions.py says
  // why, and is what this must agree with.
  function regions(scores, rows, columns, threshold) {
    const least = numbers.growth * threshold;
    const seen = new Uint8Array(scores.length);
    const found = [];
    for (let start = 0; start < scores.length; start++) {
      if (seen[start] || !(scores[start] > least)) continue;
      const box = { left: columns, top: rows, right: 0, bottom: 0, area: 0, peak: -Infinity };
      const front = [start];
      seen[start] = 1;
      while (front.length) {
        const cell = front.pop();
        const row = Math.floor(cell / columns), column = cell % columns;
        box.left = Math.min(box.left, column);
        box.right = Math.max(box.right, column + 1);
        box.top = Math.min(box.top, row);
        box.bottom = Math.max(box.bottom, row + 1);
        box.area += 1 / scores.length;
        box.peak = Math.max(box.peak, scores[cell]);
        for (let r = Math.max(row - 1, 0); r <= Math.min(row + 1, rows - 1); r++) {
          for (let c = Math.max(column - 1, 0); c <= Math.min(column + 1, columns - 1); c++) {
            const near = r * columns + c;
            if (!seen[near] && scores[near] > least) {
              seen[near] = 1;
              front.push(near);
            }
          }
        }
      }
      if (box.peak > threshold) found.push(box);
    }
    return found.sort((a, b) => b.peak - a.peak);
  }

  // --- the histogram ---

  const SVG = "http://www.w3.org/2000/svg";
  function draw(parent, name, attributes, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }
  const xOf = (score) => MARGIN + (WIDTH - 2 * MARGIN) * (score - low) / (high - low);

  function drawHistogram() {
    const histogram = byId("histogram");
    const groups = { calibration: numbers.calibration, normal, defective };
    const shares = Object.entries(groups).filter(([, scores]) => scores.length).map(([name, scores]) => {
      const bins = new Array(BINS).fill(0);
      for (const score of scores) {
        bins[Math.min(BINS - 1, Math.floor(BINS * (score - low) / (high - low)))] += 1 / scores.length;
      }
      return [name, bins];
    });
    const tallest = Math.max(...shares.flatMap(([, bins]) => bins));
    const base = HEIGHT - MARGIN, barWidth = (WIDTH - 2 * MARGIN) / BINS / shares.length;
    shares.forEach(([name, bins], group) => bins.forEach((share, bin) => {
      if (!share) return;
      const height = (base - 20) * share / tallest;
      draw(histogram, "rect", {
        x: MARGIN + (bin * shares.length + group) * barWidth, y: base - height,
        width: barWidth, height, fill: COLORS[name],
      });
    }));
    draw(histogram, "line", { x1: MARGIN, x2: WIDTH - MARGIN, y1: base, y2: base, stroke: "currentColor" });
    for (let tick = 0; tick <= 4; tick++) {
      const score = low + (high - low) * tick / 4;
      draw(histogram, "text", { x: xOf(score), y: HEIGHT - 12, "text-anchor": "middle" }, round(score, 3));
    }
    draw(histogram, "line", { id: "line-at", y1: 8, y2: base, stroke: "currentColor", "stroke-width": 2 });
  }

  // --- the page at a threshold ---

  const figures = [...document.querySelectorAll("figure[data-score]")].map((element) => ({
    element,
    score: Number(element.dataset.score),
    label: Number(element.dataset.label),
    kind: element.dataset.kind,
    name: element.dataset.name,
    rank: element.querySelector("figcaption b").textContent.split(".")[0],
    scores: patchScores(element),
    rows: Number(element.dataset.rows),
    columns: Number(element.dataset.columns),
    area: 0,
  }));
  let threshold = numbers.threshold;
  let page = 0;

  function showCounts() {
    const count = counted(threshold);
    const [least, most] = count.interval;
    byId("counts").textContent =
      `Threshold ${round(threshold)}: ${count.normal} of ${normal.length} normal and ` +
      `${count.defective} of ${defective.length} defective test images alarm. ` +
      `${count.calibration} of ${numbers.calibration.length} calibration images lie above it: ` +
      `expect up to ${percent(count.rate)} false alarms among new normal images, with 95\u00a0% ` +
      `confidence between ${percent(least)} and ${percent(most)}.`;
    showLine(count);
  }

  function showLine(count) {
    const parts = Math.max(Number(byId("parts").value), 0);
    const prevalence = Math.min(Math.max(Number(byId("prevalence").value) / 1000, 0), 1);
    const good = parts * (1 - prevalence), bad = parts * prevalence;
    const [least, most] = count.interval;
    const falseAlarms = good * count.rate;
    let text =
      `Up to ${round(falseAlarms, 3)} false alarms a day on average ` +
      `(95\u00a0%: between ${round(good * least, 3)} and ${round(good * most, 3)}).`;
    if (defective.length) {
      const found = bad * count.defective / defective.length;
      const alarms = found + falseAlarms;
      text += ` If real defects are like these, of ${round(bad, 3)} defective a day ` +
        `${round(found, 3)} are found and ${round(bad - found, 3)} missed` +
        (alarms ? `; ${percent(found / alarms)} of all alarms are defects.` : ".");
    }
    byId("line").textContent = text;
  }

  function showRegions(figure) {
    const boxes = regions(figure.scores, figure.rows, figure.columns, threshold);
    figure.area = boxes.reduce((sum, box) => sum + box.area, 0);
    const picture = figure.element.querySelector(".picture");
    picture.querySelector("svg")?.remove();
    // The picture is the image and, beside it, the heat map: every box is drawn on both.
    const overlay = draw(picture, "svg", {
      viewBox: `0 0 ${2 * figure.columns} ${figure.rows}`, preserveAspectRatio: "none", "aria-hidden": "true",
    });
    for (const box of boxes) {
      for (const shift of [0, figure.columns]) {
        draw(overlay, "rect", {
          x: box.left + shift, y: box.top, width: box.right - box.left, height: box.bottom - box.top,
        });
      }
    }
    const noun = boxes.length === 1 ? "region" : "regions";
    figure.element.querySelector(".regions").textContent = boxes.length
      ? `${boxes.length} ${noun}, ${percent(figure.area)} of the image` : "";
  }

  function showCards() {
    for (const figure of figures) {
      const verdict = figure.score > threshold ? "alarm" : "ok";
      figure.verdict = verdict;
      figure.element.className = verdict;
      figure.element.querySelector("figcaption b").textContent =
        `${figure.rank}. ${round(figure.score)}, ${verdict}`;
      figure.element.querySelector("img").alt =
        `${figure.name}, score ${round(figure.score)}, ${verdict}: the image and its heat map`;
      if (hasRegions) showRegions(figure);
    }
    arrange();
  }

  const FILTERS = {
    all: () => true,
    alarm: (figure) => figure.verdict === "alarm",
    ok: (figure) => figure.verdict === "ok",
    false: (figure) => figure.verdict === "alarm" && figure.label === 0,
    missed: (figure) => figure.verdict === "ok" && figure.label === 1,
  };
  const ORDERS = {
    score: (a, b) => b.score - a.score,
    lowest: (a, b) => a.score - b.score,
    name: (a, b) => (a.name < b.name ? -1 : 1),
    area: (a, b) => b.area - a.area,
  };

  function arrange() {
    const kind = byId("kind").value;
    const isWanted = FILTERS[byId("filter").value];
    const wanted = figures.filter((figure) => isWanted(figure) && (!kind || figure.kind === kind));
    wanted.sort(ORDERS[byId("sort").value]);
    const pages = Math.max(Math.ceil(wanted.length / CARDS_ON_A_PAGE), 1);
    page = Math.min(page, pages - 1);
    const first = page * CARDS_ON_A_PAGE;
    const onThisPage = wanted.slice(first, first + CARDS_ON_A_PAGE);
    for (const figure of figures) figure.element.hidden = !onThisPage.includes(figure);
    document.querySelector("#cards").append(...onThisPage.map((figure) => figure.element));
    byId("pages").hidden = false;
    byId("which").textContent = wanted.length
      ? `${first + 1} to ${first + onThisPage.length} of ${wanted.length} pictures` : "no picture is like that";
    byId("before").disabled = page === 0;
    byId("after").disabled = page === pages - 1;
  }

  function setThreshold(value) {
    threshold = value;
    const at = xOf(threshold);
    byId("line-at").setAttribute("x1", at);
    byId("line-at").setAttribute("x2", at);
    const slider = byId("threshold");
    slider.value = Math.round(STEPS * (threshold - low) / (high - low));
    slider.setAttribute("aria-valuetext", round(threshold));
    showCounts();
    showCards();
  }

  // --- what a reader does ---

  function start() {
    byId("workbench").hidden = false;
    byId("controls").hidden = false;
    drawHistogram();
    for (const kind of new Set(figures.map((figure) => figure.kind))) {
      byId("kind").append(new Option(kind, kind));
    }
    byId("threshold").addEventListener("input", (event) => {
      setThreshold(low + (high - low) * Number(event.target.value) / STEPS);
    });
    byId("reset").addEventListener("click", () => setThreshold(numbers.threshold));
    const histogram = byId("histogram");
    const drag = (event) => {
      const frame = histogram.getBoundingClientRect();
      const x = (event.clientX - frame.left) * WIDTH / frame.width;
      const share = (x - MARGIN) / (WIDTH - 2 * MARGIN);
      setThreshold(low + (high - low) * Math.min(Math.max(share, 0), 1));
    };
    histogram.addEventListener("pointerdown", (event) => {
      histogram.setPointerCapture(event.pointerId);
      drag(event);
    });
    histogram.addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
    for (const id of ["parts", "prevalence"]) byId(id).addEventListener("input", showCounts);
    for (const id of ["sort", "filter", "kind"]) {
      byId(id).addEventListener("change", () => { page = 0; arrange(); });
    }
    const turn = (step) => { page += step; arrange(); byId("images").scrollIntoView(); };
    byId("before").addEventListener("click", () => turn(-1));
    byId("after").addEventListener("click", () => turn(1));
    setThreshold(numbers.threshold);
  }
  start();
})();
