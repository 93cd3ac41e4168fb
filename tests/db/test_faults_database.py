"""The database under faults: a full disk, locks, a killed server, a backup amid writes. No vote is lost."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from db.backup import main as back_up
from db.schema import Question, StoredDataset, Vote
from db.store import StoreError, open_database, read_session, write_session
from db.surveys.study import create_study
from db.surveys.votes import VoteResult, progress, record_vote
from tests.db.test_db_store import WRITE_ON_AND_ON
from tests.faults import TIMES, UNSHARE, count
from tests.postgres import PostgresServer
from tests.processes import StartPython, check_integrity
from tests.survey_data import add_experiment, to_first_question

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
SENT: dict[str, Any] = {"response_time_ms": 512.5, "exposure_measured_ms": None, "input": "key", "scale": 8}


def stored_votes(engine: Engine) -> dict[str, str]:
    """Every vote's answer by its question; the database itself refuses a second one."""
    with read_session(engine) as session:
        rows = session.execute(select(Question.public_id, Vote.answer).join(Vote)).all()
        assert len({public_id for public_id, _ in rows}) == len(rows)
        return dict(rows)


ON_A_SMALL_DISK = """
import itertools, json, shutil, sys
from pathlib import Path
from sqlalchemy.exc import OperationalError
from db.backup import main as back_up
from db.store import StoreError, open_database
from db.surveys.study import create_study
from db.surveys.votes import VoteResult, progress, record_vote
from tests.survey_data import add_experiment, to_first_question
from tests.db.test_faults_database import SENT, stored_votes
from tests.processes import check_integrity

disk = Path(sys.argv[1])
database, filler = disk / "huejury.sqlite", disk / "filler"
acknowledged, refusals, sentences = {}, 0, set()
engine = open_database(database)
add_experiment(engine, images=60)
create_study(engine, "cats", practice_count=0)
for _ in range(int(sys.argv[2])):
    token = to_first_question(engine, "cats")
    for number in itertools.count():
        question = progress(engine, token).next
        if number % 7 == 6:
            filler.write_bytes(bytes(max(shutil.disk_usage(disk).free - 8192, 0)))
        if number == 19:
            break
        while True:
            try:
                result = record_vote(engine, token, question.public_id, ("left", "right")[number % 2], **SENT)
            except OperationalError as error:
                assert "full" in str(error), error
                refusals += 1
                assert progress(engine, token).next == question  # who reloads the page meanwhile is asked again
                for use in (lambda: open_database(disk / "another.sqlite"),
                            lambda: back_up([str(disk / "copy.sqlite"), "--database", str(database)])):
                    try:
                        assert use() == 2
                    except StoreError as error:
                        sentences.add(str(error))
                (disk / "another.sqlite").unlink(missing_ok=True)
                filler.unlink()
            else:
                assert result.status == "stored", result
                acknowledged[question.public_id] = ("left", "right")[number % 2]
                break
    filler.unlink(missing_ok=True)
    # Votes need no further room while a log that has grown is used again from its beginning: let it grow again.
    with engine.connect() as connection:
        connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
check_integrity(engine)
stored = stored_votes(engine)
assert stored == acknowledged
assert [path.name for path in disk.iterdir() if "copy" in path.name] == []
lost = len(acknowledged.items() - stored.items())
print(json.dumps([len(acknowledged), lost, refusals, sorted(sentences)]))
"""


def test_a_full_disk_refuses_votes_and_loses_none() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("NO unshare: a full disk was not tried, as this machine cannot mount a small one for a test.")
    # The small disk is mounted for this process alone, and gone with it.
    script = 'mount -t tmpfs -o "size=$4" tmpfs "$1" || exit 77; exec "$0" -c "$2" "$1" "$3"'
    command = [*UNSHARE, "sh", "-c", script, sys.executable]
    done = subprocess.run(
        [*command, "/mnt", ON_A_SMALL_DISK, str(2 * TIMES), f"{2 + 2 * TIMES}m"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200 * TIMES,
    )
    if done.returncode in (1, 77) and "Traceback" not in done.stderr:
        pytest.skip(f"NO SMALL DISK: a full disk was not tried, as this machine mounts none ({done.stderr.strip()}).")
    assert done.returncode == 0, done.stderr
    votes, lost, refusals, sentences = json.loads(done.stdout.splitlines()[-1])
    assert refusals >= 2 * TIMES
    assert done.stderr.count("is full") == refusals  # what the backup said
    assert len(sentences) == 1, sentences  # what a new database's opening said
    assert "is full" in sentences[0]
    count(
        "disk full while people vote",
        f"{refusals} times",
        f"{lost} of {votes} votes",
        "tests/db/test_faults_database.py -k full_disk",
    )


def test_votes_wait_ten_seconds_for_another_writer(tmp_path: Path, postgres: PostgresServer) -> None:
    """The survey waits as long as `open_database` does by default. What a sweep does meanwhile: test_recorder.py."""
    path = tmp_path / "x.sqlite"
    results: dict[str, VoteResult] = {}
    with ExitStack() as locks:
        waiting = []
        for address in (str(path), postgres.new_database()):
            engine = open_database(address)
            add_experiment(engine, images=12)
            create_study(engine, "cats", question_count=6, practice_count=0)
            token = to_first_question(engine, "cats")
            question = next_question(engine, token)
            other = locks.enter_context(write_session(engine))
            if engine.dialect.name == "postgresql":  # where writers do not exclude each other
                other.execute(text("LOCK TABLE votes IN EXCLUSIVE MODE"))

            def vote(engine: Engine, token: str, question: str) -> None:
                results[question] = record_vote(engine, token, question, "left", **SENT)

            voting = threading.Thread(target=vote, args=(engine, token, question))
            voting.start()
            waiting.append((engine, token, question, voting))
        time.sleep(10)
        for engine, token, question, voting in waiting:
            assert voting.is_alive()
            assert next_question(engine, token) == question  # a page that is loaded meanwhile does not wait
        assert back_up([str(tmp_path / "copy.sqlite"), "--database", str(path)]) == 0
    for engine, _, question, voting in waiting:
        voting.join(timeout=60)
        assert results[question].status == "stored"
        assert stored_votes(engine) == {question: "left"}
        engine.dispose()
    count(
        "database locked by another writer for 10 s",
        f"once on each engine ({' and '.join(engine.dialect.name for engine, *_ in waiting)})",
        "0; the vote waited",
        "tests/db/test_faults_database.py -k ten_seconds",
    )


def next_question(engine: Engine, token: str) -> str:
    now = progress(engine, token)
    assert now is not None
    assert now.next is not None
    return now.next.public_id


def test_who_waits_in_vain_for_postgresql_hears_it(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    holder, waiting = open_database(url), open_database(url, busy_timeout_s=0.1)
    with write_session(holder) as session:
        session.execute(text("LOCK TABLE alembic_version"))
        with pytest.raises(StoreError, match="is locked by another process; wait for it or stop it"):
            open_database(url, busy_timeout_s=0.1)
        with pytest.raises(OperationalError, match="lock timeout"), write_session(waiting) as other:
            other.execute(text("UPDATE alembic_version SET version_num = version_num"))
    holder.dispose()
    waiting.dispose()


def test_postgresql_killed_while_people_vote_loses_no_vote(postgres: PostgresServer) -> None:
    engine = open_database(postgres.new_database())
    add_experiment(engine, images=60)
    create_study(engine, "cats", practice_count=0)
    acknowledged: dict[str, str] = {}
    failures: list[BaseException] = []
    refusals: list[str] = []
    over = threading.Event()

    def vote_on_and_on(side: str) -> None:
        token = ""
        while not over.is_set():
            try:
                token = token or to_first_question(engine, "cats")
                now = progress(engine, token)
                assert now is not None
                if now.next is None:
                    token = ""
                elif record_vote(engine, token, now.next.public_id, side, **SENT).status == "stored":
                    acknowledged[now.next.public_id] = side
            except DBAPIError as error:  # what the page apologises for, before its button tries again
                refusals.append(str(error))
                time.sleep(0.1)
            except BaseException as error:
                failures.append(error)
                return

    voters = [threading.Thread(target=vote_on_and_on, args=(side,)) for side in ("left", "right")]
    for voter in voters:
        voter.start()
    kills = 2 * TIMES
    for number in range(kills):
        before = len(acknowledged)
        while len(acknowledged) < before + 5 + number % 3:
            assert not failures, failures
            time.sleep(0.01)
        postgres.kill()
        time.sleep(0.3)
        postgres.start()
    over.set()
    for voter in voters:
        voter.join()
    assert failures == []
    stored = stored_votes(engine)
    lost = acknowledged.items() - stored.items()
    assert not lost
    assert len(refusals) >= kills  # somebody was voting at each
    engine.dispose()
    count(
        "`kill -9` of PostgreSQL while people vote",
        f"{kills} times, {len(refusals)} attempts refused",
        f"{len(lost)} of {len(acknowledged)} votes",
        "tests/db/test_faults_database.py -k postgresql_killed",
    )


VOTE_FOR_EVER = """
import sys
from db.store import open_database
from db.surveys.votes import VoteResult, progress, record_vote
from tests.survey_data import to_first_question
from tests.db.test_faults_database import SENT
engine = open_database(sys.argv[1])
while True:
    token = to_first_question(engine, "cats")
    while (now := progress(engine, token)).next is not None:
        if record_vote(engine, token, now.next.public_id, "left", **SENT).status == "stored":
            print(now.next.public_id, flush=True)
"""


def test_a_backup_amid_writes_holds_all_that_was_acknowledged_before(tmp_path: Path, start_python: StartPython) -> None:
    path = tmp_path / "huejury.sqlite"
    engine = open_database(path)
    add_experiment(engine, images=60)
    create_study(engine, "cats", practice_count=0)
    engine.dispose()
    voter, sweep = start_python(VOTE_FOR_EVER, path), start_python(WRITE_ON_AND_ON, path, 0)
    heard: dict[str, list[str]] = {"votes": [], "records": []}

    def listen(name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            heard[name].append(line.strip())

    listeners = [threading.Thread(target=listen, args=pair) for pair in zip(heard, (voter, sweep), strict=True)]
    for listener in listeners:
        listener.start()
    backups = 4 * TIMES
    try:
        for number in range(backups):
            until = {name: len(lines) + 5 for name, lines in heard.items()}
            while any(len(heard[name]) < least for name, least in until.items()):
                assert voter.poll() is None
                assert sweep.poll() is None
                time.sleep(0.01)
            before = {name: list(lines) for name, lines in heard.items()}
            target = tmp_path / "backups" / f"{number}.sqlite"
            assert back_up([str(target), "--database", str(path)]) == 0
            copy = open_database(target, say=pytest.fail)
            check_integrity(copy)
            missing = set(before["votes"]) - stored_votes(copy).keys()
            assert not missing
            with read_session(copy) as session:
                fingerprints = set(session.scalars(select(StoredDataset.fingerprint)))
            assert {f"{record}{part}" for record in before["records"] for part in "ab"} <= fingerprints
            copy.dispose()
            shutil.rmtree(target.parent)
    finally:
        voter.kill()
        sweep.kill()
        for listener in listeners:
            listener.join()
    count(
        "backup while votes and records are written",
        f"{backups} times",
        f"{len(missing)} of {len(before['votes'])} votes acknowledged before the last",
        "tests/db/test_faults_database.py -k backup_amid",
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "There is no database"),
        (lambda path: path.write_text("no database" * 100), "is not a SQLite database"),
        (lambda path: open_database(path).dispose(), "There is a .* already"),
    ],
)
def test_backups_that_cannot_be_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object], message: str
) -> None:
    path, target = tmp_path / "x.sqlite", tmp_path / "copy.sqlite"
    make(path)
    if "already" in message:
        target.touch()
    assert back_up([str(target), "--database", str(path)]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert said.count("\n") == 1
    assert not target.exists() or target.stat().st_size == 0
    assert not list(tmp_path.glob("*.part"))
    assert back_up([str(target), "--database", "postgresql+psycopg://u:secret@h/d"]) == 2
    assert "pg_dump" in capsys.readouterr().err


def test_a_damaged_database_is_not_backed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.sqlite"
    engine = open_database(path)
    add_experiment(engine, images=12)
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_samples_image_id'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    content = bytearray(path.read_bytes())
    content[(page - 1) * size + 8 : page * size] = b"\xa5" * (size - 8)
    path.write_bytes(content)
    assert back_up([str(tmp_path / "copy.sqlite"), "--database", str(path)]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert not (tmp_path / "copy.sqlite").exists()
