// The page: a photograph, what is asked of the service for it, and what is seen of it.
import { colored, decode, levels, resized, show } from "./pictures.js";
import { Trouble, about, colorize, preview } from "./service.js";

const $ = (id) => document.getElementById(id);
const SEVERAL = 4;
const THUMB = 240;
const DOUBT_MOST = 40;  // CIELAB units at which the overlay is opaque
const DOUBT_COLOR = [181, 23, 158];

// Pigments, cloth and places of the decades that black-and-white photographs come from.
const PALETTE = [
  ["sky", "#8fb4d4"], ["foliage", "#5f7a3d"], ["dry grass", "#b5a05a"], ["brick", "#9c4a33"],
  ["sandstone", "#c8a878"], ["oak", "#8b6038"], ["earth", "#6f5138"], ["fair skin", "#d8a384"],
  ["brown skin", "#8c5a3c"], ["oxblood", "#7a1f26"], ["Turkey red", "#b3262e"],
  ["mustard", "#c4962c"], ["bottle green", "#1f5138"], ["Prussian blue", "#1d4270"],
];

const state = {
  facts: null,
  file: null,
  gray: null,         // { width, height, levels }
  size: null,         // [width, height] of the photograph
  candidates: [],     // { seed, plane, unit }
  chosen: 0,
  seed: 0,            // of the next drawing
  doubt: null,        // { picture, unit }
  hints: [],
  pending: false,     // hints that the colors do not know yet
  color: PALETTE[0][1],
  work: null,         // AbortController of what is under way
  again: null,        // what "Try again" does
};

// Seeing ----------------------------------------------------------------------------------------

let painting = false, stale = null;

// Paint chroma over the photograph; of what comes while one is painted only the newest counts.
async function paint(plane, unit) {
  stale = [plane, unit];
  if (painting) return;
  painting = true;
  while (stale) {
    const [ab, u] = stale;
    stale = null;
    const { gray } = state;
    const out = await colored(gray.levels, ab, u, Number($("saturation").value));
    if (gray === state.gray) show($("now"), out, gray.width, gray.height);
  }
  painting = false;
  $("stage").dataset.painted = String(Number($("stage").dataset.painted ?? 0) + 1);
}

function current() {
  return state.candidates[state.chosen];
}

function repaint() {
  if (current()) paint(current().plane, current().unit);
}

function setShare(value) {
  $("slider").value = value;
  $("stage").style.setProperty("--share", `${value}%`);
  $("slider").setAttribute("aria-valuetext", `${value} percent in color`);
}

function say(text) {
  $("status").textContent = text;
}

function showTrouble(error, again) {
  $("trouble-text").textContent = error.message;
  $("again").hidden = !again;
  state.again = again;
  $("trouble").hidden = false;
}

function showDoubt() {
  const on = $("show-doubt").checked && state.doubt !== null;
  $("doubt").hidden = $("legend").hidden = !on;
  if (!on) return;
  const { picture, unit } = state.doubt;
  const values = levels(picture);
  const out = new Uint8ClampedArray(picture.data.length);
  let sum = 0;
  values.forEach((level, i) => {
    const value = level * unit;
    sum += value;
    out.set([...DOUBT_COLOR, Math.round(220 * Math.min(value / DOUBT_MOST, 1))], 4 * i);
  });
  show($("doubt"), out, picture.width, picture.height);
  $("legend-text").textContent = `0 to ${DOUBT_MOST} CIELAB units between two colorings; 2 are just `
    + `visible. Here, ${(sum / values.length).toFixed(0)} on average.`;
}

async function showCandidates() {
  const set = $("colorings");
  set.querySelectorAll("label").forEach((label) => label.remove());
  const { gray } = state;
  const scale = Math.min(1, THUMB / Math.max(gray.width, gray.height));
  const size = [gray.width, gray.height].map((n) => Math.max(1, Math.round(n * scale)));
  const small = levels(await resized({ ...gray, data: gray.rgba }, ...size));
  for (const [k, candidate] of state.candidates.entries()) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {
      type: "radio", name: "coloring", value: k, checked: k === state.chosen,
    });
    input.setAttribute("aria-label", `Coloring ${k + 1} of ${state.candidates.length}`);
    input.addEventListener("change", () => { state.chosen = k; repaint(); });
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    label.append(input, canvas);
    set.append(label);
    const plane = await resized({ width: gray.width, height: gray.height, data: candidate.plane }, ...size);
    show(canvas, await colored(small, plane.data, candidate.unit, 1), ...size);
  }
}

function refresh() {
  const busy = state.work !== null, any = state.candidates.length > 0;
  $("stop").hidden = !busy;
  $("progress").hidden = !busy;
  $("several").disabled = busy || !any;
  $("several").textContent = state.candidates.length > 1 ? "Show four others" : "Show four colorings";
  $("show-doubt").disabled = state.doubt === null;
  $("rerun").disabled = busy || !any || !state.pending;
  $("undo").disabled = $("clear").disabled = state.hints.length === 0;
  $("download").disabled = busy || !any || state.pending;
  const count = state.hints.length;
  $("hint-count").textContent = (count === 0 ? "" : `${count} ${count === 1 ? "color" : "colors"} said. `)
    + (state.pending && any ? "Color again to see what follows." : "");
}

// Coloring --------------------------------------------------------------------------------------

function order(seed) {
  const fields = { file: state.file, seed };
  if (state.hints.length) fields.hints = JSON.stringify({ points: state.hints });
  return fields;
}

// One thing at a time: do work with a signal that ends it, and say what went wrong.
async function busy(work, again) {
  state.work?.abort();
  const mine = new AbortController();
  state.work = mine;
  $("trouble").hidden = true;
  refresh();
  try {
    await work(mine.signal);
  } catch (error) {
    if (mine.signal.aborted) {
      if (state.work === mine) say("Stopped.");
    } else {
      say("");
      showTrouble(error instanceof Trouble ? error : new Trouble(`The page failed: ${error.message}`), again);
    }
  }
  if (state.work === mine) state.work = null;
  refresh();
}

const full = (seconds) => say(`The room is full. Asking again in ${seconds} s.`);

function run(seed, count) {
  return busy(async (signal) => {
    const sent = JSON.stringify(state.hints);
    const progress = $("progress");
    progress.removeAttribute("value");
    say("Sending …");
    for await (const event of preview({ ...order(seed), candidates: count }, signal, full)) {
      if (event.event === "waiting") say(event.ahead ? `Waiting; ${event.ahead} before you.` : "");
      if (event.event === "reading") say("Reading …");
      if (event.event === "opened") {
        await opened(event);
        say("Coloring …");
      }
      if (event.event === "step") {
        Object.assign(progress, { max: event.steps, value: event.step });
        const { width, height } = state.gray;
        paint((await resized(await decode(event.ab.png), width, height)).data, event.ab.unit);
      }
      if (event.event === "done") {
        state.candidates = await Promise.all(event.candidates.map(async ({ seed, ab }) => (
          { seed, plane: (await decode(ab.png)).data, unit: ab.unit }
        )));
        state.chosen = 0;
        addNotes(event.notes);
        state.doubt = event.uncertainty && {
          picture: await decode(event.uncertainty.png), unit: event.uncertainty.unit,
        };
        state.pending = JSON.stringify(state.hints) !== sent;
        repaint();
        showDoubt();
        await showCandidates();
        say("Colored by machine.");
      }
    }
  }, () => run(seed, count));
}

async function opened({ gray, width, height, notes }) {
  const picture = await decode(gray);
  const same = state.gray && state.gray.width === picture.width && state.gray.height === picture.height;
  state.gray = { width: picture.width, height: picture.height, levels: levels(picture), rgba: picture.data };
  state.size = [width, height];
  $("stage").style.setProperty("--ratio", picture.width / picture.height);
  show($("then"), picture.data, picture.width, picture.height);
  if (!same) show($("now"), picture.data, picture.width, picture.height);
  $("size").textContent = `${width} × ${height} pixels`;
  $("notes").replaceChildren();
  addNotes(notes);
  $("welcome").hidden = true;
  $("work").hidden = false;
}

function addNotes(notes) {
  for (const note of notes) {
    const item = document.createElement("li");
    item.textContent = note;
    $("notes").append(item);
  }
}

function begin(file) {
  const most = state.facts?.max_bytes ?? Infinity;
  if (file.size > most) {
    showTrouble(new Trouble(`${file.name}: more than ${Math.floor(most / 2 ** 20)} MB.`), null);
    return;
  }
  Object.assign(state, {
    file, gray: null, candidates: [], chosen: 0, seed: 0, doubt: null, hints: [], pending: false,
  });
  $("colorings").querySelectorAll("label").forEach((label) => label.remove());
  $("saturation").value = 1;
  $("show-doubt").checked = false;
  showStrength();
  showDoubt();
  showMarks();
  setShare(50);
  document.querySelector("[name=mode][value=compare]").click();
  run(0, 1);
}

async function download() {
  await busy(async (signal) => {
    $("progress").removeAttribute("value");
    say("Coloring at full size …");
    const fields = {
      ...order(current().seed), saturation: $("saturation").value, format: $("format").value,
    };
    const blob = await colorize(fields, signal, full);
    const kind = { "image/jpeg": "jpg", "image/tiff": "tif" }[blob.type] ?? blob.type.split("/")[1];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${state.file.name.replace(/\.[^.]*$/, "")}-colorized.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say("Saved where your browser keeps downloads.");
  }, download);
}

function close() {
  state.work?.abort();
  state.work = null;
  state.file = null;
  $("work").hidden = $("trouble").hidden = true;
  $("welcome").hidden = false;
  for (const id of ["file", "camera"]) $(id).value = "";
  $("file").focus();
}

// Hints -----------------------------------------------------------------------------------------

function showMarks() {
  const shorter = state.gray ? Math.min(state.gray.width, state.gray.height) / state.gray.width : 1;
  $("marks").replaceChildren(...state.hints.map((hint) => {
    const mark = document.createElement("span");
    const place = { "--x": `${100 * hint.x}%`, "--y": `${100 * hint.y}%`, "--c": hint.color,
      "--d": `${200 * hint.radius * shorter}%` };
    for (const [name, value] of Object.entries(place)) mark.style.setProperty(name, value);
    return mark;
  }));
  $("marks").hidden = !document.body.classList.contains("hinting");
  refresh();
}

function changeHints(hints) {
  state.hints = hints;
  state.pending = true;
  showMarks();
}

function addHint(x, y) {
  const round = (v) => Math.round(Math.min(Math.max(v, 0), 1) * 1e4) / 1e4;
  changeHints([...state.hints, {
    x: round(x), y: round(y), radius: Number($("radius").value), color: state.color,
  }]);
}

function wireHints() {
  for (const [k, [name, color]] of PALETTE.entries()) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {
      type: "radio", name: "pigment", value: color, checked: k === 0,
    });
    input.setAttribute("aria-label", name);
    input.addEventListener("change", () => choose(color));
    const dot = document.createElement("span");
    dot.style.setProperty("--c", color);
    label.title = name;
    label.append(input, dot);
    $("palette").append(label);
  }
  const choose = (color) => {
    state.color = color;
    document.querySelector("[name=mode][value=hint]").click();
  };
  $("own").addEventListener("input", () => {
    document.querySelectorAll("[name=pigment]").forEach((input) => { input.checked = false; });
    choose($("own").value);
  });
  $("undo").addEventListener("click", () => changeHints(state.hints.slice(0, -1)));
  $("clear").addEventListener("click", () => changeHints([]));
  $("rerun").addEventListener("click", () => run(current().seed, 1));

  const pointer = $("pointer");
  const at = [0.5, 0.5];
  const cross = () => at.forEach((v, k) => pointer.style.setProperty(["--x", "--y"][k], `${100 * v}%`));
  pointer.addEventListener("click", (event) => {
    const box = pointer.getBoundingClientRect();
    at[0] = (event.clientX - box.left) / box.width;
    at[1] = (event.clientY - box.top) / box.height;
    cross();
    addHint(...at);
  });
  pointer.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (move) {
      const by = event.shiftKey ? 0.1 : 0.02;
      move.forEach((m, k) => { at[k] = Math.min(Math.max(at[k] + m * by, 0), 1); });
      cross();
    } else if (event.key === "Enter" || event.key === " ") {
      addHint(...at);
    } else return;
    event.preventDefault();
  });
}

// Wiring ----------------------------------------------------------------------------------------

function showStrength() {
  $("saturation-value").textContent = Number($("saturation").value).toFixed(2);
}

function wireStage() {
  $("slider").addEventListener("input", () => setShare($("slider").value));
  const stage = $("stage");
  const hinting = () => document.body.classList.contains("hinting");
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    const x = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    setShare(Math.round(100 * (1 - x)));
  };
  stage.addEventListener("pointerdown", (event) => {
    if (hinting()) return;  // captured, its click would not reach what takes hints
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => { if (event.buttons && !hinting()) follow(event); });
  for (const radio of document.querySelectorAll("[name=mode]")) {
    radio.addEventListener("change", () => {
      document.body.classList.toggle("hinting", document.querySelector("[name=mode]:checked").value === "hint");
      $("pointer").hidden = !hinting();
      setShare(hinting() ? 100 : 50);
      showMarks();
    });
  }
}

function wireIntake() {
  for (const id of ["file", "camera"]) {
    $(id).addEventListener("change", (event) => { if (event.target.files[0]) begin(event.target.files[0]); });
  }
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) begin(file);
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    const [file] = event.dataTransfer.files;
    if (file) begin(file);
  });
}

async function wireService() {
  state.facts = await about();
  $("model").textContent = state.facts.model;
  for (const { url, title } of state.facts.samples) {
    const item = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const picture = Object.assign(document.createElement("img"), { src: url, alt: "", loading: "lazy" });
    button.append(picture, title);
    button.addEventListener("click", () => busy(async () => {
      const answer = await fetch(url).catch(() => ({ ok: false }));
      if (!answer.ok) throw new Trouble("The service does not answer.");
      begin(new File([await answer.blob()], url.split("/").pop(), { type: "image/jpeg" }));
    }, null));
    item.append(button);
    $("samples").append(item);
  }
  $("archive").hidden = state.facts.samples.length === 0;
}

wireStage();
wireHints();
wireIntake();
wireService().catch(() => showTrouble(new Trouble("The service does not answer."), () => location.reload()));
$("saturation").addEventListener("input", () => { showStrength(); repaint(); });
$("show-doubt").addEventListener("change", showDoubt);
$("several").addEventListener("click", () => {
  run(state.seed, SEVERAL);
  state.seed += 2 * SEVERAL;  // twice as many are drawn as are shown
});
$("download").addEventListener("click", download);
$("close").addEventListener("click", close);
$("stop").addEventListener("click", () => state.work?.abort());
$("again").addEventListener("click", () => state.again?.());
document.body.dataset.ready = "";
