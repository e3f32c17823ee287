"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const layers = data.layers;

// ---- numbers ----
function scaled(value, unit) {
  const steps = [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]];
  for (const [prefix, size] of steps) {
    if (value >= size) return (value / size).toPrecision(3) + " " + prefix + unit;
  }
  return +value.toPrecision(3) + " " + unit;
}
function bytes(value) {
  if (value >= 2 ** 20) return (value / 2 ** 20).toFixed(2) + " MiB";
  if (value >= 2 ** 10) return (value / 2 ** 10).toFixed(1) + " KiB";
  return value + " B";
}
const percent = (share) => (share > 0 && share < 0.01 ? "<1" : Math.round(100 * share)) + "%";
const count = (n) => n.toLocaleString("en");

// ---- elements ----
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}
function draw(tag, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}
const hue = (place, of) => 25 + (300 * place) / Math.max(1, of - 1);
const layerName = (place) => (place < 0 ? "no layer" : layers[place].name || data.model);

// ---- the tree of layers ----
function tree() {
  const byName = new Map();
  const roots = [];
  layers.forEach((layer, place) => {
    const node = { layer, place, children: [], sum: null };
    byName.set(layer.name, node);
    let holder = layer.name;
    let parent = null;
    while (holder && !parent) {
      holder = holder.includes(".") ? holder.slice(0, holder.lastIndexOf(".")) : "";
      parent = byName.get(holder) || null;
    }
    (parent && layer.name !== "(loss)" ? parent.children : roots).push(node);
  });
  roots.forEach(add);
  return roots;
}
function add(node) {
  const own = node.layer;
  node.sum = {
    size: 0, updated: 0, forward: own.forward, backward: own.backward, kept: own.kept,
  };
  for (const tensor of own.tensors) {
    node.sum.size += tensor.size;
    node.sum.updated += tensor.size * tensor.updated;
  }
  for (const child of node.children) {
    add(child);
    for (const key of Object.keys(node.sum)) node.sum[key] += child.sum[key];
  }
}
function bar(share) {
  const filled = make("span");
  filled.style.width = 100 * share + "%";
  return make("span", { class: "bar", "aria-hidden": "true" }, filled);
}
function state(sum) {
  if (sum.size && sum.updated >= sum.size) return "updated";
  if (sum.updated > 0) return "updated in part";
  if (sum.kept > 0) return sum.size ? "frozen, passes gradients on" : "";
  return sum.backward > 0 ? "frozen, backward pruned" : "";
}
function summaryRow(node) {
  const { layer, sum } = node;
  const own = layer.name.slice(layer.name.lastIndexOf(".") + 1) || data.model;
  const share = sum.backward ? sum.kept / sum.backward : 0;
  const told = sum.backward
    ? percent(share) + " of " + scaled(sum.backward, "FLOP") : "none";
  const cell = (head, ...parts) => make("span", { class: "cell", "data-head": head }, ...parts);
  return make("span", { class: "row" },
    make("span", { class: "name" }, make("b", {}, own), " ",
      make("i", {}, [layer.kind, state(sum)].filter(Boolean).join(" · "))),
    cell("parameters", sum.size ? count(sum.size) : "–",
      ...(sum.size ? [bar(sum.updated / sum.size)] : [])),
    cell("forward", scaled(sum.forward, "FLOP")),
    cell("backward kept", told, ...(sum.backward ? [bar(share)] : [])));
}
function facts(node) {
  const box = make("div", { class: "facts" });
  for (const tensor of node.layer.tensors) {
    const how = tensor.updated === 0 ? "frozen"
      : tensor.updated >= 1 ? "updated" : percent(tensor.updated) + " of its channels updated";
    box.append(make("p", {}, tensor.name + " (" + tensor.shape.join(" × ") + "): " + how));
  }
  const own = [];
  data.entries.step.kernels.forEach((kernel, step) => {
    if (kernel[1] === node.place) own.push(step);
  });
  if (own.length) {
    const line = make("p", {}, "kernels of a step: ");
    for (const step of own) {
      line.append(make("button", {
        type: "button", "aria-label": "Show kernel " + step,
        onclick: () => { chooseEntry("step"); showKernel(step, true); },
      }, String(step)));
    }
    box.append(line);
  }
  return box.childNodes.length ? box : null;
}
function branch(node, open) {
  const details = make("details", {}, make("summary", {}, summaryRow(node)));
  let filled = false;
  const fill = () => {
    if (filled) return;
    filled = true;
    const box = make("div", { class: "inside" });
    const own = facts(node);
    if (own) box.append(own);
    node.children.forEach((child) => box.append(branch(child, open - 1)));
    if (!box.childNodes.length) box.append(make("p", { class: "facts" }, "Nothing of its own."));
    details.append(box);
  };
  details.addEventListener("toggle", () => { if (details.open) fill(); });
  details.fill = fill;
  if (open > 0 && node.children.length) { fill(); details.open = true; }
  return details;
}
function openAll(box, wanted) {
  for (const details of box.querySelectorAll("details")) {
    if (wanted) details.fill();
    details.open = wanted;
  }
}
function showTree() {
  const roots = tree();
  let depth = 0;
  let shown = roots;
  for (let level = roots; level.length && shown.length <= 40; depth += 1) {
    level = level.flatMap((node) => node.children);
    shown = [...shown, ...level];
  }
  byId("tree").append(...roots.map((root) => branch(root, Math.max(1, depth - 1))));
  byId("open-all").addEventListener("click", () => {
    for (let depth = 0; depth < 12; depth += 1) openAll(byId("tree"), true);
  });
  byId("close-all").addEventListener("click", () => openAll(byId("tree"), false));
  return roots;
}

// ---- the figures at the top ----
function showTop(roots) {
  const sum = { size: 0, updated: 0, forward: 0, backward: 0, kept: 0 };
  for (const root of roots) for (const key of Object.keys(sum)) sum[key] += root.sum[key];
  const step = data.entries.step;
  byId("title").textContent = data.model;
  byId("subtitle").textContent =
    "Scheme " + data.scheme + ", " + data.optimizer + ", for " + data.target.name + ": " +
    data.target.description;
  const excess = step.bound ? step.arena / step.bound - 1 : 0;
  const gap = excess < 0.001 ? "as small as its lower bound" : percent(excess) +
    " above its lower bound";
  const region = data.regions;
  const tiles = [
    ["Parameters updated", percent(sum.size ? sum.updated / sum.size : 0),
      count(Math.round(sum.updated)) + " of " + count(sum.size)],
    ["Forward", scaled(sum.forward, "FLOP"), ""],
    ["Backward kept", percent(sum.backward ? sum.kept / sum.backward : 0),
      scaled(sum.kept, "FLOP") + " of " + scaled(sum.backward, "FLOP")],
    ["Arena of a step", bytes(step.arena), gap],
    ["Saved for backward", bytes(step.saved), ""],
    ["Kept between steps", bytes(region.const + region.param + region.state),
      "const " + bytes(region.const) + ", param " + bytes(region.param) + ", state " +
      bytes(region.state)],
    ["Kernel calls of a step", count(step.kernels.length), ""],
  ];
  for (const [name, value, note] of tiles) {
    byId("tiles").append(make("div", {}, make("dt", {}, name),
      make("dd", {}, value, ...(note ? [make("small", {}, note)] : []))));
  }
}

// ---- memory over time ----
let entryName = "step";
let chosen = -1;
const mapLeft = 58, mapBottom = 34, mapTop = 12, mapRight = 8;
function entry() { return data.entries[entryName]; }
function nice(most, target) {
  const rough = most / target;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((each) => each * power >= rough);
}
function drawMap() {
  const box = byId("map-box");
  const width = Math.max(280, box.clientWidth - 16);
  const height = width < 600 ? 300 : 440;
  const { values, kernels, arena, bound } = entry();
  const steps = Math.max(1, kernels.length);
  const top = Math.max(arena, 1) * 1.02;
  const x = (step) => mapLeft + (step / steps) * (width - mapLeft - mapRight);
  const y = (offset) => height - mapBottom - (offset / top) * (height - mapTop - mapBottom);
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${height}`, height, role: "application", tabindex: "0",
    "aria-label": "Memory map of " + entryName + ", " + values.length +
      " values; arrow keys go from one to the next", "aria-describedby": "map-told",
  });
  const tick = nice(top / 2 ** 20, 5) * 2 ** 20;
  for (let at = 0; at <= top; at += tick) {
    svg.append(draw("line", { class: "axis", x1: mapLeft, x2: width - mapRight, y1: y(at),
      y2: y(at) }));
    svg.append(draw("text", { x: mapLeft - 6, y: y(at) + 4, "text-anchor": "end" },
      at === 0 ? "0 MiB" : String(+(at / 2 ** 20).toPrecision(3))));
  }
  const stride = Math.max(1, nice(steps, width < 600 ? 5 : 10));
  for (let at = 0; at <= steps; at += stride) {
    svg.append(draw("text", { x: x(at), y: height - 16, "text-anchor": "middle" }, String(at)));
  }
  svg.append(draw("text", { x: (mapLeft + width) / 2, y: height - 2, "text-anchor": "middle" },
    "step (kernel call)"));
  const blocks = draw("g");
  values.forEach((value, index) => {
    const [, lower, upper, offset, size, layer] = value;
    const edge = Math.max(0.6, x(upper) - x(lower) - 0.5);
    const block = draw("rect", { x: x(lower), y: y(offset + size), width: edge,
      height: Math.max(0.6, y(offset) - y(offset + size) - 0.3) });
    const colour = layer < 0 ? "oklch(var(--block) 0 0)"
      : `oklch(var(--block) .13 ${hue(layer, layers.length).toFixed(0)})`;
    block.style.fill = colour;
    if (chosen >= 0 && values[chosen] && values[chosen][5] !== layer) {
      block.setAttribute("class", "dim");
    }
    if (index === chosen) block.setAttribute("data-chosen", "1");
    blocks.append(block);
  });
  svg.append(blocks);
  svg.append(draw("path", { class: "live", d: livePath(values, steps, x, y) }));
  svg.append(draw("line", { class: "bound", x1: mapLeft, x2: width - mapRight, y1: y(bound),
    y2: y(bound) }));
  if (chosen >= 0 && values[chosen]) {
    const [, lower, upper, offset, size] = values[chosen];
    svg.append(draw("rect", { class: "chosen", x: x(lower), y: y(offset + size),
      width: Math.max(2, x(upper) - x(lower)), height: Math.max(2, y(offset) - y(offset + size)) }));
  }
  const at = (event) => {
    const frame = svg.getBoundingClientRect();
    const step = ((event.clientX - frame.left - mapLeft) / (width - mapLeft - mapRight)) * steps;
    const up = height - mapBottom - (event.clientY - frame.top);
    return [step, (up / (height - mapTop - mapBottom)) * top];
  };
  svg.addEventListener("pointermove", (event) => choose(hit(...at(event), top)));
  svg.addEventListener("pointerdown", (event) => choose(hit(...at(event), top)));
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    let next = chosen;
    if (event.key in moves) next = chosen + moves[event.key];
    else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = values.length - 1;
    else if (event.key === "Escape") next = -2;
    else return;
    event.preventDefault();
    choose(next === -2 ? -1 : Math.min(values.length - 1, Math.max(0, next)));
    byId("map-box").firstChild.focus();
  });
  box.replaceChildren(svg);
}
function livePath(values, steps, x, y) {
  const byOffset = [...values].sort((a, b) => a[3] - b[3]);
  let path = "";
  for (let step = 0; step < steps; step += 1) {
    let live = 0;
    let end = 0;
    for (const [, lower, upper, offset, size] of byOffset) {
      if (lower > step || upper <= step) continue;
      live += Math.max(0, offset + size - Math.max(end, offset)); // some take others' bytes over
      end = Math.max(end, offset + size);
    }
    path += `${step ? "L" : "M"}${x(step)} ${y(live)}L${x(step + 1)} ${y(live)}`;
  }
  return path;
}
function hit(step, offset, top) {
  let best = -1;
  let distance = 0.02;
  entry().values.forEach(([, lower, upper, low, size], index) => {
    const steps = Math.max(1, entry().kernels.length);
    const aside = Math.max(lower - step, step - upper, 0) / steps;
    const above = Math.max(low - offset, offset - low - size, 0) / top;
    if (aside + above < distance) { best = index; distance = aside + above; }
  });
  return best;
}
function choose(index) {
  if (index === chosen) return;
  chosen = index;
  drawMap();
  tellValue();
}
function tellValue() {
  const { values, kernels, arena } = entry();
  if (chosen < 0) {
    byId("map-told").textContent = values.length + " values in an arena of " + bytes(arena) +
      ", " + kernels.length + " steps.";
    return;
  }
  const [name, lower, upper, offset, size, layer] = values[chosen];
  const kernel = kernels[lower];
  byId("map-told").textContent =
    name + ", " + layerName(layer) + ": " + bytes(size) + " at offset " + bytes(offset) +
    ", steps " + lower + " to " + (upper - 1) + " of " + kernels.length +
    (kernel ? "; made by kernel " + lower + ", " + kernel[0] : "") + ".";
}
function mapTable() {
  const rows = [...entry().values].sort((a, b) => b[4] - a[4]).slice(0, 20);
  const head = make("tr", {}, ...["value", "layer", "bytes", "offset", "steps"].map(
    (name, place) => make("th", { scope: "col", class: place < 2 ? "text" : "" }, name)));
  byId("map-table").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows.map(
    ([name, lower, upper, offset, size, layer]) => make("tr", {},
      make("td", { class: "text" }, name), make("td", { class: "text" }, layerName(layer)),
      make("td", {}, bytes(size)), make("td", {}, bytes(offset)),
      make("td", {}, lower + "–" + (upper - 1))))));
}
function showEntries() {
  for (const name of Object.keys(data.entries)) {
    const radio = make("input", { type: "radio", name: "entry", value: name,
      onchange: () => chooseEntry(name) });
    radio.checked = name === entryName;
    byId("entries").append(make("label", {}, radio, " " + name));
  }
}
function chooseEntry(name) {
  if (name === entryName) return;
  entryName = name;
  chosen = -1;
  for (const radio of document.getElementsByName("entry")) radio.checked = radio.value === name;
  showEntry();
}

// ---- roofline ----
const hues = { contract: 255, stencil: 160, reduce: 40, rows: 320, map: 95, other: 0 };
const form = (kernel) => {
  const word = kernel[0].split(" ")[0];
  return word in hues ? word : "other";
};
const colourOf = (word) => `oklch(var(--block) ${word === "other" ? 0 : 0.15} ${hues[word]})`;
const intensity = (kernel) => (kernel[4] ? kernel[3] / kernel[4] : 0);
const peaks = data.target.flops && data.target.bandwidth;
function least(kernel) {
  if (!peaks) return 0;
  return Math.max(kernel[3] / data.target.flops, kernel[4] / data.target.bandwidth);
}
let pickedKernel = -1;
function drawRoof() {
  const box = byId("roof-box");
  const width = Math.max(280, box.clientWidth - 16);
  const height = width < 600 ? 280 : 360;
  const kernels = entry().kernels.map((kernel, step) => [kernel, step])
    .filter(([kernel]) => kernel[3] > 0 && kernel[4] > 0);
  const { flops, bandwidth } = data.target;
  const value = (kernel) =>
    peaks ? Math.min(flops, intensity(kernel) * bandwidth) : kernel[3];
  const xs = kernels.map(([kernel]) => intensity(kernel));
  const ys = kernels.map(([kernel]) => value(kernel));
  const ridge = peaks ? flops / bandwidth : 1;
  const low = Math.floor(Math.log10(Math.min(0.1, ...xs)));
  const high = Math.ceil(Math.log10(Math.max(ridge * 4, ...xs)));
  const floor = Math.floor(Math.log10(Math.min(...ys, peaks ? flops : Infinity)));
  const roof = Math.ceil(Math.log10(Math.max(...ys, peaks ? flops : 1)));
  const x = (v) => 64 + ((Math.log10(v) - low) / (high - low)) * (width - 80);
  const y = (v) => height - 40 - ((Math.log10(v) - floor) / Math.max(1, roof - floor)) *
    (height - 60);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "application",
    tabindex: "0", "aria-describedby": "roof-told",
    "aria-label": "Roofline of " + kernels.length + " kernels; arrow keys go from one to the next" });
  for (let power = low; power <= high; power += 1) {
    const at = 10 ** power;
    svg.append(draw("line", { class: "axis", x1: x(at), x2: x(at), y1: 20, y2: height - 40 }));
    svg.append(draw("text", { x: x(at), y: height - 24, "text-anchor": "middle" }, String(+at.toPrecision(1))));
  }
  for (let power = floor; power <= roof; power += 1) {
    const at = 10 ** power;
    svg.append(draw("line", { class: "axis", x1: 64, x2: width - 16, y1: y(at), y2: y(at) }));
    svg.append(draw("text", { x: 58, y: y(at) + 4, "text-anchor": "end" }, scaled(at, "")));
  }
  svg.append(draw("text", { x: (64 + width) / 2, y: height - 6, "text-anchor": "middle" },
    "arithmetic intensity, FLOP per byte"));
  svg.append(draw("text", { x: 8, y: 12 },
    peaks ? "attainable FLOP/s" : "FLOP of the kernel"));
  if (peaks) {
    const left = 10 ** low;
    const bottom = Math.max(left, 10 ** floor / bandwidth);
    svg.append(draw("path", { class: "roof",
      d: `M${x(bottom)} ${y(bottom * bandwidth)}L${x(ridge)} ${y(flops)}L${x(10 ** high)} ${y(flops)}` }));
  }
  const total = kernels.reduce((sum, [kernel]) => sum + (peaks ? least(kernel) : kernel[3]), 0);
  const places = [];
  kernels.sort((a, b) => least(b[0]) - least(a[0]) || b[0][3] - a[0][3]);
  for (const [kernel, step] of kernels) {
    const share = (peaks ? least(kernel) : kernel[3]) / (total || 1);
    const dot = draw("circle", { cx: x(intensity(kernel)), cy: y(value(kernel)),
      r: 2.5 + 26 * Math.sqrt(share), "fill-opacity": ".6" });
    dot.style.fill = colourOf(form(kernel));
    if (step === pickedKernel) dot.style.stroke = "var(--mark)";
    svg.append(dot);
    places.push([x(intensity(kernel)), y(value(kernel)), step, 2.5 + 26 * Math.sqrt(share)]);
  }
  svg.addEventListener("pointerdown", (event) => {
    const frame = svg.getBoundingClientRect();
    const px = event.clientX - frame.left, py = event.clientY - frame.top;
    const near = places.map(([a, b, step, r]) => [Math.hypot(a - px, b - py), step, r])
      .filter(([distance, , r]) => distance < Math.max(r, 12)).sort((a, b) => a[2] - b[2]);
    if (near.length) showKernel(near[0][1], false);
  });
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move || !places.length) return;
    event.preventDefault();
    const order = places.map((place) => place[2]);
    const now = order.indexOf(pickedKernel);
    showKernel(order[(now + move + order.length) % order.length], false);
    byId("roof-box").firstChild.focus();
  });
  box.replaceChildren(svg);
  const used = [...new Set(kernels.map(([kernel]) => form(kernel)))];
  byId("roof-legend").replaceChildren(...used.map((word) => {
    const dot = make("span");
    dot.style.background = colourOf(word);
    return make("li", {}, dot, word);
  }));
}
function tellKernel() {
  const kernel = entry().kernels[pickedKernel];
  byId("roof-told").textContent = kernel
    ? "Kernel " + pickedKernel + ", " + kernel[0] + ", " + layerName(kernel[1]) + ": " +
      scaled(kernel[3], "FLOP") + ", " + bytes(kernel[4]) + ", " +
      +intensity(kernel).toPrecision(3) + " FLOP per byte" +
      (peaks ? ", at the peaks " + micro(least(kernel)) + ", bound by " + boundBy(kernel) : "") + "."
    : "Choose a kernel for its figures.";
}
const micro = (seconds) => (seconds < 1e-3
  ? +(1e6 * seconds).toPrecision(3) + " µs" : +(1e3 * seconds).toPrecision(3) + " ms");
const boundBy = (kernel) => (peaks && intensity(kernel) >= data.target.flops /
  data.target.bandwidth ? "arithmetic" : "memory");

// ---- kernels ----
const first = 30;
let everything = false;
let sorting = ["step", 1];
const columns = [
  ["step", "", (kernel, step) => step, (kernel, step) => String(step)],
  ["kind", "text", (kernel) => kernel[0], (kernel) => kernel[0]],
  ["layer", "text", (kernel) => kernel[1], (kernel) => layerName(kernel[1])],
  ["FLOP", "", (kernel) => kernel[3], (kernel) => scaled(kernel[3], "")],
  ["bytes", "", (kernel) => kernel[4], (kernel) => bytes(kernel[4])],
  ["FLOP/byte", "", intensity, (kernel) => String(+intensity(kernel).toPrecision(3))],
  ...(peaks ? [["least time", "", least, (kernel) => micro(least(kernel))],
    ["bound by", "text", boundBy, boundBy]] : []),
];
function showKernels() {
  const rows = entry().kernels.map((kernel, step) => [kernel, step]);
  const [name, direction] = sorting;
  const key = columns.find((column) => column[0] === name)[2];
  rows.sort((a, b) => {
    const [one, other] = [key(...a), key(...b)];
    return direction * (one < other ? -1 : one > other ? 1 : 0);
  });
  const shown = everything ? rows : rows.slice(0, first);
  const head = make("tr", {}, ...columns.map(([title, kind]) => {
    const cell = make("th", { scope: "col", class: kind }, make("button", {
      type: "button", onclick: () => sortBy(title, kind),
    }, title + (title === name ? (direction > 0 ? " ▲" : " ▼") : "")));
    if (title === name) cell.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    return cell;
  }));
  byId("kernel-table").replaceChildren(make("thead", {}, head), make("tbody", {}, ...shown.map(
    ([kernel, step]) => make("tr", { class: step === pickedKernel ? "picked" : "" },
      make("td", {}, make("button", { type: "button", "aria-label": "Show kernel " + step,
        onclick: () => showKernel(step, false) }, String(step))),
      ...columns.slice(1).map(([, kind, , told]) =>
        make("td", { class: kind }, told(kernel, step)))))));
  byId("more").hidden = rows.length <= first;
  byId("more").textContent = everything ? "Show the first " + first : "Show all " + rows.length;
}
function sortBy(title, kind) {
  const same = sorting[0] === title;
  const start = kind === "text" || title === "step" ? 1 : -1;
  sorting = [title, same ? -sorting[1] : start];
  showKernels();
}
function showKernel(step, scroll) {
  pickedKernel = step;
  drawRoof();
  tellKernel();
  showKernels();
  const kernel = entry().kernels[step];
  byId("kernel-title").textContent = "Kernel " + step + ": " + kernel[0] +
    (kernel[2] ? ", " + kernel[2] : "");
  byId("kernel-text").textContent = data.texts[kernel[5]];
  if (scroll) byId("kernel-title").scrollIntoView({ block: "nearest" });
}

// ---- all of it ----
function showEntry() {
  pickedKernel = -1;
  drawMap();
  tellValue();
  mapTable();
  drawRoof();
  tellKernel();
  showKernels();
}
function about() {
  const { flops, bandwidth, name, source } = data.target;
  byId("roofline-about").textContent = peaks
    ? "Where each kernel can be at most, by its work alone: nothing here was timed. One core of " +
      name + " does " + scaled(flops, "FLOP/s") + " and moves " + scaled(bandwidth, "B/s") +
      (source ? " (" + source.replaceAll("`", "") + ")" : "") + ". A disc's area is the kernel's share of the least " +
      "time of all; kernels whose operands stay in a cache can be above the slope."
    : "The peaks of " + name + " are not known, so there is no roof: each kernel's work by its " +
      "arithmetic intensity. A disc's area is its share of the work.";
  byId("kernels-about").textContent =
    "In the order they run. Bytes are what a kernel has to move at least: each operand once.";
}
showTop(showTree());
showEntries();
about();
showEntry();
byId("more").addEventListener("click", () => { everything = !everything; showKernels(); });
let frame = 0;
let lastWidth = document.documentElement.clientWidth;
addEventListener("resize", () => {
  if (document.documentElement.clientWidth === lastWidth) return;
  lastWidth = document.documentElement.clientWidth;
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => { drawMap(); drawRoof(); });
});
