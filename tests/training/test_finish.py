"""The adversarial finish: what it learns from; it learns, repeats and resumes."""

import dataclasses
import itertools
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_loop import differing, run
from trainings import SETTINGS, fresh

from colorized.data.dataset import Shard
from colorized.model.denoiser import drop_condition
from colorized.model.draw import draw_chroma
from colorized.training import finish
from colorized.training.critic import EDGE, Critic, srgb
from colorized.training.distributed import Processes
from colorized.training.finish import Finish, FinishSettings
from colorized.training.loop import Diverged, TrainState, train

FINISH = FinishSettings(
    adversarial=1.0,
    squared_error=0.2,
    roughness=1.0,
    detail=1.0,
    denoising=0.5,
    window=0,
    critic_lr=1e-3,
)


def finishing(shard: Shard, how: FinishSettings = FINISH, **changes: Any) -> TrainState:
    """A state of the finish with pure noise and two levels of draws."""
    base = fresh(shard)
    config = base.config.finished((80.0, 10.0, 2.0), guidance=1.5)
    processes = Processes(torch.device("cpu"))
    settings = dataclasses.replace(SETTINGS, **changes)
    objective = Finish(config, how, processes, seed=0)
    return TrainState(base.denoiser, config, settings, processes, objective)


def test_critic_sees_the_colors_that_are_shown(shard: Shard) -> None:
    """Against the colors of a file, and the gradient that brings lost colors back."""
    from colorized import color

    batch = shard.batch(np.arange(4))
    rgb = srgb(batch.lightness, batch.ab)
    L, ab = batch.lightness[0, 0].numpy(), batch.ab[0].permute(1, 2, 0).numpy()
    expected = color.lab_to_srgb(np.concatenate([L[..., None], ab], -1)).clip(0, 1)
    torch.testing.assert_close(rgb[0].permute(1, 2, 0), torch.tensor(expected), atol=1e-4, rtol=0)

    lost = torch.tensor([0.0, 90.0]).view(1, 2, 1, 1).requires_grad_(True)
    srgb(torch.full((1, 1, 1, 1), 50.0), lost).sum().backward()
    assert lost.grad is not None
    assert lost.grad.abs().sum() > 0
    assert 0 < EDGE < 1


def test_only_the_heads_learn(shard: Shard) -> None:
    critic = Critic()
    batch = shard.batch(np.arange(2))
    half = torch.nn.functional.avg_pool2d(batch.ab, 2).requires_grad_(True)
    maps = critic.see(batch.lightness, half)
    assert [m.shape[-1] for m in maps] == [16, 8, 4, 2, 1]
    critic.calibrate(maps, lambda value: value)
    sum(m.mean() for m in critic(maps)).backward()
    assert half.grad is not None
    assert half.grad.abs().sum() > 0
    learned = {n.split(".")[0] for n, p in critic.named_parameters() if p.grad is not None}
    assert learned == {"heads"}


def test_draws_keep_the_colors_that_the_noise_shows(shard: Shard) -> None:
    """One gray picture whose true color is red or green: a mean would be neither."""
    L = np.full((2, 32, 32), 140, np.uint8)
    ab = np.zeros((2, 32, 32, 2), np.uint8)
    ab[0], ab[1] = (128 + 40, 128 + 20), (128 - 40, 128 + 20)
    two = Shard(L, ab)
    how = dataclasses.replace(
        FINISH, adversarial=0.0, squared_error=1.0, roughness=0.0, detail=0.0, denoising=0.0
    )
    state = finishing(
        two, how, steps=120, batch_size=4, film=0.0, warmup_steps=10, cooldown_steps=40,
        encoder_lr_scale=1.0, learning_rate=5e-3,
    )  # fmt: skip
    list(train(state, two))
    drawn = draw_chroma(
        state.ema,
        state.config,
        np.full((16, 32, 32), 140 / 2.55, np.float32),
        dataclasses.replace(state.config.sampling, guidance=1.0),
    )
    a = drawn.mean((1, 2))[:, 0]
    assert (a > 8).any()
    assert (a < -8).any()


def test_states_are_those_of_sampling(shard: Shard) -> None:
    state = finishing(shard)
    assert isinstance(state.objective, Finish)
    denoiser, noise = state.denoiser, torch.randn(2, 3, 2, 16, 16)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
        cond = denoiser.encode(torch.full((3, 1, 32, 32), 60.0))
        first, then = (torch.full((3,), s, dtype=torch.float64) for s in (80.0, 10.0))
        nothing = drop_condition(cond, torch.zeros(3, dtype=torch.bool))
        color = denoiser(80 * noise[0], first, nothing).mean((-2, -1), keepdim=True)
        mean = torch.lerp(color, denoiser(80 * noise[0], first, cond), 1.5)
        asked = denoiser.network.asked_to_draw(cond)
        expected = denoiser(mean + 10 * noise[1], then, asked)
        found = state.objective._sampled(denoiser, cond, noise)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(state.objective._sampled(denoiser, cond, noise[:1]), mean)
    assert (expected - mean).abs().mean() > 0.01


def test_a_stopped_finish_goes_on_as_if_it_had_not_been(shard: Shard, tmp_path: Path) -> None:
    whole = finishing(shard)
    rows = run(whole, shard, tmp_path / "whole")
    assert rows[-1].keys() >= {"critic", "adversarial", "denoising"}
    stopped = finishing(shard)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, shard, tmp_path / "again", should_stop=lambda: stopped.step == 2)
    resumed = finishing(shard)
    run(resumed, shard, tmp_path / "again")
    assert differing(resumed, whole) == []
    assert differing(stopped, whole) != []  # negative control


def test_draws_from_true_colors_are_held_to_them(shard: Shard) -> None:
    """Without the critic the squared error is all there is."""
    how = dataclasses.replace(
        FINISH, adversarial=0.0, squared_error=1.0, roughness=0.0, detail=0.0, denoising=0.0
    )
    state = finishing(shard, how, steps=60, film=0.0, warmup_steps=1, cooldown_steps=20)
    rows = list(train(state, shard))
    assert rows[0].parts.keys() == {"adversarial", "critic", "roughness", "detail"}
    assert np.mean([r.loss for r in rows[-10:]]) < 0.8 * np.mean([r.loss for r in rows[:10]])


def test_roughness_counts_in_even_areas_alone() -> None:
    """Against a plain computation; smoother than the truth costs nothing, nor does a texture."""
    generator = torch.Generator().manual_seed(0)
    true, drawn = (s * torch.randn(1, 2, 16, 16, generator=generator) for s in (0.1, 0.3))
    even, textured = torch.full((1, 1, 32, 32), 60.0), 100 * torch.rand(1, 1, 32, 32)
    deviations = [
        (v.unfold(2, 7, 1).unfold(3, 7, 1).var((-2, -1), correction=0).sum(1) + 1e-3).sqrt()
        for v in (drawn, true)
    ]
    expected = (deviations[0] - deviations[1]).clamp(min=0).mean()
    found = finish.rougher(even, drawn, true)
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0)
    assert finish.rougher(textured, drawn, true) < 0.01 * found
    assert finish.rougher(even, true, drawn) < 0.01 * found


def test_detail_is_compared_by_strength_and_place() -> None:
    """Against SciPy; what is fine may differ in sign, and what is coarse altogether."""
    rng = np.random.default_rng(0)
    true, drawn = (s * rng.normal(size=(1, 2, 16, 20)) for s in (0.1, 0.4))

    def strengths(v: np.ndarray) -> list[np.ndarray]:
        counts = ndimage.uniform_filter(np.ones_like(v), (1, 1, 3, 3), mode="constant")
        smooth = [v]
        for _ in range(2):
            mean = ndimage.uniform_filter(smooth[-1], (1, 1, 3, 3), mode="constant") / counts
            smooth.append(mean)
        squares = [np.square(a - b).sum(1) for a, b in itertools.pairwise(smooth)]
        means = [ndimage.uniform_filter(s, (1, 5, 5))[:, 2:-2, 2:-2] for s in squares]
        return [np.sqrt(m + 1e-4) for m in means]

    pairs = zip(strengths(drawn), strengths(true), strict=True)
    expected = sum(np.square(d - t).mean() for d, t in pairs)
    d, t = torch.from_numpy(drawn), torch.from_numpy(true)
    assert finish.detail_error(d, t).item() == pytest.approx(expected)
    assert finish.detail_error(5 - t, t) < 1e-9
    assert finish.detail_error(t.flip(-1), t) > 1e-5  # elsewhere


def test_the_window_of_the_critic_moves(shard: Shard) -> None:
    """The same part of L* and of chroma, every place in turn; never more than there is."""
    grid = torch.arange(32).view(1, 1, 1, 32).expand(1, 1, 32, 32)
    places = set()
    for window, side in ((16, 16), (0, 32), (64, 32)):
        objective = finishing(shard, dataclasses.replace(FINISH, window=window)).objective
        assert isinstance(objective, Finish)
        for seed in range(100):
            generator = torch.Generator().manual_seed(seed)
            fine, coarse = objective._window(torch.Size((2, 16, 16)), generator)
            seen, ab = grid[fine], grid[..., ::2, ::2][coarse]
            assert seen.shape == (1, 1, side, side)
            assert torch.equal(seen[..., ::2, ::2], ab)
            places.add((window, int(seen[0, 0, 0, 0])))
    assert places == {(16, 2 * x) for x in range(9)} | {(0, 0), (64, 0)}


def test_a_critic_that_has_won_is_noticed(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "RECENT", 2)
    monkeypatch.setattr(finish, "WON", 100.0)
    state = finishing(shard)
    state.objective.losses = deque(maxlen=2)
    with pytest.raises(Diverged, match="the critic tells every coloring from a photograph"):
        list(train(state, shard))


def test_the_finish_needs_levels(shard: Shard) -> None:
    with pytest.raises(ValueError, match="needs pure noise and the noise levels"):
        Finish(fresh(shard).config, FINISH, Processes(torch.device("cpu")), 0)
