// The page: input of photographs, and the actions of the controls.
import * as hints from "./hints.js";
import * as photo from "./photo.js";
import * as queue from "./queue.js";
import { about } from "./service.js";
import { complain } from "./status.js";
import { drawTiles } from "./tiles.js";
import * as view from "./view.js";
import * as visit from "./visit.js";
import { number, t } from "./words.js";

const $ = (id) => document.getElementById(id);
let facts = null;

// Photographs ------------------------------------------------------------------------------------

function take(files) {
  const list = [...files];
  if (!list.length) return;
  const most = facts?.max_bytes ?? Infinity;
  const large = list.find((file) => file.size > most);
  if (large) {
    complain(t("error.file", { name: large.name, error: t("file.bytes", { megabytes: number(most >> 20) }) }));
    return;
  }
  if (list.length === 1) {
    photo.open(list[0]);
    return;
  }
  if (photo.photo) leave();
  queue.start(list);
}

// Back to the first view; what was made stays in the list of the visit.
function leave() {
  history.pushState({}, "");
  photo.close();
  $("file").focus();
}

function wireIntake() {
  for (const id of ["file", "camera"]) {
    $(id).addEventListener("change", (event) => {
      const files = [...event.target.files];
      event.target.value = "";  // so that the same file can be chosen again
      take(files);
    });
  }
  addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) take(event.clipboardData.files);
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files);
    else complain(t("error.link"));
  });
  $("new").addEventListener("click", leave);
  $("page").addEventListener("change", () => {
    const { file, page, opened } = photo.photo, { value } = $("page");
    $("page").value = page;
    if (value === "all") {
      leave();
      queue.start([file], opened.pages);
    } else photo.open(file, Number(value));
  });
}

async function wireService() {
  facts = await about();
  $("model").textContent = facts.model;
  for (const { url, title } of facts.samples) {
    const item = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const picture = Object.assign(document.createElement("img"), { src: url, alt: "", loading: "lazy" });
    button.append(picture, title);
    button.addEventListener("click", async () => {
      const answer = await fetch(url).catch(() => null);
      if (answer?.ok) photo.open(new File([await answer.blob()], url.split("/").pop(), { type: "image/jpeg" }));
      else complain(t("error.offline"), () => button.click());
    });
    item.append(button);
    $("samples").append(item);
  }
  $("archive").hidden = facts.samples.length === 0;
}

// Controls ---------------------------------------------------------------------------------------

async function loadHints(file) {
  const { size } = photo.photo;
  try {
    hints.setMarks(hints.fromJSON(await file.text(), ...size), size, true);
  } catch {
    complain(t("error.hints.file"));
    return;
  }
  hints.mode("hint");
  photo.hintsChanged();
}

function wireControls() {
  view.start(drawTiles);
  hints.start(photo.hintsChanged);
  $("saturation").addEventListener("input", photo.strengthChanged);
  $("show-doubt").addEventListener("change", photo.showDoubt);
  $("several").addEventListener("click", photo.several);
  $("rerun").addEventListener("click", photo.again);
  $("save").addEventListener("click", photo.download);
  $("redo-marks").addEventListener("click", photo.asMarked);
  $("stop").addEventListener("click", photo.stop);
  $("save-hints").addEventListener("click", () => {
    const text = hints.toJSON(hints.current());
    photo.give(new Blob([text], { type: "application/json" }), `${photo.photo.file.name.replace(/\.[^.]*$/, "")}-hints.json`);
  });
  $("load-hints").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) loadHints(file);
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=text], input[type=password], select");
    if (!photo.photo || typing || event.defaultPrevented) return;
    const command = (event.ctrlKey || event.metaKey) && !event.altKey, key = event.key.toLowerCase();
    if (command && key === "z") (event.shiftKey ? hints.redo : hints.undo)();
    else if (command && key === "y") hints.redo();
    else if (!view.zoomKey(event)) return;
    event.preventDefault();
  });
  addEventListener("beforeunload", (event) => {
    if (visit.wouldLose(photo.photo) || photo.isBusy()) event.preventDefault();
  });
  addEventListener("popstate", ({ state }) => (state?.photo ? reopen(state.photo) : photo.close()));
  // In place, so that the photograph stays.
  for (const link of document.querySelectorAll(".languages a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      document.cookie = `language=${link.lang}; path=/; max-age=31536000; samesite=lax`;
      location.reload();
    });
  }
  $("forget").addEventListener("click", async () => {
    await visit.forgetAll();
    $("file").focus();
  });
}

async function reopen(id) {
  if (!(await photo.reopen(id))) photo.close();
}

wireControls();
wireIntake();
wireService().catch(() => complain(t("error.offline"), () => location.reload()));
await visit.start(async (id) => {
  history.pushState({ photo: id }, "");
  await reopen(id);
});
if (history.state?.photo) await reopen(history.state.photo);
photo.refresh();
document.body.dataset.ready = "";
