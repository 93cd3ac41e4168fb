"""The time left: what it is made of, on a clock of the test's own."""

import pytest
from rich.console import Console

from platform import progress as progress_module
from platform.hyperparameters import Hyperparameters
from platform.progress import Progress
from platform.trials import PlannedTrial


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def trial(number: int, filter_size: int = 3) -> PlannedTrial:
    hyperparameters = Hyperparameters(learning_rate=0.01, epochs=4, filter_size=filter_size)  # type: ignore[arg-type]
    return PlannedTrial("arm", number, hyperparameters)


def test_all_epochs_of_all_trials_at_the_pace_so_far(clock: Clock) -> None:
    progress = Progress(Console(quiet=True), 3, [1.0] * 4, [])
    progress.trials_left([trial(1), trial(2), trial(3)], ended=0)
    assert progress.seconds_left() is None
    clock.now = 10.0
    progress.epoch_trained(trial(1), 1, seconds=10.0)
    assert progress.seconds_left() == pytest.approx(110.0)
    progress.epoch_trained(trial(2), 1, seconds=10.0)  # at the same time: twice the pace
    assert progress.seconds_left() == pytest.approx(50.0)


def test_early_stopping_is_expected(clock: Clock) -> None:
    # A quarter of the trials goes on after the first epoch: 20 trials train 20 + 15 epochs, not 80.
    progress = Progress(Console(quiet=True), 20, [1.0, 0.25, 0.25, 0.25], [])
    trials = [trial(number) for number in range(1, 21)]
    progress.trials_left(trials, ended=0)
    clock.now = 30.0
    progress.epoch_trained(trials[0], 1, seconds=30.0)
    progress.trial_ended(trials[0], "stopped_early", None, 1, 0.5)
    assert progress.seconds_left() == pytest.approx(19 * 1.75 * 30)
    clock.now = 60.0
    progress.epoch_trained(trials[1], 1, seconds=30.0)  # it goes on, with three epochs before it
    assert progress.seconds_left() == pytest.approx((18 * 1.75 + 3) * 30)


def test_larger_filters_cost_more_as_measured_or_else_by_their_size(clock: Clock) -> None:
    progress = Progress(Console(quiet=True), 4, [1.0], [])
    small, large = [trial(1), trial(2)], [trial(3, 5), trial(4, 5)]
    progress.trials_left([*small, *large], ended=0)
    clock.now = 9.0
    progress.epoch_trained(small[0], 1, seconds=9.0)
    assert progress.seconds_left() == pytest.approx(9 + 25 + 25)
    clock.now = 22.0
    progress.epoch_trained(large[0], 1, seconds=13.0)
    assert progress.seconds_left() == pytest.approx(9 + 13)


def test_what_optuna_has_not_proposed_yet_counts_and_what_an_earlier_run_did_does_not(clock: Clock) -> None:
    progress = Progress(Console(quiet=True), 10, [1.0, 1.0], [])
    going_on = PlannedTrial("arm", 5, trial(5).hyperparameters, "/there", epochs_done=1)
    progress.trials_left([going_on], ended=4)
    clock.now = 2.0
    progress.epoch_trained(going_on, 2, seconds=2.0)
    progress.trial_ended(going_on, "finished", None, 2, 0.5)
    assert progress.seconds_left() == pytest.approx(5 * 2 * 2)
