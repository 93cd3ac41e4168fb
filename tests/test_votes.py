"""Participants and their votes: stored once, at once, in order, whatever a browser sends and whoever is killed."""

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import IntegrityError

from db.pictures import pixels, served
from db.schema import Image, Participant, Question, Sample, SentinelPicture, Vote
from db.store import open_database, read_session, write_session
from db.studies import close_study, create_study
from db.votes import (
    Progress,
    QuestionView,
    SurveyError,
    VoteResult,
    enrol,
    finish_instructions,
    mark_shown,
    open_study,
    own_score,
    progress,
    record_check,
    record_comment,
    record_vote,
    redraw,
    take_break,
    withdraw,
)
from tests.processes import StartPython, check_integrity, finish, hear_from, say_to
from tests.survey_data import add_experiment

SENT = {"response_time_ms": 512.5, "exposure_measured_ms": 1003.2, "input": "key", "scale": 8}


@pytest.fixture
def engine(engine: Engine) -> Engine:
    """The experiment with two studies: "pairs" and "singles" of 12 questions after 4 for practice."""
    small: Any = {"question_count": 12, "practice_count": 4, "sentinel_share": 0.2, "seed": 0}
    create_study(engine, "cats", name="pairs", completion_url="https://example.org/done", **small)
    create_study(engine, "cats", name="singles", protocol="single", exposures_ms=(None, 500), **small)
    return engine


def enrolled(engine: Engine, study: str = "pairs", **options: Any) -> str:
    """A participant who stands before the first question."""
    token = enrol(engine, study, consent_version="1", **options)
    finish_instructions(engine, token)
    record_check(engine, token, {"plate": "12"}, [])
    return token


def standing(engine: Engine, token: str) -> Progress:
    found = progress(engine, token)
    assert found is not None
    return found


def current(engine: Engine, token: str) -> QuestionView:
    question = standing(engine, token).next
    assert question is not None
    return question


def right_answer(engine: Engine, public_id: str) -> str:
    with read_session(engine) as session:
        question = session.scalars(select(Question).where(Question.public_id == public_id)).one()
        return question.real_side or ("real" if question.kind == "real" else "fake")


WRONG = {"left": "right", "right": "left", "real": "fake", "fake": "real"}


def answer(engine: Engine, token: str, *, right: bool = True) -> VoteResult:
    question = current(engine, token)
    truth = right_answer(engine, question.public_id)
    return record_vote(engine, token, question.public_id, truth if right else WRONG[truth], **SENT)


def answer_up_to(engine: Engine, token: str, stage: str, *, right: bool = True) -> Progress:
    while (now := standing(engine, token)).stage != stage:
        if now.stage == "break":
            take_break(engine, token)
        else:
            assert answer(engine, token, right=right).status == "stored"
    return now


def vote_count(engine: Engine) -> int:
    with read_session(engine) as session:
        return session.scalar(select(func.count(Vote.id))) or 0


# The way through


@pytest.mark.parametrize("study", ["pairs", "singles"])
def test_a_participant_goes_from_consent_to_completion_code(engine: Engine, study: str) -> None:
    token = enrol(engine, study, consent_version="1")
    assert standing(engine, token).stage == "instructions"
    record_check(engine, token, {}, [])  # not its turn yet
    take_break(engine, token)
    assert standing(engine, token).stage == "instructions"
    finish_instructions(engine, token)
    assert standing(engine, token).stage == "check"
    record_check(engine, token, {"plates": ["12", None], "night shift": False}, ["plates", "plates"])
    assert standing(engine, token).stage == "practice"

    seen: list[str] = []
    stages: list[str] = []
    while (now := standing(engine, token)).stage not in ("comment", "done"):
        stages.append(now.stage)
        if now.next is None:
            assert now.stage == "break"
            assert now.answered == 6
            take_break(engine, token)
            continue
        phase_answered, phase_total = (
            (now.practice_answered, now.practice_total) if now.stage == "practice" else (now.answered, now.total)
        )
        assert (now.next.number, now.next.of) == (phase_answered + 1, phase_total)
        assert now.next.phase == ("practice" if now.stage == "practice" else "main")
        mark_shown(engine, token, now.next.public_id)
        wrong = len(seen) % 3 == 0
        result = answer(engine, token, right=not wrong)
        assert result == VoteResult("stored", correct=not wrong if now.stage == "practice" else None)
        assert now.completion_code is None
        seen.append(now.next.public_id)
    assert stages == ["practice"] * 4 + ["questions"] * 6 + ["break"] + ["questions"] * 6
    assert len(set(seen)) == 16

    assert now.stage == "comment"
    record_comment(engine, token, " Pretty \0\ud800 cats. ")
    record_comment(engine, token, "Again")
    end = standing(engine, token)
    assert end.stage == "done"
    assert end.next is None
    assert end.completion_code is not None
    score = own_score(engine, token)
    assert score is not None
    assert (score.correct, score.answered, score.others_mean, score.others_count) == (8, 12, None, 0)
    with read_session(engine) as session:
        participant = session.scalars(select(Participant)).one()
        assert participant.comment == "Pretty ? cats."
        assert participant.check == {"answers": {"plates": ["12", None], "night shift": False}, "flags": ["plates"]}
        assert participant.finished_at is not None
        questions = session.scalars(select(Question).order_by(Question.position)).all()
        assert [question.public_id for question in questions] == seen
        assert all(question.first_shown_at for question in questions)
        vote = session.scalars(select(Vote).order_by(Vote.id)).first()
        assert vote is not None
        assert (vote.response_time_ms, vote.exposure_measured_ms, vote.input, vote.scale) == (512.5, 1003.2, "key", 8)


def test_studies_are_found_by_name_or_as_the_newest_open_one(engine: Engine) -> None:
    for name, expected in (("pairs", "pairs"), (None, "singles")):
        study = open_study(engine, name)
        assert study is not None
        assert study.name == expected
    assert open_study(engine, "unknown") is None
    close_study(engine, "singles")
    newest, closed = open_study(engine), open_study(engine, "singles")
    assert newest is not None
    assert closed is not None
    assert (newest.name, newest.completion_url) == ("pairs", "https://example.org/done")
    assert (closed.status, closed.exposures_ms) == ("closed", (None, 500))


def test_who_cannot_take_part_hears_why(engine: Engine) -> None:
    under_way = enrolled(engine)
    close_study(engine, "pairs")
    with pytest.raises(SurveyError, match="'pairs' is closed: it takes no more participants"):
        enrol(engine, "pairs", consent_version="1")
    with pytest.raises(SurveyError, match="There is no study 'nope'; there is "):
        enrol(engine, "nope", consent_version="1")
    with pytest.raises(SurveyError, match="in version 1, not 0"):
        enrol(engine, "singles", consent_version="0")
    assert answer_up_to(engine, under_way, "comment").answered == 12  # who has begun may finish


def test_everything_that_a_schedule_was_drawn_from_is_stored(engine: Engine) -> None:
    tokens = [enrol(engine, study, consent_version="1") for study in ("pairs", "singles") * 3]
    withdraw(engine, tokens[0])  # the others' tallies keep what was asked then
    with read_session(engine) as session:
        for participant in session.scalars(select(Participant)):
            stored = session.scalars(
                select(Question).where(Question.participant_id == participant.id).order_by(Question.position)
            ).all()
            slots = redraw(session, participant)
            assert [(slot.phase, slot.real_side, slot.exposure_ms) for slot in slots] == [
                (question.phase, question.real_side, question.exposure_ms) for question in stored
            ]
            images = sorted(session.scalars(select(Image.id)))
            assert [images[slot.image] for slot in slots] == [question.image_id for question in stored]


def test_simulated_and_real_participants_are_balanced_apart(engine: Engine) -> None:
    for simulated in (True, False, False):
        enrol(engine, "pairs", consent_version="1", simulated=simulated)
    with read_session(engine) as session:
        tallies = [row.tally["shown"] for row in session.scalars(select(Participant).order_by(Participant.id))]
    assert [int(np.sum(tally)) for tally in tallies] == [0, 0, 12]


def test_own_score_is_set_beside_the_others_of_ones_kind(engine: Engine) -> None:
    finished = [enrolled(engine) for _ in range(3)]
    for token, right in zip(finished, (True, True, False), strict=True):
        answer_up_to(engine, token, "comment", right=right)
    answer_up_to(engine, enrolled(engine, simulated=True), "comment", right=False)
    unfinished = enrolled(engine)
    answer_up_to(engine, unfinished, "questions", right=False)
    score = own_score(engine, finished[0])
    assert score is not None
    assert (score.correct, score.answered, score.others_mean, score.others_count) == (12, 12, 0.5, 2)
    assert own_score(engine, unfinished) is None
    assert own_score(engine, "unknown") is None


def test_who_comes_again_from_prolific_goes_on(engine: Engine) -> None:
    ids = {"PROLIFIC_PID": "5f1", "STUDY_ID": "s", "SESSION_ID": "a", "name": "Ann", "utm": "x"}
    first = enrolled(engine, prolific=ids)
    answer(engine, first)
    again = enrol(engine, "pairs", consent_version="1", prolific=ids)
    assert again != first
    assert progress(engine, first) is None
    assert standing(engine, again).practice_answered == 1
    other_study = enrol(engine, "singles", consent_version="1", prolific=ids)
    somebody_else = enrol(engine, "pairs", consent_version="1", prolific={"PROLIFIC_PID": "<script>\0"})
    assert standing(engine, other_study).practice_answered == standing(engine, somebody_else).practice_answered == 0
    with read_session(engine) as session:
        found = session.scalars(select(Participant.prolific_pid).order_by(Participant.id)).all()
    assert found == ["5f1", "5f1", None]


# Withdrawal, and what is not stored


@pytest.mark.parametrize("by", ["token", "code", "typed code"])
def test_withdrawal_deletes_every_answer(engine: Engine, by: str) -> None:
    stays, goes = enrolled(engine), enrolled(engine)
    answer(engine, stays)
    answer_up_to(engine, goes, "comment")
    record_comment(engine, goes, None)
    code = standing(engine, goes).completion_code
    assert code is not None
    typed = {"token": goes, "code": code, "typed code": f" {code.lower().replace('-', ' ').replace('0', 'o')}"}[by]
    assert withdraw(engine, typed)
    assert progress(engine, goes) is None
    assert record_vote(engine, goes, "x", "left", **SENT).status == "refused"
    assert not withdraw(engine, typed)
    assert vote_count(engine) == 1
    with read_session(engine) as session:
        assert session.scalar(select(func.count(Participant.id))) == 1
        assert session.scalar(select(func.count(Question.id))) == 16


@pytest.mark.parametrize("text", ["", "x", "-", "\0", "\ud800", "ABCD-EFGH-JKM", "ä" * 12, "' OR 1=1"])
def test_nobody_is_withdrawn_by_what_is_no_code(engine: Engine, text: str) -> None:
    token = enrolled(engine)
    assert not withdraw(engine, text)
    assert standing(engine, token).stage == "practice"


def test_tokens_and_codes_cannot_be_guessed_and_the_token_is_not_stored(tmp_path: Path) -> None:
    path = tmp_path / "votes.sqlite"
    engine = open_database(path)
    add_experiment(engine, images=10)
    create_study(engine, "cats", question_count=6, practice_count=2)
    tokens = [enrol(engine, "cats", consent_version="1") for _ in range(5)]
    with read_session(engine) as session:
        codes = session.scalars(select(Participant.completion_code)).all()
        assert len({*session.scalars(select(Participant.pseudonym)), *codes, *tokens}) == 15
    assert {len(token) for token in tokens} == {32}  # 192 random bits
    assert {len(code) for code in codes} == {12}  # 60 random bits
    engine.dispose()
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert codes[0].encode() in stored
    assert not any(token.encode() in stored for token in tokens)


# What the page gets


def chunks(png: bytes) -> list[tuple[bytes, int]]:
    """The names and lengths of a PNG file's chunks."""
    found, place = [], 8
    while place < len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        found.append((png[place + 4 : place + 8], length))
        place += length + 12
    return found


@pytest.mark.parametrize("study", ["pairs", "singles"])
def test_pictures_are_those_of_the_question_and_their_files_tell_nothing(engine: Engine, study: str) -> None:
    files, kinds = [], set()
    for number in range(3):
        token = enrolled(engine, study, seed=number)
        while (now := standing(engine, token)).stage != "comment":
            if now.next is None:
                take_break(engine, token)
                continue
            with read_session(engine) as session:
                question = session.scalars(select(Question).where(Question.public_id == now.next.public_id)).one()
                kinds.add(question.kind)
                truth = session.get_one(Image, question.image_id).truth_png
                fake = (
                    session.get_one(Sample, question.sample_id).png
                    if question.sample_id
                    else session.get_one(SentinelPicture, question.sentinel_picture_id).png
                    if question.sentinel_picture_id
                    else truth
                )
            expected = (
                [fake] if study == "singles" else [truth, fake] if question.real_side == "left" else [fake, truth]
            )
            assert len(now.next.pictures) == len(expected)
            for given_png, stored in zip(now.next.pictures, expected, strict=True):
                assert np.array_equal(pixels(given_png), pixels(stored))
            files += now.next.pictures
            answer(engine, token)
    assert kinds == ({"arm", "sentinel"} if study == "pairs" else {"arm", "sentinel", "real"})
    assert len({len(file) for file in files}) == 1  # no classifier by length can beat chance
    assert len({str(chunks(file)) for file in files}) == 1
    assert [name for name, _ in chunks(files[0])] == [b"IHDR", b"IDAT", b"IEND"]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 40), height=st.integers(1, 40), flat=st.booleans())
def test_served_pictures_of_a_size_have_one_length(seed: int, width: int, height: int, flat: bool) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    grey = np.full_like(noise, 128)
    lengths = set()
    for mode, rgb in (("RGB", grey if flat else noise), ("RGBA", noise), ("L", grey), ("P", noise)):
        buffer = io.BytesIO()
        Picture.fromarray(rgb).convert(mode).save(buffer, format="PNG", dpi=(72, 72))
        lengths.add(len(served(buffer.getvalue())))
    assert len(lengths) == 1


def test_what_the_page_gets_of_a_question_says_nothing_else() -> None:
    """A new field has to be judged: does it tell which picture is real?"""
    assert set(QuestionView.__dataclass_fields__) == {
        "public_id",
        "phase",
        "number",
        "of",
        "exposure_ms",
        "pictures",
        "resampling",
    }


# Votes


def test_a_question_has_one_vote_and_the_first_stands(engine: Engine) -> None:
    token = enrolled(engine)
    for practice in (True, False):
        question = current(engine, token)
        truth = right_answer(engine, question.public_id)
        first = record_vote(engine, token, question.public_id, truth, **SENT)
        again = record_vote(engine, token, question.public_id, WRONG[truth], **SENT)
        assert (first.status, again.status) == ("stored", "duplicate")
        assert first.correct is again.correct is (True if practice else None)
        answer_up_to(engine, token, "questions")
    with read_session(engine) as session:
        assert all(session.scalars(select(Vote.correct)))
        question_id = session.scalars(select(Vote.question_id)).first()
        assert question_id is not None
    with pytest.raises(IntegrityError), write_session(engine) as session:  # whoever forgets to look first
        session.add(
            Vote(
                question_id=question_id,
                answered_at=func.now(),
                answer="left",
                correct=True,
                response_time_ms=1.0,
                exposure_measured_ms=None,
                input="key",
                scale=1,
            )
        )


def test_only_the_current_question_of_ones_own_is_answered(engine: Engine) -> None:
    token, other = enrolled(engine), enrolled(engine)
    with read_session(engine) as session:
        mine, *later = session.scalars(
            select(Question.public_id)
            .join(Participant, Participant.id == Question.participant_id)
            .order_by(Participant.id, Question.position)
        ).all()
    assert mine == current(engine, token).public_id
    for public_id in later:  # one's own that come later, and all of the other's
        assert record_vote(engine, token, public_id, "left", **SENT).status == "refused"
    answer_up_to(engine, token, "break")
    after_break = later[9]
    assert record_vote(engine, token, after_break, "left", **SENT).status == "refused"
    take_break(engine, token)
    assert record_vote(engine, token, after_break, "left", **SENT).status == "stored"
    assert standing(engine, other).practice_answered == 0

    fresh = enrol(engine, "pairs", consent_version="1")
    with read_session(engine) as session:
        first = session.scalars(select(Question).order_by(Question.participant_id.desc(), Question.position)).first()
        assert first is not None
    assert record_vote(engine, fresh, first.public_id, "left", **SENT).status == "refused"  # instructions come first


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
LIKELY = st.sampled_from(["left", "right", "real", "fake", "key", "click", "tap", 0, 1, 8, 64, 65, 1e9, -1, 1.5, True])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    study=st.sampled_from(["pairs", "singles"]),
    own_id=st.booleans(),
    message=st.fixed_dictionaries(
        dict.fromkeys(("public_id", "answer", "response_time_ms", "exposure_measured_ms", "input"), LIKELY | JSON)
        | {"scale": st.just(8) | LIKELY | JSON}
    ),
    valid=st.sets(st.sampled_from(["answer", "response_time_ms", "exposure_measured_ms", "input", "scale"])),
)
def test_forged_messages_are_refused_without_an_error(
    engine: Engine, study: str, own_id: bool, message: dict[str, Any], valid: set[str]
) -> None:
    token = enrolled(engine, study)
    good: dict[str, Any] = {**SENT, "answer": "left" if study == "pairs" else "real"}
    if own_id:
        message["public_id"] = current(engine, token).public_id
    message |= {name: good[name] for name in valid}

    def duration(value: object) -> bool:
        return type(value) in (int, float) and 0 <= value <= 86_400_000  # type: ignore[operator]

    fits = (
        own_id
        and message["answer"] in (("left", "right") if study == "pairs" else ("real", "fake"))
        and duration(message["response_time_ms"])
        and (message["exposure_measured_ms"] is None or duration(message["exposure_measured_ms"]))
        and message["input"] in ("key", "click", "tap")
        and type(message["scale"]) is int
        and 1 <= message["scale"] <= 64
    )
    result = record_vote(engine, token, **message)
    assert result.status == ("stored" if fits else "refused"), result
    assert (result.reason is None) == fits
    assert standing(engine, token).practice_answered == int(fits)
    withdraw(engine, token)


@given(token=st.text(max_size=50))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_unknown_tokens_come_to_nothing(engine: Engine, token: str) -> None:
    assert progress(engine, token) is None
    assert own_score(engine, token) is None
    assert not withdraw(engine, token)
    for change in (finish_instructions, take_break):
        change(engine, token)
    record_check(engine, token, {}, [])
    record_comment(engine, token, "x")
    mark_shown(engine, token, token)
    assert record_vote(engine, token, "x", "left", **SENT).status == "refused"


@pytest.mark.parametrize("answers", [{"x": "y" * 5000}, {"x": float("nan")}, {"x": object()}, {"x": "\ud800"}])
def test_a_check_that_cannot_be_stored_is_refused(engine: Engine, answers: dict[str, object]) -> None:
    token = enrol(engine, "pairs", consent_version="1")
    finish_instructions(engine, token)
    with pytest.raises((ValueError, TypeError)):
        record_check(engine, token, answers, [])
    assert standing(engine, token).stage == "check"


# Several at once, and the end of a process

VOTE_WHEN_TOLD = """
import json, sys
from db.store import open_database
from db.votes import record_vote
engine = open_database(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    token, public_id, answer = json.loads(line)
    result = record_vote(engine, token, public_id, answer, response_time_ms=1, exposure_measured_ms=None, input="tap",
                         scale=1)
    print(result.status, flush=True)
"""


def test_two_processes_racing_for_a_question_store_one_vote(database: str, start_python: StartPython) -> None:
    engine = open_database(database)
    add_experiment(engine, images=30)
    create_study(engine, "cats", question_count=13, practice_count=0)
    token = enrolled(engine, "cats")
    tabs = [start_python(VOTE_WHEN_TOLD, database) for _ in range(2)]
    for tab in tabs:
        assert hear_from(tab) == "ready"
    winners = []
    for _ in range(12):
        take_break(engine, token)
        question = current(engine, token)
        for tab, side in zip(tabs, ("left", "right"), strict=True):
            say_to(tab, json.dumps([token, question.public_id, side]))
        statuses = [hear_from(tab) for tab in tabs]
        assert sorted(statuses) == ["duplicate", "stored"]
        winners.append(("left", "right")[statuses.index("stored")])
    with read_session(engine) as session:
        stored = session.scalars(select(Vote.answer).join(Question).order_by(Question.position)).all()
    assert stored == winners
    assert standing(engine, token).answered == 12
    for tab in tabs:
        assert tab.stdin is not None
        tab.stdin.close()
        tab.wait(timeout=30)
    engine.dispose()


def test_threads_enrolling_and_voting_at_once_lose_nothing(database: str) -> None:
    engine = open_database(database)
    add_experiment(engine, images=16)
    create_study(engine, "cats", question_count=9, practice_count=1)
    failed: list[BaseException] = []

    def take_part() -> None:
        try:
            answer_up_to(engine, enrolled(engine, "cats"), "comment")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=take_part) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert vote_count(engine) == 80
    with read_session(engine) as session:
        tallies = [np.sum(row.tally["shown"]) for row in session.scalars(select(Participant).order_by(Participant.id))]
    assert tallies == [9 * number for number in range(8)]  # nobody was drawn from a stale tally
    engine.dispose()


VOTE_ON_AND_ON = """
import sys
from db.store import open_database
from db.votes import enrol, finish_instructions, progress, record_check, record_vote, take_break
engine = open_database(sys.argv[1])
token = sys.argv[2] if len(sys.argv) > 2 else enrol(engine, "cats", consent_version="1")
print(token, flush=True)
finish_instructions(engine, token)
record_check(engine, token, {}, [])
while (now := progress(engine, token)).stage != "comment":
    if now.next is None:
        take_break(engine, token)
        continue
    result = record_vote(engine, token, now.next.public_id, "left", response_time_ms=1, exposure_measured_ms=None,
                         input="key", scale=1)
    print(now.next.public_id, result.status, flush=True)
print("end", flush=True)
"""


def test_killed_again_and_again_a_participant_ends_with_every_vote_once(
    database: str, start_python: StartPython
) -> None:
    engine = open_database(database)
    add_experiment(engine, images=60)
    create_study(engine, "cats")
    acknowledged: list[str] = []
    token: list[str] = []
    for votes_before_the_kill in (1, 12, 7, None):
        server = start_python(VOTE_ON_AND_ON, database, *token)
        token = [hear_from(server)]
        lines: list[str] = []
        while votes_before_the_kill is None or len(lines) < votes_before_the_kill:
            lines.append(hear_from(server))
            if lines[-1] == "end":
                break
        if votes_before_the_kill is None:
            finish(server)
            lines.pop()
        else:
            server.kill()
            rest, _ = server.communicate()
            lines += [line.strip() for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        public_ids, statuses = zip(*(line.split() for line in lines), strict=True)
        assert set(statuses) == {"stored"}
        acknowledged += public_ids

    check_integrity(engine)
    with read_session(engine) as session:
        stored = session.scalars(select(Question.public_id).join(Vote).order_by(Vote.id)).all()
        asked = session.scalars(select(Question.public_id).order_by(Question.position)).all()
    engine.dispose()
    assert stored == asked  # every question once, in its order: nothing skipped, nothing doubled
    assert len(stored) == 50
    assert len(set(acknowledged)) == len(acknowledged)
    assert set(acknowledged) <= set(stored)
    assert len(acknowledged) >= 47  # a kill can only hide an acknowledgement, never undo one
