"""What the database costs as trials grow."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from benchmarks.dashboard_database import ARMS, Begun, add_votes, begin, record_report, record_samples, record_trial
from benchmarks.harness import alternate, figure, spread, table
from db.schema import Experiment
from db.store import open_database, read_session, write_session
from db.surveys.answers import answers_version, load_answers
from db.surveys.study import create_study, find_study, studies_of, study_summary
from db.sweeps import course, pictures
from db.sweeps.trials import arm_results, best_contenders, best_trials, experiment_progress, list_experiments
from platform.running.config import recorded_config

TEXT = """\
## The database

An experiment of five arms in SQLite on this machine's disk. *Recording* writes, as a sweep does, each in a transaction
of its own: a trial's start, its three epochs with all scores, and its end with ten sample pictures of {picture_kb} kB.
The queries are those of `db/sweeps/trials.py`, each in a session of its own.
"""

DASHBOARD_TEXT = """
What the dashboard asks, on the same databases. Of the sweep (`db/sweeps/course.py`): its config and how far it is,
every trial with its last scores, the learning curves of all. Of a study of the best trials, with {votes} votes of
{people} people (`db/surveys/study.py`, `db/surveys/answers.py`): its summary, whether there are new votes, all votes
with the contenders' scores. Of pictures (`db/sweeps/pictures.py`): of what they are, their colour errors, and the PNG
files of all.
"""

NAME = "benchmark"
EPOCHS = 3
SAMPLES = 10

Query = Callable[[Session], object]


def section(tiny: bool) -> list[str]:
    people = 2 if tiny else 30
    rows, dashboard_rows = [], []
    for trials in (5, 10) if tiny else (10, 100, 1_000):
        with tempfile.TemporaryDirectory() as folder:
            engine = open_database(str(Path(folder) / "benchmark.sqlite"))
            with write_session(engine) as session:
                begun = begin(session, NAME, ARMS, images=SAMPLES, trials_per_arm=trials // len(ARMS), epochs=EPOCHS)
            started = time.perf_counter()
            for number in range(1, trials // len(ARMS) + 1):
                for arm in ARMS:
                    _record(engine, begun, arm, number)
            seconds = time.perf_counter() - started
            create_study(engine, NAME, question_count=SAMPLES, practice_count=0, seed=0)
            add_votes(engine, NAME, people=people)
            _check(engine, begun, people)
            times = _milliseconds(engine, _result_queries(), tiny)
            dashboard_times = _milliseconds(engine, _dashboard_queries(engine, begun.experiment_id), tiny)
            engine.dispose()
        rows.append([f"{trials:,}", figure(seconds), figure(1e3 * seconds / trials), *times.values()])
        dashboard_rows.append([f"{trials:,}", *dashboard_times.values()])
    bytes_each = [len(png) for arm in ARMS for png in begun.pictures[arm]]
    return [
        TEXT.format(picture_kb=figure(sum(bytes_each) / len(bytes_each) / 1e3, 2)),
        *table(["trials", "recording, s", "ms per trial", *(f"`{name}`, ms" for name in times)], rows),
        DASHBOARD_TEXT.format(people=people, votes=people * SAMPLES),
        *table(["trials", *(f"{name}, ms" for name in dashboard_times)], dashboard_rows),
    ]


def _record(engine: Engine, begun: Begun, arm: str, number: int) -> None:
    with write_session(engine) as session:
        trial_id = record_trial(session, begun, arm, number, "running")
    for epoch in range(1, EPOCHS + 1):
        with write_session(engine) as session:
            record_report(session, begun, trial_id, arm, number, epoch)
    with write_session(engine) as session:
        record_trial(session, begun, arm, number, "finished")
        record_samples(session, begun, trial_id, arm, EPOCHS)


def _check(engine: Engine, begun: Begun, people: int) -> None:
    """What the queries return is there."""
    with read_session(engine) as session:
        best = best_trials(session, begun.experiment_id)
        answers = load_answers(session, find_study(session, NAME))
        assert set(best) == {begun.arm_ids[arm] for arm in ARMS}
        assert {row[0] for row in course.learning_curves(session, begun.experiment_id, "loss")} >= set(best.values())
        assert len(answers.votes) == people * SAMPLES > 0
        assert len(answers.contenders) == len(ARMS)
        assert len(_pictures(session)) == len(ARMS) * SAMPLES


def _result_queries() -> dict[str, Query]:
    return {
        "list_experiments": list_experiments,
        "experiment_progress": lambda session: experiment_progress(session, NAME),
        "arm_results": lambda session: arm_results(session, NAME),
    }


def _dashboard_queries(engine: Engine, experiment_id: int) -> dict[str, Query]:
    return {
        "config and progress": lambda session: (
            recorded_config(session.get_one(Experiment, experiment_id).config),
            course.sweep_progress(session, experiment_id),
        ),
        "trials": lambda session: course.swept_trials(session, experiment_id),
        "learning curves": lambda session: course.learning_curves(session, experiment_id, "loss"),
        "study": lambda session: (studies_of(session, experiment_id), study_summary(engine, NAME)),
        "new votes?": lambda session: answers_version(session, find_study(session, NAME), simulated=False),
        "all votes": lambda session: load_answers(session, find_study(session, NAME)),
        "pictures": _pictures,
    }


def _pictures(session: Session) -> dict[tuple[int, int], bytes]:
    trials = [contender.trial.trial_id for contender in best_contenders(arm_results(session, NAME))]
    images = [photograph.image_id for photograph in pictures.photographs(session, trials)]
    pictures.scores_of_samples(session, trials)
    pictures.truth_pngs(session, images)
    return pictures.sample_pngs(session, trials, images)


def _milliseconds(engine: Engine, queries: dict[str, Query], tiny: bool) -> dict[str, str]:
    """How long each query takes, in a session of its own."""

    def ask(query: Query) -> None:
        with read_session(engine) as session:
            query(session)

    times = alternate({name: partial(ask, query) for name, query in queries.items()}, 1 if tiny else 15)
    return {name: spread([1e3 * value for value in values]) for name, values in times.items()}
