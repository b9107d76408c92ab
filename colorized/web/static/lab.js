// CIELAB → sRGB as colorized/color/lab.py has it: lightness is kept, and a color that does not exist at
// it loses chroma at its own hue until it does. White is D65; matrix rows sum to one.

const TOLERANCE = 1e-5, CHROMA_MAX = 150, STEPS = 8, HALVINGS = 10;

const M = (() => {  // inverse of the primaries' matrix, each row scaled to sum to one
  const p = [
    [0.412453, 0.35758, 0.180423], [0.212671, 0.71516, 0.072169], [0.019334, 0.119193, 0.950227],
  ].map((row) => { const s = row[0] + row[1] + row[2]; return row.map((v) => v / s); });
  const [[a, b, c], [d, e, f], [g, h, i]] = p;
  const det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  return [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ].map((row) => row.map((v) => v / det));
})();

const toLinear = (v) => (v > 0.04045 ? ((v + 0.055) / 1.055) ** 2.4 : v / 12.92);
const fromLinear = (v) => (v > 0.0031308 ? 1.055 * v ** (1 / 2.4) - 0.055 : v * 12.92);
const f = (t) => (t > (6 / 29) ** 3 ? Math.cbrt(t) : t * (841 / 108) + 4 / 29);
const inverse = (t) => (t > 6 / 29 ? t * t * t : (t - 4 / 29) * (108 / 841));

const Y = Float64Array.from({ length: 256 }, (_, i) => toLinear(i / 255));
const FY = Y.map(f);
const FINE = 1 << 16;
const LEVEL = Uint8Array.from({ length: FINE + 1 }, (_, i) => Math.round(255 * fromLinear(i / FINE)));

const rgb = new Float64Array(3);

// Linear light of a gray level with chroma (a, b), into `rgb`; whether it exists.
function light(level, a, b) {
  const y = Y[level], fy = FY[level];
  const dx = inverse(fy + a / 500) - y, dz = inverse(fy - b / 200) - y;
  let inside = true;
  for (let k = 0; k < 3; k++) {
    const v = y + M[k][0] * dx + M[k][2] * dz;
    rgb[k] = v;
    if (!(v >= -TOLERANCE && v <= 1 + TOLERANCE)) inside = false;
  }
  return inside;
}

// Gray levels and chroma → RGBA. `ab` is the RGBA of a plane: (level - 128) · unit in red and green.
export function paint(gray, ab, unit, saturation, out) {
  const factor = unit * saturation;
  for (let i = 0, j = 0; i < gray.length; i++, j += 4) {
    const level = gray[i];
    const a = (ab[j] - 128) * factor, b = (ab[j + 1] - 128) * factor;
    out[j + 3] = 255;
    if (a === 0 && b === 0) {
      out[j] = out[j + 1] = out[j + 2] = level;
      continue;
    }
    if (!light(level, a, b)) {
      let step = Math.min(CHROMA_MAX / Math.hypot(a, b), 1) / STEPS, scale = 0;
      for (let k = 1; k < STEPS; k++) if (light(level, k * step * a, k * step * b)) scale = k * step;
      for (let k = 0; k < HALVINGS; k++) {
        step /= 2;
        if (light(level, (scale + step) * a, (scale + step) * b)) scale += step;
      }
      light(level, scale * a, scale * b);
    }
    for (let k = 0; k < 3; k++) out[j + k] = LEVEL[Math.min(Math.max(rgb[k], 0), 1) * FINE + 0.5 | 0];
  }
}
