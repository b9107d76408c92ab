"""Packing: what is rounded, by how much, and that the rest is exact."""

import pytest
import torch

from colorized.model import packing


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LEAST", 0)


def rms(tensor: torch.Tensor) -> torch.Tensor:
    """Of each row, shaped so that it goes with the tensor."""
    return tensor.flatten(1).square().mean(1).sqrt().view(-1, *[1] * (tensor.ndim - 1))


@pytest.mark.parametrize("shape", [(5, 7), (64, 3, 3, 3), (1, 4096), (6, 1, 5, 5)])
@pytest.mark.parametrize("scale", [1e-4, 0.02, 1.0, 100.0])
def test_error_is_a_share_of_the_row(shape: tuple[int, ...], scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    tensor = scale * torch.randn(shape, generator=generator)
    tensor *= 10 ** torch.linspace(-1, 1, shape[0]).view(-1, *[1] * (len(shape) - 1))
    found = packing.unpack(packing.pack({"w": tensor}))["w"]
    smallest = 2.0**-25  # half of half precision's smallest number
    assert torch.all((found - tensor).abs() <= rms(tensor) / (2 * packing.FINENESS) + smallest)
    assert torch.equal(found, found.half().float())


def test_a_number_far_from_the_others_is_kept_and_sets_the_step() -> None:
    tensor = torch.full((2, 1000), 0.01)
    tensor[0, 3] = -50.0
    found = packing.unpack(packing.pack({"w": tensor}))["w"]
    torch.testing.assert_close(found[0, 3], tensor[0, 3], rtol=0.01, atol=0)
    torch.testing.assert_close(found[1], tensor[1], rtol=0.04, atol=0)  # the row beside it


@pytest.mark.parametrize("largest", [0.0, 2.0**-24, 1.0, 127.0, 128.0, 65504.0])
def test_extremes(largest: float) -> None:
    tensor = torch.zeros(3, 50)
    tensor[1, 7] = largest
    tensor[2] = -largest
    found = packing.unpack(packing.pack({"w": tensor}))["w"]
    torch.testing.assert_close(found, tensor, rtol=0.01, atol=0)


def test_vectors_and_small_tensors_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    bias = torch.tensor([0.1, -3.7e-5])
    packed = packing.pack({"b": bias, "w": torch.ones(2, 2)})
    assert packed["b"] is bias
    assert {name: t.dtype for name, t in packed.items() if name != "b"} == {
        "w": torch.int8,
        "w.exponent": torch.int8,
    }
    monkeypatch.undo()
    tensors = {"w": torch.ones(2, 2), "large": torch.ones(100, 300)}
    packed = packing.pack(tensors)
    assert packed["w"] is tensors["w"]
    assert packed["large"].dtype == torch.int8
