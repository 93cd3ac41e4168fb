"""Which process drives a sweep: at most one, whatever storage, machine or kind of database it was given.

Its row in the database says where it runs and is renewed as long as it does. Another process takes the experiment over
when that has stopped for GIVEN_UP_AFTER_S, or at once when the process was on this machine and is gone.
"""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import cast

from sqlalchemy import ColumnElement, CursorResult, Engine, delete, func, select, type_coerce, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.errors import UserError
from db.schema import Driver, UtcDateTime
from db.store import write_session

RENEWED_EVERY_S = 10.0
GIVEN_UP_AFTER_S = 90.0


class DrivenElsewhereError(UserError):
    """Another process drives the experiment."""


class Drive:
    """This process's hold on an experiment."""

    def __init__(self, engine: Engine, experiment: str) -> None:
        self.engine = engine
        self._experiment = experiment
        self._token = secrets.token_hex(8)

    def take(self) -> None:
        """Raises DrivenElsewhereError where another process drives the experiment."""
        values = {"host": socket.gethostname(), "process": os.getpid(), "token": self._token}
        with write_session(self.engine) as session:
            now = func.now()
            insert = postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
            row = {"experiment": self._experiment, **values, "seen_at": now}
            session.execute(insert(Driver).values(row).on_conflict_do_nothing())  # waits for whoever inserts it, too
            found = select(Driver, type_coerce(now, UtcDateTime())).where(Driver.experiment == self._experiment)
            driver, at = session.execute(found.with_for_update()).one()
            if driver.token != self._token:
                if at - driver.seen_at < timedelta(seconds=GIVEN_UP_AFTER_S) and not _is_gone(driver):
                    raise DrivenElsewhereError(
                        f"Experiment {self._experiment!r} is being run by process {driver.process} on {driver.host}, "
                        f"last seen {(at - driver.seen_at).total_seconds():.0f} s ago: wait for it, or end it."
                    )
                session.execute(update(Driver).where(Driver.id == driver.id).values(**values, seen_at=now))

    def renew(self, session: Session) -> None:
        """Say that this process still drives it: what is written in the same transaction, its driver has written.

        Raises DrivenElsewhereError where another has taken it over, as after this one's machine had slept.
        """
        renewed = update(Driver).where(self._is_ours).values(seen_at=func.now())
        if cast(CursorResult[None], session.execute(renewed)).rowcount != 1:
            raise DrivenElsewhereError(f"Experiment {self._experiment!r} was taken over by another process.")

    def release(self) -> None:
        with write_session(self.engine) as session:
            session.execute(delete(Driver).where(self._is_ours))

    @property
    def _is_ours(self) -> ColumnElement[bool]:
        return (Driver.experiment == self._experiment) & (Driver.token == self._token)


def _is_gone(driver: Driver) -> bool:
    """Whether its process was on this machine and is not there any more."""
    if driver.host != socket.gethostname():
        return False
    if driver.process == os.getpid():  # the process of an earlier start, as in a container that was started again
        return True
    try:
        os.kill(driver.process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        pass
    return False


@contextmanager
def driven_by_this_process(engine: Engine, experiment: str, lost: Callable[[], None]) -> Iterator[Drive]:
    """Hold the experiment meanwhile. lost: called, in a thread of its own, when another process has taken it over; it
    interrupts the main thread.

    Raises DrivenElsewhereError where another process drives it, and in place of that interruption.
    """
    drive, over = Drive(engine, experiment), threading.Event()
    losses: list[DrivenElsewhereError] = []
    drive.take()

    def renew() -> None:
        while not over.wait(RENEWED_EVERY_S):
            try:
                with suppress(DBAPIError), write_session(engine) as session:  # locked, full or away: tried again
                    drive.renew(session)
            except DrivenElsewhereError as error:
                losses.append(error)
                lost()
                return

    thread = threading.Thread(target=renew, name="drive", daemon=True)
    thread.start()
    try:
        yield drive
    except KeyboardInterrupt:
        if losses:
            raise losses[0] from None
        raise
    finally:
        over.set()
        thread.join()
        with suppress(DBAPIError):  # then it is found to be gone
            drive.release()
