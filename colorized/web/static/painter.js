// A worker that paints pictures, so that the page never waits for one.
import { paint } from "./lab.js";

onmessage = ({ data: { id, gray, ab, unit, saturation } }) => {
  const out = new Uint8ClampedArray(ab.length);
  paint(gray, ab, unit, saturation, out);
  postMessage({ id, out }, [out.buffer]);
};
