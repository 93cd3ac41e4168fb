"""What the results say of a recorded sweep, on SQLite and on PostgreSQL."""

import random
import re
from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, select
from sqlalchemy.orm import Session

from db.schema import Image, Report, Sample, Trial, TrialStatus
from db.store import open_database, write_session
from db.sweeps.recording import record_arm
from db.sweeps.trials import UnknownExperimentError, arm_results, experiment_progress, list_experiments
from tests.db.test_db_recording import (
    START,
    new_arm,
    new_dataset,
    new_experiment,
    new_trial,
    report,
    rolled_back,
)


@st.composite
def sweeps(draw: st.DrawFn) -> list[list[tuple[TrialStatus, list[float]]]]:
    """Arms of trials, each with its state and its losses on the tuning split, epoch by epoch."""
    losses = st.lists(st.integers(0, 3).map(float), max_size=3)  # few values, so that there are ties
    trial = st.tuples(st.sampled_from(get_args(TrialStatus)), losses)
    return draw(st.lists(st.lists(trial, max_size=6), min_size=1, max_size=4))


@settings(max_examples=25, deadline=None)
@given(sweeps())
def test_best_trial_of_each_arm(empty_engine: Engine, arms: list[list[tuple[TrialStatus, list[float]]]]) -> None:
    with rolled_back(empty_engine) as session:
        dataset_id = new_dataset(session)
        for name in ("elsewhere", "first"):  # the same trials in another experiment change nothing
            experiment_id = new_experiment(session, dataset_id, name=name)
            for position, trials in enumerate(arms):
                arm_id = new_arm(session, experiment_id, position)
                for number, (status, losses) in enumerate(trials):
                    trial_id = new_trial(session, experiment_id, arm_id, number + 1, status)
                    for epoch, loss in enumerate(losses, start=1):
                        report(session, trial_id, epoch, loss, bin_accuracy=epoch / 10)
        results = arm_results(session, "first")

    assert [result.arm for result in results] == [f"arm {position}" for position in range(len(arms))]
    for result, trials in zip(results, arms, strict=True):
        states = [status for status, _ in trials]
        assert result.trials == {status: states.count(status) for status in set(states)}
        finished = [
            (losses[-1], number) for number, (status, losses) in enumerate(trials) if status == "finished" and losses
        ]
        if not finished:
            assert result.best is None
            continue
        loss, number = min(finished)
        epochs = len(trials[number][1])
        assert result.best is not None
        assert (result.best.number, result.best.loss) == (number + 1, loss)
        assert (result.best.epoch, result.best.images_seen) == (epochs, 90 * epochs)
        assert result.best.scores["validation"] == {"loss": 2 * loss, "bin_accuracy": epochs / 10}
        assert result.best.scores["train"] == {"loss": loss / 2, "bin_accuracy": epochs / 10}
        assert result.best.standard_errors == {"validation": {"bin_accuracy": 0.01}}
        assert result.best.class_bin_accuracy == {"train": [0.5, None]}


def test_results_hold_baselines_and_arms_without_result(empty_engine: Engine) -> None:
    with rolled_back(empty_engine) as session:
        experiment_id = new_experiment(session, new_dataset(session))
        grey = record_arm(
            session, experiment_id=experiment_id, name="grey", position=2, options={"kind": "grey"}, baseline=True
        )
        trial_id = new_trial(session, experiment_id, grey, status="finished")
        report(session, trial_id, 0, bin_accuracy=0.1)
        new_arm(session, experiment_id, position=1)
        model, baseline = arm_results(session, "first")
        progress = experiment_progress(session, "first")
    assert (model.arm, model.baseline, model.rebalancing, model.trials, model.best) == ("arm 1", False, 0.5, {}, None)
    assert (baseline.arm, baseline.baseline, baseline.rebalancing) == ("grey", True, None)
    assert baseline.best is not None
    assert (baseline.best.epoch, baseline.best.scores["validation"]["bin_accuracy"]) == (0, 0.1)
    assert progress.trials == {}  # baselines are not counted
    assert (progress.dataset, progress.dataset_note, progress.dataset_fingerprint) == (
        "photos",
        "Made for a test.",
        "abc",
    )


def test_experiments_are_listed_newest_first_with_what_they_ran_on(empty_engine: Engine) -> None:
    with rolled_back(empty_engine) as session:
        assert list_experiments(session) == []
        with pytest.raises(UnknownExperimentError, match=r"no experiment 'first'; the database holds none yet\."):
            arm_results(session, "first")
        dataset_id = new_dataset(session)
        for day, name in enumerate(("older", "newer")):
            experiment_id = new_experiment(session, dataset_id, name, START + timedelta(days=day))
            for number in range(day + 1):
                new_trial(session, experiment_id, new_arm(session, experiment_id), number + 1)
        found = [(entry.name, entry.trials, entry.dataset_fingerprint) for entry in list_experiments(session)]
        assert found == [("newer", {"running": 2}, "abc"), ("older", {"running": 1}, "abc")]
        with pytest.raises(UnknownExperimentError, match=r"no experiment 'newr'; there is newer\."):
            arm_results(session, "newr")


def statements_of(engine: Engine, session: Session) -> list[tuple[str, Any]]:
    """What arm_results sends to the database."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    arm_results(session, "first")
    event.remove(engine, "before_cursor_execute", note)
    return sent


def test_results_take_few_statements_whatever_their_number_and_use_indexes() -> None:
    engine = open_database(":memory:")
    numbers = random.Random(0)
    counts = []
    for positions in (range(1), range(5)):
        with write_session(engine) as session:
            experiment_id = new_experiment(session, new_dataset(session))
            for position in positions:
                arm_id = new_arm(session, experiment_id, position)
                for number in range(1, 5):
                    trial_id = new_trial(session, experiment_id, arm_id, number, "finished")
                    report(session, trial_id, 1, numbers.random())
        with write_session(engine) as session:
            counts.append(len(statements_of(engine, session)))
    assert counts[0] == counts[1] <= 9

    with write_session(engine) as session:
        statements = [entry for entry in statements_of(engine, session) if entry[0].startswith("SELECT")]
        samples = select(Sample).where(Sample.trial_id == 1), select(Sample).where(Sample.image_id == 1)
        images = (select(Image).where(Image.dataset_id == 1, Image.split == "validation"),)
        curve = (select(Report).where(Report.trial_id == 1).order_by(Report.epoch),)
        best = (select(Trial).where(Trial.arm_id == 1, Trial.status == "finished"),)
        for query in (*samples, *images, *curve, *best):
            compiled = query.compile(engine)
            statements.append((str(compiled), tuple(compiled.params[name] for name in compiled.positiontup or ())))
        assert len(statements) >= 8
        for statement, parameters in statements:
            plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [row.detail for row in plan]
            assert any("SEARCH" in step for step in steps), steps
            # A query may scan a result of its own, never a table.
            scanned = [step for step in steps if re.match(r"SCAN (?!anon_\d|\(subquery)", step)]
            assert not scanned, (statement, steps)
    engine.dispose()
