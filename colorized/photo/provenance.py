"""Marks of coloring in a photograph: an XMP packet that names the model and its options.

IPTC's *Digital Source Type* is `compositeWithTrainedAlgorithmicMedia`. The lightness was captured
by a camera, but the colors are not in the original: a trained model drew them, and another seed
draws others. `algorithmicallyEnhanced` is for corrections that add nothing of their own.

Adobe, *XMP specification part 1*, 2012; IPTC, *Digital Source Type NewsCodes*.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from colorized.photo import Page, left_out
from colorized.photo.names import WRITE_ALPHA, fitting, output_format, room

NAMESPACE = "https://colorized.invalid/ns/1.0/"
"""Of the marks: in XMP, even if damaged, it says that this program colored the photograph."""
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_META = "adobe:ns:meta/"
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_PREFIXES = {
    "x": _META,
    "rdf": _RDF,
    "xmp": _XMP,
    "tiff": _TIFF,
    "Iptc4xmpExt": _IPTC_EXT,
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "colorized": NAMESPACE,
}
for _prefix, _uri in _PREFIXES.items():
    ET.register_namespace(_prefix, _uri)

_DESCRIPTION = f"{{{_RDF}}}Description"
_SOURCE_TYPE_KEY = f"{{{_IPTC_EXT}}}DigitalSourceType"
# Not true of the copy: it is upright, and its thumbnail would be gray.
_DROPPED = (_SOURCE_TYPE_KEY, f"{{{_TIFF}}}Orientation", f"{{{_XMP}}}Thumbnails")
MAX_HINTS = 20_000
"""Characters of hints that a packet holds: a JPEG has room for 65,000 bytes, escaped."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Marks:
    """Model and options that colored a photograph.

    `data_sha256` is the digest of the training data, empty where the weights do not hold it;
    `model` is a display name. Of `candidates` colorings this is number `candidate`, from 1 on;
    `hints_sha256` is the digest of the file of known colors, `hints` its text where it is short
    JSON; both are empty where there was none.
    """

    model: str
    weights_sha256: str
    original_sha256: str
    data_sha256: str
    sampler: str
    seed: int
    steps: int
    guidance: float
    saturation: float
    temperature: float = 1.0
    candidate: int = 1
    candidates: int = 1
    hints_sha256: str = ""
    hints: str = ""

    def __post_init__(self) -> None:
        for key in ("weights_sha256", "original_sha256", "data_sha256", "hints_sha256"):
            value = getattr(self, key)
            optional = key in ("data_sha256", "hints_sha256")
            if not (_SHA256.fullmatch(value) or (optional and not value)):
                raise ValueError(f"{key} must be 64 hexadecimal digits, got {value!r}")


def for_copy(marks: Marks, photo: Page, target: str | Path) -> bytes:
    """The XMP of a photograph's colored copy: the original's own and the marks.

    Empty where the format of `target` holds none. What is left out is added to the photograph's
    notes.
    """
    if len(photo.metadata.iptc) > (most := room(target, "IPTC")):
        why = "it is too long" if most else f"{Path(target).suffix} cannot hold it"
        photo.notes.append(f"its IPTC record is left out: {why}")
    if photo.has_alpha and output_format(target) not in WRITE_ALPHA:
        photo.notes.append(f"its transparency is left out: {Path(target).suffix} cannot hold it")
    photo.notes += left_out(photo.metadata, target)
    most = room(target, "XMP")
    if not most:
        photo.notes.append(
            f"its copy has no marks of coloring: {Path(target).suffix} cannot hold them"
        )
        return b""
    try:
        if len(merged := packet(marks, photo.metadata.xmp)) <= most:
            return merged
        reason = "it is too long"
    except ValueError as error:
        reason = str(error)
    photo.notes.append(f"its XMP is left out: {reason}")
    return packet(marks)


def sidecar_name(target: Path) -> Path:
    """The file of marks beside a colored photograph: photo.jpg.json."""
    return target.with_name(fitting(target.name, ".json"))


def sidecar(marks: Marks, target: Path, sha256: str) -> bytes:
    """The marks as a JSON file, for programs that read no XMP and formats that hold none.

    `target` and `sha256`, the colored photograph's file and its digest, link the two.
    """
    facts = {
        "file": target.name,
        "sha256": sha256,
        "digital_source_type": SOURCE_TYPE,
        "statement": "Lightness from the original; colors drawn by a trained model, not recorded.",
        **asdict(marks),
    }
    # A name that is not text has lone surrogates, which JSON can say in ASCII only.
    return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def packet(marks: Marks, existing: bytes = b"") -> bytes:
    """An XMP packet with the marks, in UTF-8; the same ones give the same bytes.

    The other properties of a packet `existing` are kept. Raises ValueError: `existing` is no XMP.
    """
    meta, rdf = _parse(existing) if existing else _empty()
    descriptions = rdf.findall(_DESCRIPTION)
    for description in descriptions:
        for key in [k for k in description.attrib if _is_dropped(k)]:
            del description.attrib[key]
        for child in [c for c in description if _is_dropped(c.tag)]:
            description.remove(child)
    # All descriptions of a packet are of one resource.
    about = f"{{{_RDF}}}about"
    subject = descriptions[0].get(about, "") if descriptions else ""
    ours = {about: subject, _SOURCE_TYPE_KEY: SOURCE_TYPE}
    ours |= {_key(name): str(value) for name, value in asdict(marks).items()}
    ET.SubElement(rdf, _DESCRIPTION, ours)
    body = ET.tostring(meta, encoding="unicode")
    return (
        f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>{body}<?xpacket end="r"?>'
    ).encode()


def parse(xmp: bytes) -> Marks | None:
    """The marks in an XMP packet; None where there are none.

    Raises ValueError: the packet is no XMP, or its marks are incomplete or not of their kind.
    """
    if not xmp:
        return None
    _, rdf = _parse(xmp)
    for description in rdf.findall(_DESCRIPTION):
        # A program that has rewritten the packet may have made elements of the attributes.
        found = {child.tag: child.text or "" for child in description} | description.attrib
        if any(key.startswith(f"{{{NAMESPACE}}}") for key in found):
            kinds = {"int": int, "float": float, "str": str}
            try:
                return Marks(
                    **{
                        f.name: kinds[str(f.type)](found[_key(f.name)])
                        for f in fields(Marks)
                        # Older marks lack the newer fields; their defaults are what held then.
                        if f.default is MISSING or _key(f.name) in found
                    }
                )
            except KeyError as error:
                raise ValueError(f"its marks lack {str(error.args[0]).split('}')[1]}") from error
            except ValueError as error:
                raise ValueError(f"its marks are damaged: {error}") from error
    return None


def _key(name: str) -> str:
    """weights_sha256 → {…}WeightsSha256."""
    return f"{{{NAMESPACE}}}{name.title().replace('_', '')}"


def _is_dropped(key: str) -> bool:
    return key in _DROPPED or key.startswith(f"{{{NAMESPACE}}}")


def _empty() -> tuple[ET.Element, ET.Element]:
    meta = ET.Element(f"{{{_META}}}xmpmeta")
    return meta, ET.SubElement(meta, f"{{{_RDF}}}RDF")


def _parse(xmp: bytes) -> tuple[ET.Element, ET.Element]:
    """The outermost element of a packet and its rdf:RDF."""
    if b"<!" in xmp.replace(b"<!--", b""):  # entities, which no XMP needs, can be without end
        raise ValueError("it is not XMP")
    try:
        meta = ET.fromstring(xmp.strip(b"\0 \r\n\t"))
    except (ET.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"it is not XMP ({error})") from error
    rdf = next(meta.iter(f"{{{_RDF}}}RDF"), None)
    if rdf is None:
        raise ValueError("it is not XMP")
    return meta, rdf
