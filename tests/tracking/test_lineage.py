"""Marks in colored photographs, and the way back from them."""

from __future__ import annotations

import hashlib
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Run as Command
from pictures import PHOTOS, scan
from PIL import Image

from colorized import photo
from colorized.model.header import sampling_defaults
from colorized.model.weights import RELEASED
from colorized.photo import provenance
from colorized.photo.provenance import Marks
from colorized.tracking import Registry, Run, champion

pytestmark = pytest.mark.slow

SHA256 = hashlib.sha256(RELEASED.read_bytes()).hexdigest()
MADE = Marks("a model", "a" * 64, "b" * 64, "c" * 64, "ddim", 2**63 - 1, 10, 1.5, 0.1)
DC = "http://purl.org/dc/elements/1.1/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
# What an archive might have written; `old:` is nobody's.
THEIRS = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">
<rdf:Description rdf:about="urn:one" xmlns:dc="{DC}" xmlns:old="urn:old" old:shelf="7"
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Tür &amp; Tor</rdf:li></rdf:Alt></dc:title>
<Iptc:DigitalSourceType xmlns:Iptc="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
http://cv.iptc.org/newscodes/digitalsourcetype/negativeFilm</Iptc:DigitalSourceType>
</rdf:Description></rdf:RDF></x:xmpmeta>  <?xpacket end="w"?>""".encode()


class TestPacket:
    def test_round_trip(self) -> None:
        assert provenance.parse(provenance.packet(MADE)) == MADE
        assert provenance.parse(provenance.packet(replace(MADE, data_sha256=""))) is not None
        assert provenance.packet(MADE) == provenance.packet(replace(MADE))
        assert provenance.parse(THEIRS) is None
        assert provenance.parse(b"") is None

    def test_what_the_original_says_is_kept(self) -> None:
        merged = provenance.packet(MADE, THEIRS)
        assert provenance.parse(merged) == MADE
        text = merged.decode()
        assert "Tür &amp; Tor" in text and "urn:old" in text
        assert "negativeFilm" not in text and "Orientation" not in text
        abouts = {e.get(f"{{{RDF}}}about") for e in ET.fromstring(merged).iter()} - {None}
        assert abouts == {"urn:one"}
        # Coloring a colored copy again replaces the marks.
        other = replace(MADE, seed=1)
        again = provenance.packet(other, merged)
        assert provenance.parse(again) == other
        assert again.count(b"WeightsSha256") == 1
        assert again.count(b"DigitalSourceType=") == 1

    @pytest.mark.parametrize(
        "xmp",
        [
            b"words",
            b"<x/>",
            THEIRS[:-100],
            b"\xff\xfe",
            b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        ],
    )
    def test_no_xmp(self, xmp: bytes) -> None:
        with pytest.raises(ValueError, match="it is not XMP"):
            provenance.packet(MADE, xmp)

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [(b"a" * 64, b"A" * 64, "damaged: weights_sha256"), (b"Steps", b"Stops", "lack Steps"),
         (b'Seed="', b'Seed="x', "damaged")],
    )  # fmt: skip
    def test_damaged_marks(self, old: bytes, new: bytes, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            provenance.parse(provenance.packet(MADE).replace(old, new))


@pytest.mark.parametrize("suffix", ["bmp", "ppm"])
def test_formats_without_xmp_say_so(tmp_path: Path, run: Command, suffix: str) -> None:
    name = f"scan.{suffix}"
    scan(tmp_path / name)
    code, out, err = run("colorize", name, "-o", "out", "--steps", 1)
    assert (code, out) == (0, [f"out/{name}"])
    assert err == [
        f"warning: {name}: its copy has no marks of coloring: .{suffix} cannot hold them"
    ]


def test_xmp_that_cannot_be_kept_is_a_note(tmp_path: Path) -> None:
    for theirs, reason in ((b"words", "it is not XMP"), (THEIRS + b" " * 10, "")):
        read = photo.read_photo(scan(tmp_path / "scan.tif", tiffinfo={700: theirs}))
        made = provenance.for_copy(MADE, read, tmp_path / "a.jpg")
        assert provenance.parse(made) == MADE
        assert [reason in note for note in read.notes] == ([True] if reason else [])
    read.metadata = photo.Metadata(xmp=THEIRS.replace(b"Tor", b"x" * 70_000))
    assert provenance.parse(provenance.for_copy(MADE, read, tmp_path / "a.jpg")) == MADE
    assert read.notes == ["its XMP is left out: it is too long"]


@pytest.mark.parametrize(
    ("name", "length", "why"),
    [
        ("a.jpg", 65_500, None),
        ("a.jpg", 65_501, "it is too long"),
        ("a.webp", 9, ".webp cannot hold it"),
        ("a.j2k", 9, ".j2k cannot hold it"),
    ],
)
def test_iptc_that_cannot_be_kept_is_a_note(
    tmp_path: Path, name: str, length: int, why: str | None
) -> None:
    read = photo.read_photo(scan(tmp_path / "scan.png"))
    record = b"\x1c\x02\x78" + (length - 5).to_bytes(2, "big") + bytes(length - 5)
    read.metadata = photo.Metadata(iptc=record)
    xmp = provenance.for_copy(MADE, read, tmp_path / name)
    photo.write_photo(read, np.zeros((*read.lightness.shape, 2), np.float32), tmp_path / name, xmp)
    notes = [note for note in read.notes if "IPTC" in note]
    assert notes == ([f"its IPTC record is left out: {why}"] if why else [])
    kept = photo.read_photo(tmp_path / name).metadata.iptc
    assert kept == (b"" if why else record)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose store, registry, commits and data know the released weights."""
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "start"]):
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    sha = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    md5 = "d" * 32 + ".dir"
    (tmp_path / "dvc.lock").write_text(f"stages:\n  preprocess:\n    outs:\n    - md5: {md5}\n")
    run = Run.start(
        tmp_path,
        "train",
        {},
        {"git_sha": sha, "git_dirty": "dvc.lock", "data_md5": md5, "weights_sha256": SHA256},
    )
    run.finish()
    registry = Registry(tmp_path)
    version = champion.register(registry, run, RELEASED, {"weights_sha256": SHA256})
    registry.set_alias("champion", version)
    return tmp_path


def test_from_the_registry_to_a_photograph_and_back(project: Path, run: Command) -> None:
    source = scan(project / "a.jpg")
    colorize = ("colorize", "a.jpg", "--steps", 2, "--seed", 5)
    champion = (*colorize, "--weights", "models:/colorized@champion")
    assert run(*champion, "-o", "one") == (0, ["one/a.jpg"], [])
    assert run(*colorize, "-o", "two") == (0, ["two/a.jpg"], [])
    one, two = (np.asarray(Image.open(f"{folder}/a.jpg")) for folder in ("one", "two"))
    np.testing.assert_array_equal(one, two)

    store = Registry(project)
    (run_id, tags) = store.find_run(SHA256) or ("", {})
    code, out, err = run("lineage", "one/a.jpg")
    assert (code, err) == (0, [])
    released = sampling_defaults(RELEASED)
    assert out == [
        f"weights: models:/colorized@champion, sha256 {SHA256} "
        "(found: the released weights, models:/colorized/1, the champion)",
        f"MLflow run: {run_id} (found: in the store)",
        f"git commit: {tags['git_sha']} (found: in this repository)",
        "data in dvc.lock of that commit: others (not found)",
        "changed since that commit: dvc.lock; the run keeps dvc.lock and params.yaml",
        f"data: sha256 unknown, DVC md5 {tags['data_md5']} (found: dvc.lock)",
        f"parameters: seed 5, steps 2, guidance {released.guidance:g}, "
        f"temperature {released.temperature:g}, saturation {released.saturation:g}, "
        "sampler tinted_consistency",
        f"original: sha256 {hashlib.sha256(source.read_bytes()).hexdigest()}",
    ]

    # What is no longer there is said to be gone.
    store.client.delete_run(run_id)
    (project / "dvc.lock").unlink()
    _, out, _ = run("lineage", "one/a.jpg")
    assert out[1:4] == [
        "MLflow run: unknown (not found)",
        "git commit: unknown (not found)",
        "data: sha256 unknown, DVC md5 unknown (not found)",
    ]
    (project / "mlflow.db").unlink()
    code, out, _ = run("lineage", "one/a.jpg")
    assert code == 0
    assert out[0].endswith("(found: the released weights)")
    assert out[-1].startswith("MLflow store: ") and "no such MLflow store" in out[-1]
    assert not (project / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("models:/colorized@nobody", "models:/colorized@nobody: not in sqlite:///"),
        ("models:/colorized/2", "models:/colorized/2: not in sqlite:///"),
        ("models:/other@champion", "models:/other@champion: not in sqlite:///"),
        ("models:/colorized", "models:/colorized: must be models:/NAME@ALIAS"),
        ("runs:/0123", "runs:/0123: not in sqlite:///"),
    ],
)
def test_weights_that_the_registry_does_not_have(
    tmp_path_factory: pytest.TempPathFactory, store: Path, run: Command,
    monkeypatch: pytest.MonkeyPatch, weights: str, reason: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    scan(Path("a.png").absolute())
    code, out, err = run("colorize", "a.png", "-o", "out", "--weights", weights)
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"error: {reason}")
    assert sorted(p.name for p in Path().iterdir()) == ["a.png"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a registered model that has no version."""
    root = tmp_path_factory.mktemp("store")
    Registry(root, create=True).client.create_registered_model("colorized")
    return root


def test_no_store_is_made_where_there_is_none(run: Command) -> None:
    scan(Path("a.png").absolute())
    result = run("colorize", "a.png", "-o", "out", "--weights", "models:/colorized@champion")
    assert result.code == 1
    assert "mlflow.db: no such MLflow store" in result.err[0]
    assert [p.name for p in Path().iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.jpg", None, "cannot be read: No such file"),
        ("words.jpg", b"words", "no picture of a known format"),
        ("bare.jpg", PHOTOS[0].read_bytes(), "has no marks of this program"),
    ],
)
def test_photograph_without_marks_is_one_line(
    run: Command, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    code, out, err = run("lineage", name)
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"error: {name}: {reason}")
