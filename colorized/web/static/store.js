// Storage of a visit, so that Reload and Back lose nothing.
//
// The data are encrypted in the browser. The key is in the tab's session, so that closing the tab makes
// them unreadable; the next visit deletes them. Without the browser's encryption (plain HTTP from
// another machine) they stay in memory, and leaving the page asks for confirmation.
const NAME = "colorized", STORE = "visit", KEY = "colorized-key";

let database = null, key = null, memory = null, prefix = "";

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
const table = (mode) => database.transaction(STORE, mode).objectStore(STORE);

async function open() {
  if (!globalThis.crypto?.subtle) throw new Error("no encryption");
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  database = await done(request);
  const kept = sessionStorage.getItem(KEY);
  const { id, raw } = kept ? JSON.parse(kept) : {
    id: crypto.randomUUID(), raw: Array.from(crypto.getRandomValues(new Uint8Array(32))),
  };
  sessionStorage.setItem(KEY, JSON.stringify({ id, raw }));
  key = await crypto.subtle.importKey("raw", Uint8Array.from(raw), "AES-GCM", false, ["encrypt", "decrypt"]);
  prefix = `${id}/`;
  // Held as long as the tab is open: what no open tab holds is a closed one's.
  navigator.locks.request(`${NAME}/${id}`, { mode: "shared" }, () => new Promise(() => {}));
  const { held, pending } = await navigator.locks.query();
  const open = new Set([...held, ...pending].map((lock) => lock.name));
  for (const name of await done(table("readonly").getAllKeys())) {
    if (!open.has(`${NAME}/${name.split("/")[0]}`) && !name.startsWith(prefix)) await done(table("readwrite").delete(name));
  }
}
const opened = open().catch(() => { memory = new Map(); });

// Whether leaving the page loses what was kept.
export const isFleeting = () => memory !== null;

// Keep an ArrayBuffer under a name.
export async function put(name, buffer) {
  await opened;
  if (!memory) {
    try {
      const iv = crypto.getRandomValues(new Uint8Array(12));
      const data = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, buffer);
      await done(table("readwrite").put({ iv, data }, prefix + name));
      return;
    } catch {  // no room on the disk
      memory = new Map();
    }
  }
  memory.set(name, buffer);
}

// What was kept under a name; undefined where nothing was.
export async function get(name) {
  await opened;
  if (memory?.has(name)) return memory.get(name);
  const found = database && await done(table("readonly").get(prefix + name));
  return found && crypto.subtle.decrypt({ name: "AES-GCM", iv: found.iv }, key, found.data);
}

export async function remove(name) {
  await opened;
  memory?.delete(name);
  if (database) await done(table("readwrite").delete(prefix + name));
}

const text = { in: new TextEncoder(), out: new TextDecoder() };
export const putJSON = (name, value) => put(name, text.in.encode(JSON.stringify(value)).buffer);
export async function getJSON(name) {
  const found = await get(name);
  return found && JSON.parse(text.out.decode(found));
}
