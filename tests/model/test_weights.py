"""Weights and checkpoints: whole or not at all, and never more than tensors and plain values."""

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from colorized.model import packing
from colorized.model.weights import (
    METADATA_KEY,
    CheckpointError,
    ModelConfig,
    load_tensors,
    load_weights,
    save_weights,
)
from colorized.training.checkpoint import load_checkpoint, save_checkpoint

CONFIG = ModelConfig((8, 16, 32), 16, 32, 1, "cosine", 100, (15.5, 18.25), 64)
ABOUT = {"init": "scratch", "steps": 4}
STATE = {"step": 3, "best": 0.5, "network": {"w": torch.arange(4.0)}, "names": ["a"]}


class Bomb:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    own = CONFIG.build().network.state_dict()
    return {name: torch.randn(t.shape, generator=generator) for name, t in own.items()}


@pytest.fixture
def weights(tensors: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_weights(path, tensors, CONFIG, ABOUT)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def described(**changes: Any) -> dict[str, str]:
    config = {
        "channels": [8, 16, 32], "time_channels": 16, "width": 32, "depth": 1,
        "schedule": "cosine", "T": 100,
        "ab_std": [15.5, 18.25], "work_size": 64,
    }  # fmt: skip
    return {METADATA_KEY: json.dumps({"format": 6, "config": config, "about": {}} | changes)}


class TestWeights:
    def test_round_trip(self, weights: Path, tensors: dict[str, Tensor]) -> None:
        loaded = load_weights(weights)
        assert loaded.config == CONFIG
        assert loaded.about == ABOUT
        assert loaded.config.noise().T == 100
        assert not loaded.denoiser.training
        for name, tensor in loaded.denoiser.network.state_dict().items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, tensors[name].half().float())

    def test_saved_again_they_are_the_same_bytes(self, weights: Path, tmp_path: Path) -> None:
        loaded = load_weights(weights)
        again = tmp_path / "again.safetensors"
        reordered = dict(reversed(loaded.denoiser.network.state_dict().items()))
        save_weights(again, reordered, loaded.config, dict(reversed(ABOUT.items())))
        assert again.read_bytes() == weights.read_bytes()
        save_weights(again, reordered, loaded.config, {**ABOUT, "steps": 5})
        assert again.read_bytes() != weights.read_bytes()

    def test_others_can_read_them(self, weights: Path, tensors: dict[str, Tensor]) -> None:
        found = safetensors.torch.load_file(weights)
        assert found.keys() == tensors.keys()
        assert {t.dtype for t in found.values()} == {torch.float16}

    def test_packed_they_are_rounded_and_half_the_size(
        self, weights: Path, tensors: dict[str, Tensor], tmp_path: Path
    ) -> None:
        path = tmp_path / "packed.safetensors"
        save_weights(path, tensors, CONFIG, ABOUT, packed=True)
        assert path.stat().st_size < 0.7 * weights.stat().st_size
        loaded = load_weights(path)
        assert (loaded.config, loaded.about) == (CONFIG, ABOUT)
        network = loaded.denoiser.network.state_dict()
        rounded = packing.unpack(packing.pack({n: t.half() for n, t in tensors.items()}))
        for name, tensor in network.items():
            assert torch.equal(tensor, rounded[name])

    @pytest.mark.parametrize(
        ("exponents", "expected"),
        [
            (None, r"tensor out\.weight\.exponent is missing or not one number for each row"),
            (torch.zeros(7, dtype=torch.int8), r"tensor out\.weight\.exponent is missing or not"),
            (torch.zeros(2, dtype=torch.int8), ""),
        ],
    )
    def test_packed_without_its_exponents(
        self,
        tensors: dict[str, Tensor],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        exponents: Tensor | None,
        expected: str,
    ) -> None:
        monkeypatch.setattr(packing, "LEAST", 0)
        found = packing.pack(tensors)
        del found["out.weight.exponent"]
        if exponents is not None:
            found["out.weight.exponent"] = exponents
        path = tmp_path / "w.safetensors"
        path.write_bytes(safetensors.torch.save(found, described()))
        if expected:
            assert re.match(expected, refusal(path))
        else:
            load_weights(path)
        path.write_bytes(
            safetensors.torch.save(
                packing.pack(tensors) | {"no.exponent": torch.zeros(2, dtype=torch.int8)},
                described(),
            )
        )
        assert refusal(path) == "tensor no.exponent belongs to no tensor"

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
    def test_what_half_precision_cannot_hold_is_not_written(
        self, weights: Path, tensors: dict[str, Tensor], value: float
    ) -> None:
        before = weights.read_bytes()
        bias = torch.full_like(tensors["out.bias"], value)
        with pytest.raises(CheckpointError, match=r"not written, out\.bias is not finite"):
            save_weights(weights, tensors | {"out.bias": bias}, CONFIG, ABOUT)
        assert weights.read_bytes() == before

    def test_tensor_that_does_not_fit_is_named(
        self, tmp_path: Path, tensors: dict[str, Tensor]
    ) -> None:
        path = tmp_path / "w.safetensors"
        lacking = {name: t for name, t in tensors.items() if name != "out.bias"}
        save_weights(path, lacking, CONFIG, ABOUT)
        assert refusal(path) == "tensor out.bias is missing"
        save_weights(path, tensors | {"out.extra": torch.zeros(1)}, CONFIG, ABOUT)
        assert refusal(path) == "tensor out.extra does not belong to this network"
        save_weights(path, tensors | {"out.bias": torch.zeros(3)}, CONFIG, ABOUT)
        assert refusal(path) == "tensor out.bias is (3,), this network needs (2,)"
        spoiled = tensors | {"out.bias": torch.tensor([0.0, torch.nan])}
        safetensors.torch.save_file(spoiled, path, described())
        assert refusal(path) == "tensor out.bias is not finite"

    def test_refused_tensors_change_nothing(self, tensors: dict[str, Tensor]) -> None:
        network = CONFIG.build().network
        before = {name: t.clone() for name, t in network.state_dict().items()}
        with pytest.raises(CheckpointError, match="^somewhere: tensor out.bias is"):
            load_tensors(network, tensors | {"out.bias": torch.zeros(3)}, "somewhere")
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[name])

    def test_file_is_missing_or_a_folder(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "w.safetensors") == "no such weights file"
        assert refusal(tmp_path) == "no such weights file"

    @pytest.mark.parametrize("kept", [0, 4, 100, -1])
    def test_truncated_file(self, weights: Path, kept: int) -> None:
        weights.write_bytes(weights.read_bytes()[:kept])
        assert refusal(weights).startswith("not a safetensors file or a damaged one")

    @pytest.mark.parametrize("legacy", ["pickle", "torch"])
    def test_pickle_is_never_opened(self, tmp_path: Path, legacy: str) -> None:
        planted, path = tmp_path / "planted", tmp_path / "w.safetensors"
        if legacy == "pickle":
            path.write_bytes(pickle.dumps(Bomb(planted)))
        else:
            torch.save({"w": Bomb(planted)}, path)
        assert "pickles among them, are not opened" in refusal(path)
        assert not planted.exists()
        live = path.rename(tmp_path / "w.pt")
        if legacy == "pickle":
            pickle.loads(live.read_bytes())
        else:
            torch.load(live, weights_only=False)
        assert planted.exists()  # negative control: a live one

    @pytest.mark.parametrize(
        ("metadata", "expected"),
        [
            (None, "holds no weights of this program"),
            ({"format": "pt"}, "holds no weights of this program"),
            ({METADATA_KEY: "{"}, "its configuration cannot be used"),
            ({METADATA_KEY: "[]"}, "its configuration cannot be used"),
            ({METADATA_KEY: "{}"}, "its configuration cannot be used"),
            *((described(format=n), f"format {n}, this program reads 6") for n in (1, 2, 3, 4, 5)),
            (described(config={"channels": [8]}), "its configuration cannot be used"),
            (described(config=None), "its configuration cannot be used"),
        ],
    )
    def test_safetensors_of_something_else(
        self, tmp_path: Path, metadata: dict[str, str] | None, expected: str
    ) -> None:
        path = tmp_path / "w.safetensors"
        safetensors.torch.save_file({"w": torch.zeros(1)}, path, metadata)
        assert expected in refusal(path)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("channels", [8, 16, 33]),
            ("channels", "abc"),
            ("schedule", "sigmoid"),
            ("T", 1),
            ("T", "many"),
            ("ab_std", [1.0]),
            ("ab_std", [0.0, 1.0]),
            ("work_size", 100),
            ("work_size", "64"),
            ("few_step_sigmas", [1.0, 2.0]),
            ("few_step_sigmas", [80.0, 0.0]),
            ("surplus", 1),
        ],
    )
    def test_impossible_configuration(self, tmp_path: Path, key: str, value: Any) -> None:
        path = tmp_path / "w.safetensors"
        metadata = json.loads(described()[METADATA_KEY])
        metadata["config"][key] = value
        text = {METADATA_KEY: json.dumps(metadata)}
        safetensors.torch.save_file({"w": torch.zeros(1)}, path, text)
        assert refusal(path).startswith("its configuration cannot be used")


class TestCheckpoint:
    def test_round_trip(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "last.pt"
        save_checkpoint(path, STATE)
        found = load_checkpoint(path)
        assert torch.equal(found.pop("network")["w"], torch.arange(4.0))
        assert found == {"step": 3, "best": 0.5, "names": ["a"]}

    def test_pickle_is_not_executed(self, tmp_path: Path) -> None:
        planted, path = tmp_path / "planted", tmp_path / "last.pt"
        torch.save({"step": Bomb(planted)}, path)
        with pytest.raises(CheckpointError, match="not a checkpoint or a damaged one") as caught:
            load_checkpoint(path)
        assert not planted.exists()
        assert "weights_only" not in str(caught.value)  # no advice to open it all the same

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
    def test_half_written(self, tmp_path: Path, share: float) -> None:
        path = tmp_path / "last.pt"
        save_checkpoint(path, STATE)
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)

    def test_other_files(self, tmp_path: Path) -> None:
        path = tmp_path / "last.pt"
        with pytest.raises(CheckpointError, match="No such file or directory"):
            load_checkpoint(path)
        for content in (b"text", b"\x80\x02}.", b"a.", bytes(range(256))):
            path.write_bytes(content)
            with pytest.raises(CheckpointError, match=r"last\.pt: not a checkpoint"):
                load_checkpoint(path)
        torch.save([1, 2], path)
        with pytest.raises(CheckpointError, match=r"last\.pt: not a checkpoint$"):
            load_checkpoint(path)


@pytest.mark.parametrize("step", ["write", "replace"])
def test_failed_write_leaves_the_old_file(
    tmp_path: Path, tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    weights, checkpoint = tmp_path / "w.safetensors", tmp_path / "last.pt"
    save_weights(weights, tensors, CONFIG, ABOUT)
    save_checkpoint(checkpoint, {"step": 1})
    before = weights.read_bytes(), checkpoint.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace" if step == "replace" else "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(weights, tensors, CONFIG, {"other": 1})
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(checkpoint, {"step": 2})
    assert (weights.read_bytes(), checkpoint.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "w.safetensors"]
