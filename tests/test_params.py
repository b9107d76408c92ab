"""params.yaml: what is shipped loads, and whatever is wrong is one line that names the key."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML

from colorized.params import ParamsError, load_params

SHIPPED = Path(__file__).resolve().parents[1] / "params.yaml"


def changed(folder: Path, old: str, new: str) -> Path:
    """A copy of the shipped file in which the one line that matches `old` is replaced."""
    text, count = re.subn(rf"(?m)^{old}.*$", new, SHIPPED.read_text(encoding="utf-8"))
    assert count == 1, old
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_shipped_file_loads_whole() -> None:
    # YAML 1.1 and 1.2 agree about the shipped file.
    expected = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    assert load_params(SHIPPED).model_dump() == expected


def test_every_shipped_value_has_a_comment() -> None:
    values = [
        line for line in SHIPPED.read_text(encoding="utf-8").splitlines() if line.startswith("  ")
    ]
    assert len(values) == sum(len(s) for s in load_params(SHIPPED).model_dump().values())
    for line in values:
        assert re.search(r"\s# \S", line), line


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", "+1e-04"])
def test_floats_are_those_of_yaml_1_2(tmp_path: Path, text: str) -> None:
    path = changed(tmp_path, "  lr:", f"  lr: {text}")
    assert load_params(path).train.lr == 1e-4
    # What DVC writes back for an experiment is read the same.
    reader = YAML()
    values: Any = reader.load(path.read_text(encoding="utf-8"))
    values["train"]["lr"] = 1e-4
    reader.dump(values, path)
    assert load_params(path).train.lr == 1e-4


def test_integer_is_taken_where_a_float_is_meant(tmp_path: Path) -> None:
    assert load_params(changed(tmp_path, "  clip_norm:", "  clip_norm: 2")).train.clip_norm == 2.0


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  val_crops:", "  val_crops: 8\n  val_crop: 8", ": preprocess.val_crop: unknown key"),
        ("evaluate:", "extra: {}\nevaluate:", ": extra: unknown key"),
        ("  val_crops:", "", ": preprocess.val_crops: missing"),
        ("  T:", "  T: '1000'", ": diffusion.T: input should be a valid integer, got '1000'"),
        ("  T:", "  T: 1000.0", ": diffusion.T: input should be a valid integer, got 1000.0"),
        ("  T:", "  T: true", ": diffusion.T: input should be a valid integer, got True"),
        ("  T:", "  T:", ": diffusion.T: input should be a valid integer, got None"),
        ("  clip_norm:", "  clip_norm: much", ": train.clip_norm: input should be a valid number"),
        ("  clip_norm:", "  clip_norm: .inf", ": train.clip_norm: input should be a finite number"),
        ("  weight_decay:", "  weight_decay: .nan", ": train.weight_decay: "),
        ("  schedule:", "  schedule: sigmoid", ": diffusion.schedule: "),
        ("  device:", "  device: gpu", ": train.device: "),
        ("  init:", "  init: weights.pt", ": train.init: must be one of released, scratch, "),
        ("  channels:", "  channels: [64, 112]", ": model.channels: "),
        ("  channels:", "  channels: [64, 100, 128]", ": model.channels.1: "),
        ("  channels:", "  channels: [64, 112, 120]", ": model.channels: the last must be"),
        ("  crop_size:", "  crop_size: 120", ": train.crop_size: "),
        ("  crop_size:", "  crop_size: 256", ": train.crop_size must not exceed "),
        ("  accumulate:", "  accumulate: 2", ": train.accumulate is for train.objective denoise"),
        ("  compile:", "  compile: true", ": train.compile is for train.objective denoise"),
        ("  test_share:", "  test_share: 0.95", ": preprocess.val_share + preprocess.test_share "),
        ("  val_share:", "  val_share: 0", ": preprocess.val_share: "),
        ("  min_scale:", "  min_scale: 1.5", ": preprocess.min_scale: "),
        (
            "  guidance: null",
            "  guidance: 11",
            ": sample.guidance: guidance must be in 0 … 10, got 11",
        ),
        ("  sampler:", "  sampler: euler", ": sample.sampler: sampler must be one of dpm_solver"),
        ("  T:", "  T: 10\n  T: 20", ': not valid YAML: found duplicate key "T"'),
        ("  T:", "  T: [10", ": not valid YAML: "),
        ("  T:", "  T: !!python/object/apply:os.getcwd []", ": not valid YAML: "),
        ("  T:", "\tT: 10", ": not valid YAML: "),
        ("  T:", "  T: \x00", ": not valid YAML: "),
    ],
)
def test_what_is_wrong_is_named_in_one_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    message = re.sub(r"^, line \d+", "", refusal(changed(tmp_path, old, new)))
    assert message.startswith(expected)


def test_a_line_that_is_not_yaml_is_numbered(tmp_path: Path) -> None:
    path = changed(tmp_path, "  T:", "  T: 10\n  T: 20")
    number = path.read_text(encoding="utf-8").splitlines().index("  T: 20") + 1
    assert refusal(path).startswith(f", line {number}: ")


def test_two_mistakes_are_both_named(tmp_path: Path) -> None:
    message = refusal(changed(tmp_path, "  T:", "  T: 1\n  S: 1"))
    assert "diffusion.T: " in message and "diffusion.S: unknown key" in message


def test_section_is_missing_or_none(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    values = load_params(SHIPPED).model_dump()
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if k != "train"}))
    assert refusal(path) == ": train: missing"
    path.write_text(yaml.safe_dump(values | {"train": None}))
    assert refusal(path) == ": train: must be a section with keys of its own"


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"text", b"\xff\xfe\x00\xd8"])
def test_file_without_sections(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    refusal(path)


def test_file_is_missing_or_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.yaml") == ": No such file or directory"
    assert refusal(tmp_path) == ": Is a directory"
