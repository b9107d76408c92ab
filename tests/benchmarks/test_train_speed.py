"""What benchmarks/train_speed.py and benchmarks/busy.py measure of ours takes its steps."""

from __future__ import annotations

import pytest
import torch
import train_speed

pytestmark = pytest.mark.slow


def test_a_step() -> None:
    next(train_speed.steps("ours", torch.device("cpu")))
