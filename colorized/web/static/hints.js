// Hints: known colors, as points and strokes on the picture.
//
// A mark is { color, radius, points: [[x, y], …] } in shares of width, height and shorter side. The
// service knows points only: {"points": [{ x, y, radius, color }, …]}, which is also the JSON file.
import { percent, t, tn } from "./words.js";
import { moveKey, onPicture, reveal, setTool, view, zoomKey } from "./view.js";

const $ = (id) => document.getElementById(id);

// Pigments, cloth and places of the decades that black-and-white photographs come from.
const PALETTE = [
  ["sky", "#8fb4d4"], ["foliage", "#5f7a3d"], ["grass", "#b5a05a"], ["brick", "#9c4a33"],
  ["sandstone", "#c8a878"], ["oak", "#8b6038"], ["earth", "#6f5138"], ["fair", "#d8a384"],
  ["brown", "#8c5a3c"], ["oxblood", "#7a1f26"], ["red", "#b3262e"],
  ["mustard", "#c4962c"], ["green", "#1f5138"], ["blue", "#1d4270"],
];
const NAMES = new Map(PALETTE.map(([name, color]) => [color, name]));
const MOST_POINTS = 1000, SPACING = 0.8, GRIP = 6;

let marks = [], past = [], future = [], selected = -1;
let color = PALETTE[0][1];
let ratio = 1;        // height of the picture over its width
let onChange = () => {};

const round = (value) => Math.round(Math.min(Math.max(value, 0), 1) * 1e4) / 1e4;
const rounded = (list) => list.map(([x, y]) => [round(x), round(y)]);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const hinting = () => document.body.classList.contains("hinting");
export const current = () => marks;
export const isSame = (other) => same(marks, other);

// The form's field and the file, of marks.
export function toJSON(list) {
  const points = list.flatMap(({ color, radius, points }) => points.map(([x, y]) => ({ x, y, radius, color })));
  return JSON.stringify({ points });
}

// Marks of such a text; points that touch in one color are a stroke again. Throws where it is none.
export function fromJSON(text, width, height) {
  const list = [], shorter = Math.min(width, height);
  for (const { x, y, radius = 0.02, color } of JSON.parse(text).points) {
    if (![x, y, radius].every(Number.isFinite) || !/^#[0-9a-f]{6}$/i.test(color)) throw new TypeError("no hints");
    const last = list.at(-1), end = last?.points.at(-1);
    const apart = end && Math.hypot((x - end[0]) * width, (y - end[1]) * height) / shorter;
    if (last && last.color === color && last.radius === radius && apart <= 1.01 * radius) last.points.push([x, y]);
    else list.push({ color, radius, points: [[x, y]] });
  }
  return list;
}

// Which mark a point of the form's field belongs to.
export function markOfPoint(number) {
  let points = 0;
  return marks.findIndex((mark) => (points += mark.points.length) >= number);
}

// Other marks, as those of another coloring; `remember` so that undo gives the old ones back.
export function setMarks(next, size, remember = false) {
  ratio = size[1] / size[0];
  if (remember && !same(next, marks)) past.push(marks);
  if (!remember) past = [];
  future = [];
  marks = next;
  selected = -1;
  render();
}

function change(next) {
  if (same(next, marks)) return;
  if (next.reduce((sum, mark) => sum + mark.points.length, 0) > MOST_POINTS) return;
  past.push(marks);
  future = [];
  marks = next;
  selected = Math.min(selected, marks.length - 1);
  render();
}

function step(from, to) {
  if (!from.length) return;
  to.push(marks);
  marks = from.pop();
  selected = -1;
  render();
}
export const undo = () => step(past, future);
export const redo = () => step(future, past);

const colorName = (value) => (NAMES.has(value) ? t(`color.${NAMES.get(value)}`) : value);
const where = ([x, y]) => t("hint.where", { x: percent(round(x)), y: percent(round(y)) });
const middle = (mark) => mark.points[mark.points.length >> 1];

function render() {
  const focused = document.activeElement?.dataset?.mark;
  const shorter = Math.min(1, ratio);
  $("marks").replaceChildren(...marks.map((mark, k) => {
    const group = document.createElement("div");
    group.className = "mark";
    group.classList.toggle("selected", k === selected);
    for (const point of mark.points) {
      const dot = document.createElement("span");
      dot.className = "dot";
      set(dot, { "--u": `${100 * point[0]}%`, "--v": `${100 * point[1]}%`, "--c": mark.color,
        "--d": `${200 * mark.radius * shorter}%` });
      dot.dataset.mark = k;
      group.append(dot);
    }
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: k + 1 });
    const [u, v] = middle(mark);
    set(button, { "--u": `${100 * u}%`, "--v": `${100 * v}%`, "--c": mark.color });
    button.dataset.mark = k;
    button.setAttribute("aria-label",
      t("hint.mark", { n: k + 1, color: colorName(mark.color), where: where([u, v]) }));
    button.setAttribute("aria-pressed", k === selected);
    button.addEventListener("keydown", (event) => markKey(event, k));
    button.addEventListener("focus", () => { select(k); reveal(...middle(marks[k])); });
    group.append(button);
    return group;
  }));
  if (focused !== undefined) focusMark(Math.min(Number(focused), marks.length - 1));
  $("undo").disabled = past.length === 0;
  $("redo").disabled = future.length === 0;
  $("clear").disabled = $("save-hints").disabled = marks.length === 0;
  showSelected();
  onChange();
}

function set(node, values) {
  for (const [name, value] of Object.entries(values)) node.style.setProperty(name, value);
}

function focusMark(k) {
  const button = document.querySelector(`#marks button[data-mark="${k}"]`);
  (button ?? $("pointer")).focus({ preventScroll: true });
}

function showSelected() {
  document.querySelectorAll("#marks .mark").forEach((node, k) => {
    node.classList.toggle("selected", k === selected);
    node.querySelector("button").setAttribute("aria-pressed", k === selected);
  });
  $("selected").hidden = $("remove").hidden = selected < 0;
  if (selected >= 0) $("selected").textContent = t("hint.selected", { n: selected + 1 });
}

function select(k) {
  selected = k;
  showSelected();
}

const replaced = (k, mark) => marks.map((old, i) => (i === k ? mark : old));
const moved = (mark, dx, dy) => ({ ...mark, points: rounded(mark.points.map(([x, y]) => [x + dx, y + dy])) });

function remove(k) {
  const focused = document.activeElement?.dataset?.mark !== undefined || document.activeElement === $("remove");
  selected = -1;
  change(marks.filter((_, i) => i !== k));
  if (focused) focusMark(Math.min(k, marks.length - 1));
}

function add(points) {
  selected = -1;
  change([...marks, { color, radius: Number($("radius").value) / 100, points: rounded(points) }]);
}

// A color of the palette or of one's own: that of the selected hint, else of the next.
function choose(value) {
  color = value;
  if (!hinting()) document.querySelector("[name=mode][value=hint]").click();
  if (selected >= 0) {
    const k = selected;
    change(replaced(k, { ...marks[k], color }));
    select(k);
  }
}

// Pointer ----------------------------------------------------------------------------------------

let stroke = null;  // points that are being drawn
let dragged = null; // { k, mark, from, moved }

const tool = {
  down(event) {
    const k = event.target.dataset.mark;
    if (k !== undefined) {
      dragged = { k: Number(k), mark: marks[k], from: onPicture(event), at: [event.clientX, event.clientY] };
      select(Number(k));
      return true;
    }
    const [x, y] = onPicture(event);
    if (x < 0 || y < 0 || x > 1 || y > 1) return false;
    stroke = [[x, y]];
    preview();
    return true;
  },
  move(event) {
    const [x, y] = onPicture(event);
    if (dragged) {
      const far = Math.hypot(event.clientX - dragged.at[0], event.clientY - dragged.at[1]);
      if (!dragged.moved && far < GRIP) return;
      dragged.moved = moved(dragged.mark, x - dragged.from[0], y - dragged.from[1]);
      dragged.moved.points.forEach(([u, v], i) => {
        set($("marks").children[dragged.k].children[i], { "--u": `${100 * u}%`, "--v": `${100 * v}%` });
      });
    } else if (stroke) {
      const last = stroke.at(-1), shorter = Math.min(view.width, view.height);
      const apart = Math.hypot((x - last[0]) * view.width, (y - last[1]) * view.height) / shorter;
      const by = SPACING * Number($("radius").value) / 100;
      for (let s = by; s <= apart; s += by) {
        stroke.push([last[0] + (x - last[0]) * s / apart, last[1] + (y - last[1]) * s / apart]);
      }
      preview();
    }
  },
  up() {
    if (dragged?.moved) {
      const { k, moved: mark } = dragged;
      dragged = null;
      change(replaced(k, mark));
      select(k);
    } else if (stroke) add(stroke);
    this.cancel();
  },
  cancel() {
    stroke = dragged = null;
    $("stroke").replaceChildren();
  },
};

function preview() {
  const d = `${200 * Number($("radius").value) / 100 * Math.min(1, ratio)}%`;
  $("stroke").replaceChildren(...stroke.map(([x, y]) => {
    const dot = document.createElement("span");
    dot.className = "dot";
    set(dot, { "--u": `${100 * x}%`, "--v": `${100 * y}%`, "--c": color, "--d": d });
    return dot;
  }));
}

// Keys -------------------------------------------------------------------------------------------

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const cross = [0.5, 0.5];

function markKey(event, k) {
  const move = ARROWS[event.key];
  const by = event.shiftKey ? 0.05 : 0.01;
  if (move) {
    change(replaced(k, moved(marks[k], by * move[0], by * move[1])));
    select(k);
    announce(where(middle(marks[k])));
  } else if (event.key === "Delete" || event.key === "Backspace") remove(k);
  else if (event.key === "Enter" || event.key === " ") {
    change(replaced(k, { ...marks[k], color }));
    select(k);
  } else if (event.key === "Escape") $("pointer").focus();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function announce(text) {
  $("where").textContent = text;
}

function pointerKey(event) {
  const move = ARROWS[event.key];
  if (zoomKey(event)) { /* done */ }
  else if (!hinting()) {
    if (!moveKey(event)) return;
  } else if (move) {
    const by = event.shiftKey ? 0.1 : 0.02;
    move.forEach((m, k) => { cross[k] = round(cross[k] + m * by); });
    set($("pointer"), { "--u": `${100 * cross[0]}%`, "--v": `${100 * cross[1]}%` });
    reveal(...cross);
    announce(where(cross));
  } else if (event.key === "Enter" || event.key === " ") {
    add([[...cross]]);
    announce(tn("hint.added", marks.length));
  } else if (event.key === "Delete" || event.key === "Backspace") {
    if (marks.length) remove(marks.length - 1);
  } else return;
  event.preventDefault();
}

export function start(changed) {
  onChange = changed;
  for (const [k, [name, value]] of PALETTE.entries()) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {
      type: "radio", name: "pigment", value, checked: k === 0,
    });
    input.setAttribute("aria-label", t(`color.${name}`));
    input.addEventListener("change", () => choose(value));
    input.addEventListener("click", () => { if (color !== value || selected >= 0 || !hinting()) choose(value); });
    const dot = document.createElement("span");
    set(dot, { "--c": value });
    label.title = t(`color.${name}`);
    label.append(input, dot);
    $("palette").append(label);
  }
  $("own").addEventListener("input", () => {
    document.querySelectorAll("[name=pigment]").forEach((input) => { input.checked = false; });
    choose($("own").value);
  });
  const radius = () => {
    const value = percent(Number($("radius").value) / 100);
    $("radius-value").textContent = value;
    $("radius").setAttribute("aria-valuetext", value);
  };
  radius();
  $("radius").addEventListener("input", () => {
    radius();
    if (selected < 0) return;
    const k = selected;
    change(replaced(k, { ...marks[k], radius: Number($("radius").value) / 100 }));
    select(k);
  });
  $("undo").addEventListener("click", undo);
  $("redo").addEventListener("click", redo);
  $("clear").addEventListener("click", () => { change([]); $("undo").focus(); });
  $("remove").addEventListener("click", () => { if (selected >= 0) remove(selected); });
  $("pointer").addEventListener("keydown", pointerKey);
  for (const radio of document.querySelectorAll("[name=mode]")) {
    radio.addEventListener("change", () => mode(document.querySelector("[name=mode]:checked").value));
  }
}

export function mode(value) {
  document.querySelector(`[name=mode][value=${value}]`).checked = true;
  document.body.classList.toggle("hinting", value === "hint");
  $("marks").hidden = $("stroke").hidden = value !== "hint";
  $("pointer").setAttribute("aria-label", t(value === "hint" ? "pointer.hint" : "pointer.compare"));
  selected = -1;
  showSelected();
  setTool(value === "hint" ? tool : null);
}
