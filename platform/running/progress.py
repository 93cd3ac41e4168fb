"""What a sweep says: one line per trial and, on a terminal, a bar with the time left."""

import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from sqlalchemy import Engine

from db.store import naming_database
from platform.data.image_source import Say as Say
from platform.running.budget import in_words
from platform.running.config import SweepConfig
from platform.running.plan import History, PlannedTrial, epoch_counts, trials_in_all
from platform.tables.table import shorten

UPDATED_EVERY_S = 2.0  # the bar


class _LastingConsole(Console):
    """On standard output that may end (a closed pipe): a sweep outlives it."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_console() -> Console:
    """A console on standard output; what its encoding lacks is up to `run_command`."""
    return _LastingConsole()


def say_on(console: Console) -> Say:
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


class Progress:
    """Says of every trial how it ended, and how long the rest takes: as long an epoch as those that were trained since
    the trials began."""

    def __init__(self, console: Console, config: SweepConfig, histories: Mapping[str, History]) -> None:
        self.say = say_on(console)
        self._is_terminal = console.is_terminal
        self._config = config
        self._trials = trials_in_all(config)
        self._histories = histories
        self._began = time.monotonic()
        self._trained_before = 0  # epochs of earlier runs of the driver
        self._updated = 0.0
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[left]}"), console=console
        )
        self._task = self._bar.add_task("", total=len(histories) * sum(epoch_counts(config)), left="")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Trials run meanwhile; show the bar, if this is a terminal."""
        self._began, self._trained_before = time.monotonic(), self._trained
        if not self._is_terminal:
            yield
            return
        self.update()
        with self._bar:
            yield

    def say_end(self, planned: PlannedTrial, reason: str | None = None) -> None:
        history = self._histories[planned.arm]
        status = history.ended[planned.number]
        losses = {epoch: of[planned.number] for epoch, of in history.losses.items() if planned.number in of}
        after = f" after epoch {max(losses)}" if status == "stopped_early" else f" ({reason})" if reason else ""
        parts = [f"{status.replace('_', ' ')}{after}"]
        if losses:
            parts.append(f"loss {losses[max(losses)]:.4g}")
        parts += [f"{name} {shorten(getattr(planned.hyperparameters, name))}" for name in self._config.search.values()]
        left = f"; {self._left()}" if not self._is_terminal and self._left() else ""
        self.say(f"[{self._ended}/{self._trials}] {planned.name}: {', '.join(parts)}{left}")

    def seconds_left(self) -> float | None:
        """None where nothing was trained yet."""
        trained = self._trained - self._trained_before
        if trained <= 0:
            return None
        left = len(self._histories) * sum(epoch_counts(self._config)) - self._trained
        return (time.monotonic() - self._began) / trained * max(left, 0)

    @property
    def _trained(self) -> int:
        """Epochs of all trials."""
        return sum(len(losses) for history in self._histories.values() for losses in history.losses.values())

    @property
    def _ended(self) -> int:
        return sum(len(history.ended) for history in self._histories.values())

    def update(self) -> None:
        if not self._is_terminal or time.monotonic() < self._updated + UPDATED_EVERY_S:
            return
        self._updated = time.monotonic()
        self._bar.update(
            self._task,
            completed=self._trained,
            description=f"{self._ended} of {self._trials} trials",
            left=self._left(),
        )

    def _left(self) -> str:
        seconds = self.seconds_left()
        return "" if seconds is None or self._ended >= self._trials else f"about {in_words(seconds)} left"


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
