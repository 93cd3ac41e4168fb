"""Draws a participant's schedule: which contender, image and side each question shows, and in which order.

Pure: the same plan, tally and seed give the same schedule. It balances within the participant (each contender as often
as the others, as often left as right) and across participants (what was asked least comes first, by a tally of what
earlier participants answered or may still answer). Nobody sees an image twice, practice included.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from db.errors import UserError
from db.schema import Phase, Protocol, Side


@dataclass(frozen=True)
class Plan:
    """What a schedule is made of. arms: contenders; images: how many there are to show.

    Things to ask about are counted through: the contenders are 0 to arms - 1, the sentinel is `arms`, and in protocol
    single the photograph itself is `arms + 1`.
    """

    protocol: Protocol
    question_count: int
    practice_count: int
    sentinel_count: int
    arms: int
    images: int

    @property
    def sentinel(self) -> int:
        return self.arms

    @property
    def real(self) -> int:
        return self.arms + 1

    @property
    def things(self) -> int:
        return self.arms + (1 if self.protocol == "pair" else 2)

    @property
    def real_count(self) -> int:
        """How many main questions show a photograph itself: half of them where pictures come one by one."""
        return 0 if self.protocol == "pair" else self.question_count // 2

    @property
    def contender_count(self) -> int:
        """How many main questions show a contender's picture."""
        return self.question_count - self.real_count - self.sentinel_count

    @property
    def questions_per_arm(self) -> float:
        """How many main questions about each contender a participant answers, in the mean over participants."""
        return self.contender_count / self.arms

    def check(self) -> None:
        """Raise UserError if no schedule can follow this plan."""
        if self.arms < 1:
            raise UserError("There is no contender with pictures; finish at least one trial first.")
        if self.contender_count < 1:
            raise UserError(
                f"Of {self.question_count} questions {self.sentinel_count} are sentinels and {self.real_count} show "
                "the photograph itself: none is left for the contenders; ask more questions."
            )
        if 3 * self.sentinel_count > self.question_count:
            raise UserError(
                f"{self.sentinel_count} of {self.question_count} questions cannot be sentinels, as they never stand "
                "side by side; at most a third can."
            )
        if self.question_count + self.practice_count > self.images:
            raise UserError(
                f"{self.question_count} questions and {self.practice_count} for practice need "
                f"{self.question_count + self.practice_count} images, as nobody sees one twice, but all contenders "
                f"together have pictures of {self.images} only; ask less, or sweep again with more samples.images."
            )


@dataclass(frozen=True)
class Tally:
    """How often earlier participants were asked what in main questions, see `db.surveys.enrolment`: [thing][image]."""

    shown: list[list[int]]
    left: list[list[int]]  # with the photograph on the left

    @classmethod
    def empty(cls, plan: Plan) -> "Tally":
        def zeros() -> list[list[int]]:
            return [[0] * plan.images for _ in range(plan.things)]

        return cls(zeros(), zeros())

    def add(self, slot: "Slot", times: int = 1) -> None:
        """Count a main question in."""
        self.shown[slot.thing][slot.image] += times
        self.left[slot.thing][slot.image] += times * (slot.real_side == "left")


@dataclass(frozen=True)
class Slot:
    """One question: `thing` as counted in Plan, `image` from 0. real_side is None in protocol single."""

    phase: Phase
    thing: int
    image: int
    real_side: Side | None


def draw_schedule(plan: Plan, tally: Tally, seed: int) -> list[Slot]:
    """Draw a schedule, practice first. Raises UserError if the plan cannot be followed."""
    plan.check()
    chance = random.Random(seed)
    things = _choose_main_things(plan, tally, chance)
    images = _choose_images(things, tally, chance)
    main = _choose_sides(plan, tally, chance, list(zip(things, images, strict=True)), "main")
    left_over = sorted(set(range(plan.images)) - set(images))
    practice_images = chance.sample(left_over, plan.practice_count)
    practice_things = _choose_practice_things(plan, chance)
    practice = _choose_sides(
        plan, Tally.empty(plan), chance, list(zip(practice_things, practice_images, strict=True)), "practice"
    )
    chance.shuffle(practice)
    return practice + _order_slots(plan, main, chance)


def _choose_main_things(plan: Plan, tally: Tally, chance: random.Random) -> list[int]:
    """What the main questions ask about, grouped: contenders equally often, the odd ones to those asked least."""
    by_need = sorted(range(plan.arms), key=lambda arm: (sum(tally.shown[arm]), chance.random()))
    arms = sorted(by_need[turn % plan.arms] for turn in range(plan.contender_count))
    return arms + [plan.sentinel] * plan.sentinel_count + [plan.real] * plan.real_count


def _choose_practice_things(plan: Plan, chance: random.Random) -> list[int]:
    reals = 0 if plan.protocol == "pair" else plan.practice_count // 2
    arms = chance.sample(range(plan.arms), plan.arms)
    return [arms[turn % plan.arms] for turn in range(plan.practice_count - reals)] + [plan.real] * reals


def _choose_images(things: Sequence[int], tally: Tally, chance: random.Random) -> list[int]:
    """An image for each, none twice: the choice after which the tally's squares sum to the least, ties by chance.

    One more of what was asked n times adds 2 n + 1 to the sum; what chance adds to all of them together stays below 1.
    """
    cost = 2.0 * np.array([tally.shown[thing] for thing in things], dtype=np.float64)
    cost += [[chance.random() / (len(things) + 1) for _ in row] for row in cost]
    _, images = linear_sum_assignment(cost)
    return [int(image) for image in images]


def _choose_sides(
    plan: Plan, tally: Tally, chance: random.Random, pictures: Sequence[tuple[int, int]], phase: Phase
) -> list[Slot]:
    """Give each (thing, image) its side, grouped by thing."""
    by_thing: dict[int, list[int]] = defaultdict(list)
    for thing, image in pictures:
        by_thing[thing].append(image)
    lefts = _count_lefts(by_thing, tally, chance)
    slots = []
    for thing, images in by_thing.items():
        # First those that showed the photograph on the right more often than on the left.
        lean = {image: 2 * tally.left[thing][image] - tally.shown[thing][image] for image in images}
        by_lean = sorted(images, key=lambda image: (lean[image], chance.random()))
        left, right = by_lean[: lefts[thing]], by_lean[lefts[thing] :]
        chance.shuffle(left)
        chance.shuffle(right)
        for turn, image in enumerate(left + right):
            side: Side | None = None if plan.protocol == "single" else "left" if turn < len(left) else "right"
            slots.append(Slot(phase, thing, image, side))
    return slots


def _count_lefts(by_thing: dict[int, list[int]], tally: Tally, chance: random.Random) -> dict[int, int]:
    """How many of each thing's questions have the photograph on the left: half; of the odd ones every second thing's,
    those first that lean to the right most."""
    lean = {thing: 2 * sum(tally.left[thing]) - sum(tally.shown[thing]) for thing in by_thing}
    odd = [thing for thing, images in by_thing.items() if len(images) % 2]
    odd.sort(key=lambda thing: (lean[thing], chance.random()))
    more = (len(odd) + (sum(lean.values()) < 0 or (sum(lean.values()) == 0 and chance.random() < 0.5))) // 2
    return {thing: len(images) // 2 + (thing in odd[:more]) for thing, images in by_thing.items()}


def _order_slots(plan: Plan, slots: Sequence[Slot], chance: random.Random) -> list[Slot]:
    """Shuffle, with the sentinels spread: one in each equal stretch, never first, never side by side."""
    sentinels = [slot for slot in slots if slot.thing == plan.sentinel]
    others = [slot for slot in slots if slot.thing != plan.sentinel]
    chance.shuffle(sentinels)
    chance.shuffle(others)
    places: list[int] = []
    for stretch in range(len(sentinels)):
        first = max(stretch * len(slots) // len(sentinels), places[-1] + 2 if places else 1)
        last = (stretch + 1) * len(slots) // len(sentinels) - 1
        places.append(chance.randint(first, last))
    return [sentinels.pop() if place in places else others.pop() for place in range(len(slots))]
