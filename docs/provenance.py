"""ExifTool's view of a colored photograph, for docs/archive.md: `python docs/provenance.py`.

One of the archive photographs is given IPTC and EXIF as an archive would, colored by the command
line, and read by ExifTool. Needs ExifTool.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "archive.md"
BEGIN = "<!-- exiftool: begin (docs/provenance.py) -->\n"
END = "<!-- exiftool: end -->\n"
GROUPS = (
    "-XMP-iptcExt:all",
    "-XMP-colorized:all",
    "-IPTC:all",
    "-IFD0:Artist",
    "-ICC_Profile:ProfileDescription",
)


def view() -> str:
    with TemporaryDirectory() as name:
        scan = Path(name) / "dust-bowl-home.jpg"
        scan.write_bytes((ROOT / "data" / "sample" / "archive" / scan.name).read_bytes())
        written = ["-IPTC:By-line=Dorothea Lange", "-EXIF:Artist=Dorothea Lange"]
        subprocess.run(["exiftool", "-q", "-overwrite_original", *written, scan], check=True)
        command = [sys.executable, "-m", "colorized", "colorize", scan, "-o", Path(name) / "out"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        shown = ["exiftool", "-a", "-G1", "-s", *GROUPS, Path(name) / "out" / scan.name]
        return subprocess.run(shown, check=True, capture_output=True, text=True).stdout


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(f"{head}{BEGIN}\n```text\n{view()}```\n\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
