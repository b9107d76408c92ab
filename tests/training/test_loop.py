"""Training: it learns, it repeats, and a run that was stopped goes on as if it had not been."""

import dataclasses
import math
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainings import SETTINGS, fresh

from colorized.data.dataset import Shard, chroma_8bit, chroma_target
from colorized.model.weights import CheckpointError, ModelConfig
from colorized.training import fit
from colorized.training.checkpoint import load_checkpoint
from colorized.training.loop import (
    RECENT,
    Diverged,
    OutOfMemory,
    TrainState,
    learning_rate,
    train,
    validate,
)


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
        few, steps=120, levels=1, film=0.0, warmup_steps=10, cooldown_steps=40, weight_decay=0.0,
        condition_dropout=0.0, encoder_lr_scale=1.0,
    )  # fmt: skip
    # A fresh network predicts 0; then the error is the variance of v, which is about 1.
    assert validate(state.ema, state.config, few, 0)["mean"] == pytest.approx(1, abs=0.1)
    losses = [step.loss for step in train(state, few)]
    assert np.mean(losses[-20:]) < 0.6
    errors = validate(state.ema, state.config, few, 0)
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


def test_other_seed_other_weights(shard: Shard, whole: tuple[TrainState, Path]) -> None:
    other = fresh(shard, seed=1)
    list(train(other, shard))
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
    assert validated == [row["step"] for row in rows] == [0, 2, 3]
    timed = {"loss", "gradient_norm", "learning_rate", "pictures_per_second", *fit.TIMINGS}
    for row in rows[1:]:
        assert row.keys() >= timed
        assert 0 < row["device_utilization"] < 1.5
        assert row["peak_memory_gb"] > 0.01
    assert all(row.keys() >= {"val_loss", "val_t0.05", "val_t0.95"} for row in rows)
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
                state.config = dataclasses.replace(state.config, ab_std=(math.nan, 1.0))
            else:
                weight = state.denoiser.network.stem.weight
                weight.register_hook(lambda gradient: gradient * math.inf)

    with pytest.raises(FloatingPointError, match="step 4: the loss became"):
        run(state, shard, tmp_path, on_step=spoil)
    assert state.step == 3
    saved = load_checkpoint(tmp_path / fit.LAST)
    assert saved["step"] == 3
    for name, tensor in state.denoiser.network.state_dict().items():
        assert torch.equal(tensor, kept[name])
        assert torch.equal(saved["network"][name], kept[name])


def spoil_step(state: TrainState, number: int, times: int, told: list[str]) -> dict[str, Any]:
    """Options of `fit` by which step `number` fails `times` times, and what it says is kept."""
    whole = state.config

    def before(step: Any) -> None:
        if step.number == number - 1 and len(told) < times:
            state.config = dataclasses.replace(state.config, ab_std=(math.nan, 1.0))

    def after(line: str) -> None:
        told.append(line)
        state.config = whole

    return {"on_step": before, "on_restore": after}


def test_training_goes_back_and_on_without_the_batches_that_spoiled_it(
    shard: Shard, tmp_path: Path
) -> None:
    told: list[str] = []
    state = fresh(shard, steps=7, max_rollbacks=1)
    rows = run(state, shard, tmp_path / "guarded", **spoil_step(state, 6, 1, told))
    (line,) = told
    assert line.startswith("step 6: the loss became nan, its gradient nan: back to step 3, ")
    assert (state.step, state.skipped) == (7, 3)
    assert [row["rollbacks"] for row in rows[1:]] == [0, 0, 1, 1, 1]
    assert [row["step"] for row in rows] == [0, 2, 4, 4, 6, 7]

    # The same by hand: the batches of the first three steps, then those after the sixth.
    other = fresh(shard, steps=7)
    for step in train(other, shard):
        if step.number == 3:
            break
    other.skipped = 3
    list(train(other, shard))
    assert differing(other, state) == []


def test_resumed_run_goes_back_to_the_same_place(shard: Shard, tmp_path: Path) -> None:
    told: list[str] = []
    whole = fresh(shard, steps=7, max_rollbacks=1)
    run(whole, shard, tmp_path / "whole", **spoil_step(whole, 6, 1, told))
    # Stopped after step 4, past the state that step 6 goes back to; and after it went back.
    first = fresh(shard, steps=7, max_rollbacks=1)
    with pytest.raises(fit.Interrupted):
        run(first, shard, tmp_path / "a", should_stop=lambda: first.step == 4)
    second = fresh(shard, steps=7, max_rollbacks=1)
    with pytest.raises(fit.Interrupted):
        run(
            second, shard, tmp_path / "a", should_stop=lambda: len(told) == 2,
            **spoil_step(second, 6, 2, told),
        )  # fmt: skip
    assert (second.step, second.skipped) == (4, 3)
    third = fresh(shard, steps=7, max_rollbacks=1)
    run(third, shard, tmp_path / "a")
    assert differing(third, whole) == []


def test_training_goes_back_no_more_often_than_it_is_told(shard: Shard, tmp_path: Path) -> None:
    told: list[str] = []
    state = fresh(shard, max_rollbacks=2)
    whole = state.config

    def on_restore(line: str) -> None:
        told.append(line)
        assert state.step == 3

    def spoil(step: Any) -> None:
        if step.number == 3:
            state.config = dataclasses.replace(state.config, ab_std=(math.nan, 1.0))

    with pytest.raises(FloatingPointError, match="again after 2 rollbacks; lower train.lr"):
        run(state, shard, tmp_path, on_step=spoil, on_restore=on_restore)
    assert len(told) == 2
    # What is on disk is good: the same command goes on from it.
    again = fresh(shard, max_rollbacks=2)
    assert whole == again.config
    run(again, shard, tmp_path)
    assert again.step == SETTINGS.steps


def test_spike_is_told_from_the_usual_loss(shard: Shard) -> None:
    state = fresh(shard, loss_spike_factor=5.0)
    state.recent.extend([0.01] * (RECENT - SETTINGS.steps))
    list(train(state, shard))  # as yet too few losses to tell
    state = fresh(shard, loss_spike_factor=5.0)
    state.recent.extend([0.01] * RECENT)
    before = {k: v.clone() for k, v in state.denoiser.network.state_dict().items()}
    with pytest.raises(Diverged, match=r"^step 1: the loss leapt to [\d.]+ from 0\.01$"):
        list(train(state, shard))
    for name, tensor in state.denoiser.network.state_dict().items():
        assert torch.equal(tensor, before[name])
    for factor in (0.0, 1e6):  # not looked for, or not reached
        state = fresh(shard, loss_spike_factor=factor)
        state.recent.extend([0.01] * RECENT)
        assert len(list(train(state, shard))) == SETTINGS.steps


class Clock:
    """Ten seconds pass whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def test_budget_of_minutes_ends_training_and_its_cool_down(shard: Shard, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "minutes": 1.0, "steps": 100, "cooldown_steps": 50, "warmup_steps": 2,
    }  # fmt: skip
    whole = fresh(shard, **changes)
    rates = [step.learning_rate for step in train(whole, shard, clock=Clock())]
    # 10, 20, … 60 seconds: half of the budget is cool-down.
    shares = np.array(rates) / SETTINGS.learning_rate
    assert shares == pytest.approx([0.5, 1, 1, 2 / 3, 1 / 3, 0])
    assert (whole.step, whole.seconds, whole.done()) == (6, 60, True)

    stopped = fresh(shard, **changes)
    with pytest.raises(fit.Interrupted, match="^stopped after step 3; the same command goes on"):
        run(stopped, shard, tmp_path, clock=Clock(), should_stop=lambda: stopped.step == 3)
    spent = load_checkpoint(tmp_path / fit.LAST)["seconds"]
    assert spent >= 30
    resumed = fresh(shard, **changes)
    rows = run(resumed, shard, tmp_path, clock=Clock())
    assert resumed.done() and resumed.step > 3
    assert rows[-1]["minutes"] >= 1
    assert rows[-1]["step"] == resumed.step
    assert run(resumed, shard, tmp_path, clock=Clock()) == []  # a spent budget stays spent


def test_lack_of_memory_names_what_helps_and_loses_nothing(shard: Shard, tmp_path: Path) -> None:
    few = fresh(shard)
    with pytest.raises(fit.Interrupted):
        run(few, shard, tmp_path, should_stop=lambda: few.step == 2)
    (tmp_path / fit.GOOD).unlink()
    state = fresh(shard, batch_size=4096)
    limit = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (room, limit[1]))
    try:
        with pytest.raises(OutOfMemory) as caught:
            run(state, shard, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    assert str(caught.value) == (
        "step 3: out of memory: double train.accumulate (now 1), which computes the same in "
        "smaller pieces, or lower train.batch_size (4096) or train.crop_size (32)"
    )
    for name in (fit.LAST, fit.GOOD):
        saved = load_checkpoint(tmp_path / name)
        assert saved["step"] == 2
        for key, tensor in few.denoiser.network.state_dict().items():
            assert torch.equal(saved["network"][key], tensor)


def test_compiled_training_has_the_same_curve(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = [step.loss for step in train(fresh(shard, steps=2), shard)]
    # Traced and differentiated as for the real thing; to generate C++ would take minutes.
    compiled = torch.nn.Module.compile
    traced: list[torch.nn.Module] = []

    def trace(self: torch.nn.Module) -> None:
        traced.append(self)
        compiled(self, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(torch.nn.Module, "compile", trace)
    losses = [step.loss for step in train(fresh(shard, steps=2, compile=True), shard)]
    assert losses == pytest.approx(plain, rel=1e-4)
    assert len(traced) == 1


def test_state_before_is_used_where_the_last_one_is_gone(
    shard: Shard, tmp_path: Path, whole: tuple[TrainState, Path]
) -> None:
    stopped = fresh(shard)
    with pytest.raises(fit.Interrupted):
        run(stopped, shard, tmp_path, should_stop=lambda: stopped.step == 3)
    (tmp_path / fit.LAST).unlink()
    resumed = fresh(shard)
    fit.resume(resumed, tmp_path)
    assert resumed.step == 3
    run(resumed, shard, tmp_path)
    assert differing(resumed, whole[0]) == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("half", "not a checkpoint or a damaged one; delete it to go on from the state before"),
        ("other network", "belongs to another configuration (network: tensor attention.norm.bias"),
        ("not a state", "belongs to another configuration ("),
        ("not finite", "belongs to another configuration (ema: tensor out.bias is not finite)"),
        ("surplus", "belongs to another configuration (network: tensor more does not belong"),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(
    shard: Shard, tmp_path: Path, whole: tuple[TrainState, Path], damage: str, reason: str
) -> None:
    path = tmp_path / fit.LAST
    data = (whole[1] / fit.LAST).read_bytes()
    if damage == "half":
        path.write_bytes(data[: len(data) // 2])
    else:
        state = load_checkpoint(whole[1] / fit.LAST)
        if damage == "not finite":
            state["ema"]["out.bias"][0] = math.nan
        elif damage == "surplus":
            state["network"]["more"] = torch.zeros(1)
        else:
            state["network"] = 3 if damage == "not a state" else {"other": torch.zeros(1)}
        torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        fit.resume(fresh(shard), tmp_path)
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)


def test_validation_repeats(shard: Shard) -> None:
    state = fresh(shard, steps=1)
    list(train(state, shard))
    first = validate(state.ema, state.config, shard, 0)
    assert validate(state.ema, state.config, shard, 0) == first
    assert validate(state.ema, state.config, shard, 1) != first
    assert first["mean"] == pytest.approx(np.mean([v for k, v in first.items() if k != "mean"]))


def test_validation_of_a_short_schedule_has_no_step_0(shard: Shard) -> None:
    config = ModelConfig((8, 16, 32), 16, 32, 1, "cosine", 10, (15.0, 15.0), 32)
    assert all(math.isfinite(v) for v in validate(config.build(), config, shard, 0, 1).values())


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
    assert all(p.grad is None for p in state.denoiser.network.encoder.parameters())
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
