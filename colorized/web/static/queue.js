// Several photographs: one after the other, then one ZIP of all.
import { busy, colorizedName, give, telling } from "./photo.js";
import { colorize } from "./service.js";
import { say, showThumb } from "./status.js";
import { t, tn } from "./words.js";
import { zip } from "./zip.js";

const $ = (id) => document.getElementById(id);
let entries = [];       // [{ file, page, text, blob, failed }]

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
  $("zip").disabled = done === 0 || entries.some(({ blob, failed }) => !blob && !failed);
  $("zip").textContent = done ? tn("queue.zip", done) : t("queue.zip.none");
}

// Color all that has no result yet.
function run() {
  return busy(async (signal) => {
    for (let k = 0; k < entries.length; k++) {
      const entry = entries[k];
      if (entry.blob || entry.failed) continue;
      showThumb(entry.file);
      entry.text = t("queue.working");
      render();
      const where = t("queue.of", { n: k + 1, count: entries.length, name: entry.file.name });
      const tell = telling(where);
      say(where, null);
      const fields = { file: entry.file, seed: 0, format: "original" };
      if (entry.page) fields.page = entry.page;
      try {
        entry.blob = await colorize(fields, signal, tell);
        entry.text = t("queue.done");
      } catch (error) {
        if (signal.aborted) {
          entry.text = t("queue.waiting");
          render();
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
    const failed = entries.filter((entry) => entry.failed).length;
    say(failed ? tn("queue.failed", failed) : t("queue.ready"));
  }, run);
}

export function start(files, pages = 0) {
  const list = pages ? Array.from({ length: pages }, (_, i) => ({ file: files[0], page: i + 1 })) : files.map((file) => ({ file }));
  entries = list.map((entry) => ({ ...entry, text: t("queue.waiting") }));
  render();
  $("queue").scrollIntoView({ block: "nearest" });
  return run();
}

export function clear() {
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
  give(await zip(files), "colorized.zip");
  say(t("status.saved"));
});
$("queue-close").addEventListener("click", clear);
