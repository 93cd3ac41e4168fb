"""A machine's word on which colours look real, before any person is asked: `python -m platform.jury [EXPERIMENT]`.

One critic judges all arms of an experiment. It learns to tell photographs from colourizations of the same grey
pictures, both as 8-bit sRGB, all arms alike, on one half of the pictures, and judges the other half, so that it never
judges what it has seen. A critic that sees chroma pixel by pixel finds any arm out by its texture; so juries of several
acuities are held, the coarsest first, and the finest one that still leaves some pairs undecided is *the* jury.
"""

import hashlib
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from PIL import Image as Pictures
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sqlalchemy import Engine, select
from torch import Tensor
from torch.nn import functional

from db.errors import UserError, run_command
from db.schema import Experiment, Image, StoredDataset, Trial
from db.store import read_session, write_session
from db.sweeps.recording import record_score, record_verdict
from db.sweeps.trials import ArmResult, arm_results, experiment_progress
from platform.arms.critic import Critic
from platform.arms.options import CriticOptions
from platform.color.lab import rgb_to_lab
from platform.color.scores import JURY, SCORES
from platform.model.stored import load_trial
from platform.paint.samples import encode_truths, paint_samples
from platform.results import describe_acuity
from platform.running.preparation import load_recorded_data
from platform.running.progress import Say, open_console, say_on
from platform.tables.experiment import open_experiment, parser_of_results

PICTURES = 4_000  # of validation, at most, that are judged
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
    fingerprint: str  # sha256, hex, of the critics' weights

    def marks(self) -> list[tuple[float, float]]:
        """The mean of each arm, and its jackknife error over pictures (of a mean, the standard error)."""
        errors = self.picked.std(axis=1, ddof=1) / np.sqrt(self.picked.shape[1])
        return list(zip(self.picked.mean(axis=1).tolist(), errors.tolist(), strict=True))


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
    the same verdicts. Raises ValueError for fewer than four pictures.
    """
    count = len(lightness)
    if count < 4:
        raise ValueError(f"A jury needs at least 4 pictures, not {count}.")
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    halves = shuffled[: count // 2], shuffled[count // 2 :]
    digest = hashlib.sha256()
    ahead = torch.empty(len(colourized), count)  # s(colourization) − s(photograph)
    for number, (seen, unseen) in enumerate((halves, halves[::-1])):
        critic = train_critic(lightness[seen], truth[seen], colourized[:, seen], acuity, seed=number)
        for weights in critic.parameters():
            digest.update(weights.detach().numpy().tobytes())
        with torch.no_grad():
            for part in unseen.split(AT_A_TIME):
                real = critic(lightness[part], truth[part])
                for arm, ab in enumerate(colourized):
                    ahead[arm, part] = critic(lightness[part], ab[part]) - real
    differences = ahead.double().numpy()
    temperature = _calibrate(differences[list(judged)])
    decided = (differences[list(judged)] < 0).mean() + (differences[list(judged)] == 0).mean() / 2
    return Jury(acuity, float(decided), temperature, expit(differences / temperature), digest.hexdigest())


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


def the_jury(juries: Sequence[Jury]) -> Jury:
    """Of juries from coarse to fine the finest that stays undecided, or the coarsest where none does."""
    return next((jury for jury in reversed(juries) if jury.pair_accuracy < UNDECIDED), juries[0])


def judge(engine: Engine, experiment: str, say: Say) -> None:
    """Hold the jury of an experiment on the best trials of its arms, say and record what it found. Raises UserError
    where data or weights are not to be had, or nothing has finished."""
    began = time.monotonic()
    torch.set_num_threads(1)  # of small pictures one thread is fastest, and beside other work by far
    with read_session(engine) as session:
        summary = experiment_progress(session, experiment)
        arms = [result for result in arm_results(session, experiment) if result.best is not None]
        row = session.get_one(Experiment, summary.id)
        stored = session.get_one(StoredDataset, row.dataset_id)
        sampled = set(session.scalars(select(Image.index_in_split).where(Image.dataset_id == stored.id)))
    judged = [place for place, arm in enumerate(arms) if not arm.baseline]
    if not judged:
        raise UserError(f"No trial of {experiment!r} has finished yet: ask the jury when one has.")
    data = load_recorded_data(row, stored, say)
    indices = _pictures_to_judge(len(data.validation_images), sampled)
    pictures, labels = data.validation_images[indices], data.validation_labels[indices]
    lightness, truth = _lab_of(encode_truths(pictures)).split((1, 2), dim=1)
    colourized = torch.stack(_colourize_all(engine, arms, pictures, labels))
    side = max(lightness.shape[2:])
    juries: list[Jury] = []
    for acuity in acuities(side):
        juries.append(hold_jury(lightness, truth, colourized, judged, acuity))
        say(f"{describe_acuity(acuity)} It tells {100 * juries[-1].pair_accuracy:.1f} % of pairs apart.")
        if juries[-1].pair_accuracy >= UNDECIDED:
            break  # a finer one sees more still
    chosen = the_jury(juries)
    _record(engine, summary.id, arms, indices, chosen)
    for arm, mark in zip(arms, chosen.marks(), strict=True):
        say(f"  {arm.arm}: picked as real {SCORES[JURY].write(*mark)} %")
    seconds = time.monotonic() - began
    say(f"A machine's word on {len(indices):,} pictures, in {seconds:.0f} s, and recorded.")
    say(describe_acuity(chosen.acuity))


def _record(engine: Engine, experiment_id: int, arms: Sequence[ArmResult], indices: np.ndarray, jury: Jury) -> None:
    verdict = {
        "judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "pictures": len(indices),
        "acuity": jury.acuity,
        "pair_accuracy": jury.pair_accuracy,
        "fingerprint": jury.fingerprint,
    }
    trial_ids = [arm.best.trial_id for arm in arms if arm.best is not None]
    with write_session(engine) as session:
        record_verdict(session, experiment_id, verdict)
        for trial_id, (mark, error), picked in zip(trial_ids, jury.marks(), jury.picked.tolist(), strict=True):
            by_index = {index: {JURY: mark} for index, mark in zip(indices.tolist(), picked, strict=True)}
            record_score(session, trial_id, JURY, mark, error, by_index)


def _pictures_to_judge(count: int, sampled: set[int]) -> np.ndarray:
    """Places in validation, sorted: those of sample pictures, and others evenly spaced."""
    others = [index for index in range(count) if index not in sampled]
    wanted = max(0, min(PICTURES, count) - len(sampled))
    spaced = [others[place * len(others) // wanted] for place in range(wanted)]
    return np.array(sorted([*sampled, *spaced]))


def _colourize_all(engine: Engine, arms: Sequence[ArmResult], pictures: np.ndarray, labels: np.ndarray) -> list[Tensor]:
    """ab float (n, 2, height, width) of every arm's best trial, as its 8-bit pictures show it. Arms that read the same
    weights are coloured together."""
    coloured: dict[str, dict[str, Tensor]] = {}
    result = []
    for arm in arms:
        assert arm.best is not None
        with read_session(engine) as session:
            weights = session.get_one(Trial, arm.best.trial_id).checkpoint or arm.arm
            if arm.arm not in coloured.get(weights, {}):
                task, model = load_trial(session, arm.best.trial_id)
                parts: dict[str, list[Tensor]] = {name: [] for name in task.readings}
                for start in range(0, len(pictures), AT_A_TIME):
                    part = slice(start, start + AT_A_TIME)
                    for name, painted in paint_samples(task, model, pictures[part], labels[part]).items():
                        lab = _lab_of([picture.png for picture in painted])
                        parts[name].append(lab[:, 1:])
                coloured[weights] = {name: torch.cat(found) for name, found in parts.items()}
        result.append(coloured[weights][arm.arm])
    return result


def _lab_of(pngs: Sequence[bytes]) -> Tensor:
    """Lab of pictures, float (n, 3, height, width)."""
    rgb = np.stack([np.asarray(Pictures.open(io.BytesIO(png))) for png in pngs])
    return rgb_to_lab(torch.from_numpy(rgb)).movedim(-1, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of_results("jury", "Let a machine judge which models' pictures look real; its marks are recorded.")
    options = parser.parse_args(arguments)

    def body() -> int:
        engine, experiment = open_experiment(options.database, options.experiment)
        judge(engine, experiment, say_on(open_console()))
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
