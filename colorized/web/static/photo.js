// The photograph on the page and its colorings: making, showing, keeping and saving them.
import * as hints from "./hints.js";
import { colored, decode, levels, resized, show } from "./pictures.js";
import { Trouble, colorize, forget, preview, scan } from "./service.js";
import { complain, say, showThumb } from "./status.js";
import { setColors, setSaturation, setScan } from "./tiles.js";
import { paintLayer, setPicture } from "./view.js";
import * as visit from "./visit.js";
import { number, percent, t, tn } from "./words.js";

const $ = (id) => document.getElementById(id);
const SEVERAL = 4, THUMB = 240, STRIP_PADDING = 5;
const DOUBT_MOST = 40;  // CIELAB units at which the overlay is opaque
const PASSING = ["busy", "failed", "memory", "time", "slow"];  // what may go better the next time
const DOUBT_COLOR = [181, 23, 158];

// { id, file, page, opened, gray, size, tiles, nextSeed, doubt, chosen, notes,
//   colorings: [{ seed, marks, how, candidate, candidates, ab, softened, canvas }] }
export let photo = null;
let work = null;        // AbortController of what is under way

const current = () => photo?.colorings[photo.chosen];
const pending = () => Boolean(current()) && !hints.isSame(current().marks);
const saturation = () => Number($("saturation").value) / 100;

// Seeing -----------------------------------------------------------------------------------------

let painting = false, next = null;

// Paint chroma over the photograph; of what comes while one is painted only the newest counts.
async function paint(ab, unit, final) {
  next = { gray: photo.gray, ab, unit, final };
  if (painting) return;
  painting = true;
  let last = null;
  while (next) {
    [last, next] = [next, null];
    const { gray } = last;
    const out = await colored(gray.levels, last.ab, last.unit, saturation());
    if (gray !== photo?.gray) continue;  // another photograph by now
    paintLayer("now", out, gray);
    const { width, height, levels } = gray;
    setColors(last.final ? { gray: levels, ab: last.ab, unit: last.unit, width, height } : null, saturation());
  }
  painting = false;
  if (last.final) $("stage").dataset.painted = Number($("stage").dataset.painted ?? 0) + 1;
}

// What Save gives: the chosen coloring.
async function repaint() {
  const coloring = current(), mine = photo;
  if (coloring) {
    const plane = (await decode(coloring.ab.png)).data;
    if (mine === photo && coloring === current()) await paint(plane, coloring.ab.unit, true);
  } else if (photo) paintLayer("now", photo.gray.rgba, photo.gray);
}

export function strengthChanged() {
  showStrength();
  if (!current()) return;
  setSaturation(saturation());
  repaint();
  keep();
}

function showStrength() {
  $("saturation-value").textContent = percent(saturation());
  $("saturation").setAttribute("aria-valuetext", percent(saturation()));
}

export async function showDoubt() {
  $("show-doubt").disabled = !photo?.doubt;
  const on = $("show-doubt").checked && Boolean(photo?.doubt);
  $("doubt").hidden = $("legend").hidden = !on;
  if (!on) return;
  const picture = await decode(photo.doubt.png), { unit } = photo.doubt;
  const values = levels(picture);
  const out = new Uint8ClampedArray(picture.data.length);
  let sum = 0;
  values.forEach((level, i) => {
    const value = level * unit;
    sum += value;
    out.set([...DOUBT_COLOR, Math.round(220 * Math.min(value / DOUBT_MOST, 1))], 4 * i);
  });
  show($("doubt"), out, picture.width, picture.height);
  $("legend-text").textContent = t("doubt.legend", { most: DOUBT_MOST, mean: number(Math.round(sum / values.length)) });
}

function clearStrip() {
  $("colorings").querySelectorAll("label").forEach((label) => label.remove());
}

async function addThumb(coloring, mine) {
  if (mine !== photo) return;
  const { gray } = mine, k = mine.colorings.indexOf(coloring);
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), {
    type: "radio", name: "coloring", value: k, checked: k === mine.chosen,
  });
  input.setAttribute("aria-label", t("coloring.label", { n: number(k + 1), seed: coloring.seed })
    + (coloring.marks.length ? `, ${tn("hints.count", coloring.marks.length)}` : ""));
  label.title = input.getAttribute("aria-label");
  input.addEventListener("change", () => choose(k));
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
  label.append(input, canvas);
  $("colorings").append(label);
  const scale = Math.min(1, THUMB / Math.max(gray.width, gray.height));
  const size = [gray.width, gray.height].map((n) => Math.max(1, Math.round(n * scale)));
  mine.small ??= levels(await resized({ ...gray, data: gray.rgba }, ...size));
  const plane = await resized(await decode(coloring.ab.png), ...size);
  show(canvas, await colored(mine.small, plane.data, coloring.ab.unit, 1), ...size);
}

function choose(k) {
  photo.chosen = k;
  hints.setMarks(current().marks, photo.size, true);
  showNotes();
  refresh();
  repaint();
  keep();
}

function showNotes() {
  const notes = photo.opened.notes.map((textContent) => ({ textContent, lang: "en" }));  // the library's
  if (photo.opened.original) notes.unshift({ textContent: t("note.color") });
  if (photo.opened.marks && !photo.opened.repeatable) notes.push({ textContent: t("note.unrepeatable") });
  for (const n of new Set((current()?.softened ?? []).map((point) => hints.markOfPoint(point) + 1))) {
    if (n > 0) notes.push({ textContent: t("note.softened", { n }) });
  }
  $("notes").replaceChildren(...notes.map((note) => Object.assign(document.createElement("li"), note)));
  $("redo-marks").hidden = !photo.opened.repeatable;
}

export function refresh() {
  const busy = work !== null, any = Boolean(current());
  document.body.toggleAttribute("data-busy", busy);
  $("several").disabled = busy || !photo;
  $("several").textContent = t(photo?.colorings.length > 1 ? "colorings.others" : "colorings.four");
  $("rerun").disabled = busy || !photo || (any && !pending());
  $("save").disabled = busy || !any || pending();
  $("page").disabled = busy;
  const count = hints.current().length;
  $("hint-count").textContent = !any ? "" : pending() ? (count ? tn("hints.pending", count) : t("hints.removed"))
    : count ? tn("hints.applied", count) : "";
}

// Working ----------------------------------------------------------------------------------------

// One thing at a time: do a task with a signal that ends it, and say what went wrong.
export async function busy(task, retry) {
  work?.abort();
  const mine = new AbortController();
  work = mine;
  refresh();
  try {
    await task(mine.signal);
  } catch (error) {
    if (work === mine) {
      if (mine.signal.aborted) say(t("status.stopped"));
      else {
        const again = !error.code || PASSING.includes(error.code);
        const text = error instanceof Trouble ? error.message : t("error.page", { error: error.message });
        complain(text, again ? retry : null);
      }
      showThumb(photo?.file);
    }
  }
  if (work !== mine) return;
  work = null;
  refresh();
  if (mine.signal.aborted || !current()) repaint();
}

export const stop = () => work?.abort();
export const isBusy = () => work !== null;

export const telling = (text) => ({
  sent: (share) => (share < 1 ? say(t("status.sending", { share: percent(share) }), share) : say(text, null)),
  busy: (seconds) => say(tn("status.busy", seconds), null),
});

// Open a photograph, beside the one that is shown: that stays until this one can be read.
export function open(file, page = 1) {
  return run({ id: `${Date.now()}-${Math.random()}`, file, page, colorings: [], chosen: -1, nextSeed: 0, doubt: null },
    { seed: "0", count: 1, marks: [] });
}

function run(mine, job) {
  return busy(async (signal) => {
    const { seed, count, marks, how = {} } = job;
    if (mine !== photo) showThumb(mine.file);
    say(t("status.sending", { share: percent(0) }), 0);
    const fields = { file: mine.file, page: mine.page, ...how, seed, candidates: count, tiles: !mine.tiles };
    if (marks.length) fields.hints = hints.toJSON(marks);
    await preview(fields, signal, telling(t("status.reading")), async (event) => {
      if (event.event === "waiting") say(event.ahead ? tn("status.waiting", event.ahead) : t("status.reading"), null);
      if (event.event === "reading") say(t("status.reading"), null);
      if (event.event === "opened") {
        if (mine !== photo) await showNew(mine, event);
        say(t("status.coloring"), null);
      }
      if (event.event === "step") {
        say(t("status.coloring"), event.step / event.steps);
        const { width, height } = mine.gray;
        const plane = (await resized(await decode(event.ab.png), width, height)).data;
        if (!signal.aborted) paint(plane, event.ab.unit, false);
      }
      if (event.event === "done") await finished(mine, job, event);
      if (event.event === "tiles") holdTiles(mine, event);
    });
    say(t("status.done"));
  }, () => run(mine, job));
}

function holdTiles(mine, { id, size, levels }) {
  mine.tiles = { id, size, levels };
  if (mine !== photo) return;
  setScan(mine.tiles, mine.gray.width, () => scan({ file: mine.file, page: mine.page }, new AbortController().signal));
  keep();
}

async function showNew(mine, event) {
  mine.opened = event;
  delete event.event;
  await showPhoto(mine);
  visit.remember(mine, await thumbnail(mine));
}

async function thumbnail({ gray }) {
  const scale = THUMB / Math.max(gray.width, gray.height);
  const size = [gray.width, gray.height].map((n) => Math.max(1, Math.round(n * Math.min(1, scale))));
  const canvas = document.createElement("canvas");
  show(canvas, (await resized({ ...gray, data: gray.rgba }, ...size)).data, ...size);
  return canvas.toDataURL("image/jpeg", 0.8);
}

// Show another photograph, with the colorings it has.
async function showPhoto(mine) {
  const picture = await decode(mine.opened.gray);
  const { width, height } = picture;
  const original = mine.opened.original ? await decode(mine.opened.original) : picture;
  if (photo?.tiles && photo !== mine) forget(photo.tiles.id);
  mine.gray = { width, height, levels: levels(picture), rgba: picture.data };
  mine.size = [mine.opened.width, mine.opened.height];
  photo = mine;
  setScan(mine.tiles ?? null, width, () => scan({ file: mine.file, page: mine.page }, new AbortController().signal));
  setColors(null, saturation());
  paintLayer("then", original.data, picture);
  paintLayer("now", picture.data, picture);
  $("size").textContent = `${number(mine.size[0], { useGrouping: false })} × ${number(mine.size[1], { useGrouping: false })}`;
  clearStrip();
  const pages = $("page");
  $("pages").hidden = mine.opened.pages === 1;
  pages.replaceChildren(...Array.from({ length: mine.opened.pages }, (_, k) => new Option(
    t("page.of", { n: k + 1, pages: mine.opened.pages }), k + 1, false, k + 1 === mine.page)), new Option(t("page.all"), "all"));
  pages.value = mine.page;
  $("saturation").value = mine.strength ?? 100;
  $("show-doubt").checked = false;
  showStrength();
  const leaving = $("welcome").contains(document.activeElement);
  document.body.classList.add("working");
  $("welcome").hidden = true;
  $("work").hidden = false;
  hints.mode("compare");
  setPicture(width, height, mine.size[0]);
  hints.setMarks(mine.marks ?? [], mine.size);
  showDoubt();
  showNotes();
  showThumb(mine.file);
  if (leaving) $("pointer").focus({ preventScroll: true });
}

async function finished(mine, { marks }, event) {
  const how = { steps: event.steps, guidance: event.guidance, temperature: event.temperature };
  const count = event.candidates.length;
  const first = mine.colorings.length;
  for (const [k, { seed, ab }] of event.candidates.entries()) {
    const coloring = { seed, marks, how, ab, candidate: k + 1, candidates: count, softened: event.softened };
    mine.colorings.push(coloring);
    visit.keepColoring(mine, first + k);
  }
  mine.chosen = first;
  if (event.uncertainty) mine.doubt = event.uncertainty;
  if (mine !== photo) return;
  keep();
  await repaint();
  for (const coloring of mine.colorings.slice(first)) await addThumb(coloring, mine);
  if (mine !== photo) return;
  for (const input of $("colorings").querySelectorAll("input")) input.checked = Number(input.value) === mine.chosen;
  const strip = $("colorings"), chosen = strip.querySelector("input:checked").parentElement;
  strip.scrollLeft = chosen.offsetLeft - strip.offsetLeft - STRIP_PADDING;
  showDoubt();
  showNotes();
}

function keep() {
  if (photo) visit.keep(photo, { marks: hints.current(), strength: Number($("saturation").value) });
}

// What a visitor does ----------------------------------------------------------------------------

export function several() {
  const seed = photo.nextSeed;
  photo.nextSeed += 2 * SEVERAL;  // twice as many are drawn as are shown
  return run(photo, { seed: String(seed), count: SEVERAL, marks: hints.current(), how: current()?.how });
}

export function again() {
  return run(photo, { seed: current()?.seed ?? "0", count: 1, marks: hints.current(), how: current()?.how });
}

// Color the photograph as the file says that it was colored before.
export function asMarked() {
  const { seed, hints: text, steps, guidance, temperature, saturation } = photo.opened.marks;
  const marks = text ? hints.fromJSON(text, ...photo.size) : [];
  $("saturation").value = Math.round(100 * saturation);
  showStrength();
  hints.setMarks(marks, photo.size, true);
  return run(photo, { seed, count: 1, marks, how: { steps, guidance, temperature } });
}

export function hintsChanged() {
  if (!photo) return;
  refresh();
  keep();
}

// Save the chosen coloring at full size.
export function download() {
  const { file, page } = photo, coloring = current();
  return busy(async (signal) => {
    say(t("status.sending", { share: percent(0) }), 0);
    const fields = {
      file, page, ...coloring.how, seed: coloring.seed, candidate: coloring.candidate, candidates: coloring.candidates,
      saturation: saturation(), format: $("format").value,
    };
    if (coloring.marks.length) fields.hints = hints.toJSON(coloring.marks);
    const blob = await colorize(fields, signal, telling(t("status.full")));
    give(blob, colorizedName(file, blob, photo.opened.pages > 1 ? page : 0));
    photo.saved = true;
    say(t("status.saved"));
  }, download);
}

export function colorizedName(file, blob, page = 0) {
  const kind = { "image/jpeg": "jpg", "image/tiff": "tif" }[blob.type] ?? blob.type.split("/")[1];
  return `${file.name.replace(/\.[^.]*$/, "")}${page ? `-${page}` : ""}-colorized.${kind}`;
}

export function give(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// A photograph of this visit, as it was left.
export async function reopen(id) {
  const mine = await visit.load(id);
  if (!mine) return false;
  work?.abort();
  await showPhoto(mine);
  await repaint();
  for (const coloring of mine.colorings) await addThumb(coloring, mine);
  refresh();
  say("");
  return true;
}

export function close() {
  work?.abort();
  work = null;
  if (photo?.tiles) forget(photo.tiles.id);
  photo = null;
  document.body.classList.remove("working");
  setScan(null, 1, null);
  clearStrip();
  refresh();
  $("work").hidden = true;
  $("welcome").hidden = false;
  showThumb(null);
  say("");
}
