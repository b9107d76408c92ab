// The view: the picture with a divider, fitted or zoomed, controlled by pointer and keys.
import { show } from "./pictures.js";
import { percent, t } from "./words.js";

const $ = (id) => document.getElementById(id);
const stage = $("stage");
const KEY_PAN = 60, KEY_ZOOM = 1.5, GRIP = 24;

// The picture's place on the stage, CSS pixels: x, y of its corner, its width and height.
export const view = { x: 0, y: 0, width: 1, height: 1, scale: 1 };
const picture = { width: 1, height: 1, full: 1 };
let share = 0.5;  // position of the divider in the visible part of the picture, from the left
let onView = () => {};
let tool = null;  // takes the pointer instead of divider and pan: { down, move, up, cancel }

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function fit() {
  const { clientWidth, clientHeight } = stage;
  return Math.min(clientWidth / picture.width, clientHeight / picture.height);
}

const most = () => Math.max(8, 4 * picture.full / (fit() * picture.width));

function place(scale, x, y) {
  const { clientWidth, clientHeight } = stage;
  const zoom = clamp(scale, 1, most());
  const width = fit() * picture.width * zoom, height = fit() * picture.height * zoom;
  const inside = (at, size, room) => (size <= room ? (room - size) / 2 : clamp(at, room - size, 0));
  Object.assign(view, {
    scale: zoom, width, height, x: inside(x, width, clientWidth), y: inside(y, height, clientHeight),
  });
  for (const name of ["x", "y", "width", "height"]) stage.style.setProperty(`--${name}`, `${view[name]}px`);
  stage.dataset.zoom = zoom.toFixed(2);
  $("zoom-level").textContent = percent(view.width * devicePixelRatio / picture.full);
  $("zoom-out").disabled = $("zoom-fit").disabled = zoom === 1;
  $("zoom-in").disabled = zoom >= most();
  setShare(share);
  onView();
}

// Zoom about a point of the stage, its middle by default.
export function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const scale = clamp(view.scale * factor, 1, most()), by = scale / view.scale;
  place(scale, x + (view.x - x) * by, y + (view.y - y) * by);
}

export const fitted = () => place(1, 0, 0);
const pan = (dx, dy) => place(view.scale, view.x + dx, view.y + dy);

// What is seen of the picture, on the stage from the left.
function seen() {
  const left = Math.max(view.x, 0);
  return [left, Math.min(view.x + view.width, stage.clientWidth) - left];
}

// Divider and slider stand at the same place; right of it the picture is in color.
export function setShare(value) {
  share = clamp(value, 0, 1);
  const [left, width] = seen();
  stage.style.setProperty("--divider", `${left + share * width}px`);
  $("slider").style.setProperty("--seen", `${width}px`);
  $("slider").value = Math.round(100 * share);
  $("slider").setAttribute("aria-valuetext", t("slider.value", { share: percent(1 - Math.round(100 * share) / 100) }));
}

// x, y on the screen → shares of the picture's width and height.
export function onPicture({ clientX, clientY }) {
  const box = stage.getBoundingClientRect();
  return [(clientX - box.left - view.x) / view.width, (clientY - box.top - view.y) / view.height];
}

export function setPicture(width, height, full) {
  Object.assign(picture, { width, height, full });
  stage.style.setProperty("--ratio", width / height);
  share = 0.5;
  fitted();
}

export function setTool(next) {
  tool = next;
  setShare(tool ? 0 : 0.5);
}

// Paint the original or the colored picture.
export function paintLayer(id, data, { width, height }) {
  show($(id), data, width, height);
}

// Pointers ---------------------------------------------------------------------------------------

const pointers = new Map();
let drag = null;  // "divider", "pan", "tool" or "pinch"

function at(event) {
  const box = stage.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function follow([x]) {
  const [left, width] = seen();
  setShare((x - left) / width);
}

function pinch() {
  const [a, b] = [...pointers.values()];
  return { x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2, span: Math.hypot(a[0] - b[0], a[1] - b[1]) };
}

stage.addEventListener("pointerdown", (event) => {
  if (event.button > 1 || event.target.closest("[data-own]")) return;
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, at(event));
  if (pointers.size === 2) {
    if (drag === "tool") tool.cancel();
    drag = "pinch";
  } else if (pointers.size === 1) {
    const divider = parseFloat(stage.style.getPropertyValue("--divider"));
    if (event.button === 1) drag = "pan";
    else if (tool) drag = tool.down(event) === false ? null : "tool";
    else if (view.scale === 1 || Math.abs(at(event)[0] - divider) < GRIP) {
      drag = "divider";
      follow(at(event));
    } else drag = "pan";
  }
});

stage.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const old = drag === "pinch" ? pinch() : null;
  const now = at(event);
  pointers.set(event.pointerId, now);
  if (drag === "pinch") {
    const next = pinch();
    pan(next.x - old.x, next.y - old.y);
    zoom(next.span / old.span, next.x, next.y);
  } else if (drag === "pan") pan(now[0] - before[0], now[1] - before[1]);
  else if (drag === "divider") follow(now);
  else if (drag === "tool") tool.move(event);
});

function release(event) {
  if (!pointers.delete(event.pointerId)) return;
  if (drag === "tool") {
    if (event.type === "pointerup") tool.up(event);
    else tool.cancel();
  }
  drag = null;  // a finger that stays after a pinch does nothing
}
stage.addEventListener("pointerup", release);
stage.addEventListener("pointercancel", release);

stage.addEventListener("wheel", (event) => {
  if (view.scale === 1 && event.deltaY > 0) return;  // the page's own scrolling
  event.preventDefault();
  const step = event.deltaMode === 1 ? 30 * event.deltaY : event.deltaY;
  zoom(Math.exp(-clamp(step, -200, 200) / 300), ...at(event));
}, { passive: false });

// Keys and buttons -------------------------------------------------------------------------------

// + and - zoom, 0 fits, F fills the screen; whether the key was one of them.
export function zoomKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (event.key === "+" || event.key === "=") zoom(KEY_ZOOM);
  else if (event.key === "-") zoom(1 / KEY_ZOOM);
  else if (event.key === "0") fitted();
  else if (event.key.toLowerCase() === "f" && document.fullscreenEnabled) toggleFull();
  else return false;
  return true;
}

// Arrows move the view where it is zoomed, else the divider; whether the key was an arrow.
export function moveKey(event) {
  const move = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (!move) return false;
  if (view.scale > 1) pan(KEY_PAN * move[0], KEY_PAN * move[1]);
  else if (move[0]) setShare(share - 0.02 * move[0]);
  return true;
}

// Bring a point of the picture, in shares, into sight.
export function reveal(u, v) {
  const x = view.x + u * view.width, y = view.y + v * view.height;
  const { clientWidth, clientHeight } = stage;
  const inside = x >= 0 && y >= 0 && x <= clientWidth && y <= clientHeight;
  if (!inside) pan(clientWidth / 2 - x, clientHeight / 2 - y);
}

function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else $("viewer").requestFullscreen();
}

export function start(changed) {
  onView = changed;
  $("zoom-in").addEventListener("click", () => zoom(KEY_ZOOM));
  $("zoom-out").addEventListener("click", () => zoom(1 / KEY_ZOOM));
  $("zoom-fit").addEventListener("click", fitted);
  $("full").hidden = !document.fullscreenEnabled;
  $("full").addEventListener("click", toggleFull);
  document.addEventListener("fullscreenchange", () => {
    const full = document.fullscreenElement !== null;
    $("full").setAttribute("aria-pressed", full);
  });
  $("slider").addEventListener("input", () => setShare($("slider").value / 100));
  new ResizeObserver(() => place(view.scale, view.x, view.y)).observe(stage);
  // What stays in sight over the rest of the page, whose scrolling must leave room for it.
  for (const id of ["viewer", "hint-tools", "bar"]) {
    new ResizeObserver(() => {
      document.documentElement.style.setProperty(`--${id}-height`, `${$(id).offsetHeight}px`);
    }).observe($(id));
  }
}
