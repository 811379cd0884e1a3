// Interactive figures on a page without a kernel. `page_controls.py` writes their HTML, with the
// data beside it; this script moves them. It asks for nothing but the pictures of the page.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const COLORS = { good: "#0072B2", bad: "#D55E00", curve: "#009E73", best: "#E69F00" };

  // ---- what all figures share ----

  function start(figure) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    const fields = [...figure.querySelectorAll(".explorer-control :is(input, select)")];
    const panel = figure.querySelector(".explorer-picture");
    const view = VIEWS[data.view](panel, data);
    const words = figure.querySelector(".explorer-words");
    const show = () => {
      const state = {};
      fields.forEach((field, i) => {
        const control = data.controls[i];
        state[control.name] = Number(field.value);
        const text = control.texts[field.value];
        if (field.type === "range") {
          field.setAttribute("aria-valuetext", text);
          field.parentElement.querySelector("output").textContent = text;
        }
      });
      const said = view(state);
      words.textContent = said;
      const picture = panel.querySelector("img, [role=img]");
      const description = `${data.alt} ${said}`;
      if (picture.tagName === "IMG") picture.alt = description;
      else picture.setAttribute("aria-label", description);
    };
    fields.forEach(field => field.addEventListener("input", show));
    figure.querySelector(".explorer-controls").hidden = false;
    show();
    keepScrollable(panel);
  }

  // A picture that is wider than its frame can be scrolled with the arrow keys.
  function keepScrollable(panel) {
    const look = () => {
      const isWide = panel.scrollWidth > panel.clientWidth + 1;
      if (!isWide) return ["tabindex", "role", "aria-label"].forEach(n => panel.removeAttribute(n));
      panel.tabIndex = 0;
      panel.setAttribute("role", "region");
      panel.setAttribute("aria-label", "picture, can be scrolled sideways");
    };
    new ResizeObserver(look).observe(panel);
    panel.querySelectorAll("img").forEach(image => image.addEventListener("load", look));
  }

  // The number of a state: the last control moves fastest.
  function indexOf(controls, state) {
    return controls.reduce((sum, c) => sum * c.texts.length + state[c.name], 0);
  }

  // All pictures are fetched once somebody touches the figure, so that none comes late.
  function fetchOnTouch(panel, pictures) {
    const fetchAll = () => pictures.forEach(address => { new Image().src = address; });
    const figure = panel.closest("figure");
    for (const event of ["pointerenter", "focusin"]) {
      figure.addEventListener(event, fetchAll, { once: true });
    }
  }

  function make(name, attributes, parent, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent?.append(element);
    return element;
  }

  // ---- a picture for every state ----

  function frames(panel, data) {
    const image = panel.querySelector("img");
    fetchOnTouch(panel, data.pictures);
    return state => {
      const index = indexOf(data.controls, state);
      const address = data.pictures[data.frames[index]];
      if (image.getAttribute("src") !== address) image.src = address;
      return data.words[index];
    };
  }

  // ---- a picture, and boxes whose level is above a threshold ----

  function boxes(panel, data) {
    const image = panel.querySelector("img");
    fetchOnTouch(panel, data.pictures);
    const layer = document.createElement("div");
    layer.className = "explorer-layer";
    image.replaceWith(layer);
    layer.append(image);
    const others = data.controls.filter(c => c.name !== data.threshold);
    const slider = data.controls.find(c => c.name === data.threshold);
    return state => {
      const index = indexOf(others, state);
      const level = data.levels[state[data.threshold]];
      const address = data.pictures[data.frames[index]];
      if (image.getAttribute("src") !== address) image.src = address;
      layer.querySelectorAll(".explorer-box").forEach(box => box.remove());
      const all = data.layers[index];
      const above = all.filter(box => box[4] > level);
      for (const [x, y, width, height] of above) {
        const box = document.createElement("div");
        box.className = "explorer-box";
        const place = { left: x, top: y, width, height };
        for (const [side, share] of Object.entries(place)) box.style[side] = `${100 * share}%`;
        layer.append(box);
      }
      const text = slider.texts[state[data.threshold]];
      const count = `${above.length} of ${all.length} ${data.noun} above ${text}`;
      return `${data.words[index]} ${slider.label}: ${text}. ${count}.`;
    };
  }

  // ---- a photograph, its anomaly map, and what of the map is above a threshold ----

  const SIDE = 256;  // pixels of the picture that is computed

  // The numbers of a map between four of its positions, 0 to 255.
  function enlarged(map, side) {
    const large = new Float32Array(SIDE * SIDE);
    const place = i => Math.min(Math.max((i + 0.5) * side / SIDE - 0.5, 0), side - 1);
    for (let y = 0; y < SIDE; y++) {
      const row = place(y), top = Math.floor(row), below = Math.min(top + 1, side - 1);
      for (let x = 0; x < SIDE; x++) {
        const column = place(x), left = Math.floor(column), right = Math.min(left + 1, side - 1);
        const u = column - left, v = row - top;
        const upper = map[top * side + left] * (1 - u) + map[top * side + right] * u;
        const lower = map[below * side + left] * (1 - u) + map[below * side + right] * u;
        large[y * SIDE + x] = upper * (1 - v) + lower * v;
      }
    }
    return large;
  }

  function heat(panel, data) {
    const image = panel.querySelector("img");
    const pair = document.createElement("div");
    pair.className = "explorer-pair";
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    canvas.setAttribute("aria-hidden", "true");
    image.replaceWith(pair);
    pair.append(image, canvas);
    const context = canvas.getContext("2d");
    // The tint has a canvas of its own: a page in a file may draw on a photograph, but not read it.
    const tint = document.createElement("canvas");
    tint.width = tint.height = SIDE;
    const brush = tint.getContext("2d");
    const maps = data.maps.map(text =>
      enlarged(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)), data.side));
    const [low, high] = data.scale;
    const [choice, slider] = data.controls;
    let job = 0;
    const paint = async (map, level) => {
      const mine = ++job;
      await image.decode().catch(() => {});
      if (mine !== job) return;  // the reader has moved on
      const pixels = brush.createImageData(SIDE, SIDE);
      const isAbove = i => low + map[i] / 255 * (high - low) > level;
      for (let i = 0; i < map.length; i++) {
        if (!isAbove(i)) continue;
        const x = i % SIDE;
        const isEdge = x === 0 || x === SIDE - 1 || !isAbove(i - 1) || !isAbove(i + 1) ||
          !isAbove(i - SIDE) || !isAbove(i + SIDE);
        pixels.data.set([230, 159, 0, isEdge ? 255 : 115], 4 * i);
      }
      brush.putImageData(pixels, 0, 0);
      canvas.dataset.tinted = pixels.data.filter((v, i) => i % 4 === 3 && v > 0).length;
      context.drawImage(image, 0, 0, SIDE, SIDE);
      context.drawImage(tint, 0, 0);
    };
    return state => {
      const which = state[choice.name], level = data.levels[state[slider.name]];
      if (image.getAttribute("src") !== data.pictures[which]) image.src = data.pictures[which];
      paint(maps[which], level);
      const above = maps[which].reduce(
        (sum, v) => sum + (low + v / 255 * (high - low) > level), 0) / maps[which].length;
      const verdict = data.scores[which] > level ? "alarm" : "no alarm";
      return `${data.words[which]} Image score ${data.scores[which].toFixed(1)}, threshold ` +
        `${slider.texts[state[slider.name]]}: ${verdict}. ` +
        `${(100 * above).toFixed(1)}% of the map is above the threshold.`;
    };
  }

  // ---- what a threshold does on a production line: the formulas are those of core/costs.py ----

  // How many of the ascending scores are at most this level.
  function countUpTo(scores, level) {
    let low = 0, high = scores.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (scores[middle] <= level) low = middle + 1; else high = middle;
    }
    return low;
  }

  function ratesAt(data, level) {
    return ["good", "defective"].map(kind => {
      const scores = data[kind];
      return (scores.length - countUpTo(scores, level)) / scores.length;
    });
  }

  function outcomes([falseAlarms, found], prevalence) {
    const good = 1000 * (1 - prevalence), defective = 1000 * prevalence;
    return [good * (1 - falseAlarms), good * falseAlarms,
            defective * found, defective * (1 - found)];
  }

  function costCurve(data, prevalence, costOfMiss) {
    const all = [...data.good, ...data.defective].sort((a, b) => a - b);
    const levels = [all[0] - 1e-6, ...all.filter((v, i) => i === 0 || v !== all[i - 1])];
    const costs = levels.map(level => {
      const [falseAlarms, found] = ratesAt(data, level);
      return 1000 * ((1 - prevalence) * falseAlarms + costOfMiss * prevalence * (1 - found));
    });
    return { levels, costs, best: costs.indexOf(Math.min(...costs)) };
  }

  // Round numbers between two ends, about so many.
  function ticks(low, high, about = 5) {
    const rough = (high - low) / about, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough);
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high + 1e-9 * step; i++) found.push(i * step);
    return found.map(v => Number(v.toPrecision(12)));
  }

  const threeDigits = value => Number(value.toPrecision(3)).toLocaleString("en-US",
    { maximumSignificantDigits: 3 });

  // Axes in a panel of 340 x 290: scales and ticks; `area` is what data are drawn in.
  function axes(parent, { x, y, xlabel, ylabel, title }) {
    const svg = make("svg", { viewBox: "0 0 340 290", "aria-hidden": "true" }, parent);
    const area = { left: 58, right: 330, top: 40, bottom: 240 };
    const toX = v => area.left + (v - x[0]) / (x[1] - x[0]) * (area.right - area.left);
    const toY = v => area.bottom - (v - y[0]) / (y[1] - y[0]) * (area.bottom - area.top);
    const line = (x1, y1, x2, y2) => make("line", { x1, y1, x2, y2, stroke: "#000" }, svg);
    line(area.left, area.bottom, area.right, area.bottom);
    line(area.left, area.top, area.left, area.bottom);
    for (const v of ticks(...x)) {
      line(toX(v), area.bottom, toX(v), area.bottom + 4);
      make("text", { x: toX(v), y: area.bottom + 18, "text-anchor": "middle" }, svg, v);
    }
    for (const v of ticks(...y)) {
      line(area.left - 4, toY(v), area.left, toY(v));
      const text = v.toLocaleString("en-US");
      make("text", { x: area.left - 7, y: toY(v) + 4, "text-anchor": "end" }, svg, text);
    }
    make("text", { x: 194, y: 276, "text-anchor": "middle" }, svg, xlabel);
    const turn = "rotate(-90 12 140)";
    make("text", { x: 12, y: 140, "text-anchor": "middle", transform: turn }, svg, ylabel);
    make("text", { x: 194, y: 20, "text-anchor": "middle" }, svg, title ?? "");
    return { svg, toX, toY, area };
  }

  function histogram(parent, data, level) {
    const all = [...data.good, ...data.defective];
    const low = Math.min(...all), high = Math.max(...all), bins = 40;
    const count = scores => {
      const counts = new Array(bins).fill(0);
      for (const v of scores) counts[Math.min(bins - 1, Math.floor((v - low) / (high - low) * bins))]++;
      return counts;
    };
    const counts = [count(data.good), count(data.defective)];
    const pad = 0.05 * (high - low), top = 1.05 * Math.max(...counts.flat());
    const plot = axes(parent, {
      x: [low - pad, high + pad], y: [0, top],
      xlabel: "image score (L2 distance)", ylabel: "test images",
    });
    counts.forEach((heights, kind) => heights.forEach((height, bin) => {
      const left = plot.toX(low + bin / bins * (high - low));
      const right = plot.toX(low + (bin + 1) / bins * (high - low));
      make("rect", {
        x: left, width: right - left, y: plot.toY(height), height: plot.area.bottom - plot.toY(height),
        fill: kind ? COLORS.bad : COLORS.good, "fill-opacity": 0.65,
      }, plot.svg);
    }));
    make("line", {
      x1: plot.toX(level), x2: plot.toX(level), y1: plot.area.top, y2: plot.area.bottom,
      stroke: "#000", "stroke-width": 2, "stroke-dasharray": "6 4", class: "threshold",
    }, plot.svg);
    const legend = [["normal", COLORS.good], ["defective", COLORS.bad]];
    legend.forEach(([name, fill], i) => {
      make("rect", { x: 72 + 85 * i, y: 10, width: 14, height: 12, fill, "fill-opacity": 0.65 }, plot.svg);
      make("text", { x: 91 + 85 * i, y: 21 }, plot.svg, name);
    });
    make("line", { x1: 252, x2: 268, y1: 16, y2: 16, stroke: "#000", "stroke-width": 2,
                   "stroke-dasharray": "4 3" }, plot.svg);
    make("text", { x: 272, y: 21 }, plot.svg, "threshold");
  }

  const OUTCOMES = ["good, passed", "good, false alarm", "defective, found", "defective, missed"];

  function bars(parent, counts, title) {
    const svg = make("svg", { viewBox: "0 0 340 290", "aria-hidden": "true" }, parent);
    make("text", { x: 170, y: 20, "text-anchor": "middle" }, svg, title);
    const left = 122, right = 330, low = -2, high = Math.log10(30000);
    const toX = v => left + (Math.log10(Math.max(v, 0.01)) - low) / (high - low) * (right - left);
    counts.forEach((count, i) => {
      const y = 44 + 50 * i, width = toX(count) - left;
      make("rect", { x: left, y, width, height: 36, fill: i < 2 ? COLORS.good : COLORS.bad,
                     class: "bar" }, svg);
      make("text", { x: left - 6, y: y + 23, "text-anchor": "end" }, svg, OUTCOMES[i]);
      make("text", { x: left + width + 5, y: y + 23, class: "count" }, svg, threeDigits(count));
    });
    make("line", { x1: left, x2: right, y1: 244, y2: 244, stroke: "#000" }, svg);
    for (const v of [0.01, 1, 100, 10000]) {
      make("text", { x: toX(v), y: 260, "text-anchor": "middle" }, svg, v.toLocaleString("en-US"));
    }
    make("text", { x: 200, y: 280, "text-anchor": "middle" }, svg, "of 1,000 parts (logarithmic)");
  }

  function costPlot(parent, { levels, costs, best }, level, current) {
    const low = Math.min(levels[0], level), high = Math.max(levels.at(-1), level);
    const pad = 0.05 * (high - low), top = 3.5 * Math.max(current, costs[best]);
    const plot = axes(parent, {
      x: [low - pad, high + pad], y: [0, top],
      xlabel: "threshold (L2 distance)", ylabel: "cost per 1,000 (in false alarms)",
    });
    const inside = `clip-${Math.random().toString(36).slice(2)}`;
    const clip = make("clipPath", { id: inside }, plot.svg);
    make("rect", { x: plot.area.left, y: plot.area.top, width: 272, height: 200 }, clip);
    const points = levels.map((v, i) => `${plot.toX(v)},${plot.toY(costs[i])}`).join(" ");
    make("polyline", { points, fill: "none", stroke: COLORS.curve, "stroke-width": 2,
                       "clip-path": `url(#${inside})` }, plot.svg);
    make("circle", { cx: plot.toX(level), cy: plot.toY(current), r: 5, class: "here" }, plot.svg);
    const star = [...Array(10).keys()].map(i => {
      const angle = Math.PI * (i / 5 - 0.5), radius = i % 2 ? 4 : 10;
      return `${plot.toX(levels[best]) + radius * Math.cos(angle)},${
        plot.toY(costs[best]) + radius * Math.sin(angle)}`;
    });
    make("polygon", { points: star.join(" "), fill: COLORS.best, stroke: "#000" }, plot.svg);
    make("circle", { cx: 70, cy: 16, r: 5 }, plot.svg);
    make("text", { x: 80, y: 21 }, plot.svg, `here: ${Math.round(current)}`);
    make("text", { x: 180, y: 21 }, plot.svg, `★ cheapest: ${Math.round(costs[best])}`);
  }

  function alarms(panel, data) {
    const panels = document.createElement("div");
    panels.className = "explorer-panels";
    panels.setAttribute("role", "img");
    panel.replaceChildren(panels);
    const [threshold, perThousand, costOfMiss] = data.names;
    const valueOf = (state, name) => data.values[name][state[name]];
    return state => {
      const level = valueOf(state, threshold);
      const prevalence = valueOf(state, perThousand) / 1000;
      const miss = valueOf(state, costOfMiss);
      const counts = outcomes(ratesAt(data, level), prevalence);
      const alarmsRaised = counts[1] + counts[2];
      const share = (100 * counts[2] / alarmsRaised).toFixed(1);
      const title = alarmsRaised ? `${share}% of the alarms are real` : "no alarm";
      const curve = costCurve(data, prevalence, miss);
      const current = counts[1] + miss * counts[3];
      panels.replaceChildren();
      histogram(panels, data, level);
      bars(panels, counts, title);
      costPlot(panels, curve, level, current);
      const said = OUTCOMES.map((name, i) => `${name}: ${threeDigits(counts[i])}`).join("; ");
      const best = curve.levels[curve.best];
      const positions = data.controls.map(c => `${c.label}: ${c.texts[state[c.name]]}`).join(", ");
      return `${positions}. Of 1,000 parts: ${said}. ${title}. Cost here: ${Math.round(current)} false alarms; ` +
        `cheapest: ${Math.round(curve.costs[curve.best])}, at a threshold of ${threeDigits(best)}.`;
    };
  }

  const VIEWS = { frames, boxes, heat, alarms };
  const startAll = () => document.querySelectorAll("figure.explorer").forEach(start);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startAll);
  else startAll();
})();
