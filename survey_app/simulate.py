"""Simulated participants: `python -m survey_app.simulate`.

An observer model answers in place of people, through the very functions that the survey's page calls: for load and for
demonstrations. What they answer is marked simulated, and no result counts it unless it is asked for.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from rich.console import Console
from scipy.special import expit
from skimage.color import deltaE_ciede2000, rgb2lab
from sqlalchemy import Engine, select

from db.errors import run_command
from db.png import pixels
from db.schema import Answer, Image, Protocol, Question, Sample, SentinelPicture
from db.store import DATABASE_HELP, default_database, naming_database, open_existing, read_session
from db.surveys import votes
from db.surveys.enrolment import enrol
from db.surveys.study import SurveyError, count_turnout, find_study

UNNOTICED = 8.0  # ΔE2000
CRITERION = 10.0  # of a single picture: the evidence against it at which it is called real half the time
MEDIAN_RESPONSE_MS, RESPONSE_SPREAD = 900.0, 0.4
WRONG: dict[Answer, Answer] = {"left": "right", "right": "left", "real": "fake", "fake": "real"}

EXAMPLES = """\
examples:
  python -m survey_app.simulate --participants 30
  python -m survey_app.simulate --study rebalance --participants 30

To see what they answered: python -m survey_app.studies show --simulated
"""


@dataclass(frozen=True)
class Observer:
    """How a participant decides. The evidence against a picture, see evidence(), grows with how far its colours are
    off, and with how much less colourful it is than the photograph, so that too little colour gives it away and rich
    colour may beat the photograph. Of a pair, the photograph is taken with the probability
    logistic(colour_sensitivity × evidence); a single picture is called real with
    logistic(colour_sensitivity × (CRITERION − evidence)), where the evidence against a photograph is 0.

    lapse_rate: share of questions answered by a coin. spread: standard deviation of the logarithm of the sensitivity
    among participants.
    """

    lapse_rate: float = 0.09
    colour_sensitivity: float = 0.08
    spread: float = 0.3

    def right_probability(self, evidence: float, protocol: Protocol, *, real: bool = False) -> float:
        """Of the right answer. real: a single picture is the photograph itself."""
        if protocol == "pair":
            meant = expit(self.colour_sensitivity * evidence)
        else:
            called_real = expit(self.colour_sensitivity * (CRITERION - (0.0 if real else evidence)))
            meant = called_real if real else 1.0 - called_real
        return self.lapse_rate / 2.0 + (1.0 - self.lapse_rate) * float(meant)

    def draw_another(self, chance: np.random.Generator) -> "Observer":
        """A participant like this one, with a sensitivity of their own."""
        return replace(self, colour_sensitivity=self.colour_sensitivity * math.exp(chance.normal(0.0, self.spread)))


@lru_cache(maxsize=10_000)
def evidence(truth_png: bytes, fake_png: bytes) -> float:
    """What gives a synthesized picture away; below 0 it looks more real than its photograph.

    The square of the mean ΔE2000 between the two over UNNOTICED (small errors go unnoticed, large ones leap to the
    eye), plus by how much the photograph is more colourful.
    """
    truth, fake = pixels(truth_png), pixels(fake_png)
    distance = float(deltaE_ciede2000(rgb2lab(truth), rgb2lab(fake)).mean())  # type: ignore[no-untyped-call]
    return distance**2 / UNNOTICED + colourfulness(truth) - colourfulness(fake)


def colourfulness(rgb: np.ndarray) -> float:
    """Hasler & Süsstrunk 2003, equation 9 (M3), of uint8 (height, width, 3)."""
    red, green, blue = (rgb[..., channel].astype(np.float64) for channel in range(3))
    opponents = red - green, (red + green) / 2.0 - blue
    return math.hypot(*(axis.std() for axis in opponents)) + 0.3 * math.hypot(*(axis.mean() for axis in opponents))


def simulate(engine: Engine, study: str, participants: int, observer: Observer, seed: int = 0) -> None:
    """Let so many more simulated participants take part, to the end. The numbers of each come from the seed and from
    how many were there before, so that 30 and again 30 are the same as 60. Raises SurveyError: no such study, or it is
    closed."""
    with read_session(engine) as session:
        before = count_turnout(session, find_study(session, study)).simulated
    for number in range(before, before + participants):
        chance = np.random.default_rng([seed, number])
        token = enrol(engine, study, simulated=True, seed=int(chance.integers(2**63)))
        _take_part(engine, token, observer.draw_another(chance), chance)


def _take_part(engine: Engine, token: str, observer: Observer, chance: np.random.Generator) -> None:
    votes.finish_instructions(engine, token)
    votes.record_check(engine, token, {}, [])
    while (progress := votes.progress(engine, token)) is not None and progress.next is not None:
        question, against = _load_question(engine, progress.next.public_id)
        share = observer.right_probability(against, progress.study.protocol, real=question.kind == "real")
        right = question.right_answer
        result = votes.record_vote(
            engine,
            token,
            question.public_id,
            right if chance.random() < share else WRONG[right],
            response_time_ms=round(MEDIAN_RESPONSE_MS * math.exp(chance.normal(0.0, RESPONSE_SPREAD)), 1),
            exposure_measured_ms=progress.study.exposure_ms,
            input="key",
            scale=8,
        )
        if result.status == "refused":
            raise SurveyError(f"A simulated vote was refused: {result.reason}")


def _load_question(engine: Engine, public_id: str) -> tuple[Question, float]:
    """A question, and the evidence against its synthesized picture; 0 where it has none."""
    with read_session(engine) as session:
        question = session.scalars(select(Question).where(Question.public_id == public_id)).one()
        fake: Sample | SentinelPicture | None = None
        if question.kind == "arm":
            fake = session.get_one(Sample, question.sample_id)
        elif question.kind == "sentinel":
            fake = session.get_one(SentinelPicture, question.sentinel_picture_id)
        truth = session.get_one(Image, question.image_id).truth_png
        return question, 0.0 if fake is None else evidence(truth, fake.png)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m survey_app.simulate",
        description="Let simulated participants answer a survey.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--study", metavar="NAME", help="default: the newest open one")
    add("--participants", type=int, default=30, metavar="N", help="default: %(default)s")
    add("--database", default=default_database(), help=DATABASE_HELP)
    return parser


def _run(options: argparse.Namespace) -> int:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    engine = open_existing(options.database)
    with read_session(engine) as session:
        study = find_study(session, options.study).name
    simulate(engine, study, options.participants, Observer())
    console.print(
        f"{options.participants} simulated participants answered study {study!r}; no result counts them. To "
        f"see what they answered: python -m survey_app.studies show {shlex.quote(study)} --simulated"
        f"{naming_database(engine, '--database ')}"
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return run_command(lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
