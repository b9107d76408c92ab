"""Does the network learn to do with 1 to 4 evaluations? Distillation of the default sampler.

    python benchmarks/distill.py PICTURES WORK [--minutes 15] [--n 300]

The student begins as the released network and keeps its encoder. At four times of the sampler's way
it learns by squared error to name the chroma in which the default sampler, guidance and all, will
end: knowledge distillation along the teacher's own ways (Luhman, Luhman, *Knowledge Distillation in
Iterative Generative Models*, 2021), which makes it a consistency model (Song et al., *Consistency
Models*, 2023) at these times. It draws from T, then goes back to the next time by DDIM.

PICTURES and WORK are as for `pipelines.release`, whose shards it learns from; measured on objects,
as benchmarks/steps.py. Writes benchmarks/results/distill.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
import torch.nn.functional as F
from held_back import RESULTS, Lab, Pictures
from torch import Tensor

from colorized import color
from colorized.batch.job import GUIDANCE, SAMPLER, STEPS, TEMPERATURE
from colorized.data.dataset import CropBatches, batches, open_shard
from colorized.devices import open_device, use_bfloat16
from colorized.evaluation import metrics
from colorized.inference.colorizer import Colorizer
from colorized.model import sampling
from colorized.model.denoiser import Denoiser
from colorized.model.encoder import Features
from colorized.model.guidance import guided
from colorized.model.weights import RELEASED, load_weights

CROP, BATCH, RATE, WARMUP = 128, 24, 2e-4, 50
PLACES = (0, 1, 2, 3)
"""Which of the default sampler's times the student learns."""
WAYS = {1: (0,), 2: (0, 2), 3: (0, 2, 3), 4: (0, 1, 2, 3)}
"""Evaluations → the times at which the student is asked."""


def lesson(
    teacher: Denoiser, cond: Features, x_T: Tensor, times: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """States of the default sampler at `PLACES`, and its end."""
    run = sampling.SAMPLERS[SAMPLER](
        guided(teacher, GUIDANCE), cond, x_T, teacher.schedule, times, torch.Generator()
    )
    steps = list(run)
    return [steps[place].x_t for place in PLACES], steps[-1].x0_hat


def learn(student: Denoiser, teacher: Denoiser, lab: Path, minutes: float) -> int:
    """Train the student's denoiser; the number of pictures seen. It ends with averaged weights."""
    device = next(student.parameters()).device
    times = sampling.timesteps(teacher.schedule, STEPS)
    network = student.network
    frozen = {
        id(p) for m in (network.encoder, network.condition, network.content) for p in m.parameters()
    }
    student.requires_grad_(True).train()
    learned = [p for p in student.parameters() if id(p) not in frozen]
    optimizer = torch.optim.AdamW(learned, lr=RATE, betas=(0.9, 0.99), weight_decay=0.0)
    average = [p.detach().clone() for p in learned]
    crops = CropBatches(open_shard(lab, "train"), BATCH, CROP, 0.7, seed=2)
    generator = torch.Generator().manual_seed(0)
    bfloat16 = use_bfloat16("auto", device)
    now = peers.clock(device)
    began, seen = now(), 0
    for step, batch in enumerate(batches(crops, range(10**9), 0, device)):
        done = (now() - began) / (60 * minutes)
        if done >= 1:
            break
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / WARMUP, 2 * (1 - done))
        size = CROP // 2
        x_T = TEMPERATURE * torch.randn((BATCH, 2, size, size), generator=generator).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            with torch.no_grad():
                cond = teacher.encode(batch.lightness)
                states, end = lesson(teacher, cond, x_T, times)
            # One time for each picture: four times the pictures for the same work.
            which = torch.randint(0, len(PLACES), (BATCH,), generator=generator).to(device)
            x_t = torch.stack(states)[which, torch.arange(BATCH, device=device)]
            t = torch.tensor([times[place] for place in PLACES], device=device)[which]
            loss = F.mse_loss(student(x_t, t, cond).float(), end.float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        torch._foreach_lerp_(average, learned, 1 - min(0.99, (1 + step) / (10 + step)))
        seen += BATCH
        if step % 50 == 0:
            print(f"{done:.0%} of the time, {seen} pictures, loss {loss.item():.4f}", flush=True)
    with torch.no_grad():
        for parameter, mean in zip(learned, average, strict=True):
            parameter.copy_(mean)
    student.eval().requires_grad_(False)
    return seen


@torch.inference_mode()
def draw(student: Denoiser, L: Tensor, evaluations: int, seed: int) -> Lab:
    """ab (B, h, w, 2) for L* (B, 1, H, W)."""
    cond = student.encode(L)
    times = sampling.timesteps(student.schedule, STEPS)
    shape = (len(L), 2, L.shape[2] // 2, L.shape[3] // 2)
    x_T = TEMPERATURE * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    places = [times[i] for i in WAYS[evaluations]]
    run = sampling.ddim(
        student, cond, x_T.to(L.device), student.schedule, places, torch.Generator()
    )
    for step in run:
        x_0 = step.x0_hat
    ab = color.unstandardize_ab(x_0, student.ab_std, axis=1)
    return np.ascontiguousarray(ab.permute(0, 2, 3, 1).cpu().numpy())


def main() -> None:
    """Train, measure before and after, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("work", type=Path, help="holds the shards of pipelines.release")
    parser.add_argument("--weights", type=Path, default=RELEASED)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    device = open_device(options.device)
    weights = load_weights(options.weights, device)
    teacher = weights.denoiser
    colorizer = Colorizer(weights)
    student = copy.deepcopy(teacher)
    some = Pictures.load(options.pictures, "objects", options.n, metrics.InceptionExtractor())
    rows: list[dict[str, Any]] = []

    def measure(who: str, evaluations: int) -> None:
        def drawn(L: Lab, seed: int) -> Lab:
            return draw(student, torch.from_numpy(L)[:, None].to(device), evaluations, seed)

        found = some.in_short(some.colored(colorizer, drawn))
        rows.append({"network": who, "evaluations": evaluations, **found})
        print(json.dumps(rows[-1]), flush=True)

    for evaluations in WAYS:
        measure("released", evaluations)
    seen = learn(student, teacher, options.work / "lab", options.minutes)
    for evaluations in WAYS:
        measure("student", evaluations)
    results = {
        "n": len(some.labs),
        "minutes": options.minutes,
        "pictures_seen": seen,
        "fid_monochrome": some.fid(some.mono),
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "distill.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
