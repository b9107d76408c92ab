r"""The adversarial finish: the network learns to draw believable colors in a few evaluations.

A denoiser names the mean of all colors that are plausible given noisy ones: pale where the noise
leaves much open. Many evaluations lead from there to one of them. The finish teaches the network,
when it is asked to (`ChromaUNet.asked_to_draw`), to name one at once, at the few noise levels
σ_2 > … > σ_K of sampling:

1. The mean given the photograph alone, at pure noise σ_1, with guidance.
2. At each σ_k, x = x̂_0 + σ_k n with new noise n, and a draw x̂_0 of what x and the photograph leave
   open: multistep consistency sampling (Song et al., *Consistency Models*, 2023, algorithm 1).

The noise at σ_2 decides the colors. It stays a diffusion model: the denoising loss goes on beside
the finish, and any other sampler may be used.

As in *Adversarial Diffusion Distillation* (Sauer et al., 2023), a critic judges the draws, and
there are two kinds of x. Half of them are made from the network's own earlier evaluations: it
learns from what it will see in use, and the critic alone says what to do. The others are made from
true colors, and the squared error holds draws to these: colors that x shows must be kept, so that
draws stay as different as their noise.

Both are kept from being rougher than the true colors where the lightness is even: a critic asks for
colors that vary, and streaks in a pale sky are a cheap way to have them (`rougher`). And both are
asked for as much fine chroma as the true colors have at each place (`detail_error`): where and how
strong it is, L tells, but not its values, so that a squared error blurs it away, and the
critic's heads at stride 4 and above, all but one, hardly see it. The squared error of colors does
not look at it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from colorized.data.dataset import Batch, chroma_target, step_seed
from colorized.model import sampling
from colorized.model.denoiser import (
    Denoiser,
    add_noise,
    drop_condition,
    simple_loss,
    stratified_sigmas,
)
from colorized.model.encoder import Features
from colorized.model.guidance import asked
from colorized.model.weights import ModelConfig
from colorized.training.critic import Critic
from colorized.training.distributed import Processes
from colorized.training.loop import Diverged, TrainState

RECENT = 200
"""Steps whose critic losses tell whether the critic has won."""

WON = 0.02
"""Mean hinge loss of a critic that tells every coloring from every photograph; at first it is 2."""


ROUGHNESS_WINDOW = 7
"""Side of the windows in which `rougher` compares chroma, positions of chroma."""

EVEN = 3.0
"""Deviation of L* over such a window at which what is rougher counts 1/e of what it does at 0."""

DETAIL_WINDOW = 5
"""Side of the windows in which `detail_error` compares chroma, positions of chroma."""


@dataclass(frozen=True)
class FinishSettings:
    """See the section `finish` of params.yaml, where each value has its comment."""

    adversarial: float
    squared_error: float
    roughness: float
    detail: float
    denoising: float
    window: int
    critic_lr: float


class Finish:
    """The objective of the finish, with the critic and its optimizer.

    Parameters
    ----------
    config
        Names the noise levels, `few_step_sigmas`, the guidance, and the scale of chroma.

    Raises
    ------
    ValueError
        When `config` names no levels of draws.
    ModuleNotFoundError
        When the package with the critic's weights is not installed.
    """

    # Moments of the gradient itself only delay the game of two.
    betas = (0.0, 0.99)

    def __init__(
        self, config: ModelConfig, settings: FinishSettings, processes: Processes, seed: int
    ) -> None:
        if len(config.few_step_sigmas) < 2:
            raise ValueError("the finish needs pure noise and the noise levels of draws")
        self.levels, self.sampling = config.few_step_sigmas, config.sampling
        self.settings = settings
        self.processes = processes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = Critic().to(processes.device)
        self.optimizer = torch.optim.Adam(
            self.critic.heads.parameters(), lr=settings.critic_lr, betas=self.betas, fused=True
        )
        self.std = torch.tensor(config.ab_std, device=processes.device).view(1, 2, 1, 1)
        self.losses: deque[float] = deque(maxlen=RECENT)

    def backward(self, state: TrainState, batch: Batch, place: int) -> dict[str, float]:
        """See `Objective`; `loss` is the squared error of the draws that are held to the truth."""
        s, settings, device = self.settings, state.settings, self.processes.device
        denoiser, x_0 = state.denoiser, chroma_target(batch, state.config.ab_std)
        B, shape = settings.batch_size, x_0.shape[1:]
        generator = torch.Generator().manual_seed(step_seed(settings.seed, place, "finish"))
        target = int(torch.randint(1, len(self.levels), (), generator=generator))
        # Drawn for the whole batch, so that how it is shared out changes no draw.
        noise = torch.randn((len(self.levels), B, *shape), generator=generator)
        first = self.processes.rank * len(x_0)
        noise = noise[:, first : first + len(x_0)].to(device)
        places = torch.arange(first, first + len(x_0))
        own = (places % 2 == 0).to(device)

        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
            cond = denoiser.encode(batch.seen)
            start = x_0.clone()
            earlier = tuple(c[own].detach() for c in cond)
            if own.any():
                start[own] = self._sampled(denoiser, earlier, noise[:target, own]).to(start)
            sigma = torch.full((len(x_0),), self.levels[target], dtype=torch.float64)
            x = add_noise(start, sigma, noise[target])
            drawn = denoiser(x, sigma, denoiser.network.asked_to_draw(cond)).float()
            # The critic and the losses see a leaf, so that each part's gradient ends there.
            leaf = drawn.detach().requires_grad_(True)
            fine, coarse = self._window(shape, generator)
            lightness = batch.lightness[fine]
            with torch.no_grad():
                maps_true = self.critic.see(lightness, x_0[coarse] * self.std)
            maps = self.critic.see(lightness, leaf[coarse] * self.std)
            self.critic.calibrate(maps_true, self.processes.mean)
            told = self._teach(maps_true, [m.detach() for m in maps])
            self.critic.heads.requires_grad_(False)
            adversarial = -_mean(self.critic(maps))
            self.critic.heads.requires_grad_(True)
        # Each process has its share of the whole batch's mean.
        held = _smooth(leaf - x_0)[~own].square().sum() * self.processes.world
        error = held / max(1, B // 2 * shape.numel())
        rough, detail = rougher(batch.lightness, leaf, x_0), detail_error(leaf, x_0)
        parts = {
            "adversarial": adversarial,
            "critic": told,
            "roughness": rough,
            "detail": detail,
        }
        (gradient,) = torch.autograd.grad(
            s.adversarial * adversarial
            + s.squared_error * error
            + s.roughness * rough
            + s.detail * detail,
            leaf,
        )
        surrogate = (drawn * gradient).sum()
        if s.denoising:
            denoising = self._denoising(state, x_0, cond, places, generator)
            surrogate = surrogate + s.denoising * denoising
            parts["denoising"] = denoising
        surrogate.backward()
        self.processes.mean_gradients(denoiser)
        found = {name: self.processes.mean(value).item() for name, value in parts.items()}
        if s.adversarial:
            self._watch(state, found["critic"], place)
        return {"loss": self.processes.mean(error.detach()).item(), **found}

    @torch.no_grad()
    def _sampled(self, denoiser: Denoiser, cond: Features, noise: Tensor) -> Tensor:
        """What sampling has made of the noise (K, B, 2, h, w) of its first K levels."""
        waiting = iter(noise)
        levels = self.levels[: len(noise)]
        ask = asked(denoiser, self.sampling, self.levels)
        return sampling.sample(ask, cond, levels, lambda: next(waiting), "consistency")

    def _window(
        self, shape: torch.Size, generator: torch.Generator
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Where the critic looks: indices into L*, and into chroma, which has half its size.

        The same place in all pictures of a step, another one in the next step: otherwise the
        critic's strides lock with the network's and leave regular dots in even surfaces.
        """
        fine, coarse = [], []
        for side in shape[-2:]:
            size = min(self.settings.window // 2 or side, side)
            start = int(torch.randint(side - size + 1, (), generator=generator))
            coarse.append(slice(start, start + size))
            fine.append(slice(2 * start, 2 * (start + size)))
        return (..., *fine), (..., *coarse)

    def _teach(self, true: list[Tensor], drawn: list[Tensor]) -> Tensor:
        """A step of the critic; returns the hinge loss before it."""
        losses = [
            F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()
            for real, fake in zip(self.critic(true), self.critic(drawn), strict=True)
        ]
        loss = torch.stack(losses).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.mean_gradients(self.critic.heads)
        self.optimizer.step()
        return loss.detach()

    def _denoising(
        self,
        state: TrainState,
        x_0: Tensor,
        cond: Features,
        places: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """The denoising loss of every fourth photograph of the batch, one level each."""
        settings, device = state.settings, self.processes.device
        # Drawn for the whole batch, so that how it is shared out changes no draw.
        count = -(-settings.batch_size // 4)
        sigma = stratified_sigmas(state.config.noise(), count, generator, settings.noise_shift)
        keep = torch.rand(count, generator=generator) >= settings.condition_dropout
        noise = torch.randn((count, *x_0.shape[1:]), generator=generator)
        rows = torch.nonzero(places % 4 == 0)[:, 0]
        if not len(rows):
            return x_0.new_zeros(())
        mine = places[rows] // 4
        rows = rows.to(device)
        sigma = sigma[mine].to(device, torch.float32)
        cond = drop_condition(tuple(c[rows] for c in cond), keep[mine].to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
            loss = simple_loss(state.denoiser, x_0[rows], cond, sigma, noise[mine].to(device))
        return loss.sum() * self.processes.world / count

    def _watch(self, state: TrainState, critic: float, place: int) -> None:
        self.losses.append(critic)
        if len(self.losses) == RECENT and sum(self.losses) / RECENT < WON:
            raise Diverged(
                f"step {state.step + 1}: the critic tells every coloring from a photograph "
                f"(its loss is below {WON}), so that nothing can be learned from it",
                place,
            )

    def update(self, state: TrainState, rate: float) -> None:
        """The critic cools down as the denoiser does."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.critic_lr * rate

    def state_dict(self) -> dict[str, Any]:
        """See `Objective`."""
        return {
            "critic": self.critic.learned(),
            "critic_optimizer": self.optimizer.state_dict(),
            "critic_losses": list(self.losses),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Objective`."""
        self.critic.load_learned(state["critic"])
        self.optimizer.load_state_dict(state["critic_optimizer"])
        self.losses = deque(state["critic_losses"], maxlen=RECENT)


def rougher(lightness: Tensor, drawn: Tensor, true: Tensor) -> Tensor:
    """How much rougher drawn chroma is than the true one where the lightness is even.

    The mean excess of the local standard deviation, in windows of `ROUGHNESS_WINDOW` positions, of
    chroma (B, 2, h, w), weighted by exp(-(s / `EVEN`)²), where s is that of L* (B, 1, 2h, 2w).
    """
    even = torch.exp(-((_spread(F.avg_pool2d(lightness, 2)) / EVEN) ** 2))
    return (even * F.relu(_spread(drawn) - _spread(true))).mean()


def detail_error(drawn: Tensor, true: Tensor) -> Tensor:
    """How much the strength of fine detail differs from the true one, place by place.

    The mean squared difference of the local root mean square, in windows of `DETAIL_WINDOW`
    positions, of what is finer than 3 × 3 positions of chroma (B, 2, h, w), and of what is between
    that and as much again.
    """
    error = drawn.new_zeros(())
    for d, t in zip(_fine(drawn), _fine(true), strict=True):
        error = error + (_strength(d) - _strength(t)).square().mean()
    return error


def _fine(v: Tensor) -> tuple[Tensor, Tensor]:
    once = _smooth(v)
    return v - once, once - _smooth(once)


def _strength(v: Tensor) -> Tensor:
    square = F.avg_pool2d(v.square().sum(1, keepdim=True), DETAIL_WINDOW, 1)
    # The root's slope at 0 is infinite.
    return (square + 1e-4).sqrt()


def _smooth(v: Tensor) -> Tensor:
    """Means over 3 × 3 positions, fewer at the edges."""
    return F.avg_pool2d(v, 3, 1, 1, count_include_pad=False)


def _spread(v: Tensor) -> Tensor:
    """Local standard deviation of all channels together; the edges have none of their own."""
    mean = F.avg_pool2d(v, ROUGHNESS_WINDOW, 1)
    variance = (F.avg_pool2d(v.square(), ROUGHNESS_WINDOW, 1) - mean.square()).sum(1, keepdim=True)
    # The root's slope at 0 is infinite.
    return (variance.clamp(min=0) + 1e-3).sqrt()


def _mean(maps: list[Tensor]) -> Tensor:
    return torch.stack([m.float().mean() for m in maps]).mean()
