"""What a sweep says: one line per trial and, on a terminal, a bar with the time left."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from db.schema import TrialStatus
from platform.hyperparameters import Hyperparameters
from platform.trials import PlannedTrial

Say = Callable[[str], None]


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
    """Counts epochs. The time left is what the epochs still expected cost by those that were measured, at the pace at
    which seconds of training have passed per second so far (trials run beside each other)."""

    def __init__(
        self,
        console: Console,
        trials: int,
        epoch_shares: Sequence[float],  # how many of the trials train each epoch, see `trials.epoch_shares`
        searched: Sequence[str],  # the hyperparameters that tell an arm's trials apart
    ) -> None:
        self.say = say_on(console)
        self._is_terminal = console.is_terminal
        self._trials = trials
        self._shares = epoch_shares
        self._searched = searched
        self._at: dict[str, tuple[PlannedTrial, int]] = {}  # trials that have not ended, and their last epochs
        self._ended = 0
        self._measured: dict[tuple[int, int], tuple[int, float]] = {}  # epochs and their seconds, by `_kind`
        self._started = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[left]}"), console=console
        )
        self._task = self._bar.add_task("", total=trials * sum(epoch_shares), left="")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar meanwhile, if this is a terminal."""
        self._started = time.monotonic()
        if not self._is_terminal:
            yield
            return
        self._update()
        with self._bar:
            yield

    def trials_left(self, planned: Iterable[PlannedTrial], ended: int) -> None:
        """These have not ended, and so many have."""
        self._at |= {trial.name: (trial, trial.epochs_done) for trial in planned}
        self._ended = ended
        self._update()

    def epoch_trained(self, planned: PlannedTrial, epoch: int, seconds: float) -> None:
        """It took so many seconds."""
        self._at[planned.name] = (planned, epoch)
        epochs, before = self._measured.get(_kind(planned.hyperparameters), (0, 0.0))
        self._measured[_kind(planned.hyperparameters)] = (epochs + 1, before + seconds)
        self._update()

    def trial_ended(
        self, planned: PlannedTrial, status: TrialStatus, reason: str | None, epoch: int, loss: float | None
    ) -> None:
        self._at.pop(planned.name, None)
        self._ended += 1
        self._update()
        after = f" after epoch {epoch}" if status == "stopped_early" else f" ({reason})" if reason else ""
        parts = [f"{status.replace('_', ' ')}{after}"]
        if loss is not None:
            parts.append(f"loss {loss:.4g}")
        parts += [f"{name} {_short(getattr(planned.hyperparameters, name))}" for name in self._searched]
        left = f"; {self._left()}" if self._left() and not self._is_terminal else ""
        self.say(f"[{self._ended}/{self._trials}] {planned.name}: {', '.join(parts)}{left}")

    def seconds_left(self) -> float | None:
        """None where nothing was measured yet."""
        trained = sum(seconds for _, seconds in self._measured.values())
        if trained <= 0:
            return None
        known = [self._epochs_left(epoch) * self._cost(planned.hyperparameters) for planned, epoch in self._at.values()]
        unknown = max(0, self._trials - self._ended - len(known)) * self._epochs_left(0) * self._cost(None)
        return (sum(known) + unknown) * (time.monotonic() - self._started) / trained

    def _epochs_left(self, epoch: int) -> float:
        """The epochs that a trial which goes on after this one is expected to train."""
        ahead = self._shares[epoch:]
        return sum(ahead) / ahead[0] if ahead else 0.0

    def _cost(self, hyperparameters: Hyperparameters | None) -> float:
        """Seconds per epoch: as measured with filters of that size, else in proportion to the networks' work."""
        epochs = sum(count for count, _ in self._measured.values())
        seconds = sum(of_kind for _, of_kind in self._measured.values())
        if hyperparameters is None:
            return seconds / epochs
        if (kind := _kind(hyperparameters)) in self._measured:
            return self._measured[kind][1] / self._measured[kind][0]
        work = sum(count * _work(measured) for measured, (count, _) in self._measured.items())
        return seconds / work * _work(kind)

    def _update(self) -> None:
        left = sum(self._epochs_left(epoch) for _, epoch in self._at.values())
        left += max(0, self._trials - self._ended - len(self._at)) * self._epochs_left(0)
        self._bar.update(
            self._task,
            completed=self._trials * sum(self._shares) - left,
            description=f"{self._ended} of {self._trials} trials",
            left=self._left(),
        )

    def _left(self) -> str:
        seconds = self.seconds_left()
        if seconds is None or self._ended >= self._trials:
            return ""
        if seconds < 90:
            return f"about {seconds:.0f} s left"
        return f"about {seconds / 60:.0f} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"


def _kind(hyperparameters: Hyperparameters) -> tuple[int, int]:
    """What most decides the cost of an epoch."""
    return hyperparameters.filter_size, hyperparameters.width


def _work(kind: tuple[int, int]) -> int:
    filter_size, width = kind
    return filter_size**2 * width**2


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
