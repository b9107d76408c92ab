// Pictures from what the service tells, and onto canvases.

const worker = new Worker("/static/painter.js", { type: "module" });
const waiting = new Map();
let last = 0;
worker.onmessage = ({ data: { id, out } }) => {
  waiting.get(id)(out);
  waiting.delete(id);
};

// base64 of a PNG → { width, height, data: RGBA }, its numbers as they are in the file.
export async function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), {
    colorSpaceConversion: "none", premultiplyAlpha: "none",
  });
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

// Chroma over a gray picture → RGBA, in the worker.
export function colored(gray, ab, unit, saturation) {
  const id = ++last;
  worker.postMessage({ id, gray, ab, unit, saturation });
  return new Promise((resolve) => waiting.set(id, resolve));
}

export function show(canvas, data, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
}
