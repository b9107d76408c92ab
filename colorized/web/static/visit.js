// The list of the photographs and colorings of this visit, and their storage.
import * as store from "./store.js";

const $ = (id) => document.getElementById(id);
let list = [];          // [{ id, name, thumb }], newest first
let onChoose = () => {};

// Add an opened photograph to the list and to the browser's history.
export async function remember(photo, thumb) {
  list = [{ id: photo.id, name: photo.file.name, thumb }, ...list];
  history.pushState({ photo: photo.id }, "");
  showList();
  await store.putJSON("list", list);
  await store.put(`${photo.id}/file`, await photo.file.arrayBuffer());
}

export function keepColoring(photo, k) {
  const { canvas, ...coloring } = photo.colorings[k];
  store.putJSON(`${photo.id}/${k}`, coloring);
}

export function keep(photo, { marks, strength }) {
  Object.assign(photo, { marks, strength });
  const { id, page, opened, tiles, nextSeed, doubt, chosen, file, saved = false } = photo;
  store.putJSON(`${id}/state`, {
    page, opened, tiles, nextSeed, doubt, chosen, marks, strength, saved,
    count: photo.colorings.length, name: file.name, type: file.type,
  });
}

export async function load(id) {
  const state = await store.getJSON(`${id}/state`);
  const data = state && await store.get(`${id}/file`);
  if (!data) return null;
  const { count, name, type, ...rest } = state;
  const colorings = await Promise.all(Array.from({ length: count }, (_, k) => store.getJSON(`${id}/${k}`)));
  return { ...rest, id, file: new File([data], name, { type }), colorings };
}

export function showList() {
  $("visit").hidden = list.length === 0;
  $("visited").replaceChildren(...list.map(({ id, name, thumb }) => {
    const item = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.append(Object.assign(document.createElement("img"), { src: thumb, alt: "" }), name);
    button.addEventListener("click", () => onChoose(id));
    item.append(button);
    return item;
  }));
}

// Whether leaving the page now would lose a coloring.
export const wouldLose = (photo) => store.isFleeting() && Boolean(photo?.colorings.length) && !photo.saved;

export async function forgetAll() {
  for (const { id } of list) {
    const { count = 0 } = await store.getJSON(`${id}/state`) ?? {};
    for (const part of ["state", "file", ...Array(count).keys()]) await store.remove(`${id}/${part}`);
  }
  list = [];
  await store.remove("list");
  showList();
}

export async function start(choose) {
  onChoose = choose;
  list = await store.getJSON("list") ?? [];
  showList();
}
