"""Participants who vote at once, a study that closes meanwhile, and processes that are killed."""

import json
import threading
import time

import numpy as np
import pytest
from sqlalchemy import func, select

from db.schema import Participant, Question, Study, Vote
from db.store import open_database, read_session, write_session
from db.surveys.study import close_study, create_study
from db.surveys.votes import record_vote
from tests.processes import StartPython, check_integrity, finish, hear_from, say_to
from tests.survey_data import add_experiment, turnout
from tests.surveys.test_votes import SENT, answer_up_to, current, enrol_to_practice, standing, vote_count

pytestmark = pytest.mark.long

VOTE_AND_SAY_WHEN = """
import sys
from db.store import open_database
from db.surveys.votes import progress, record_vote
engine = open_database(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    token = line.strip()
    while True:
        now = progress(engine, token)
        if now.next is None:
            break
        result = record_vote(engine, token, now.next.public_id, "left", response_time_ms=1, input="tap", scale=1)
        if result.status == "refused":
            break
    print(now.stage, flush=True)
"""


def test_no_vote_slips_in_while_a_study_closes(database: str, start_python: StartPython) -> None:
    """What is answered after the closing has committed is not stored, whoever was faster at reading the status."""
    engine = open_database(database)
    add_experiment(engine, images=60)
    voters = [start_python(VOTE_AND_SAY_WHEN, database) for _ in range(3)]
    for voter in voters:
        assert hear_from(voter) == "ready"
    for turn in range(4):
        name = f"closing {turn}"
        create_study(engine, "cats", name=name, question_count=50, practice_count=0)
        for voter, token in zip(voters, [enrol_to_practice(engine, name) for _ in voters], strict=True):
            say_to(voter, token)
        while True:  # they are answering
            with read_session(engine) as session:
                count = session.scalar(
                    select(func.count(Vote.id))
                    .join(Question)
                    .join(Study, Study.id == Question.study_id)
                    .where(Study.name == name)
                )
            if count:
                break
            time.sleep(0.01)
        close_study(engine, name)
        counted = turnout(engine, name).votes
        for voter in voters:
            hear_from(voter)
        with read_session(engine) as session:
            stored = session.scalars(
                select(Vote.answered_at)
                .join(Question)
                .join(Study, Study.id == Question.study_id)
                .where(Study.name == name)
            ).all()
        assert counted == len(stored)  # those counted when it was closed, and no more
    for voter in voters:
        finish(voter)
    engine.dispose()


def test_a_vote_under_way_is_waited_for_by_whoever_closes(database: str) -> None:
    """On PostgreSQL the study's row is shared by those who vote; on SQLite one writes at a time."""
    engine = open_database(database)
    if engine.dialect.name != "postgresql":
        engine.dispose()
        return
    add_experiment(engine, images=16)
    create_study(engine, "cats", question_count=9, practice_count=1)
    token = enrol_to_practice(engine, "cats")
    question = current(engine, token)
    closing = threading.Thread(target=close_study, args=(engine, "cats"))
    with write_session(engine) as session:
        session.scalars(select(Study).with_for_update(read=True)).one()  # as a vote does first
        closing.start()
        closing.join(0.5)
        assert closing.is_alive()
    closing.join()
    assert record_vote(engine, token, question.public_id, "left", **SENT).status == "refused"
    engine.dispose()


# Several at once, and the end of a process

VOTE_WHEN_TOLD = """
import json, sys
from db.store import open_database
from db.surveys.votes import record_vote
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
    token = enrol_to_practice(engine, "cats")
    tabs = [start_python(VOTE_WHEN_TOLD, database) for _ in range(2)]
    for tab in tabs:
        assert hear_from(tab) == "ready"
    winners = []
    for _ in range(12):
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
            answer_up_to(engine, enrol_to_practice(engine, "cats"), "done")
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
from db.surveys.enrolment import enrol
from db.surveys.votes import finish_instructions, progress, record_check, record_vote
engine = open_database(sys.argv[1])
token = sys.argv[2] if len(sys.argv) > 2 else enrol(engine, "cats")
print(token, flush=True)
finish_instructions(engine, token)
record_check(engine, token, {}, [])
while (now := progress(engine, token)).next is not None:
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
