"""The cells of notebooks/colorize.ipynb, and what runs them and writes it.

    python notebooks/build.py

Needs nbclient and ipykernel (extra `dev`). The pictures in the notebook are those the released
weights make on the day it is run.
"""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).resolve().parent
TARGET = HERE / "colorize.ipynb"

# One string for each cell; code begins with "#%".
CELLS = r"""
# From noise to color

A black-and-white photograph holds the lightness $L$ of a scene and has lost its chroma $ab$. Many
colorings fit one $L$, so the program learns the distribution $P(ab \mid L)$ and draws from it.
This notebook takes one photograph through every step. **The colors are plausible, not true.**

Run it with the project installed (`make install-dev`); it needs no network and no GPU.
-----
#%
from pathlib import Path

import numpy as np
import torch
from IPython import get_ipython
from PIL import Image, ImageDraw

import colorized
from colorized import color, photo
from colorized.color import resample
from colorized.model import sampling

ROOT = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "params.yaml").is_file())
SAMPLE = ROOT / "data" / "sample"

colorizer = colorized.Colorizer()
sampler = colorizer.sampler  # what it is made of, for the steps below
denoiser, ab_std = sampler.denoiser, sampler.config.ab_std


# Photographs as JPEG: as PNG they are five times as large.
get_ipython().display_formatter.active_types = ["text/plain", "image/jpeg"]


def row(*pictures, height=170):
    "Pictures, arrays or Pillow's own, side by side."
    small = [Image.fromarray(np.asarray(p)) for p in pictures]
    small = [p.resize((round(p.width * height / p.height), height), Image.LANCZOS) for p in small]
    sheet = Image.new("RGB", (sum(p.width + 4 for p in small) - 4, height), "white")
    x = 0
    for p in small:
        sheet.paste(p, (x, 0))
        x += p.width + 4
    return sheet
-----
## The photograph

Its true colors are known, so that we can look at what is lost. CIELAB splits a color into lightness
$L^*$ (0 black … 100 white) and chroma: $a^*$ from green to red, $b^*$ from blue to yellow. A
grayscale scan is $L^*$ alone; sepia prints, palettes and 16-bit files are reduced to it first.
-----
#%
path = SAMPLE / "photos" / "macaw.jpg"
rgb = photo.read_rgb(path)
lab = color.srgb_to_lab(rgb.astype(np.float32) / 255)
L, true_ab = np.ascontiguousarray(lab[..., 0]), np.ascontiguousarray(lab[..., 1:])

gray = color.recombine(L, np.zeros_like(true_ab))
flat = color.recombine(np.full_like(L, 65), true_ab)
print(f"{rgb.shape[1]} × {rgb.shape[0]} pixels: the photograph, its lightness, its chroma")
row(rgb, gray, flat)
-----
## What the network sees

The network works at the scale it was trained on: $L$ with a shorter side of `work_size` pixels, and
chroma at half of that, as in JPEG, for the eye sees color coarsely. Chroma is standardized by the
deviation it has in the training data, so that the data $\mathbf{x_0}$ has a variance of about 1.
-----
#%
small_L = sampler.shrink(L)
h, w = small_L.shape[0] // 2, small_L.shape[1] // 2
small_ab = resample.resize(true_ab, h, w)
x_0 = color.standardize_ab(torch.from_numpy(small_ab), ab_std).permute(2, 0, 1)[None]

print("L", small_L.shape, " chroma", small_ab.shape, " deviation", ab_std,
      " variance of x_0", round(float(x_0.var()), 2))
-----
## The forward process: color drowns in noise

$$\mathbf{x} = \mathbf{x_0} + \sigma \epsilon$$

Here it is at five noise levels $\sigma$, scaled to variance 1 and shown under the photograph's
lightness. Chroma is smooth, so its color
is seen through far more noise than that of a single pixel would be: the choice between a red
and a green bird is made where nothing seems to be left.
-----
#%
def show(x, lightness=small_L):
    "Standardized chroma (1, 2, h, w) under the small lightness."
    ab = color.unstandardize_ab(x[0].permute(1, 2, 0).contiguous(), ab_std).numpy()
    return color.recombine(lightness, resample.resize(ab, *lightness.shape))


noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
levels = [0.01, 0.7, 2, 6, 80]
print("σ", levels)
row(*(show((x_0 + s * noise) / (1 + s**2) ** 0.5) for s in levels), height=120)
-----
## The reverse process: from noise to colors

The network looks at $L$ once. Then, at every step, it sees the noisy chroma $\mathbf{x}$ and
tells which chroma $\mathbf{\hat x_0}$ it expects behind it. The sampler steps a little way towards
it, to less noise, and asks again. Above $\mathbf{x}$, below $\mathbf{\hat x_0}$: at first a
cautious mean of all that could be, then one coloring.
-----
#%
options = colorizer.options.override(steps=10, seed=6)
with torch.inference_mode():
    cond = denoiser.encode(torch.from_numpy(small_L)[None, None])
    generator = torch.Generator().manual_seed(options.seed)
    steps = list(sampling.steps(
        denoiser, cond, sampling.noise_levels(options),
        sampling.noise_source((1, 2, h, w), [generator]), options.sampler))

shown = steps[::2] + steps[-1:]
print("σ", [round(step.sigma, 2) for step in shown])
upper = row(*(show(step.x / (1 + step.sigma**2) ** 0.5) for step in shown), height=110)
lower = row(*(show(step.x0_hat) for step in shown), height=110)
both = Image.new("RGB", (upper.width, 224), "white")
both.paste(upper, (0, 0))
both.paste(lower, (0, 114))
both
-----
## To the size of the photograph

The small chroma is enlarged along the edges of the photograph's own lightness. Interpolated, it
would bleed: left, linear interpolation; middle, along the edges; right, the truth. (The chroma here
is the true one, made small.)
-----
#%
crop = np.s_[130:330, 380:640]
linear = np.stack([np.asarray(Image.fromarray(np.ascontiguousarray(small_ab[..., c])).resize(
    L.shape[::-1], Image.BILINEAR)) for c in (0, 1)], axis=-1)
row(*(color.recombine(L, ab)[crop] for ab in (linear, sampler.enlarge(small_ab, L), true_ab)),
    height=200)
-----
## Lightness is kept

The scan's own $L$ is put back. Where a color does not exist in sRGB at that lightness, its chroma
is reduced at the same hue. What is left is the rounding to 8 bits.
-----
#%
result = colorizer.colorize(path, steps=10, seed=6).image
error = np.abs(color.lightness(np.asarray(result, np.float32) / 255) - L).max()
assert error < 0.6
print(f"largest change of L*, of 100: {error:.2f}")
row(gray, result)
-----
## Several colorings

Another seed is another draw. Of twice as many draws, the first one picked is the most typical, the
others are as different from each other as they come.
-----
#%
several = colorizer.colorize(path, candidates=5, steps=10, seed=6).pages[0]
print("seeds", several.seeds)
several.contact_sheet.reduce(2)
-----
## Where they disagree

The mean difference of two draws at each pixel, in CIELAB units. Dark: the model is sure (which does
not make it right). Bright: anything could be there.
-----
#%
several.uncertainty_map.reduce(2)
-----
## Say what you know

A hint fixes a color at a place. It is in the chroma at every step, so that the rest of the picture
goes with it. Three colors for the bird, at the one point that is circled:
-----
#%
def with_hint(hexadecimal):
    hint = {"x": 0.55, "y": 0.45, "radius": 0.03, "color": hexadecimal}
    out = colorizer.colorize(path, steps=10, seed=6, hints={"points": [hint]}).image
    center, radius = (0.55 * out.width, 0.45 * out.height), 0.03 * min(out.size)
    ImageDraw.Draw(out).circle(center, radius, outline="white", width=2)
    return out


row(*(with_hint(c) for c in ("#a02030", "#2050a0", "#307030")))
-----
## A photograph whose colors nobody knows

Dorothea Lange, *Abandoned Dust Bowl Home*, about 1935–1940.
-----
#%
print_ = SAMPLE / "archive" / "dust-bowl-home.jpg"
row(photo.read_rgb(print_), colorizer.colorize(print_).image, height=240)
-----
The same on the command line, with the file's resolution, metadata and marks that say a machine
made the colors: `colorized colorize photo.jpg -o out/`. The theory is in
[docs/theory.md](../docs/theory.md), the methods for candidates, hints and enlargement in
[docs/colors.md](../docs/colors.md), and more Python in [docs/python.md](../docs/python.md).
"""


def notebook() -> nbformat.NotebookNode:
    """The notebook, not yet run."""
    cells = []
    for i, text in enumerate(CELLS.strip().split("\n-----\n")):
        code = text.startswith("#%\n")
        cell = (new_code_cell if code else new_markdown_cell)(text.removeprefix("#%\n"))
        cell.id = f"cell-{i}"  # random ones would differ every time
        cells.append(cell)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def run(built: nbformat.NotebookNode, folder: Path) -> None:
    """Run the cells in `folder`, in place; an error in one is raised as it is."""
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(built, kernel_name="python3", timeout=600, resources=where).execute()
    for cell in built.cells:
        cell.metadata.pop("execution", None)  # when it ran


def main() -> None:
    """Build it, run it and write it."""
    built = notebook()
    run(built, HERE)
    built.metadata.pop("language_info", None)  # the version of Python that ran it
    nbformat.write(built, TARGET)
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
