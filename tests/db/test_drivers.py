"""One process drives a sweep: real processes on both kinds of database, killed and at the same moment."""

import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, func, select, update

from db.schema import Driver
from db.store import open_database, read_session, write_session
from db.sweeps import drivers
from db.sweeps.drivers import Drive, DrivenElsewhereError, driven_by_this_process
from tests.processes import StartPython, finish, hear_from, say_to

DRIVE = """
import sys
from db.sweeps.drivers import DrivenElsewhereError, driven_by_this_process
from db.store import open_database
engine = open_database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    with driven_by_this_process(engine, sys.argv[2], lambda: None):
        print("drives", flush=True)
        sys.stdin.readline()
except DrivenElsewhereError as error:
    print(error, flush=True)
engine.dispose()
"""


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = open_database(database)
    yield engine
    engine.dispose()


def test_of_drivers_that_start_at_the_same_moment_exactly_one_drives(
    engine: Engine, database: str, start_python: StartPython
) -> None:
    processes = [start_python(DRIVE, database, "x") for _ in range(4)]
    assert [hear_from(process) for process in processes] == ["ready"] * 4
    for process in processes:
        say_to(process, "go")
    heard = [hear_from(process) for process in processes]
    assert heard.count("drives") == 1, heard
    first = processes[heard.index("drives")]
    refused = [line for line in heard if line != "drives"]
    assert all(line.startswith(f"Experiment 'x' is being run by process {first.pid} on ") for line in refused)
    say_to(first, "end")
    finish(first)
    with driven_by_this_process(engine, "x", lambda: None):  # what it held it has given back
        pass


def test_a_driver_that_was_killed_is_followed_at_once(engine: Engine, database: str, start_python: StartPython) -> None:
    process = start_python(DRIVE, database, "x")
    say_to(process, "go")
    assert [hear_from(process), hear_from(process)] == ["ready", "drives"]
    with pytest.raises(DrivenElsewhereError, match=f"process {process.pid}"):
        Drive(engine, "x").take()
    with driven_by_this_process(engine, "another", lambda: None):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    Drive(engine, "x").take()


@pytest.mark.parametrize(("seconds", "is_held"), [(60, True), (100, False)])
def test_a_driver_elsewhere_is_followed_when_it_has_long_not_been_seen(
    engine: Engine, seconds: float, *, is_held: bool
) -> None:
    elsewhere, here = Drive(engine, "x"), Drive(engine, "x")
    elsewhere.take()
    with write_session(engine) as session:
        ago = datetime.now(UTC) - timedelta(seconds=seconds)
        session.execute(update(Driver).values(host="elsewhere", seen_at=ago))
    if is_held:
        with pytest.raises(DrivenElsewhereError, match=r"on elsewhere, last seen (59|6\d) s ago"):
            here.take()
    else:
        here.take()
    loser = here if is_held else elsewhere
    with pytest.raises(DrivenElsewhereError, match="taken over"), write_session(engine) as session:
        session.execute(update(Driver).values(host="written by the loser"))
        loser.renew(session)
    loser.release()
    with read_session(engine) as session:
        assert session.scalar(select(func.count()).where(Driver.host != "written by the loser")) == 1


def test_a_driver_hears_that_it_was_followed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "RENEWED_EVERY_S", 0.05)
    lost = threading.Event()
    with (
        pytest.raises(DrivenElsewhereError, match="taken over"),
        driven_by_this_process(engine, "x", lost.set),
    ):
        assert not lost.wait(0.3)
        with write_session(engine) as session:
            session.execute(update(Driver).values(token="another's", host="elsewhere"))
        assert lost.wait(10)
        raise KeyboardInterrupt  # as `_thread.interrupt_main` would
    with read_session(engine) as session:
        assert session.scalars(select(Driver.token)).one() == "another's"
