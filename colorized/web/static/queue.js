// Several photographs: one after the other, then one ZIP of all.
import { busy, colorizedName, give, stop, telling } from "./photo.js";
import { colorize } from "./service.js";
import { say, showThumb } from "./status.js";
import { t, tn } from "./words.js";
import { parcels, zip } from "./zip.js";

const $ = (id) => document.getElementById(id);
let entries = [];       // [{ file, page, text, blob, failed, tried }]
let running = null;     // the signal of the run under way

function render() {
  $("queue").hidden = entries.length === 0;
  $("queued").replaceChildren(...entries.map(({ file, page, text, failed }) => {
    const item = document.createElement("li");
    item.classList.toggle("failed", Boolean(failed));
    const name = page ? `${file.name}, ${t("page.label", { n: page })}` : file.name;
    const said = Object.assign(document.createElement("span"), { className: "quiet", textContent: text });
    item.append(`${name} `, said);
    return item;
  }));
  const done = entries.filter(({ blob }) => blob).length;
  $("queue-go").hidden = Boolean(running) || !entries.some(({ blob, failed }) => !blob && !failed);
  $("zip").disabled = Boolean(running) || done === 0;
  $("zip").textContent = done ? tn("queue.zip", done) : t("queue.zip.none");
}

// Color all that has no result yet.
function run() {
  return busy(async (signal) => {
    running = signal;
    try {
      await colorAll(signal);
    } finally {
      if (running === signal) running = null;
      render();
    }
    const failed = entries.filter((entry) => entry.failed).length;
    say(failed ? tn("queue.failed", failed) : t("queue.ready"));
  }, run);
}

async function colorAll(signal) {
  for (let k = 0; k < entries.length; k++) {
    const entry = entries[k];
    if (entry.blob || entry.failed) continue;
    showThumb(entry.file);
    entry.text = t("queue.working");
    render();
    const tell = telling(t("queue.of", { n: k + 1, count: entries.length, name: entry.file.name }));
    tell.sent(1);
    const fields = { file: entry.file, seed: 0, format: "original" };
    if (entry.page) fields.page = entry.page;
    try {
      entry.blob = await colorize(fields, signal, tell);
      entry.text = t("queue.done");
    } catch (error) {
      // Stopped, or the server is away: the rest would fail. A second time it is this photograph.
      if (signal.aborted || !(error.code || entry.tried)) {
        entry.tried = !signal.aborted;
        entry.text = t("queue.waiting");
        throw error;
      }
      if (error.code === "pages") {
        const pages = Array.from({ length: error.facts.n }, (_, i) => (
          { file: entry.file, page: i + 1, text: t("queue.waiting") }
        ));
        entries.splice(k--, 1, ...pages);
      } else Object.assign(entry, { failed: true, text: error.message });
    }
    render();
  }
}

export function start(files, pages = 0) {
  const list = pages ? Array.from({ length: pages }, (_, i) => ({ file: files[0], page: i + 1 })) : files.map((file) => ({ file }));
  entries = list.map((entry) => ({ ...entry, text: t("queue.waiting") }));
  render();
  $("queue").scrollIntoView({ block: "nearest" });
  return run();
}

export function clear() {
  if (running) stop();
  entries = [];
  render();
}

$("zip").addEventListener("click", async () => {
  const used = new Set();
  const files = entries.filter(({ blob }) => blob).map(({ file, blob, page }) => {
    const [, stem, suffix] = colorizedName(file, blob, page).match(/^(.*)(\.[^.]*)$/);
    let name = stem + suffix;
    for (let n = 2; used.has(name); n++) name = `${stem}-${n}${suffix}`;
    used.add(name);
    return { name, blob };
  });
  const parts = parcels(files);
  for (const [k, part] of parts.entries()) {
    give(await zip(part), parts.length > 1 ? `colorized-${k + 1}.zip` : "colorized.zip");
  }
  say(t("status.saved"));
});
$("queue-go").addEventListener("click", run);
$("queue-close").addEventListener("click", clear);
