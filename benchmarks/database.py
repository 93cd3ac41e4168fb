"""What the database costs as trials grow."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from benchmarks.harness import alternate, figure, spread, table
from db import gallery, recording, sweeps
from db.answers import answers_version, load_answers
from db.pictures import encoded
from db.results import arm_results, best_trials, contenders, experiment_progress, list_experiments
from db.schema import TrialStatus
from db.store import open_database, read_session, write_session
from db.studies import create_study, find_study, study_names, study_summary
from platform.scores import SCORES
from tests.survey_data import answer_all

TEXT = """\
## The database

An experiment of five arms in SQLite on this machine's disk. *Recording* writes, as a sweep does, each in a transaction
of its own: a trial's start, its three epochs with all scores, and its end with ten sample pictures of 2 kB. The queries
are those of `db/results.py`, each in a session of its own.
"""

DASHBOARD_TEXT = """
What the dashboard asks, on the same databases. Of the sweep (`db/sweeps.py`): its plan and how far it is, every trial
with its last measurement, the learning curves of all. Of a study of the best trials, with {votes} votes of {people}
people (`db/studies.py`, `db/answers.py`): its summary, whether there are new votes, all votes with the contenders'
scores. Of pictures (`db/gallery.py`): whose and of what they are, and the PNG files of all.
"""

NAME = "benchmark"
ARMS = 5
EPOCHS = 3
SAMPLES = 10
PIXELS = 25  # a side of a picture; as noise that is 2 kB
PEOPLE = 30

Query = Callable[[Session], object]


def section(tiny: bool) -> list[str]:
    people = 2 if tiny else PEOPLE
    rows, dashboard_rows = [], []
    for trials in (2, 5) if tiny else (10, 100, 1_000):
        with tempfile.TemporaryDirectory() as folder:
            engine = open_database(str(Path(folder) / "benchmark.sqlite"))
            experiment_id, run_id, arms, images = _begin(engine)
            started = time.perf_counter()
            for number in range(trials):
                _record_trial(engine, (experiment_id, run_id, arms[number % ARMS]), images, number)
            seconds = time.perf_counter() - started
            create_study(engine, NAME, question_count=SAMPLES, practice_count=0, seed=0)
            for _ in range(people):
                answer_all(engine, NAME, wrong={"arm 1"})
            queries = _result_queries()
            times = _milliseconds(engine, queries, tiny)
            dashboard_queries = _dashboard_queries(engine, experiment_id)
            dashboard_times = _milliseconds(engine, dashboard_queries, tiny)
            engine.dispose()
        rows.append([f"{trials:,}", figure(seconds), figure(1e3 * seconds / trials), *times])
        dashboard_rows.append([f"{trials:,}", *dashboard_times])
    return [
        TEXT,
        *table(["trials", "recording, s", "ms a trial", *(f"`{name}`, ms" for name in queries)], rows),
        DASHBOARD_TEXT.format(people=people, votes=people * SAMPLES),
        *table(["trials", *(f"{name}, ms" for name in dashboard_queries)], dashboard_rows),
    ]


def _result_queries() -> dict[str, Query]:
    return {
        "list_experiments": list_experiments,
        "experiment_progress": lambda session: experiment_progress(session, NAME),
        "arm_results": lambda session: arm_results(session, NAME),
    }


def _dashboard_queries(engine: Engine, experiment_id: int) -> dict[str, Query]:
    """What they return is checked to be there."""
    with read_session(engine) as session:
        best = best_trials(session, experiment_id)
        curves = sweeps.learning_curves(session, experiment_id, "loss")
        study = find_study(session, NAME)
        answers = load_answers(session, study)
        pngs = _gallery(session)
    assert len({trial_id for trial_id, *_ in curves}) >= len(best) == len(answers.contenders) > 0
    assert len(answers.votes) == answers.participants * SAMPLES > 0
    assert len(pngs) == len(best) * SAMPLES
    return {
        "plan and progress": lambda session: (
            sweeps.sweep_plan(session, experiment_id),
            sweeps.sweep_progress(session, experiment_id),
        ),
        "trials": lambda session: sweeps.swept_trials(session, experiment_id),
        "learning curves": lambda session: sweeps.learning_curves(session, experiment_id, "loss"),
        "study": lambda session: (study_names(session, experiment_id), study_summary(engine, NAME)),
        "new votes?": lambda session: answers_version(session, find_study(session, NAME), simulated=False),
        "all votes": lambda session: load_answers(session, find_study(session, NAME)),
        "pictures": _gallery,
    }


def _gallery(session: Session) -> dict[tuple[int, int], bytes]:
    trials = [contender.trial.trial_id for contender in contenders(session, find_study(session, NAME))]
    images = [photograph.image_id for photograph in gallery.photographs(session, trials)]
    gallery.truth_pngs(session, images)
    gallery.sample_scores(session, trials, "delta_e_2000")
    return gallery.sample_pngs(session, trials, images)


def _milliseconds(engine: Engine, queries: dict[str, Query], tiny: bool) -> list[str]:
    """How long each query takes, in a session of its own."""

    def ask(query: Query) -> None:
        with read_session(engine) as session:
            query(session)

    times = alternate({name: partial(ask, query) for name, query in queries.items()}, 1 if tiny else 15)
    return [spread([1e3 * value for value in values]) for values in times.values()]


def _begin(engine: Engine) -> tuple[int, int, list[int], dict[int, bytes]]:
    """Ids of the experiment, its run and its arms; of each image a picture."""
    with write_session(engine) as session:
        dataset_id = recording.record_dataset(
            session,
            name="random",
            fingerprint="benchmark",
            note="Random bytes.",
            class_names=["none"],
            train_count=1,
            tuning_count=1,
            validation_count=SAMPLES,
            validation_class_counts=[SAMPLES],
            colour_counts=b"",
        )
        experiment_id = recording.record_experiment(
            session,
            name=NAME,
            dataset_id=dataset_id,
            config={},
            config_yaml="",
            profile=None,
            storage_path="",
        )
        run_id = recording.record_run(session, experiment_id, code_version="benchmark", environment={})
        arms = [
            recording.record_arm(
                session,
                experiment_id=experiment_id,
                name=f"arm {number}",
                position=number,
                options={"kind": "classification", "rebalancing": number / ARMS},
                rebalancing=number / ARMS,
            )
            for number in range(ARMS)
        ]
        images = {
            recording.record_image(
                session,
                dataset_id=dataset_id,
                split="validation",
                index_in_split=index,
                class_index=0,
                truth_png=png,
                width=PIXELS,
                height=PIXELS,
            ): png
            for index, png in enumerate(_noise(index) for index in range(SAMPLES))
        }
    return experiment_id, run_id, arms, images


def _noise(seed: int) -> bytes:
    """A PNG of 2 kB that the survey can show."""
    return encoded(np.random.default_rng(seed).integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8))


def _record_trial(engine: Engine, ids: tuple[int, int, int], images: dict[int, bytes], number: int) -> None:
    """ids: of the experiment, its run and the trial's arm."""
    experiment_id, run_id, arm_id = ids

    def record(session: Session, status: TrialStatus) -> int:
        return recording.record_trial(
            session,
            experiment_id=experiment_id,
            arm_id=arm_id,
            number=number // ARMS + 1,
            hyperparameters={"learning_rate": 1e-3},
            seed=number,
            status=status,
        )

    with write_session(engine) as session:
        trial_id = record(session, "running")
    scores = {name: 0.5 for name in SCORES if name != "loss"}
    for epoch in range(1, EPOCHS + 1):
        with write_session(engine) as session:
            recording.record_report(
                session,
                trial_id,
                run_id=run_id,
                epoch=epoch,
                images_seen=epoch,
                seconds=float(epoch),
                device="cpu",
                loss=3 + (number * 7919 % 1000) / 1000 - epoch / 10,
                scores={"train": scores, "validation": scores},
                standard_errors={"validation": scores},
                class_bin_accuracy={"train": [0.2] * 10, "validation": [0.2] * 10},
            )
    with write_session(engine) as session:
        record(session, "finished")
        for image_id, png in images.items():
            recording.record_sample(
                session,
                trial_id=trial_id,
                image_id=image_id,
                epoch=EPOCHS,
                decoding="mode",
                png=png,
                scores={"delta_e_2000": 10.0},
            )
