// CIELAB → sRGB as in colorized/color/lab.py: lightness is kept, and the chroma of a color that does
// not exist at it is reduced at fixed hue. White is D65; matrix rows sum to one.

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

// A gray level with chroma (a, b) into pixel `j` of `out`.
function pixel(level, a, b, out, j) {
  out[j + 3] = 255;
  if (a === 0 && b === 0) {
    out[j] = out[j + 1] = out[j + 2] = level;
    return;
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

// Gray levels and chroma → RGBA. `ab` is the RGBA of a plane: (level - 128) · unit in red and green.
export function paint(gray, ab, unit, saturation, out) {
  const factor = unit * saturation;
  for (let i = 0, j = 0; i < gray.length; i++, j += 4) {
    pixel(gray[i], (ab[j] - 128) * factor, (ab[j + 1] - 128) * factor, out, j);
  }
}

// The gray level of each pixel of an RGBA picture: that of its luminance.
export function grayOf(rgba) {
  const out = new Uint8Array(rgba.length / 4);
  for (let i = 0, j = 0; i < out.length; i++, j += 4) {
    const [r, g, b] = [rgba[j], rgba[j + 1], rgba[j + 2]];
    const light = 0.212671 * Y[r] + 0.71516 * Y[g] + 0.072169 * Y[b];
    out[i] = r === g && g === b ? r : LEVEL[light * FINE + 0.5 | 0];
  }
  return out;
}

// Chroma of a small picture → chroma of a large one, along the edges of the large one's lightness:
// ab = level + slope · L with slope = Cov(L, ab) / (Var L + ε) over 3 × 3 pixels of the small one,
// as colorized/color/upsampling.py goes from its guide to the scan.
const EPSILON = 0.01;
const L = FY.map((v) => (116 * v - 16) / 100);

// Slopes and levels of a picture: slope a, slope b, level a, level b of each pixel.
export function planes({ gray, ab, unit, width, height }) {
  const out = new Float32Array(4 * width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sl = 0, sa = 0, sb = 0, sll = 0, sla = 0, slb = 0, n = 0;
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) {
          const i = v * width + u, l = L[gray[i]];
          const a = (ab[4 * i] - 128) * unit, b = (ab[4 * i + 1] - 128) * unit;
          sl += l; sa += a; sb += b; sll += l * l; sla += l * a; slb += l * b; n++;
        }
      }
      const ml = sl / n, over = 1 / (sll / n - ml * ml + EPSILON);
      const slopeA = (sla / n - ml * sa / n) * over, slopeB = (slb / n - ml * sb / n) * over;
      out.set([slopeA, slopeB, sa / n - slopeA * ml, sb / n - slopeB * ml], 4 * (y * width + x));
    }
  }
  return { values: out, width, height };
}

// A part of a large picture: `gray` of (width, height) pixels from (left, top) on, of a picture
// `across` pixels wide and `down` high.
export function paintTile(base, { gray, width, height, left, top, across, down, saturation }, out) {
  const p = base.values;
  const place = (at, size, whole) => {
    const v = Math.min(Math.max((at + 0.5) * size / whole - 0.5, 0), size - 1), i = Math.floor(v);
    return [i, Math.min(i + 1, size - 1), v - i];
  };
  for (let y = 0, j = 0; y < height; y++) {
    const [y0, y1, ty] = place(top + y, base.height, down);
    for (let x = 0; x < width; x++, j += 4) {
      const [x0, x1, tx] = place(left + x, base.width, across);
      const at = [y0 * base.width + x0, y0 * base.width + x1, y1 * base.width + x0, y1 * base.width + x1];
      const level = gray[j / 4], l = L[level];
      const value = (k) => {
        const upper = p[4 * at[0] + k] * (1 - tx) + p[4 * at[1] + k] * tx;
        return upper * (1 - ty) + (p[4 * at[2] + k] * (1 - tx) + p[4 * at[3] + k] * tx) * ty;
      };
      pixel(level, (value(2) + value(0) * l) * saturation, (value(3) + value(1) * l) * saturation, out, j);
    }
  }
}
