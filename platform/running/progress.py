"""What a sweep says: one line per trial and, on a terminal, a bar with the time left."""

import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from sqlalchemy import Engine

from db.schema import TrialStatus
from db.store import naming_database
from platform.data.image_source import Say as Say
from platform.running.budget import in_words
from platform.running.config import SweepConfig
from platform.running.plan import History, PlannedTrial, epoch_counts, seconds_left, trials_in_all

UPDATED_EVERY_S = 2.0  # the bar


class _Lasting:
    """Standard output that may end (a closed pipe, a lost terminal, a full disk): a sweep outlives it."""

    def write(self, text: str) -> int:
        with _given_up_where_it_ended():
            sys.stdout.write(text)
        return len(text)

    def flush(self) -> None:
        with _given_up_where_it_ended():
            sys.stdout.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)


@contextmanager
def _given_up_where_it_ended() -> Iterator[None]:
    try:
        yield
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_console() -> Console:
    """A console on standard output that may end; what its encoding lacks is up to `run_command`."""
    return Console(file=cast(IO[str], _Lasting()))


def say_on(console: Console) -> Say:
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


class Progress:
    """Counts epochs, and says how long the rest takes: `trials.seconds_left` of what trials have reported, at the costs
    that were measured before the start, corrected by how long each arm's epochs have taken since."""

    def __init__(self, console: Console, config: SweepConfig, histories: Mapping[str, History]) -> None:
        self.say = say_on(console)
        self._is_terminal = console.is_terminal
        self._config = config
        self._trials = trials_in_all(config)
        self._histories = histories
        self._cost = dict.fromkeys(histories, 1.0)  # of an epoch, in seconds; until `expect` only ratios matter
        self._is_measured = False
        self._slots = 1
        self._taken: dict[str, tuple[float, float]] = {}  # seconds that epochs took and should have, by arm
        self._counted = 0.0  # when seconds were last counted
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[left]}"), console=console
        )
        self._task = self._bar.add_task("", total=len(histories) * sum(epoch_counts(config)), left="")

    def expect(self, epoch_seconds: dict[str, float], slots: int) -> None:
        """So many trials run at once, and an epoch of an arm's takes so long. Says how long that is in all."""
        self._cost, self._slots, self._is_measured = epoch_seconds, slots, True
        if left := self._left():
            self.say(f"{left.capitalize()}.")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar meanwhile, if this is a terminal."""
        if not self._is_terminal:
            yield
            return
        self._update()
        with self._bar:
            yield

    def count_epoch(self, planned: PlannedTrial, seconds: float) -> None:
        """It took so many seconds."""
        taken, expected = self._taken.get(planned.arm, (0.0, 0.0))
        self._taken[planned.arm] = taken + seconds, expected + self._cost[planned.arm]
        self._update()

    def say_end(
        self, planned: PlannedTrial, status: TrialStatus, reason: str | None, epoch: int, loss: float | None
    ) -> None:
        after = f" after epoch {epoch}" if status == "stopped_early" else f" ({reason})" if reason else ""
        parts = [f"{status.replace('_', ' ')}{after}"]
        if loss is not None:
            parts.append(f"loss {loss:.4g}")
        parts += [f"{name} {_short(getattr(planned.hyperparameters, name))}" for name in self._config.search.values()]
        left = f"; {self._left()}" if not self._is_terminal and self._left() else ""
        self.say(f"[{self._ended}/{self._trials}] {planned.name}: {', '.join(parts)}{left}")
        self._update()

    def seconds_left(self) -> float | None:
        """None where nothing was measured yet."""
        if not (self._taken or self._is_measured):
            return None
        in_all = [sum(values) for values in zip((1e-9, 1e-9), *self._taken.values(), strict=True)]
        epoch_seconds = {}
        for arm, cost in self._cost.items():
            taken, expected = self._taken.get(arm, in_all)
            epoch_seconds[arm] = cost * taken / expected
        return seconds_left(self._config, self._histories, epoch_seconds, self._slots)

    @property
    def _ended(self) -> int:
        return sum(len(history.ended) for history in self._histories.values())

    def _update(self) -> None:
        if not self._is_terminal or time.monotonic() < self._counted + UPDATED_EVERY_S:
            return
        self._counted = time.monotonic()
        self._bar.update(
            self._task,
            completed=sum(len(losses) for history in self._histories.values() for losses in history.losses.values()),
            description=f"{self._ended} of {self._trials} trials",
            left=self._left(),
        )

    def _left(self) -> str:
        seconds = self.seconds_left()
        return "" if seconds is None or self._ended >= self._trials else f"about {in_words(seconds)} left"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# What it tells people to type


def command_to_resume(experiment: str, engine: Engine, cluster: str | None) -> str:
    """cluster: Ray's address, where one was given."""
    command = command_for("sweep --resume", experiment, engine)
    return f"{command} --address {shlex.quote(cluster)}" if cluster else command


def command_for(module: str, experiment: str, engine: Engine) -> str:
    """The command of a module of `platform` on an experiment of this database."""
    return f"python -m platform.{module} {shlex.quote(experiment)}{naming_database(engine, '--database ')}"


def command_to_ask(engine: Engine) -> str:
    """The command that serves the survey on this database."""
    return f"{naming_database(engine, 'HUEJURY_DATABASE=')} make survey".lstrip()
