"""Schedules: balanced within and across participants, nothing twice, and the same again from what is stored."""

import json
from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.errors import UserError
from db.surveys.schedule import Plan, Slot, Tally, draw_schedule

USUAL = Plan("pair", 40, 10, 4, arms=3, images=60)


@st.composite
def plans(draw_from: st.DrawFn) -> Plan:
    questions = draw_from(st.integers(3, 24))
    practice = draw_from(st.integers(0, 6))
    return Plan(
        protocol=draw_from(st.sampled_from(["pair", "single"])),
        question_count=questions,
        practice_count=practice,
        sentinel_count=draw_from(st.integers(0, questions // 3)),
        arms=draw_from(st.integers(1, 4)),
        images=questions + practice + draw_from(st.integers(0, 20)),
    )


def draw_schedules(plan: Plan, participants: int, seed: int) -> tuple[list[list[Slot]], Tally]:
    """The schedules of participants who come one after the other, and the tally after the last."""
    tally, schedules = Tally.empty(plan), []
    for number in range(participants):
        schedules.append(draw_schedule(plan, tally, seed + number))
        for slot in schedules[-1]:
            if slot.phase == "main":
                tally.add(slot)
    return schedules, tally


@settings(max_examples=100, deadline=None)
@given(plan=plans(), seed=st.integers(0, 2**63 - 1), before=st.integers(0, 3))
def test_each_participant_is_asked_in_balance(plan: Plan, seed: int, before: int) -> None:
    slots = draw_schedules(plan, before + 1, seed)[0][-1]
    practice, main = slots[: plan.practice_count], slots[plan.practice_count :]
    assert len(slots) == plan.practice_count + plan.question_count
    assert {slot.phase for slot in practice} <= {"practice"}
    assert {slot.phase for slot in main} == {"main"}
    assert len({slot.image for slot in slots}) == len(slots)
    assert all(0 <= slot.image < plan.images for slot in slots)

    things = Counter(slot.thing for slot in main)
    assert things[plan.sentinel] == plan.sentinel_count
    assert things[plan.real] == (plan.question_count // 2 if plan.protocol == "single" else 0)
    arms = [things[arm] for arm in range(plan.arms)]
    assert sum(arms) == plan.contender_count == pytest.approx(plan.questions_per_arm * plan.arms)
    assert max(arms) - min(arms) <= 1
    assert plan.sentinel not in {slot.thing for slot in practice}

    for phase in (practice, main):
        for thing in range(plan.things):
            about = [slot for slot in phase if slot.thing == thing]
            sides = Counter(slot.real_side for slot in about)
            if plan.protocol == "single":
                assert set(sides) <= {None}
            else:
                assert abs(sides["left"] - sides["right"]) <= 1
        if plan.protocol == "pair":
            sides = Counter(slot.real_side for slot in phase)
            assert abs(sides["left"] - sides["right"]) <= 1

    places = [place for place, slot in enumerate(main) if slot.thing == plan.sentinel]
    assert 0 not in places
    assert all(later - earlier >= 2 for earlier, later in pairwise(places))
    stretch = len(main) / max(len(places), 1)
    assert all(number * stretch - 1 < place < (number + 1) * stretch + 1 for number, place in enumerate(places))


@settings(max_examples=50, deadline=None)
@given(plan=plans(), seed=st.integers(0, 2**63 - 1))
def test_the_stored_tally_and_seed_draw_the_same_again(plan: Plan, seed: int) -> None:
    _, tally = draw_schedules(plan, 2, seed)
    stored = json.loads(json.dumps(asdict(tally)))
    assert draw_schedule(plan, Tally(**stored), seed) == draw_schedule(plan, tally, seed)


def test_another_seed_draws_another_schedule() -> None:
    assert draw_schedule(USUAL, Tally.empty(USUAL), 1) != draw_schedule(USUAL, Tally.empty(USUAL), 2)


@pytest.mark.parametrize(
    "plan",
    [
        USUAL,
        replace(USUAL, images=50),  # everybody sees every image
        replace(USUAL, images=300, arms=5),
        replace(USUAL, protocol="single"),
    ],
    ids=["usual", "every image", "many images", "single"],
)
def test_participants_together_are_asked_in_balance(plan: Plan) -> None:
    participants = 45
    schedules, tally = draw_schedules(plan, participants, 0)
    shown, left = (np.array(values) for values in asdict(tally).values())
    assert shown.sum() == participants * plan.question_count
    for times in shown:  # how often each image was asked about, thing by thing
        assert times.max() - times.min() <= 2
    arms = shown[: plan.arms].sum(axis=1)
    assert arms.max() - arms.min() <= 1
    if plan.protocol == "pair":
        lean = 2 * left - shown  # of an image about a thing, and of a thing: lefts less rights
        assert np.abs(lean).max() <= 2
        assert np.abs(lean.sum(axis=1)).max() <= 2
    # An answer is no hint for the next one: the photograph is as often on the same side again as it changes.
    sides = [[slot.real_side for slot in slots if slot.phase == "main"] for slots in schedules]
    changes = [a != b for row in sides for a, b in pairwise(row)]
    assert plan.protocol == "single" or 0.45 < np.mean(changes) < 0.58


def test_what_was_asked_least_comes_first() -> None:
    plan = Plan("pair", 4, 0, 0, arms=2, images=8)
    tally = Tally.empty(plan)
    for arm in range(2):
        for image in range(8):
            if image not in (2 * arm, 2 * arm + 1):
                tally.add(Slot("main", arm, image, "left"))
    slots = draw_schedule(plan, tally, 0)
    assert sorted((slot.thing, slot.image) for slot in slots) == [(0, 0), (0, 1), (1, 2), (1, 3)]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (replace(USUAL, images=49), "40 questions and 10 for practice need 50 images, .* have pictures of 49 only"),
        (replace(USUAL, arms=0), "no contender with pictures"),
        (replace(USUAL, sentinel_count=14), "at most a third"),
        (replace(USUAL, question_count=1, sentinel_count=1), "none is left for the contenders"),
        (replace(USUAL, protocol="single", question_count=2, sentinel_count=1), "none is left for the contenders"),
    ],
)
def test_impossible_plans_are_refused(plan: Plan, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_schedule(plan, Tally.empty(plan), 0)
