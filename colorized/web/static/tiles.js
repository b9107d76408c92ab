// Tiles of the photograph at full resolution, for views beyond the resolution of the shown picture.
import { grayOf } from "./lab.js";
import { coloredTile, decodeBlob, setBase } from "./pictures.js";
import { tile } from "./service.js";
import { view } from "./view.js";

const $ = (id) => document.getElementById(id);
const KEPT = 48;         // tiles in memory
const SHARPER = 1.05;    // how much finer the screen must be than the picture before tiles count

let scan = null;         // { id, size, levels: [{ width, height }, …] }
let shown = 0;           // width of the picture that is shown
let renew = null;        // gives a scan that is held again
let look = { version: 0, saturation: 1 };
const tiles = new Map(); // "level/column/row" → { original, gray, color, version }
let queued = false, renewing = null;

export function setScan(next, width, renewed) {
  if (next?.id !== scan?.id) tiles.clear();
  [scan, shown, renew] = [next, width, renewed];
  drawTiles();
}

// What tiles are colored with: a picture with its chroma, or null while colors are not final.
export function setColors(base, saturation) {
  if (base) setBase(base);
  look = { version: look.version + 1, saturation, painted: base !== null };
  drawTiles();
}

export function setSaturation(saturation) {
  look = { ...look, version: look.version + 1, saturation };
  drawTiles();
}

function level() {
  const wanted = view.width * devicePixelRatio;
  if (!scan?.levels.length || wanted <= shown * SHARPER) return -1;
  let k = scan.levels.length - 1;
  while (k > 0 && scan.levels[k].width < 0.8 * wanted) k--;
  return k;
}

export function drawTiles() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; draw(); });
}

function draw() {
  const stage = $("stage"), ratio = devicePixelRatio;
  const width = Math.round(stage.clientWidth * ratio), height = Math.round(stage.clientHeight * ratio);
  const canvases = ["then-tiles", "now-tiles"].map($);
  for (const canvas of canvases) {
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    else canvas.getContext("2d").clearRect(0, 0, width, height);
  }
  const k = level();
  stage.dataset.level = k;
  if (k < 0) {
    stage.dataset.missing = 0;
    return;
  }
  const { width: across, height: down } = scan.levels[k], { size } = scan;
  const scale = view.width / across;  // CSS pixels of a pixel of the level
  const range = (start, room, whole) => {
    const first = Math.max(0, Math.floor(-start / scale / size));
    const last = Math.min(Math.ceil(whole / size), Math.ceil((room - start) / scale / size));
    return Array.from({ length: Math.max(0, last - first) }, (_, i) => first + i);
  };
  let missing = 0;
  for (const row of range(view.y, stage.clientHeight, down)) {
    for (const column of range(view.x, stage.clientWidth, across)) {
      const key = `${k}/${column}/${row}`, found = tiles.get(key);
      if (!found?.original) {
        missing++;
        if (!found) load(key, k, column, row);
        continue;
      }
      tiles.delete(key);
      tiles.set(key, found);  // now the newest
      if (found.version !== look.version) {
        missing++;
        if (look.painted && found.painting !== look.version) color(found, k, column, row);
      }
      // From edge to edge in whole pixels of the screen, so that tiles meet and, at one pixel of the
      // scan on one of the screen, are not resampled.
      const edge = (start, pixel) => Math.round((start + pixel * scale) * ratio);
      const { width: w, height: h } = found.original;
      const x = edge(view.x, column * size), y = edge(view.y, row * size);
      const box = [x, y, edge(view.x, column * size + w) - x, edge(view.y, row * size + h) - y];
      canvases[0].getContext("2d").drawImage(found.original, ...box);
      if (found.color && found.version === look.version) canvases[1].getContext("2d").drawImage(found.color, ...box);
    }
  }
  stage.dataset.missing = missing;
  for (const key of tiles.keys()) {
    if (tiles.size <= KEPT) break;
    tiles.delete(key);
  }
}

async function load(key, k, column, row) {
  const mine = scan, entry = {};
  tiles.set(key, entry);
  try {
    let blob = await tile(mine.id, k, column, row);
    if (!blob && mine === scan) {
      renewing ??= renew();
      const next = await renewing.finally(() => { renewing = null; });
      mine.id = next.id;
      blob = await tile(mine.id, k, column, row);
    }
    const picture = await decodeBlob(blob);
    entry.gray = grayOf(picture.data);
    entry.original = await createImageBitmap(new ImageData(picture.data, picture.width, picture.height));
  } catch {
    // The picture that is shown stays; the tile is asked for again with the next view.
    if (tiles.get(key) === entry) tiles.delete(key);
    return;
  }
  drawTiles();
}

async function color(entry, k, column, row) {
  const { version, saturation } = look, { width, height } = entry.original, { size } = scan;
  entry.painting = version;
  const { width: across, height: down } = scan.levels[k];
  const data = await coloredTile({
    gray: entry.gray, width, height, left: column * size, top: row * size, across, down, saturation,
  });
  entry.color = await createImageBitmap(new ImageData(data, width, height));
  entry.version = version;
  drawTiles();
}
