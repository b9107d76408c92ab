"""torchvision beside a torch without CUDA.

pytorch-fid builds its network from torchvision's plain-Python Inception. The torchvision on PyPI
is compiled for PyPI's torch; beside a CPU-only torch its operators do not load, and importing it
dies at ``operator torchvision::nms does not exist``. Inception calls none of these operators, so
it is enough to declare the two that the import looks up. Where torchvision imports, nothing is
done.
"""

from __future__ import annotations

import importlib

import torch

# An operator lives no longer than the Library that declared it.
_declared: list[torch.library.Library] = []


def import_torchvision() -> None:
    """Import torchvision, declaring the operators it misses if it must.

    Call this before anything that imports torchvision in its turn.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        importlib.import_module("torchvision")
