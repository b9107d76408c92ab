r"""The adversarial finish: the network learns to draw believable colors in one to four evaluations.

A denoiser names the mean of all colors that are plausible, which is pale, and asks for many
evaluations to get from there to one of them. The finish teaches it, when it is asked to
(`ChromaUNet.encode(draw=True)`), to name one of them at once, at the few noise levels σ_1 > σ_2 > …
that sampling then uses: multistep consistency sampling (Song et al., *Consistency Models*, 2023,
algorithm 1), x = x̂_0 + σ_k ε. It stays a diffusion model: the denoising loss goes on beside it.

As in *Adversarial Diffusion Distillation* (Sauer et al., 2023) a critic judges the results; there
is no teacher. Beside it stands a squared error, with which colors become coherent soon and all
draws of a photograph nearly alike, or the energy score (Gneiting, Raftery, *Strictly Proper Scoring
Rules*, 2007, eq. 22) of two draws x, x' of one photograph against its true colors y,

    ES = ½ ‖x - y‖ + ½ ‖x' - y‖ - ½ r ‖x - x'‖.

With r = 1 its mean is least when draws have the distribution of the truth: it asks two seeds to
differ by as much as the photograph leaves open, no more and no less (De Bortoli et al.,
*Distributional Diffusion Models with Scoring Rules*, 2025). With a smaller r, `spread`, draws lie
nearer to the middle of what is plausible. It is taken of chroma over neighborhoods of several
sizes, and of the critic's features.

Each step draws from pure noise, two x for every photograph where the energy score asks for them,
or, in a share of the steps, goes on from such draws, to noise level σ_k of the next evaluations:
the network learns from what it will see in use.
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
from colorized.model.denoiser import Denoiser, drop_condition, simple_loss, stratified_sigmas
from colorized.model.weights import ModelConfig
from colorized.training.critic import Critic
from colorized.training.distributed import Processes
from colorized.training.loop import Diverged, TrainState

RECENT = 200
"""Steps whose critic losses tell whether the critic has won."""

WON = 0.02
"""Mean hinge loss of a critic that tells every coloring from every photograph; at first it is 2."""


@dataclass(frozen=True)
class FinishSettings:
    """See the section `finish` of params.yaml, where each value has its comment."""

    later: float
    adversarial: float
    energy: float
    feature_energy: float
    spread: float
    squared_error: float
    denoising: float
    window: int
    critic_lr: float
    critic_steps: int

    @property
    def draws(self) -> int:
        """Of each photograph in a step."""
        return 2 if self.energy or self.feature_energy else 1


class Finish:
    """The objective of the finish, with the critic and its optimizer.

    Parameters
    ----------
    config
        Names the noise levels, `few_step_sigmas`, and the scale of chroma.

    Raises
    ------
    ValueError
        When `config` names no levels.
    ModuleNotFoundError
        When the package with the critic's weights is not installed.
    """

    # Moments of the gradient itself only delay the game of two.
    betas = (0.0, 0.99)

    def __init__(
        self, config: ModelConfig, settings: FinishSettings, processes: Processes, seed: int
    ) -> None:
        if not config.few_step_sigmas:
            raise ValueError("the finish needs the noise levels at which the network is asked")
        self.levels = config.few_step_sigmas
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
        """See `Objective`; `loss` is the squared error of the draws."""
        s, settings, device = self.settings, state.settings, self.processes.device
        denoiser, x_0 = state.denoiser, chroma_target(batch, state.config.ab_std)
        B, shape = settings.batch_size, x_0.shape[1:]
        generator = torch.Generator().manual_seed(step_seed(settings.seed, place, "finish"))
        later = bool(torch.rand((), generator=generator) < s.later) and len(self.levels) > 1
        target = int(torch.randint(1, len(self.levels), (), generator=generator)) if later else 0
        # Drawn for the whole batch, so that how it is shared out changes no draw.
        noise = torch.randn((len(self.levels), s.draws, B, *shape), generator=generator)
        first = self.processes.rank * len(x_0)
        noise = noise[:, :, first : first + len(x_0)].flatten(1, 2).to(device)

        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
            cond = denoiser.encode(batch.seen)
            asked = tuple(
                c.repeat(s.draws, *[1] * (c.ndim - 1)) for c in denoiser.network.asked_to_draw(cond)
            )
            drawn = self._draw(denoiser, asked, noise, target)
            # The critic and the losses see a leaf, so that each part's gradient ends there.
            leaf = drawn.detach().requires_grad_(True)
            fine, coarse = self._window(shape, generator)
            lightness = batch.lightness[fine]
            with torch.no_grad():
                mixed_true, maps_true = self.critic.see(lightness, x_0[coarse] * self.std)
            lightness = lightness.repeat(s.draws, 1, 1, 1)
            mixed, maps = self.critic.see(lightness, leaf[coarse] * self.std)
            self.critic.calibrate(maps_true, self.processes.mean)
            told = self._teach(maps_true, [m.detach() for m in maps])
            self.critic.heads.requires_grad_(False)
            adversarial = -_mean(self.critic(maps))
            self.critic.heads.requires_grad_(True)
        error = (leaf - x_0.repeat(s.draws, 1, 1, 1)).square().mean()
        total = s.adversarial * adversarial + s.squared_error * error
        parts = {"adversarial": adversarial, "critic": told}
        if s.draws == 2:
            one, other = leaf.chunk(2)
            parts["energy"] = chroma_energy(one, other, x_0, s.spread)
            pairs = zip(mixed[1:], mixed_true[1:], strict=True)
            features = torch.stack([feature_energy(m, t, s.spread) for m, t in pairs]).mean()
            parts["feature_energy"] = features
            total = total + s.energy * parts["energy"] + s.feature_energy * features
        (gradient,) = torch.autograd.grad(total, leaf)
        surrogate = (drawn * gradient).sum()
        if s.denoising:
            denoising = self._denoising(state, x_0, cond, generator)
            surrogate = surrogate + s.denoising * denoising
            parts["denoising"] = denoising
        surrogate.backward()
        self.processes.mean_gradients(denoiser)
        found = {name: self.processes.mean(value).item() for name, value in parts.items()}
        if s.adversarial:
            self._watch(state, found["critic"], place)
        return {"loss": self.processes.mean(error.detach()).item(), **found}

    def _draw(self, denoiser: Denoiser, cond: Any, noise: Tensor, target: int) -> Tensor:
        """x̂_0 (draws · B, 2, h, w) at level number `target`, on from draws at those before."""
        levels = self.levels
        x = noise[0] * levels[0]
        for k in range(target):
            with torch.no_grad():
                x = denoiser(x, _filled(levels[k], x), cond).float() + levels[k + 1] * noise[k + 1]
        drawn: Tensor = denoiser(x, _filled(levels[target], x), cond).float()
        return drawn

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
        """Steps of the critic by the hinge loss; returns what it is before the first."""
        before = None
        for _ in range(self.settings.critic_steps):
            real, fake = self.critic(true), self.critic(drawn)
            losses = [
                F.relu(1 - r.float()).mean() + F.relu(1 + f.float()).mean()
                for r, f in zip(real, fake, strict=True)
            ]
            loss = torch.stack(losses).mean()
            before = loss.detach() if before is None else before
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.processes.mean_gradients(self.critic.heads)
            self.optimizer.step()
        assert before is not None
        return before

    def _denoising(
        self, state: TrainState, x_0: Tensor, cond: Any, generator: torch.Generator
    ) -> Tensor:
        """The denoising loss of every fourth photograph, one level each."""
        settings, device = state.settings, self.processes.device
        x_0, cond = x_0[::4], tuple(c[::4] for c in cond)
        # Drawn for the whole batch, so that how it is shared out changes no draw.
        count = len(x_0) * self.processes.world
        mine = slice(self.processes.rank * len(x_0), (self.processes.rank + 1) * len(x_0))
        sigma = stratified_sigmas(state.config.noise(), count, generator, settings.noise_shift)
        keep = torch.rand(count, generator=generator) >= settings.condition_dropout
        noise = torch.randn((count, *x_0.shape[1:]), generator=generator)
        sigma = sigma[mine].to(device, torch.float32)
        noise = noise[mine].to(device)
        cond = drop_condition(cond, keep[mine].to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
            loss = simple_loss(state.denoiser, x_0, cond, sigma, noise)
        return loss.mean()

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


def energy_score(x: Tensor, other: Tensor, y: Tensor, spread: float = 1.0) -> Tensor:
    """ES of two draws against the truth, each (N, C, …): vectors along C; the mean of all."""

    def norm(v: Tensor) -> Tensor:
        # In units in which a vector of ones has length 1; smooth at 0.
        return (v.square().mean(1) + 1e-4).sqrt()

    return (0.5 * (norm(x - y) + norm(other - y)) - 0.5 * spread * norm(x - other)).mean()


def chroma_energy(x: Tensor, other: Tensor, y: Tensor, spread: float) -> Tensor:
    """The energy score of chroma (B, 2, h, w) at four scales: their mean.

    The scales are 2×2 pixels and 8×8 pixels, each a vector by itself; 20×20 pixels as 5×5 averages,
    and the whole picture as averages of 16×16, as one vector each, so that places must agree.
    """

    def pooled(n: int) -> list[Tensor]:
        return [F.avg_pool2d(v, n) for v in (x, other, y)]

    side = min(5, *(n // 4 for n in y.shape[-2:]))
    patches = [F.unfold(v, side, stride=side) for v in pooled(4)]
    whole = [v.flatten(1) for v in pooled(16)]
    scores = [energy_score(a, b, c, spread) for a, b, c in (pooled(2), pooled(8), patches, whole)]
    return torch.stack(scores).mean()


def feature_energy(maps: Tensor, true: Tensor, spread: float) -> Tensor:
    """The energy score of mixed features: (2B, C, h, w) of two draws, (B, C, h, w) of the truth."""
    true = true.float()
    rms = true.square().mean().sqrt()
    one, other = (maps.float() / rms).chunk(2)
    return energy_score(one, other, true / rms, spread)


def _mean(maps: list[Tensor]) -> Tensor:
    return torch.stack([m.float().mean() for m in maps]).mean()


def _filled(value: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), value, device=x.device)
