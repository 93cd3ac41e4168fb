"""A machine jury: critics that judge pictures which they never saw in training.

One critic judges all arms of an experiment. It learns to tell photographs from colourizations of the same grey
pictures, both as 8-bit sRGB, all arms alike, on one half of the pictures, and judges the other half. A critic that sees
chroma pixel by pixel finds any arm out by its texture; so juries of several acuities are held, the coarsest first, and
the finest one that still leaves some pairs undecided is *the* jury.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit
from torch import Tensor
from torch.nn import functional

from platform.arms.critic import Critic
from platform.arms.options import CriticOptions

STEPS = 600  # of each critic
BATCH = 64  # pairs per step
LEARNING_RATE = 2e-3
UNDECIDED = 0.85  # a jury that tells more pairs apart than this sees what people don't
AT_A_TIME = 250  # pictures


@dataclass(frozen=True)
class Jury:
    """What the critics of one acuity said."""

    acuity: int  # pixels; of the squares over which chroma is averaged before it is seen
    pair_accuracy: float  # share of pairs of photograph and colourization told apart, baselines aside
    temperature: float  # by which differences of s are divided, so that a probability is as often right as it says
    picked: np.ndarray  # float (arms, pictures): p(the colourization is picked as real)

    def marks(self) -> list[tuple[float, float]]:
        """The mean of each arm, and its jackknife error over pictures (of a mean, the standard error)."""
        errors = self.picked.std(axis=1, ddof=1) / np.sqrt(self.picked.shape[1])
        return list(zip(self.picked.mean(axis=1).tolist(), errors.tolist(), strict=True))


def find_jury(lightness: Tensor, truth: Tensor, colourized: Tensor, judged: Sequence[int]) -> Jury:
    """Of juries from coarse to fine return the last one that stays undecided, or the coarsest where none does; shapes
    as in `hold_jury`."""
    chosen: Jury | None = None
    for acuity in acuities(max(lightness.shape[2:])):
        jury = hold_jury(lightness, truth, colourized, judged, acuity)
        if jury.pair_accuracy >= UNDECIDED:  # a finer one sees more still
            return chosen or jury
        chosen = jury
    assert chosen is not None  # there is always an acuity
    return chosen


def acuities(side: int) -> list[int]:
    """The sides of the squares that juries see, from the whole picture, of this side, down to a pixel."""
    found = [side]
    while found[-1] > 1:
        found.append(found[-1] // 2 if found[-1] > 4 else 1)
    return found


def hold_jury(lightness: Tensor, truth: Tensor, colourized: Tensor, judged: Sequence[int], acuity: int) -> Jury:
    """Train two critics, each on one half of the pictures, and let each judge the other half.

    lightness float (n, 1, height, width), truth float (n, 2, height, width) and colourized float (arms, n, 2, height,
    width), Lab units; judged: the arms, by place, that pair accuracy and temperature are of. The same input gives
    the same verdicts.
    """
    count = len(lightness)
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    halves = shuffled[: count // 2], shuffled[count // 2 :]
    ahead = torch.empty(len(colourized), count)  # s(colourization) − s(photograph)
    for number, (seen, unseen) in enumerate((halves, halves[::-1])):
        critic = train_critic(lightness[seen], truth[seen], colourized[:, seen], acuity, seed=number)
        with torch.no_grad():
            for part in unseen.split(AT_A_TIME):
                real = critic(lightness[part], truth[part])
                for arm, ab in enumerate(colourized):
                    ahead[arm, part] = critic(lightness[part], ab[part]) - real
    differences = ahead.double().numpy()
    temperature = _calibrate(differences[list(judged)])
    decided = (differences[list(judged)] < 0).mean() + (differences[list(judged)] == 0).mean() / 2
    return Jury(acuity, float(decided), temperature, expit(differences / temperature))


def train_critic(lightness: Tensor, truth: Tensor, colourized: Tensor, acuity: int, *, seed: int) -> Critic:
    """Return a critic; shapes as in `hold_jury`. Each step shows every arm equally often, up to one."""
    arms, count = len(colourized), len(lightness)
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = Critic(CriticOptions(acuity=acuity))
    critic.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(critic.parameters(), LEARNING_RATE, betas=(0.5, 0.99), fused=True)
    order = torch.empty(0, dtype=torch.long)
    for step in range(STEPS):
        while len(order) < BATCH:
            order = torch.cat((order, torch.randperm(count, generator=random)))
        batch, order = order[:BATCH], order[BATCH:]
        arm = (torch.arange(BATCH) + torch.randint(arms, (), generator=random)) % arms
        real = critic(lightness[batch], truth[batch])
        loss = functional.softplus(critic(lightness[batch], colourized[arm, batch]) - real).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - (step + 1) / STEPS)
    return critic


def _calibrate(ahead: np.ndarray) -> float:
    """The T under which σ(ahead / T), of pairs whose photograph is known, has the least cross-entropy."""
    found = minimize_scalar(
        lambda log_t: np.logaddexp(0, ahead / np.exp(log_t)).mean(), bounds=(-5, 5), method="bounded"
    )
    return float(np.exp(found.x))
