"""Who takes part: consent, the link's ids, schedules, withdrawal, and what is not stored."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, func, select

from db.schema import Participant, Question, Study, Vote
from db.store import open_database, read_session, write_session
from db.surveys.enrolment import enrol, read_ids, withdraw
from db.surveys.schedule import Tally, draw_schedule
from db.surveys.study import SurveyError, close_study, create_study, plan_of
from db.surveys.votes import progress, record_vote
from tests.survey_data import add_experiment, turnout
from tests.surveys.test_votes import SENT, answer, answer_up_to, enrol_to_practice, standing, vote_count
from tests.surveys.test_votes import engine as engine

PID, ELSE = "5f1e0c1b2a3d4e5f60718293", "5f1e0c1b2a3d4e5f60718294"


def test_who_cannot_take_part_hears_why(engine: Engine) -> None:
    close_study(engine, "pairs")
    with pytest.raises(SurveyError, match="'pairs' is closed: it takes no more participants"):
        enrol(engine, "pairs")
    with pytest.raises(SurveyError, match="There is no study 'nope'; there is "):
        enrol(engine, "nope")


def test_everything_that_a_schedule_was_drawn_from_is_stored(engine: Engine) -> None:
    tokens = [enrol(engine, study) for study in ("pairs", "singles") * 3]
    withdraw(engine, tokens[0])  # the others' tallies keep what was asked then
    with read_session(engine) as session:
        for participant in session.scalars(select(Participant)):
            stored = session.scalars(
                select(Question).where(Question.participant_id == participant.id).order_by(Question.position)
            ).all()
            plan, _, images = plan_of(session, session.get_one(Study, participant.study_id))
            slots = draw_schedule(plan, Tally(**participant.tally), participant.seed)
            assert [(slot.phase, slot.real_side) for slot in slots] == [
                (question.phase, question.real_side) for question in stored
            ]
            assert [images[slot.image] for slot in slots] == [question.image_id for question in stored]


def test_simulated_and_real_participants_are_balanced_apart(engine: Engine) -> None:
    for simulated in (True, False, False):
        enrol(engine, "pairs", simulated=simulated)
    with read_session(engine) as session:
        tallies = [row.tally["shown"] for row in session.scalars(select(Participant).order_by(Participant.id))]
    assert [int(np.sum(tally)) for tally in tallies] == [0, 0, 12]


def let_time_pass(engine: Engine, hours: float) -> None:
    """Whatever happened so far happened so many hours earlier."""
    with write_session(engine) as session:
        for participant in session.scalars(select(Participant)):
            participant.consented_at -= timedelta(hours=hours)
        for vote in session.scalars(select(Vote)):
            vote.answered_at -= timedelta(hours=hours)


def test_schedules_are_balanced_against_what_was_asked_not_what_was_scheduled(engine: Engine) -> None:
    """Answers count for ever, the 12 questions of whoever is under way until an hour after their last answer."""

    def count_balanced_against() -> int:
        """What counted for a newcomer, who withdraws at once."""
        token = enrol(engine, "pairs")
        with read_session(engine) as session:
            tally = session.scalars(select(Participant.tally).order_by(Participant.id.desc())).first()
        withdraw(engine, token)
        assert tally is not None
        assert (np.array(tally["left"]) <= tally["shown"]).all()
        return int(np.sum(tally["shown"]))

    finishes, leaves, stays = (enrol_to_practice(engine) for _ in range(3))
    assert count_balanced_against() == 36  # many who come at once are not asked the same
    answer_up_to(engine, finishes, "done")
    answer_up_to(engine, leaves, "questions")
    for _ in range(2):
        answer(engine, leaves)
    assert count_balanced_against() == 36
    let_time_pass(engine, 0.9)
    answer(engine, stays)  # for practice
    let_time_pass(engine, 0.9)
    assert count_balanced_against() == 12 + 2 + 12
    let_time_pass(engine, 0.9)
    assert count_balanced_against() == 12 + 2
    answer(engine, leaves)  # and came back
    assert count_balanced_against() == 12 + 12


def test_who_comes_again_from_prolific_goes_on(engine: Engine) -> None:
    link = {"PROLIFIC_PID": PID, "STUDY_ID": "s1", "SESSION_ID": "a1", "name": "Ann", "utm": "x"}
    first = enrol_to_practice(engine, link=link)
    answer(engine, first)
    again = enrol(engine, "pairs", link=link)
    assert again != first
    assert progress(engine, first) is None
    assert standing(engine, again).practice_answered == 1
    other_study = enrol(engine, "singles", link=link)
    somebody_else = enrol(engine, "pairs", link={"PROLIFIC_PID": "<script>\0"})
    assert standing(engine, other_study).practice_answered == standing(engine, somebody_else).practice_answered == 0
    with read_session(engine) as session:
        found = session.scalars(select(Participant.external_id).order_by(Participant.id)).all()
    assert found == [PID, PID, None]


@pytest.mark.parametrize("session", [{"SESSION_ID": "b2"}, {}], ids=["another session", "no session"])
@pytest.mark.parametrize("first_session", [{"SESSION_ID": "a1"}, {}])
@pytest.mark.parametrize("stage", ["practice", "done"])
def test_whoever_knows_an_id_takes_nothing_over(
    engine: Engine, session: dict[str, str], first_session: dict[str, str], stage: str
) -> None:
    token = enrol_to_practice(engine, link={"PROLIFIC_PID": PID, **first_session})
    before = answer_up_to(engine, token, stage)
    with pytest.raises(SurveyError, match="Somebody takes part with the id of your link already"):
        enrol(engine, "pairs", link={"PROLIFIC_PID": PID, **session})
    assert replace(standing(engine, token), study=before.study) == before
    assert turnout(engine, "pairs").participants == 1


def test_a_participation_that_is_finished_or_closed_is_never_given_out_again(engine: Engine) -> None:
    link = {"PROLIFIC_PID": PID, "SESSION_ID": "a1"}
    token = enrol_to_practice(engine, link=link)
    answer_up_to(engine, token, "done")
    with pytest.raises(SurveyError, match="Somebody takes part"):
        enrol(engine, "pairs", link=link)
    under_way = enrol_to_practice(engine, "singles", link=link)
    close_study(engine, "singles")
    with pytest.raises(SurveyError, match="is closed"):
        enrol(engine, "singles", link=link)
    assert (standing(engine, token).stage, standing(engine, under_way).stage) == ("done", "closed")


NO_IDS = (
    *("", "undefined", "null", "None", "NaN", "test", "TEST123", "test_1", "undefined1", "preview-2", "sample_3"),
    *("{{%PROLIFIC_PID%}}", "%7B%7BPROLIFIC_PID%7D%7D", "${e://Field/PROLIFIC_PID}", "[PROLIFIC_PID]", "PROLIFIC_PID"),
    *("0", "000", "0" * 24, "f" * 24, "-1", "1" * 101, PID + "\n", "your id", "a b1"),
)
IDS = {"PROLIFIC_PID": PID, "participant": "483920", "id": "17", "workerId": "A2QF8XYZ01", "survey_code": "98765"}


@pytest.mark.parametrize("parameter", IDS)
def test_ids_are_read_from_the_studys_parameter_and_what_is_none_is_not(parameter: str) -> None:
    link = {"PROLIFIC_PID": ELSE, parameter: IDS[parameter], "SESSION_ID": "a1", "name": "Ann"}
    assert read_ids(link, parameter) == {
        "external_id": IDS[parameter],
        "external_session_id": "a1",
        "external_study_id": None,
    }
    for text in NO_IDS:
        assert set(read_ids({parameter: text, "SESSION_ID": "undefined"}, parameter).values()) == {None}, text


def test_what_is_no_id_identifies_nobody(engine: Engine) -> None:
    create_study(engine, "cats", name="ids", question_count=6, practice_count=2, id_parameter="workerId")
    first, second = (
        enrol_to_practice(engine, "ids", link={"workerId": "undefined", "PROLIFIC_PID": PID}) for _ in range(2)
    )
    answer(engine, first)
    assert standing(engine, first).practice_answered == 1
    assert standing(engine, second).practice_answered == 0
    enrol_to_practice(engine, "ids", link={"workerId": IDS["workerId"]})
    who_came = turnout(engine, "ids")
    assert (who_came.participants, who_came.without_id) == (3, 2)


# Withdrawal, and what is not stored


@pytest.mark.parametrize("by", ["token", "code", "typed code"])
def test_withdrawal_deletes_every_answer(engine: Engine, by: str) -> None:
    stays, goes = enrol_to_practice(engine), enrol_to_practice(engine)
    answer(engine, stays)
    answer_up_to(engine, goes, "done")
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


def test_nobody_is_withdrawn_by_what_is_no_code(engine: Engine) -> None:
    token = enrol_to_practice(engine)
    for text in ("", "x", "-", "\0", "\ud800", "ABCD-EFGH-JKM", "ä" * 12, "' OR 1=1"):
        assert not withdraw(engine, text)
    assert standing(engine, token).stage == "practice"


def test_tokens_and_codes_cannot_be_guessed_and_the_token_is_not_stored(tmp_path: Path) -> None:
    path = tmp_path / "votes.sqlite"
    engine = open_database(path)
    add_experiment(engine, images=10)
    create_study(engine, "cats", question_count=6, practice_count=2)
    tokens = [enrol(engine, "cats") for _ in range(5)]
    with read_session(engine) as session:
        codes = session.scalars(select(Participant.completion_code)).all()
        assert len({*session.scalars(select(Participant.pseudonym)), *codes, *tokens}) == 15
    assert {len(token) for token in tokens} == {32}  # 192 random bits
    assert {len(code) for code in codes} == {12}  # 60 random bits
    engine.dispose()
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert codes[0].encode() in stored
    assert not any(token.encode() in stored for token in tokens)
