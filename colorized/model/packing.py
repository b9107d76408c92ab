"""Large tensors of weights in 8 bits a number: whole ones, times a power of two for each row.

A step is at most a sixteenth of the row's root mean square, unless the row's largest number would
then be out of reach; what is lost is noise to the network. The values that remain are exact in half
precision, so a packed file is one in half precision without the bits that would be zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

EXPONENT = ".exponent"
"""Beside a packed tensor NAME stands NAME.exponent."""
FINENESS = 16
"""Steps in a row's root mean square, at least."""
LEAST = 30_000
"""Numbers in a tensor that is packed, at least. Smaller ones, a tenth of all, are what rounding
hurts: an error of v of 0.1264 rises to 0.1274 with them, and not at all without."""
_LARGEST = 127
_SMALLEST = -24
"""Exponent of half precision's smallest number."""


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each large tensor as int8, and the exponents of its rows as int8 (rows,); the others stay.

    Rows are those of the first dimension.
    """
    packed = {}
    for name, tensor in tensors.items():
        if tensor.numel() < LEAST or tensor.ndim < 2:
            packed[name] = tensor
        else:
            packed[name], packed[name + EXPONENT] = _pack_rows(tensor.detach().float().cpu())
    return packed


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `pack` was given, rounded; all in float32, also those that are not packed.

    Raises
    ------
    ValueError
        Naming a tensor whose exponents are missing, or exponents that belong to none.
    """
    whole = {}
    for name, tensor in tensors.items():
        if name.endswith(EXPONENT):
            if name.removesuffix(EXPONENT) not in tensors:
                raise ValueError(f"{name} belongs to no tensor")
        elif tensor.dtype == torch.int8:
            exponents = tensors.get(name + EXPONENT)
            if exponents is None or exponents.shape != tensor.shape[:1]:
                raise ValueError(f"{name}{EXPONENT} is missing or not one number for each row")
            whole[name] = torch.ldexp(tensor.float(), _column(exponents.int(), tensor.ndim))
        else:
            whole[name] = tensor.float()
    return whole


def _pack_rows(tensor: Tensor) -> tuple[Tensor, Tensor]:
    rows = tensor.flatten(1)
    # x = m 2^k with m in [1/2, 1): 2^(k-1) is the power of two next below, 2^k one not below.
    _, below = torch.frexp(rows.square().mean(1).sqrt() / FINENESS)
    _, reaching = torch.frexp(rows.abs().amax(1) / _LARGEST)
    exponents = torch.maximum(below - 1, reaching).clamp(min=_SMALLEST)
    codes = torch.ldexp(tensor, -_column(exponents, tensor.ndim)).round()
    return codes.to(torch.int8), exponents.to(torch.int8)


def _column(exponents: Tensor, ndim: int) -> Tensor:
    return exponents.view(-1, *[1] * (ndim - 1))
