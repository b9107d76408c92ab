"""Training: it learns, it repeats, and a run that was stopped goes on as if it had not been."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colorized import fit
from colorized.checkpoint import CheckpointError, load_checkpoint
from colorized.dataset import Shard
from colorized.diffusion import Denoiser
from colorized.schedule import Schedule
from colorized.training import (
    TrainSettings,
    TrainState,
    chroma_8bit,
    chroma_target,
    learning_rate,
    train,
    validate,
)
from colorized.unet import ChromaUNet

SETTINGS = TrainSettings(
    steps=4,
    batch_size=2,
    crop_size=32,
    min_crop=0.75,
    learning_rate=3e-3,
    warmup_steps=1,
    cooldown_steps=1,
    weight_decay=0.01,
    clip_norm=1.0,
    ema_decay=0.95,
    condition_dropout=0.05,
    noise_shift=1.0,
    encoder_lr_scale=0.5,
    bfloat16=False,
    seed=0,
)


def fresh(shard: Shard, **changes: Any) -> TrainState:
    """A new state, as a new process would make it."""
    std = np.sqrt(((shard.ab.astype(float) - 128) ** 2).mean((0, 1, 2)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ChromaUNet((8, 16, 32), 16)
    denoiser = Denoiser(network, Schedule("cosine", 100), tuple(std))
    return TrainState(denoiser, dataclasses.replace(SETTINGS, **changes))


def run(state: TrainState, shard: Shard, folder: Path, **options: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    fit.fit(
        state, shard, shard, folder, validate_every=2, checkpoint_every=3,
        log=lambda step, values: rows.append({"step": step, **values}), **options,
    )  # fmt: skip
    return rows


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every number of a state as a named tensor."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from tensors(item, f"{name}.{i}")
    elif isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, int | float):
        yield name, torch.tensor(value, dtype=torch.float64)


def differing(one: TrainState, other: TrainState) -> list[str]:
    first, second = dict(tensors(one.state_dict())), dict(tensors(other.state_dict()))
    names = first.keys() | second.keys()
    names.remove(".seconds")  # which no clock repeats
    missing = torch.empty(0)
    return sorted(
        n for n in names if not torch.equal(first.get(n, missing), second.get(n, missing))
    )


@pytest.fixture(scope="module")
def whole(shard: Shard, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainState, Path]:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    state = fresh(shard)
    run(state, shard, folder)
    return state, folder


def test_a_handful_of_crops_is_learned(shard: Shard) -> None:
    few = Shard(shard.L[:2], shard.ab[:2])
    state = fresh(
        few, steps=120, min_crop=1.0, warmup_steps=10, cooldown_steps=40, weight_decay=0.0,
        condition_dropout=0.0, encoder_lr_scale=1.0,
    )  # fmt: skip
    # A fresh network predicts 0; then the error is the variance of v, which is about 1.
    assert validate(state.ema, few, 0)["mean"] == pytest.approx(1, abs=0.1)
    losses = [step.loss for step in train(state, few)]
    assert np.mean(losses[-20:]) < 0.6
    errors = validate(state.ema, few, 0)
    assert errors["mean"] < 0.6
    assert errors["t0.6"] < 0.5


def test_resumed_run_equals_the_uninterrupted_one(
    shard: Shard, tmp_path: Path, whole: tuple[TrainState, Path]
) -> None:
    stopped = fresh(shard)
    with pytest.raises(fit.Interrupted, match="stopped after step 1 of 4"):
        run(stopped, shard, tmp_path, should_stop=lambda: stopped.step == 1)
    again = fresh(shard)
    with pytest.raises(fit.Interrupted, match="stopped after step 3 of 4"):
        run(again, shard, tmp_path, should_stop=lambda: again.step == 3)
    resumed = fresh(shard)
    run(resumed, shard, tmp_path)
    assert resumed.step == SETTINGS.steps
    assert len(list(tensors(resumed.state_dict()["optimizer"]["state"]))) > 0
    assert differing(resumed, whole[0]) == []
    assert differing(stopped, whole[0]) != []  # negative control


def test_same_seed_same_weights_other_seed_others(
    shard: Shard, tmp_path: Path, whole: tuple[TrainState, Path]
) -> None:
    same, other = fresh(shard), fresh(shard, seed=1)
    run(same, shard, tmp_path / "same")
    list(train(other, shard))
    assert differing(same, whole[0]) == []
    assert any(name.startswith(".network") for name in differing(other, whole[0]))


def test_finished_run_is_not_run_again(shard: Shard, whole: tuple[TrainState, Path]) -> None:
    state = fresh(shard)
    assert run(state, shard, whole[1]) == []
    assert differing(state, whole[0]) == []


def test_log_checkpoints_and_calls(shard: Shard, tmp_path: Path) -> None:
    steps: list[int] = []
    validated: list[int] = []
    state = fresh(shard, steps=3)
    rows = run(
        state,
        shard,
        tmp_path,
        on_validate=validated.append,
        on_step=lambda s: steps.append(s.number),
    )
    assert steps == [1, 2, 3]
    assert validated == [row["step"] for row in rows] == [2, 3]
    assert rows[0].keys() >= {"loss", "gradient_norm", "learning_rate", "pictures_per_second"}
    assert rows[0].keys() >= {"val_loss", "val_t0.05", "val_t0.95"}
    best = min(rows, key=lambda row: row["val_loss"])
    assert load_checkpoint(tmp_path / fit.BEST)["step"] == best["step"]
    last = load_checkpoint(tmp_path / fit.LAST)
    assert last["step"] == 3
    assert last["best"] == best["val_loss"]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_loss_that_is_not_finite_leaves_the_last_checkpoint(
    shard: Shard, tmp_path: Path, where: str
) -> None:
    state = fresh(shard)
    kept: dict[str, torch.Tensor] = {}

    def spoil(step: Any) -> None:
        if step.number == 3:
            kept.update({k: v.clone() for k, v in state.denoiser.network.state_dict().items()})
            if where == "loss":
                state.denoiser.ab_std = (math.nan, 1.0)
            else:
                weight = next(state.denoiser.network.parameters())
                weight.register_hook(lambda gradient: gradient * math.inf)

    with pytest.raises(FloatingPointError, match="step 4: the loss became"):
        run(state, shard, tmp_path, on_step=spoil)
    assert state.step == 3
    saved = load_checkpoint(tmp_path / fit.LAST)
    assert saved["step"] == 3
    for name, tensor in state.denoiser.network.state_dict().items():
        assert torch.equal(tensor, kept[name])
        assert torch.equal(saved["network"][name], kept[name])


@pytest.mark.parametrize("damage", ["half", "other network", "not a state"])
def test_checkpoint_that_does_not_fit_is_refused(
    shard: Shard, tmp_path: Path, whole: tuple[TrainState, Path], damage: str
) -> None:
    path = tmp_path / fit.LAST
    data = (whole[1] / fit.LAST).read_bytes()
    if damage == "half":
        path.write_bytes(data[: len(data) // 2])
    else:
        state = load_checkpoint(whole[1] / fit.LAST)
        state["network"] = 3 if damage == "not a state" else {"other": torch.zeros(1)}
        torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        fit.resume(fresh(shard), tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_validation_repeats(shard: Shard) -> None:
    state = fresh(shard, steps=1)
    list(train(state, shard))
    first = validate(state.ema, shard, 0)
    assert validate(state.ema, shard, 0) == first
    assert validate(state.ema, shard, 1) != first
    assert first["mean"] == pytest.approx(np.mean([v for k, v in first.items() if k != "mean"]))


def test_validation_of_a_short_schedule_has_no_step_0(shard: Shard) -> None:
    denoiser = Denoiser(ChromaUNet((8, 16, 32), 16), Schedule("cosine", 10), (15.0, 15.0))
    assert all(math.isfinite(value) for value in validate(denoiser, shard, 0, 1).values())


def test_learning_rate_rises_stays_and_falls() -> None:
    settings = dataclasses.replace(
        SETTINGS, steps=100, warmup_steps=10, cooldown_steps=20, learning_rate=1.0
    )
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == 0.1
    assert rates[9] == rates[10] == rates[80] == 1.0
    assert rates[81] == 0.95
    assert rates[99] == 0.05
    constant = dataclasses.replace(settings, warmup_steps=0, cooldown_steps=0)
    assert {learning_rate(constant, step) for step in range(100)} == {1.0}


def test_encoder_learns_at_its_share_of_the_rate(shard: Shard) -> None:
    state = fresh(shard, encoder_lr_scale=0.0)
    before = {k: v.clone() for k, v in state.denoiser.network.state_dict().items()}
    list(train(state, shard))
    moved = {
        name
        for name, tensor in state.denoiser.network.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert not any(name.startswith("encoder.") for name in moved)
    assert {"out.weight", "condition.0.weight"} <= moved


def test_average_is_the_formula(shard: Shard) -> None:
    state = fresh(shard, steps=3, warmup_steps=0)
    name = "out.bias"
    expected = state.ema.network.get_parameter(name).clone()
    for step in train(state, shard):
        decay = min(0.95, (1 + step.number) / (10 + step.number))
        current = state.denoiser.network.get_parameter(name).detach()
        expected = decay * expected + (1 - decay) * current
        assert torch.allclose(state.ema.network.get_parameter(name), expected, atol=1e-7)
    assert expected.abs().max() > 0


def test_target_is_standardized_chroma_at_half_size(shard: Shard) -> None:
    batch = shard.batch(slice(0, 1))
    x_0 = chroma_target(batch, (10.0, 20.0))
    ab = shard.ab[0].astype(float) - 128
    quad = ab[4:6, 8:10].mean((0, 1))
    assert x_0.shape == (1, 2, 16, 16)
    assert x_0[0, :, 2, 4].numpy() == pytest.approx(quad / (10, 20), abs=1e-5)
    assert chroma_8bit(batch)[0, :, 2, 4].numpy() == pytest.approx(quad + 128, abs=0.5)


def test_fingerprint_changes_with_every_value_and_with_the_code(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text("a = 1\n")
    values = dataclasses.asdict(SETTINGS)
    first = fit.fingerprint(values, [code])
    assert first == fit.fingerprint(dict(reversed(values.items())), [code])
    others = {fit.fingerprint(values | {key: str(values[key]) + "0"}, [code]) for key in values}
    assert len(others - {first}) == len(values)
    code.write_text("a = 2\n")
    assert fit.fingerprint(values, [code]) != first
