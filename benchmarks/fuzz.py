"""Robustness against damaged files: thousands of mutations, each read and, if possible, colored.

    python benchmarks/fuzz.py [--n 5000] [--seed 0] [--workers 2]

Files of every format are encoded from the embedded photographs, then bytes are flipped, tails cut
off, pieces of one file put into another, fields of the header set to extreme values, lengths made
wrong, offsets made to point at themselves, back, or far outside of the file. Each mutant goes
through what the command line does to a photograph, but for the network: read in strips, chroma made
up, marked, written. That happens in a worker process with limits of time and memory. Failures are:
a process that ends, more than 30 seconds, more than 1 GB beside what the program has when it
starts, an exception that is no `PhotoError`, an error that is not one line that names the file, or
that has words of Python's, an output where there was an error, an output that cannot be read again.
 The peer is Pillow, which is asked to decode the same mutants
in the same processes: how many it reads. Writes benchmarks/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import struct
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pillow_heif
import tifffile
from PIL import Image

pillow_heif.register_heif_opener()

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "fuzz.json"
PHOTOS = sorted((ROOT / "data" / "sample" / "photos").glob("*.jpg"))
SECONDS = 30
MEMORY = 1 << 30
# What Python says of its own values, and nobody else would.
PYTHON = re.compile(
    r"(object (has|is|of)|attribute|operand|broadcast|NoneType|ndarray|unpack|subscript|codec|"
    r"list index|reshape|invalid literal|argument|dtype|__\w+__)"
)
MAX_PIXELS = 4_000_000


def seeds() -> dict[str, bytes]:
    """Whole files of every format, by name."""
    with Image.open(PHOTOS[0]) as image:
        rgb = image.convert("RGB").resize((96, 64))
    gray, exif = rgb.convert("L"), Image.Exif()
    exif[0x013B], exif[0x0112] = "Ann", 6
    rgba = rgb.copy()
    rgba.putalpha(gray)
    deep = np.asarray(gray, np.uint16) * 257
    found: dict[str, bytes] = {}

    def pillow(name: str, image: Image.Image, **options: object) -> None:
        file = io.BytesIO()
        image.copy().save(file, format=FORMATS[Path(name).suffix], **options)
        found[name] = file.getvalue()

    def tiff(name: str, levels: np.ndarray, kind: str, **options: object) -> None:
        file = io.BytesIO()
        tifffile.imwrite(file, levels, photometric=kind, metadata=None, **options)
        found[name] = file.getvalue()

    profile = {"icc_profile": _profile()}
    pillow("color.jpg", rgb, exif=exif, **profile)
    pillow("gray.jpg", gray, dpi=(300, 300))
    pillow("progressive.jpg", rgb, progressive=True)
    pillow("cmyk.jpg", rgb.convert("CMYK"))
    pillow("color.png", rgb, exif=exif, **profile)
    pillow("alpha.png", rgba)
    pillow("palette.png", rgb.quantize(16), transparency=1)
    pillow("bit.png", rgb.convert("1"))
    pillow("deep.png", Image.fromarray(deep))
    pillow("color.jp2", rgb)
    pillow("deep.jp2", Image.fromarray(deep))
    pillow("color.webp", rgb, exif=exif)
    pillow("lossless.webp", rgba, lossless=True)
    pillow("color.bmp", rgb)
    pillow("palette.gif", rgb.quantize(16))
    pillow("color.ppm", rgb)
    pillow("deep.pgm", Image.fromarray(deep))
    pillow("bit.pbm", rgb.convert("1"))
    pillow("color.heic", rgb, quality=80)
    pillow("color.avif", rgb, quality=80)
    pillow("pages.pdf", rgb, save_all=True, append_images=[gray.copy()])
    pillow("group4.tif", rgb.convert("1"), compression="group4")
    pillow("group3.tif", rgb.convert("1"), compression="group3")
    pillow("palette.tif", rgb.quantize(16))
    pillow("pages.tif", rgb, save_all=True, append_images=[gray.copy()], exif=exif)
    tiff("plain.tif", deep, "minisblack")
    tiff("order.tif", deep, "minisblack", byteorder=">")
    tiff("lzw.tif", deep, "minisblack", compression="lzw", predictor=True, rowsperstrip=9)
    tiff("deflate.tif", np.asarray(rgb), "rgb", compression="adobe_deflate", tile=(32, 16))
    tiff("jpeg.tif", np.asarray(rgb), "rgb", compression="jpeg", rowsperstrip=16)
    tiff("jpeg2000.tif", np.asarray(rgb), "rgb", compression="jpeg2000", tile=(32, 32))
    tiff("packbits.tif", np.asarray(gray), "miniswhite", compression="packbits")
    tiff("big.tif", np.asarray(rgb), "rgb", bigtiff=True, tile=(16, 32))
    tiff("float.tif", np.asarray(gray, np.float32), "minisblack", compression="adobe_deflate")
    tiff("half.tif", np.asarray(gray, np.float16) / 255, "minisblack")
    hdr = np.asarray(rgb, np.float32) / 200
    tiff("hdr.tif", hdr, "rgb", compression="adobe_deflate", predictor=True, tile=(32, 32))
    tiff("lab.tif", np.asarray(rgb), "cielab")
    tiff("bits.tif", np.asarray(gray) >> 3, "minisblack", bitspersample=5)
    many = io.BytesIO()
    with tifffile.TiffWriter(many) as writer:
        for levels in (deep, np.asarray(gray), hdr[..., 0], deep[::-1]):
            writer.write(levels, photometric="minisblack", metadata=None, subifds=1)
            writer.write(levels[::4, ::4], photometric="minisblack", metadata=None)
    found["many.tif"] = many.getvalue()
    return found


FORMATS = {
    ".jpg": "JPEG", ".png": "PNG", ".jp2": "JPEG2000", ".webp": "WEBP", ".bmp": "BMP",
    ".gif": "GIF", ".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM", ".heic": "HEIF", ".avif": "AVIF",
    ".pdf": "PDF", ".tif": "TIFF",
}  # fmt: skip


def _profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# ---- Mutations ---------------------------------------------------------------------------------


def flip(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    for _ in range(rng.choice((1, 2, 4, 16, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def cut(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    return data[: rng.randrange(len(data))]


def splice(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    other = rng.choice(others)
    start, size = rng.randrange(len(other)), rng.randrange(1, 400)
    at = rng.randrange(len(data))
    end = at + (size if rng.random() < 0.5 else 0)  # in its place, or between
    return data[:at] + other[start : start + size] + data[end:]


def header(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    for _ in range(rng.choice((1, 2, 3))):
        data[rng.randrange(min(200, len(data)))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return data


def number(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    """An extreme number where a length, a size or an offset may be."""
    width = rng.choice((2, 4, 8))
    value = rng.choice((0, 1, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1))
    at = rng.randrange(max(1, len(data) - width))
    order = rng.choice(("big", "little"))
    data[at : at + width] = (value % 256**width).to_bytes(width, order)  # type: ignore[arg-type]
    return data


def erase(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    at = rng.randrange(len(data))
    size = rng.randrange(1, 300)
    if rng.random() < 0.5:
        return data[:at] + data[at + size :]
    data[at : at + size] = bytes(min(size, len(data) - at))
    return data


def cycle(data: bytearray, rng: random.Random, others: list[bytes]) -> bytearray:
    """Offsets of a TIFF that point at its directories, or far; of others, some place in the file.

    Those between its pages, and in any of its tags, some of which become SubIFDs or EXIF.
    """
    if data[:4] not in (b"II*\0", b"MM\0*"):
        at = rng.randrange(max(1, len(data) - 4))
        data[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.randrange(len(data)))
        return data
    order = "<" if data[:2] == b"II" else ">"
    directories, links, entries = [], [4], []
    (offset,) = struct.unpack_from(order + "I", data, 4)
    while offset and offset + 2 < len(data) and offset not in directories:
        directories.append(offset)
        (count,) = struct.unpack_from(order + "H", data, offset)
        entries += [offset + 2 + 12 * i for i in range(count)]
        links.append(offset + 2 + 12 * count)
        (offset,) = struct.unpack_from(order + "I", data, links[-1])
    for _ in range(rng.choice((1, 1, 2, 3))):
        where = [*directories, rng.randrange(len(data)), len(data) - 1, len(data) + 9, 2**32 - 1, 2]
        at = rng.choice(links)
        if entries and rng.random() < 0.5:
            entry = rng.choice(entries)
            if rng.random() < 0.5:
                code = rng.choice((330, 34665, 34853, 40965, 273, 324, 700))
                struct.pack_into(order + "HHI", data, entry, code, 4, rng.choice((1, 1, 2, 2**30)))
            at = entry + 8
        struct.pack_into(order + "I", data, at, rng.choice(where))
    return data


MUTATIONS: list[Callable[[bytearray, random.Random, list[bytes]], bytearray]] = [
    flip, cut, splice, header, number, erase, cycle,
]  # fmt: skip


def mutants(n: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """(name of the file, name of the mutation, content), in turn of every format and kind."""
    files = seeds()
    everything = list(files.values())
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        name = list(files)[i % len(files)]
        kind = rng.choice(MUTATIONS)
        data = kind(bytearray(files[name]), rng, everything)
        yield name, kind.__name__, bytes(data)


# ---- In a worker -------------------------------------------------------------------------------


def treat(folder: Path, name: str, data: bytes) -> tuple[str, str]:
    """What became of a mutant: ("colored" | "refused" | a failure, what was said)."""
    from colorized import photo
    from colorized.photo import provenance

    source, out = folder / name, folder / "out"
    source.write_bytes(data)
    out.mkdir(exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    target = out / photo.output_name(source)
    made = provenance.Marks("fuzz", "1" * 64, "2" * 64, "", "ddim", 0, 1, 1.0, 1.0)

    def chroma(start: int, stop: int, L: np.ndarray) -> np.ndarray:
        return np.full((*L.shape, 2), (12, -9), np.float32)

    try:
        with photo.open_scan(source, MAX_PIXELS) as scan:
            for page in scan.pages:
                page.small(16, 16)
            photo.write_scan(
                [
                    photo.Colored(p, chroma, provenance.for_copy(made, p, target))
                    for p in scan.pages
                ],
                target,
            )
    except photo.PhotoError as error:
        if list(out.iterdir()):
            return "output of an unreadable file", str(error)
        if "\n" in str(error) or not str(error).startswith((str(source), str(target))):
            return "error that names no file", str(error)
        if PYTHON.search(str(error).removeprefix(str(source))):
            return "error with words of Python's", str(error)
        return "refused", str(error)
    except MemoryError:
        return "more memory than 1 GB", ""
    except Exception as error:
        return "exception", f"{type(error).__name__}: {error}"
    try:
        with photo.open_scan(target) as scan:
            for page in scan.pages:
                page.read()
    except Exception as error:
        return "output that cannot be read", f"{type(error).__name__}: {error}"
    return "colored", ""


def pillow_reads(data: bytes) -> bool:
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            if image.width * image.height > MAX_PIXELS:
                return False
            image.load()
    except Exception:
        return False
    return True


def work(pipe: Connection, folder: Path, peer: bool) -> None:
    import torch

    torch.set_num_threads(1)
    # With all libraries loaded, the program has what it needs to start.
    treat(folder, "gray.jpg", seeds()["gray.jpg"])
    with open("/proc/self/statm", encoding="ascii") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # Decoders in C print what they think.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    while True:
        name, data = pipe.recv()
        began = time.monotonic()
        became, said = treat(folder, name, data)
        seconds = time.monotonic() - began
        pipe.send((became, said, seconds, peer and pillow_reads(data)))


class Worker:
    """A process that treats one mutant at a time, and is replaced when it dies or hangs."""

    def __init__(self, folder: Path, peer: bool) -> None:
        folder.mkdir()
        self.folder, self.peer = folder, peer
        self.start()

    def start(self) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(
            target=work, args=(theirs, self.folder, self.peer), daemon=True
        )
        self.process.start()
        theirs.close()

    def treat(self, name: str, data: bytes) -> tuple[str, str, float, bool]:
        """What became of a mutant, what was said, the seconds, and whether the peer reads it."""
        began = time.monotonic()
        try:
            self.pipe.send((name, data))
            if self.pipe.poll(SECONDS + 60):  # and the time to start
                became, said, seconds, read = self.pipe.recv()
                return ("hang" if seconds > SECONDS else became), said, seconds, read
            self.process.kill()
            found = "hang", "", time.monotonic() - began, False
            self.process.join()
        except (EOFError, ConnectionError):
            self.process.join()
            found = "crash", f"exit code {self.process.exitcode}", 0.0, False
        self.start()
        return found


CONTEXT = multiprocessing.get_context("spawn")


def run(n: int, seed: int, workers: int, keep: Path | None = None, peer: bool = True) -> dict:
    """Treat n mutants and count what became of them; failures are kept in a folder."""
    counts: Counter[str] = Counter()
    formats: dict[str, Counter[str]] = {}
    failures, slowest, peers = [], 0.0, 0
    with TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as threads:
        every = [Worker(Path(folder) / str(i), peer) for i in range(workers)]
        idle = every.copy()

        def treated(mutant: tuple[str, str, bytes]) -> tuple[str, str, float, bool]:
            worker = idle.pop()
            try:
                return worker.treat(mutant[0], mutant[2])
            finally:
                idle.append(worker)

        todo, again = itertools.tee(mutants(n, seed))
        for mutant, found in zip(again, threads.map(treated, todo), strict=True):
            (file, kind, data), (became, said, seconds, read) = mutant, found
            counts[became] += 1
            formats.setdefault(Path(file).suffix[1:], Counter())[became] += 1
            slowest, peers = max(slowest, seconds), peers + read
            if became not in ("colored", "refused"):
                failures.append({"file": file, "mutation": kind, "became": became, "said": said})
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{len(failures)}-{kind}-{file}").write_bytes(data)
        for worker in every:
            worker.process.kill()
            worker.process.join()
    return {
        "mutants": n,
        "seed": seed,
        "files": len(seeds()),
        "became": dict(counts.most_common()),
        "by_format": {key: dict(value) for key, value in sorted(formats.items())},
        "failures": failures,
        "slowest_seconds": round(slowest, 2),
        "peer_pillow_reads": peers,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="a folder for the mutants that fail")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    began = time.monotonic()
    result = run(arguments.n, arguments.seed, arguments.workers, arguments.keep)
    result["seconds"] = round(time.monotonic() - began)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    if result["failures"]:
        sys.exit(f"error: {len(result['failures'])} of {arguments.n} mutants were not handled")


if __name__ == "__main__":
    main()
