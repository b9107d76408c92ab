// A worker that renders pictures, so that the page stays responsive.
import { paint, paintTile, planes } from "./lab.js";

let base = null;

onmessage = ({ data }) => {
  const { id, kind } = data;
  if (kind === "base") {
    base = planes(data);
    return;
  }
  const out = new Uint8ClampedArray(4 * data.gray.length);
  if (kind === "tile") paintTile(base, data, out);
  else paint(data.gray, data.ab, data.unit, data.saturation, out);
  postMessage({ id, out }, [out.buffer]);
};
