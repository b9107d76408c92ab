// Decoding the service's pictures, and drawing them on canvases.

const worker = new Worker("/static/painter.js", { type: "module" });
const waiting = new Map();
let last = 0;
worker.onmessage = ({ data: { id, out } }) => {
  waiting.get(id)(out);
  waiting.delete(id);
};

// base64 of a PNG or JPEG → { width, height, data: RGBA }, its numbers as they are in the file.
export async function decode(base64) {
  return decodeBlob(new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))]));
}

export async function decodeBlob(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  return pixels(bitmap, bitmap.width, bitmap.height);
}

// A picture at another size, its values interpolated.
export async function resized(picture, width, height) {
  const bitmap = await createImageBitmap(new ImageData(picture.data, picture.width, picture.height));
  return pixels(bitmap, width, height);
}

function pixels(bitmap, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}

// One number of each pixel.
export function levels(picture) {
  const out = new Uint8Array(picture.width * picture.height);
  for (let i = 0; i < out.length; i++) out[i] = picture.data[4 * i];
  return out;
}

function ask(message) {
  const id = ++last;
  worker.postMessage({ id, ...message });
  return new Promise((resolve) => waiting.set(id, resolve));
}

// Chroma over a gray picture → RGBA, in the worker.
export const colored = (gray, ab, unit, saturation) => ask({ kind: "picture", gray, ab, unit, saturation });

// The picture that tiles are colored by, from now on: { gray, ab, unit, width, height }.
export const setBase = (base) => worker.postMessage({ kind: "base", ...base });

// A tile → RGBA, in the worker: see `paintTile`.
export const coloredTile = (tile) => ask({ kind: "tile", ...tile });

export function show(canvas, data, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
}
