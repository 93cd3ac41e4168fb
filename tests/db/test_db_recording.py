"""What a sweep records, on SQLite and on PostgreSQL."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from db.schema import Arm, Base, Experiment, Report, Run, Trial, TrialStatus
from db.store import read_session, write_session
from db.sweeps.recording import (
    finish_experiment,
    forget_reports,
    record_arm,
    record_dataset,
    record_experiment,
    record_image,
    record_report,
    record_run,
    record_sample,
    record_trial,
)
from db.sweeps.trials import code_versions, find_experiment


@pytest.fixture
def engine(empty_engine: Engine) -> Iterator[Engine]:
    """For tests that commit: emptied afterwards. Others take `empty_engine` and roll back what they write."""
    yield empty_engine
    with write_session(empty_engine) as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(delete(table))


@contextmanager
def rolled_back(engine: Engine) -> Iterator[Session]:
    with write_session(engine) as session:
        yield session
        session.expunge_all()  # what was read may be looked at afterwards
        session.rollback()


def new_dataset(session: Session, fingerprint: str = "abc") -> int:
    return record_dataset(
        session,
        name="photos",
        fingerprint=fingerprint,
        note="Made for a test.",
        class_names=["cat", "frog"],
        validation_class_counts=[4, 6],
        colour_counts=b"counts",
    )


def new_experiment(session: Session, dataset_id: int, name: str = "first") -> int:
    return record_experiment(
        session,
        name=name,
        dataset_id=dataset_id,
        config={"arms": ["L2"]},
        config_yaml="arms: [L2]  # Vergleich für λ\n",
        storage_path="/results/first",
    )


def new_arm(session: Session, experiment_id: int, position: int = 0) -> int:
    return record_arm(
        session,
        experiment_id=experiment_id,
        name=f"arm {position}",
        position=position,
        options={"kind": "classification", "rebalancing": 0.5},
        rebalancing=0.5,
    )


def new_trial(
    session: Session, experiment_id: int, arm_id: int, number: int = 1, status: TrialStatus = "running"
) -> int:
    return record_trial(
        session,
        experiment_id=experiment_id,
        arm_id=arm_id,
        number=number,
        hyperparameters={"learning_rate": 0.1},
        seed=1,
        status=status,
    )


def run_of(session: Session, trial_id: int) -> int:
    """The one run of the trial's experiment, made where there is none."""
    experiment_id = session.scalars(select(Trial.experiment_id).where(Trial.id == trial_id)).one_or_none() or 1
    known = session.scalars(select(Run.id).where(Run.experiment_id == experiment_id)).first()
    return known or record_run(session, experiment_id, code_version="1234abc", environment={"torch": "2"})


def report(session: Session, trial_id: int, epoch: int, loss: float = 1.0, **scores: float) -> None:
    record_report(
        session,
        trial_id,
        run_id=run_of(session, trial_id),
        epoch=epoch,
        images_seen=90 * epoch,
        seconds=0.5 * epoch,
        device="CPU",
        loss=loss,
        scores={"train": {"loss": loss / 2, **scores}, "validation": {"loss": 2 * loss, **scores}},
        standard_errors={"validation": {"bin_accuracy": 0.01}},
        class_bin_accuracy={"train": [0.5, None]},
        checkpoint=f"/results/{epoch}",
    )


def contents(session: Session) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables. In place of an id stands its rank, for ids may be skipped."""
    tables = Base.metadata.sorted_tables
    ranks = {
        f"{table.name[:-1]}_id": {
            row_id: rank for rank, row_id in enumerate(sorted(session.scalars(select(table.c.id))))
        }
        for table in tables
    }
    return {
        table.name: sorted(
            (
                {
                    key: ranks[key][value] if key in ranks else value
                    for key, value in row._mapping.items()
                    if key != "id"
                }
                for row in session.execute(select(table))
            ),
            key=str,
        )
        for table in tables
    }


# Recording

STEPS = st.one_of(
    st.tuples(
        st.just("trial"), st.integers(0, 2), st.sampled_from(get_args(TrialStatus)), st.sampled_from([None, "NaN loss"])
    ),
    st.tuples(st.just("report"), st.integers(0, 2), st.integers(0, 4), st.floats(0, 10)),
    st.tuples(st.just("forget"), st.integers(0, 2), st.none(), st.none()),
    st.tuples(st.just("sample"), st.integers(0, 2), st.integers(0, 4), st.binary(max_size=3)),
    st.tuples(st.just("finish"), st.sampled_from(["finished", "failed"]), st.none(), st.none()),
)


def take_steps(session: Session, steps: list[Any], times: int) -> None:
    """Record the steps in order, each `times` times."""
    for step, which, value, extra in steps:
        for _ in range(times):
            dataset_id = new_dataset(session)
            if step == "finish":
                finish_experiment(session, new_experiment(session, dataset_id), which)
                continue
            experiment_id = new_experiment(session, dataset_id)
            arm_id = new_arm(session, experiment_id)
            trials = [new_trial_if_missing(session, experiment_id, arm_id, n + 1) for n in range(3)]
            if step == "trial":
                record_trial(
                    session,
                    experiment_id=experiment_id,
                    arm_id=arm_id,
                    number=which + 1,
                    hyperparameters={"learning_rate": 0.1},
                    seed=which,
                    status=value,
                    failure_reason=extra,
                )
            elif step == "report":
                report(session, trials[which], value, extra)
            elif step == "forget":
                forget_reports(session, [trials[which]])
            else:
                image_id = record_image(
                    session,
                    dataset_id=dataset_id,
                    split="validation",
                    index_in_split=0,
                    class_index=1,
                    truth_png=b"png",
                    width=32,
                    height=32,
                )
                record_sample(
                    session,
                    trial_id=trials[which],
                    image_id=image_id,
                    epoch=value,
                    png=extra,
                    scores={"delta_e_2000": 9.5},
                )


def new_trial_if_missing(session: Session, experiment_id: int, arm_id: int, number: int) -> int:
    known = session.scalars(select(Trial.id).where(Trial.arm_id == arm_id, Trial.number == number)).one_or_none()
    return known or new_trial(session, experiment_id, arm_id, number, "pending")


def without_times(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The rows, of each moment only whether it is there."""
    return {
        table: [
            {key: value is not None if key.endswith("_at") else value for key, value in row.items()} for row in content
        ]
        for table, content in rows.items()
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_everything_may_be_recorded_twice(empty_engine: Engine, steps: list[Any]) -> None:
    recorded = []
    for times in (1, 2):
        with rolled_back(empty_engine) as session:
            take_steps(session, steps, times)
            recorded.append(without_times(contents(session)))
    assert recorded[0] == recorded[1]


def test_a_trial_that_begins_anew_ends_as_one_that_did_not(empty_engine: Engine) -> None:
    recorded = []
    for interrupted in (False, True):
        with rolled_back(empty_engine) as session:
            experiment_id = new_experiment(session, new_dataset(session))
            trial_id = new_trial(session, experiment_id, new_arm(session, experiment_id))
            if interrupted:
                for epoch in (1, 2, 3, 4):
                    report(session, trial_id, epoch, loss=100.0 + epoch, psnr_db=1.0)
                forget_reports(session, [trial_id])
                trial = session.scalars(select(Trial)).one()
                # Images and seconds of what is forgotten are forgotten too.
                assert (trial.epochs_done, trial.images_seen, trial.seconds, trial.checkpoint) == (0, 0, 0.0, None)
            for epoch in (1, 2, 2):
                report(session, trial_id, epoch, loss=1 / epoch)
            recorded.append(without_times(contents(session)))
    assert recorded[0] == recorded[1]


def test_later_report_of_the_same_epoch_wins_and_clears_what_it_lacks(engine: Engine) -> None:
    with write_session(engine) as session:
        experiment_id = new_experiment(session, new_dataset(session))
        trial_id = new_trial(session, experiment_id, new_arm(session, experiment_id))
        report(session, trial_id, 2, loss=3.0, psnr_db=20.0)
        report(session, trial_id, 2, loss=2.0, raw_auc=0.5)
        report(session, trial_id, 1, loss=5.0)  # late, and no step back
        trial = session.scalars(select(Trial)).one()
        assert (trial.epochs_done, trial.images_seen, trial.seconds, trial.checkpoint) == (2, 180, 1.0, "/results/2")
    with read_session(engine) as session:
        stored = session.scalars(select(Report).where(Report.epoch == 2)).one()
        assert stored.loss == 2.0
        assert stored.scores["validation"] == {"loss": 4.0, "raw_auc": 0.5}
        assert stored.class_bin_accuracy == {"train": [0.5, None]}


def test_a_score_of_any_name_is_stored_and_what_none_may_be_is_refused(engine: Engine) -> None:
    with write_session(engine) as session:
        experiment_id = new_experiment(session, new_dataset(session))
        arm_id = new_arm(session, experiment_id)
        trial_id = new_trial(session, experiment_id, arm_id)
        for value in (math.nan, math.inf):
            with pytest.raises(ValueError, match=f"train sharpness after epoch 1 is {value}; leave out"):
                report(session, trial_id, 1, sharpness=value)
        with pytest.raises((StatementError, ValueError), match="not JSON compliant"):  # PostgreSQL could not keep it
            record_trial(
                session,
                experiment_id=experiment_id,
                arm_id=arm_id,
                number=2,
                hyperparameters={"learning_rate": math.nan},
                seed=0,
                status="pending",
            )
        assert contents(session)["reports"] == []
        report(session, trial_id, 1, sharpness=0.25)
        assert session.scalars(select(Report)).one().scores["validation"]["sharpness"] == 0.25


def test_each_run_of_the_driver_keeps_its_code_version(engine: Engine) -> None:
    with write_session(engine) as session:
        experiment_id = new_experiment(session, new_dataset(session))
        trial_id = new_trial(session, experiment_id, new_arm(session, experiment_id), status="finished")
        report(session, trial_id, 1)
        again = record_run(session, experiment_id, code_version="5678def", environment={})
        first = session.scalars(select(Report)).one()
        record_report(
            session,
            trial_id,
            run_id=again,
            epoch=2,
            images_seen=180,
            seconds=1.0,
            device="CPU",
            loss=0.5,
            scores={"validation": {"bin_accuracy": 0.2}},
            standard_errors={},
            class_bin_accuracy={},
        )
        assert session.get_one(Run, first.run_id).code_version == "1234abc"
        assert code_versions(session, [trial_id]) == {trial_id: ["1234abc", "5678def"]}
    with read_session(engine) as session:
        assert find_experiment(session, "first").code_versions == ["1234abc", "5678def"]


def test_an_experiment_goes_on_under_its_name_but_not_on_other_data(engine: Engine) -> None:
    with write_session(engine) as session:
        dataset_id = new_dataset(session)
        experiment_id = new_experiment(session, dataset_id)
        experiment = session.get_one(Experiment, experiment_id)
        before = (experiment.status, experiment.created_at, experiment.finished_at)
        finish_experiment(session, experiment_id, "interrupted")
        finished_at = experiment.finished_at
        assert finished_at is not None
        finish_experiment(session, experiment_id, "interrupted")
        assert experiment.finished_at == finished_at
        assert new_experiment(session, dataset_id) == experiment_id
        assert (experiment.status, experiment.created_at, experiment.finished_at) == before
        with pytest.raises(ValueError, match=r"'first' was run on other data \(photos\); choose another name"):
            new_experiment(session, new_dataset(session, fingerprint="other"))


def test_moments_are_kept_in_utc(engine: Engine) -> None:
    moment = datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=9)))
    with write_session(engine) as session:
        new_experiment(session, new_dataset(session))
        session.execute(update(Experiment).values(created_at=moment))
        with pytest.raises(StatementError, match="has no time zone"):
            session.execute(update(Experiment).values(created_at=datetime(2026, 5, 1)))
    with read_session(engine) as session:
        created_at = session.scalars(select(Experiment.created_at)).one()
    assert created_at == moment
    assert created_at.tzinfo is UTC


# What the database itself refuses


def test_words_outside_the_lists_are_refused(engine: Engine) -> None:
    with write_session(engine) as session:
        dataset_id = new_dataset(session)
        experiment_id = new_experiment(session, dataset_id)
        arm_id = new_arm(session, experiment_id)
        new_trial(session, experiment_id, arm_id)
        trial = {"experiment_id": experiment_id, "arm_id": arm_id, "hyperparameters": {}, "seed": 1}
        arm = {"experiment_id": experiment_id, "name": "x", "position": 0, "baseline": False, "options": {}}
        run_id = record_run(session, experiment_id, code_version="", environment={})
        for statement in (
            insert(Trial).values(**trial, number=2, status="done"),
            insert(Trial).values(**trial, number=0, status="pending"),
            insert(Arm).values(**arm, rebalancing=1.5),
            insert(Report).values(
                trial_id=1,
                epoch=-1,
                run_id=run_id,
                images_seen=0,
                seconds=0.0,
                device="",
                scores={},
                standard_errors={},
                class_bin_accuracy={},
            ),
        ):
            with pytest.raises(IntegrityError, match=r"(?i)check constraint"), session.begin_nested():
                session.execute(statement)


def test_a_trial_belongs_to_the_experiment_of_its_arm(engine: Engine) -> None:
    with write_session(engine) as session:
        dataset_id = new_dataset(session)
        first, second = (new_experiment(session, dataset_id, name=name) for name in ("first", "second"))
        arm_id = new_arm(session, first)
        with pytest.raises(IntegrityError, match=r"(?i)foreign key"), session.begin_nested():
            new_trial(session, second, arm_id)
        with pytest.raises(IntegrityError, match=r"(?i)foreign key"), session.begin_nested():
            record_report(
                session,
                77,
                run_id=record_run(session, first, code_version="", environment={}),
                epoch=1,
                images_seen=1,
                seconds=1.0,
                device="",
                loss=None,
                scores={},
                standard_errors={},
                class_bin_accuracy={},
            )


def test_deleting_an_experiment_takes_all_of_it_and_spares_its_data(engine: Engine) -> None:
    with write_session(engine) as session:
        take_steps(session, [("report", 0, 1, 2.0), ("sample", 0, 1, b"png")], 1)
        session.execute(delete(Experiment))
        left = {table for table, rows in contents(session).items() if rows}
    assert left == {"datasets", "images"}
