"""Simulated participants: `python -m survey_app.simulate`.

An observer model answers in place of people, through the very functions that the survey's page calls: for load, for
demonstrations and, with --power, to see how often so many participants would find a difference. What they answer is
marked simulated, and no result counts it unless it is asked for.
"""

import argparse
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from skimage.color import deltaE_ciede2000, rgb2lab
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db import votes
from db.enrolment import enrol
from db.pictures import pixels
from db.schedule import Tally, draw
from db.schema import Arm, Image, Protocol, Question, Sample, SentinelPicture, StudyArm
from db.store import DATABASE_HELP, StoreError, default_database, open_existing, read_session
from db.studies import SurveyError, find_study, plan_of
from platform.intervals import wilson
from survey_app.statistics import share_difference

UNNOTICED = 8.0  # ΔE2000
CRITERION = 10.0  # of a single picture: the evidence against it at which it is called real half the time
SENSITIVITY_SPREAD = 0.3  # standard deviation of the logarithm of sensitivity among participants
MEDIAN_RESPONSE_MS, RESPONSE_SPREAD = 900.0, 0.4
SIGNIFICANCE = 0.05

EXAMPLES = """\
examples:
  python -m survey_app.simulate --participants 30
  python -m survey_app.simulate --study rebalance --participants 30 --seed 1
  python -m survey_app.simulate --power regression "rebalanced 0.25" --participants 30

To see what they answered: python -m survey_app.studies show --simulated
"""


@dataclass(frozen=True)
class Observer:
    """How a participant decides. The evidence against a picture, see evidence(), grows with how far its colours are
    off, and with how much less colourful it is than the photograph, so that too little colour gives it away and rich
    colour may beat the photograph. Of a pair, the photograph is taken with the probability
    logistic(colour_sensitivity × evidence); a single picture is called real with
    logistic(colour_sensitivity × (CRITERION − evidence)), where the evidence against a photograph is 0.

    guess_rate: share of questions answered by a coin. lapse_rate: share of the others answered with the wrong hand.
    """

    guess_rate: float = 0.05
    colour_sensitivity: float = 0.08
    lapse_rate: float = 0.02

    def right(self, evidence: float, protocol: Protocol, *, real: bool = False) -> float:
        """The probability of the right answer. real: a single picture is the photograph itself."""
        if protocol == "pair":
            meant = _logistic(self.colour_sensitivity * evidence)
        else:
            called_real = _logistic(self.colour_sensitivity * (CRITERION - (0.0 if real else evidence)))
            meant = called_real if real else 1.0 - called_real
        slipped = meant * (1.0 - self.lapse_rate) + (1.0 - meant) * self.lapse_rate
        return self.guess_rate / 2.0 + (1.0 - self.guess_rate) * slipped

    def another(self, chance: random.Random) -> "Observer":
        """A participant like this one, with a sensitivity of their own."""
        own = self.colour_sensitivity * math.exp(chance.gauss(0.0, SENSITIVITY_SPREAD))
        return Observer(self.guess_rate, own, self.lapse_rate)


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


def simulate(engine: Engine, study: str, participants: int, observer: Observer, seed: int) -> None:
    """Let so many simulated participants take part, to the end. Raises SurveyError: no such study, or it is closed."""
    known: dict[tuple[int | None, int | None], float] = {}
    for number in range(participants):
        chance = random.Random(f"{seed} {number}")
        with read_session(engine) as session:
            consent_version = find_study(session, study).consent_version
        token = enrol(engine, study, consent_version=consent_version, simulated=True, seed=chance.getrandbits(63))
        _take_part(engine, token, observer.another(chance), chance, known)


def _take_part(
    engine: Engine,
    token: str,
    observer: Observer,
    chance: random.Random,
    known: dict[tuple[int | None, int | None], float],
) -> None:
    votes.finish_instructions(engine, token)
    votes.record_check(engine, token, {}, [])
    while (progress := votes.progress(engine, token)) is not None and progress.stage != "done":
        if progress.stage == "break":
            votes.take_break(engine, token)
        elif progress.stage == "comment":
            votes.record_comment(engine, token, None)
        elif progress.next is not None:
            with read_session(engine) as session:
                question = session.scalars(select(Question).where(Question.public_id == progress.next.public_id)).one()
                right, wrong = _answers(question)
                key = (question.sample_id, question.sentinel_picture_id)
                if question.kind != "real" and key not in known:
                    fake = (
                        session.get_one(Sample, question.sample_id)
                        if question.kind == "arm"
                        else session.get_one(SentinelPicture, question.sentinel_picture_id)
                    )
                    known[key] = evidence(session.get_one(Image, question.image_id).truth_png, fake.png)
            share = observer.right(known.get(key, 0.0), progress.study.protocol, real=question.kind == "real")
            result = votes.record_vote(
                engine,
                token,
                question.public_id,
                right if chance.random() < share else wrong,
                response_time_ms=round(MEDIAN_RESPONSE_MS * math.exp(chance.gauss(0.0, RESPONSE_SPREAD)), 1),
                exposure_measured_ms=progress.study.exposure_ms,
                input="key",
                scale=8,
            )
            if result.status == "refused":
                raise SurveyError(f"A simulated vote was refused: {result.reason}")


def _answers(question: Question) -> tuple[str, str]:
    """The right answer and the wrong one."""
    if question.real_side is not None:
        return question.real_side, "right" if question.real_side == "left" else "left"
    return ("real", "fake") if question.kind == "real" else ("fake", "real")


@dataclass(frozen=True)
class Power:
    """How two contenders fare in simulated studies: the shares picked as real, and in how many of the studies the
    difference was found."""

    first_share: float
    second_share: float
    found: int
    studies: int


def power(
    engine: Engine,
    study: str,
    arms: tuple[str, str],
    participants: int,
    observer: Observer,
    seed: int,
    studies: int = 500,
) -> Power:
    """Simulate so many studies of so many participants each, and test the difference in each. Writes nothing.

    The schedules are drawn as for real, once; observers and answers anew for each study. Raises SurveyError.
    """
    if participants < 2:
        raise SurveyError("A difference needs at least two participants.")
    with read_session(engine) as session:
        row = find_study(session, study)
        plan, study_arms, images = plan_of(session, row)
        names = {
            name: place
            for place, name in enumerate(
                session.scalars(
                    select(Arm.name)
                    .join(StudyArm, StudyArm.arm_id == Arm.id)
                    .where(StudyArm.study_id == row.id)
                    .order_by(StudyArm.position)
                )
            )
        }
        for arm in arms:
            if arm not in names:
                raise SurveyError(f"Study {row.name!r} has no contender {arm!r}; it has {', '.join(names)}.")
        if arms[0] == arms[1]:
            raise SurveyError("Name two different contenders.")
        shown = {
            names[arm]: [_evidence_against(session, study_arms[names[arm]].trial_id, image) for image in images]
            for arm in arms
        }
    chance = random.Random(seed)
    tally = Tally.empty(plan)
    asked: list[list[tuple[int, int]]] = []  # for each participant, (contender, image)
    for _ in range(participants):
        slots = [slot for slot in draw(plan, tally, chance.getrandbits(63)) if slot.phase == "main"]
        for slot in slots:
            tally.add(slot)
        asked.append([(slot.thing, slot.image) for slot in slots if slot.thing in shown])
    participant = np.repeat(np.arange(participants), [len(questions) for questions in asked])
    second = np.array([thing == names[arms[1]] for questions in asked for thing, _ in questions])
    totals, found = np.zeros(2), 0
    for _ in range(studies):
        picked = []
        for questions in asked:
            somebody = observer.another(chance)
            picked += [
                chance.random() >= somebody.right(shown[thing][image], row.protocol) for thing, image in questions
            ]
        answers = np.array(picked)
        p_value = share_difference(answers, second, participant).p_value
        found += p_value is not None and p_value < SIGNIFICANCE
        totals += answers[~second].mean(), answers[second].mean()
    return Power(float(totals[0]) / studies, float(totals[1]) / studies, found, studies)


def _evidence_against(session: Session, trial_id: int, image_id: int) -> float:
    truth = session.get_one(Image, image_id).truth_png
    fake = session.scalars(select(Sample.png).where(Sample.trial_id == trial_id, Sample.image_id == image_id)).one()
    return evidence(truth, fake)


def _logistic(evidence: float) -> float:
    return 0.5 * (1.0 + math.tanh(evidence / 2.0))  # never overflows


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is no share from 0 to 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    observer = Observer()
    parser = argparse.ArgumentParser(
        prog="python -m survey_app.simulate",
        description="Let simulated participants answer a survey, or see how often people would find a difference.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--study", metavar="NAME", help="default: the newest open one")
    parser.add_argument("--participants", type=_count, default=30, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--guess-rate", type=_share, default=observer.guess_rate, help="answered by a coin (default: %(default)s)"
    )
    parser.add_argument(
        "--colour-sensitivity",
        type=float,
        default=observer.colour_sensitivity,
        help="log odds for a unit of evidence (default: %(default)s)",
    )
    parser.add_argument(
        "--lapse-rate", type=_share, default=observer.lapse_rate, help="slips of the hand (default: %(default)s)"
    )
    parser.add_argument(
        "--power",
        nargs=2,
        metavar=("ARM", "ARM"),
        help="store nothing; say how often so many participants would find the difference between these two",
    )
    parser.add_argument("--studies", type=_count, default=500, metavar="N", help="for --power (default: %(default)s)")
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    options = parser.parse_args(arguments)
    observer = Observer(options.guess_rate, options.colour_sensitivity, options.lapse_rate)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        engine = open_existing(options.database)
        with read_session(engine) as session:
            study = find_study(session, options.study).name
        if options.power is None:
            simulate(engine, study, options.participants, observer, options.seed)
            console.print(
                f"{options.participants} simulated participants answered study {study!r}; no result counts them. To "
                f"see what they answered: python -m survey_app.studies show '{study}' --simulated"
            )
            return 0
        first, second = options.power
        result = power(engine, study, (first, second), options.participants, observer, options.seed, options.studies)
    except (StoreError, SurveyError) as error:
        print(error, file=sys.stderr)
        return 2
    share = wilson(result.found, result.studies)
    console.print(
        f"With {options.participants} participants, study {study!r} finds the difference between {first} "
        f"({100 * result.first_share:.1f} % picked as real) and {second} ({100 * result.second_share:.1f} %) in "
        f"{100 * (share.share or 0):.0f} % of {result.studies} simulated studies (95 % interval "
        f"{100 * (share.low or 0):.0f}–{100 * (share.high or 0):.0f} %): p < {SIGNIFICANCE}, two-sided, by shares with "
        "standard errors robust to clusters of answers by one participant. People may differ from the model."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
