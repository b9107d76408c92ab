// Requests to the service.
import { has, number, t } from "./words.js";

// An error whose message is shown to the visitor.
export class Trouble extends Error {}

const pause = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); });
});

// What the service says is wrong, in the visitor's language where its kind is known.
export function problem({ code, error, ...facts }) {
  const key = `error.${code}`;
  const values = Object.fromEntries(
    Object.entries(facts).map(([name, value]) => [name, typeof value === "number" ? number(value) : value]),
  );
  const trouble = new Trouble(has(key) ? t(key, { error, ...values }) : t("error.other", { error }));
  return Object.assign(trouble, { code, facts });
}

// One POST of a form. `tell.sent(share)` while it is on its way, `tell.part(text)` as text comes.
function send(path, fields, signal, tell, type) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.responseType = type;
    request.upload.onprogress = (event) => tell.sent?.(event.loaded / event.total);
    if (type === "text") {
      request.onprogress = () => { if (request.status === 200) tell.part?.(request.responseText); };
    }
    request.onload = () => resolve(request);
    request.onerror = () => reject(new Trouble(t(request.status ? "error.broken" : "error.offline")));
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort());
    signal.throwIfAborted();
    request.send(form);
  });
}

// POST a form; when the server is busy, wait as long as it says and ask again.
async function post(path, fields, signal, tell, type) {
  for (;;) {
    const request = await send(path, fields, signal, tell, type);
    if (request.status === 200) return request;
    if (request.status === 429) {
      const seconds = Number(request.getResponseHeader("Retry-After")) || 1;
      tell.busy?.(seconds);
      await pause(1000 * seconds, signal);
      continue;
    }
    if (request.status === 401) location.assign("/signin");
    const text = type === "text" ? request.responseText : await new Response(request.response).text();
    let found = {};
    try { found = JSON.parse(text); } catch { /* not of ours: a proxy's page */ }
    // Without a code it may go better later: behind a proxy a server that restarts is a 502.
    throw problem({ code: request.status < 500 ? "other" : undefined, error: String(request.status), ...found });
  }
}

// What the service tells while it colors, event by event.
export async function preview(fields, signal, tell, onEvent) {
  let at = 0, last = "", wrong = null, chain = Promise.resolve();
  const part = (text) => {
    for (let end; (end = text.indexOf("\n", at)) >= 0; at = end + 1) {
      const event = JSON.parse(text.slice(at, end));
      last = event.event;
      if (last === "error") wrong = problem(event);
      // One after the other, though what is done with one may take a moment.
      else chain = chain.then(() => signal.aborted || onEvent(event));
    }
  };
  const request = await post("/api/preview", fields, signal, { ...tell, part }, "text");
  part(request.responseText);
  await chain;
  signal.throwIfAborted();
  if (wrong) throw wrong;
  if (last !== "done" && last !== "tiles") throw new Trouble(t("error.broken"));
}

export async function colorize(fields, signal, tell) {
  return (await post("/api/colorize", fields, signal, tell, "blob")).response;
}

// Have tiles of a photograph held.
export async function scan(fields, signal) {
  return JSON.parse((await post("/api/tiles", fields, signal, {}, "text")).responseText);
}

// A tile as a blob; null where it is not held any more.
export async function tile(id, level, column, row) {
  const answer = await fetch(`/api/tiles/${id}/${level}/${column}/${row}`);
  return answer.ok ? answer.blob() : null;
}

export function forget(id) {
  fetch(`/api/tiles/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

export async function about() {
  return (await fetch("/api/about")).json();
}
