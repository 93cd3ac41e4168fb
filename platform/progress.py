"""What a running sweep shows: one line a trial and, on a terminal, a bar with the time left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from platform.search import EPOCH, LOSS, PlannedTrial


class Progress:
    """Counts epochs; `searched` names the hyperparameters that distinguish an arm's trials."""

    def __init__(self, console: Console, trials: int, epochs: int, searched: list[str]) -> None:
        self._console = console
        self._trials = trials
        self._epochs = epochs
        self._searched = searched
        self._at: dict[str, int] = {}
        self._ended: set[str] = set()
        self._trained = 0
        self._started = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[left]}"), console=console
        )
        self._task = self._bar.add_task("", total=trials * epochs, left="")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar meanwhile, if this is a terminal."""
        self._started = time.monotonic()
        if not self._console.is_terminal:
            yield
            return
        self._update()
        with self._bar:
            yield

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)

    def trial_at(self, trial: str, epoch: int, trained: bool = False) -> None:
        """The trial stands after that epoch; `trained` says that it has trained it just now."""
        self._at[trial] = epoch
        self._ended.discard(trial)
        self._trained += trained
        self._update()

    def trial_ended(self, trial: str) -> None:
        self._at.setdefault(trial, 0)
        self._ended.add(trial)
        self._update()

    def say_ended(self, planned: PlannedTrial, status: str, reason: str | None, result: dict[str, Any]) -> None:
        after = f" after epoch {result[EPOCH]}" if status == "stopped_early" else f" ({reason})" if reason else ""
        parts = [f"{status.replace('_', ' ')}{after}"]
        if LOSS in result:
            parts.append(f"validation loss {result[LOSS]:.4g}")
        parts += [f"{name} {_short(getattr(planned.run, name))}" for name in self._searched]
        left = f"; {self._left()}" if self._left() and not self._console.is_terminal else ""
        self.say(f"[{len(self._ended)}/{self._trials}] {planned.arm} #{planned.number}: {', '.join(parts)}{left}")

    def _update(self) -> None:
        self._bar.update(
            self._task,
            completed=self._done(),
            description=f"{len(self._ended)} of {self._trials} trials",
            left=self._left(),
        )

    def _done(self) -> int:
        """Epochs that need not be trained any more: a trial that was stopped or failed leaves the rest of its own."""
        return sum(self._epochs if trial in self._ended else epoch for trial, epoch in self._at.items())

    def _left(self) -> str:
        if not self._trained or len(self._ended) == self._trials:
            return ""
        seconds = (time.monotonic() - self._started) / self._trained * (self._trials * self._epochs - self._done())
        if seconds < 90:
            return f"about {seconds:.0f} s left"
        return f"about {seconds / 60:.0f} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
