"""What is said of trials, and of the time that the rest takes."""

from io import StringIO

import pytest
from rich.console import Console

from platform.running.plan import History, plan_trials
from platform.running.progress import Progress
from tests.running.test_trials import SPACE, sweep_config


def test_the_rest_takes_as_long_as_what_was_trained_since_the_trials_began(monkeypatch: pytest.MonkeyPatch) -> None:
    search = {"method": "random", "trials_per_arm": 2, "space": SPACE}
    config = sweep_config(search, epochs=4)
    histories = {arm: History() for arm in ("regression", "plain", "half")}
    first, second, *_ = plan_trials(config)
    histories[first.arm].add(first.number, 1, 0.5)  # by an earlier run of the driver
    printed = StringIO()
    progress = Progress(Console(file=printed), config, histories)
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    with progress.shown():
        assert progress.seconds_left() is None
        monkeypatch.setattr("time.monotonic", lambda: 160.0)
        for epoch in (2, 3, 4):
            histories[first.arm].add(first.number, epoch, 1 / epoch)
        assert progress.seconds_left() == pytest.approx(60 / 3 * (3 * 2 * 4 - 4))
        histories[first.arm].ended[first.number] = "finished"
        progress.say_end(first)
        histories[second.arm].add(second.number, 1, 0.7)
        histories[second.arm].ended[second.number] = "stopped_early"
        progress.say_end(second)
        histories["half"].ended[1] = "failed"
        progress.say_end(plan_trials(config)[2], "as scripted")
    lines = printed.getvalue().splitlines()
    assert lines[0].startswith("[1/6] regression #1: finished, loss 0.25, learning_rate ")
    assert lines[0].endswith("; about 7 min left")
    assert lines[1].startswith("[2/6] plain #1: stopped early after epoch 1, loss 0.7, ")
    assert lines[2].startswith("[3/6] half #1: failed (as scripted), learning_rate ")
