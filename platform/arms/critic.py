"""A critic s(L, ab): one number per picture, higher where it looks like a photograph; and how it teaches a colourizer.

For a photograph and a colourization of the same grey picture σ(s(colourized) − s(photograph)) is the probability that
the colourization is picked as real: the survey's own question. The pairing and both penalties are those of Huang et al.
2024, "The GAN is dead; long live the GAN!" (R3GAN), conditioned on the grey picture as in Isola et al. 2017 (pix2pix).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from platform.arms.options import CriticOptions

UNIT = 50.0  # of L and ab, that what the critic sees be of order 1
WIDTH = 16  # channels at full size; they double at each halving, up to four times as many
LEARNING_RATE = 1e-3
PICTURES = 32  # of a batch, that it sees: to colour them all differentiably would cost a classifier too much
PENALTY = 1.0  # γ; Huang et al. 2024, equations 3 and 4
PENALTY_EVERY = 16  # steps, each then so many times as heavy (Karras et al. 2020, "lazy regularization")


class Critic(nn.Module):
    """Map L (n, 1, height, width) and ab (n, 2, height, width), Lab units, to s (n,)."""

    def __init__(self, options: CriticOptions) -> None:
        super().__init__()
        self.acuity = options.acuity
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 1), nn.LeakyReLU(0.2)]
        channels = WIDTH
        for _ in range(options.depth):
            wider = min(2 * channels, 4 * WIDTH)
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
            channels = wider
        layers += [nn.Conv2d(channels, channels, 1), nn.LeakyReLU(0.2)]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(channels, 1)

    def forward(self, lightness: Tensor, ab: Tensor) -> Tensor:
        if self.acuity > 1:
            squares = functional.avg_pool2d(ab, self.acuity, ceil_mode=True, count_include_pad=False)
            ab = functional.interpolate(squares, scale_factor=self.acuity, mode="nearest")[
                ..., : ab.shape[2], : ab.shape[3]
            ]
        seen = torch.cat(((lightness - 50) / UNIT, ab / UNIT), dim=1)
        score: Tensor = self.head(self.layers(seen).mean((2, 3)))[:, 0]
        return score


class Adversary:
    """A critic that is trained beside a colourizer, and what it adds to the colourizer's loss."""

    def __init__(
        self,
        weight: float,
        options: CriticOptions,
        colour: Callable[[Tensor], Tensor],
        device: torch.device,
        *,
        seed: int,
    ) -> None:
        """weight: of the adversarial term. colour: from the head's outputs (pixels, outputs) to ab (pixels, 2),
        differentiably. seed: of the critic's first weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = Critic(options)
        self.critic.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._weight, self._colour = weight, colour
        self._optimizer = torch.optim.AdamW(self.critic.parameters(), LEARNING_RATE, betas=(0.5, 0.99), fused=True)
        self._steps = 0
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    def loss(self, lab: Tensor, rows: Tensor, head: nn.Module) -> Tensor:
        """Return weight · mean softplus(s(photograph) − s(colourized)), over the first PICTURES of lab (n, height,
        width, 3), whose features are rows (pixels, width); the critic itself is left as it is."""
        pixels = rows.shape[0] // len(lab)
        lab = lab[:PICTURES]
        outputs = head(rows[: len(lab) * pixels].to(lab.dtype))
        lightness, truth = lab.movedim(-1, 1).split((1, 2), dim=1)
        colourized = self._colour(outputs).view(*lab.shape[:3], 2).movedim(-1, 1)
        self._seen = lightness, truth, colourized.detach()
        self.critic.requires_grad_(False)
        with torch.no_grad():
            real = self.critic(lightness, truth)
        return self._weight * functional.softplus(real - self.critic(lightness, colourized)).mean()

    def step(self) -> None:
        """Let the critic learn from the pictures that were last given to `loss`."""
        assert self._seen is not None
        lightness, *pair = self._seen
        self.critic.requires_grad_(True)
        penalised = self._steps % PENALTY_EVERY == 0
        truth, colourized = (ab.requires_grad_(penalised) for ab in (part.detach() for part in pair))
        real, fake = self.critic(lightness, truth), self.critic(lightness, colourized)
        loss = functional.softplus(fake - real).mean()
        if penalised:
            for score, ab in ((real, truth), (fake, colourized)):
                loss = loss + PENALTY_EVERY * PENALTY / 2 * squared_gradient(score, ab).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"critic": self.critic.state_dict(), "optimizer": self._optimizer.state_dict(), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._steps = state["steps"]


def squared_gradient(score: Tensor, ab: Tensor) -> Tensor:
    """Return ‖∇ s‖² of each picture, (n,), with respect to its ab in UNITs, differentiably."""
    (gradient,) = torch.autograd.grad(score.sum(), ab, create_graph=True)
    return (UNIT * gradient).square().sum((1, 2, 3))
