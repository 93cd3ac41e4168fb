"""The command, end to end: `python -m platform.sweep` in processes of its own, with a real Ray and real training.

One experiment serves all tests: its first process is killed, its second is told to end, its third finishes. All of them
meet what other people's machines have in store: old variables, another user's lock files, output that is not UTF-8.
"""

import io
import shutil
import signal
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from rich.console import Console
from sqlalchemy import Engine, delete, func, select, update

from db.errors import UserError
from db.schema import Arm, Experiment, Image, Report, Run, Sample, StoredDataset, Trial
from db.store import open_database, read_session, write_session
from db.sweeps.drivers import Drive
from db.sweeps.pictures import scores_of_samples
from db.sweeps.trials import best_trials, load_arms
from platform import jury
from platform.arms import compose as compose_module
from platform.arms import cross_fit
from platform.arms.compose import compose
from platform.arms.options import BASELINES
from platform.color.scores import JURY
from platform.colorize import main as colorize
from platform.data.datasets import load_dataset
from platform.model.storage import CHECKPOINT_FILE
from platform.model.stored import load_trial
from platform.model.training import train
from platform.paint.samples import SAMPLES_FILE, choose_sample_indices, paint_samples
from platform.results import main as print_results
from platform.running import driver
from platform.running.config import read_config
from platform.running.plan import plan_trials
from platform.running.preparation import find_experiment
from platform.sweep import main as sweep
from tests.contracts import colours_of
from tests.processes import run_sweep

CHECKOUT = Path(__file__).resolve().parents[2]

CONFIG = """\
experiment: tiny
dataset: photos
train_images: 40
validation_images: 20
epochs: 3
arms:
  regression: {kind: regression}
  rebalanced: {kind: classification, rebalancing: 0.25}
training:
  batch_size: 20
  width: 4
  depth: 1
  optimizer: sgd
  precision: float32
search:
  method: grid
  space: {learning_rate: [1e-3, 1e-2, 3e-2, 1e30]}  # the last one must diverge
samples: {images: 5}
"""
# Beside them an arm without a training of its own, one with a palette that is found, and a name that no folder bears.
LONG = "π/" * 40
MORE_ARMS = f'''arms:
  tilted: {{renders: rebalanced, tilt: 0.5}}
  "{LONG}": {{kind: classification, palette: {{kmeans: 16}}}}
'''
TRAINED = ("regression", "rebalanced", LONG)
TRIALS = 12


@dataclass(frozen=True)
class Finished:
    folder: Path
    config: Path
    engine: Engine
    output: str


@pytest.fixture(scope="module")
def others_machine() -> Iterator[dict[str, str]]:
    """Variables as other people's machines have them: Ray's lock files belong to somebody else, and old profiles."""
    folder = Path(tempfile.mkdtemp(prefix="hj", dir="/tmp"))  # short, as sockets' paths begin with it
    (folder / "_ray_lockfiles").touch()
    yield {"TMPDIR": str(folder), "TUNE_RESULT_DIR": "/old", "PYTHONIOENCODING": "latin-1"}
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, others_machine: dict[str, str]) -> Path:
    """The folder of an experiment whose first process was killed and whose second got SIGTERM."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.yaml").write_text(CONFIG.replace("arms:\n", MORE_ARMS))
    for stop_at, stop_by, expected_status, expected_state in (
        (r"\[1/12\]", signal.SIGKILL, -signal.SIGKILL, "running"),
        (r"\[\d+/12\]", signal.SIGTERM, 130, "interrupted"),
    ):
        status, output = run_sweep(command(folder), others_machine, stop_at, stop_by)
        assert status == expected_status, output
        [resumed_by] = [line for line in output.splitlines() if line.startswith("If it is interrupted")]
        assert f"python -m platform.sweep --resume tiny --database {folder}/d.sqlite" in resumed_by
        engine = open_database(folder / "d.sqlite")
        assert experiment_status(engine) == expected_state
        assert 1 <= ended(engine) < TRIALS
        engine.dispose()
    assert "Interrupted" in output.splitlines()[-1]
    assert "--resume tiny --database" in output.splitlines()[-1]
    assert "SIGTERM" not in output  # no native stack
    (folder / "s").rename(folder / "moved")
    return folder


@pytest.fixture(scope="module")
def finished(interrupted: Path, others_machine: dict[str, str]) -> Iterator[Finished]:
    """The experiment at its end, whose storage was moved meanwhile."""
    status, output = run_sweep([*command(interrupted), "--storage", str(interrupted / "moved")], others_machine)
    assert status == 1, output  # as some trials failed
    engine = open_database(interrupted / "d.sqlite")
    yield Finished(interrupted, interrupted / "tiny.yaml", engine, output)
    engine.dispose()


def command(folder: Path, *more: str) -> list[str]:
    return [str(folder / "tiny.yaml"), "--database", str(folder / "d.sqlite"), "--storage", str(folder / "s"), *more]


@contextmanager
def closing_engine(path: Path) -> Iterator[Engine]:
    engine = open_database(path)
    yield engine
    engine.dispose()


@contextmanager
def one_thread() -> Iterator[None]:
    """As trials have: it decides in which order sums are taken."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def experiment_status(engine: Engine) -> str:
    with read_session(engine) as session:
        return session.scalars(select(Experiment.status)).one()


def ended(engine: Engine) -> int:
    statement = select(func.count()).select_from(Trial).join(Arm, Arm.id == Trial.arm_id)
    with read_session(engine) as session:
        return session.scalars(statement.where(Arm.name.in_(TRAINED), Trial.status.in_(["finished", "failed"]))).one()


def test_what_ends_a_sweep_leaves_no_trial_running(interrupted: Path) -> None:
    # After SIGTERM or Ctrl-C; after a kill there is nobody to say so, but the next process puts it right.
    engine = open_database(interrupted / "d.sqlite")
    with read_session(engine) as session:
        assert set(session.scalars(select(Trial.status))) <= {"finished", "failed", "pending"}
    engine.dispose()


def test_a_resumed_sweep_gives_what_an_uninterrupted_one_would(finished: Finished) -> None:
    data = load_dataset(["photos"], train_images=40, validation_images=20, say=lambda line: None)
    colours = colours_of(data)
    config = read_config(finished.config).config
    with one_thread(), read_session(finished.engine) as session:
        rows = session.execute(select(Arm.name, Trial).join(Arm, Arm.id == Trial.arm_id).where(~Arm.baseline))
        trials = {(arm, trial.number): trial for arm, trial in rows}
        planned = plan_trials(config)
        of_tilted = {("tilted", trial.number) for trial in planned}
        assert trials.keys() == {(trial.arm, trial.number) for trial in planned} | of_tilted
        for trial in planned:
            if trial.hyperparameters.learning_rate > 1:
                continue
            reports = list(train(compose(config.arms, trial.arm, colours), trial.hyperparameters, data))
            for arm in reports[0].scores:
                row = trials[arm, trial.number]
                assert (row.status, row.epochs_done) == ("finished", 3)
                assert row.images_seen == reports[-1].images_seen
                recorded = session.scalars(select(Report).where(Report.trial_id == row.id).order_by(Report.epoch))
                for report, found in zip(reports, recorded, strict=True):
                    assert (found.epoch, found.loss) == (report.epoch, report.loss)
                    for split, scores in report.scores[arm].items():
                        assert found.scores[split] == pytest.approx(scores.values), (arm, split)


def test_a_diverging_trial_is_recorded_with_its_reason_and_stops_no_other(finished: Finished) -> None:
    with read_session(finished.engine) as session:
        failed = session.execute(
            select(Arm.name, Trial).join(Arm, Arm.id == Trial.arm_id).where(Trial.status == "failed")
        ).all()
        assert {arm for arm, _ in failed} == {*TRAINED, "tilted"}
        for _, trial in failed:
            assert trial.hyperparameters["learning_rate"] == 1e30
            assert str(trial.failure_reason).startswith("diverged: the loss became")
    assert finished.output.count("Failed: ") == 4
    assert experiment_status(finished.engine) == "finished"


def test_every_finished_trial_has_the_same_samples_beside_the_truth(finished: Finished) -> None:
    with read_session(finished.engine) as session:
        images = session.scalars(select(Image)).all()
        labels = session.scalars(select(StoredDataset)).one().class_names
        assert sorted(image.class_index for image in images) == list(range(len(labels)))  # one of each class
        samples: dict[int, list[Sample]] = {}
        for sample in session.scalars(select(Sample)):
            samples.setdefault(sample.trial_id, []).append(sample)
        statuses = {trial.id: trial.status for trial in session.scalars(select(Trial))}
        assert samples.keys() == {trial for trial, status in statuses.items() if status == "finished"}
        truth = {image.id: pixels(image.truth_png) for image in images}
        for of_trial in samples.values():
            assert {sample.image_id for sample in of_trial} == truth.keys()
            for sample in of_trial:
                assert pixels(sample.png).shape == truth[sample.image_id].shape == (32, 32, 3)
                assert sample.scores["delta_e_2000"] > 0
        pictures = {tuple(sample.png for sample in of_trial) for of_trial in samples.values()}
        assert len(pictures) == len(samples)  # no two trials paint alike
        decodings = dict(session.execute(select(Arm.name, Arm.decoding)).all())
    assert decodings == {
        "regression": None,
        "rebalanced": "annealed mean",
        "tilted": "annealed mean, tilted by λ = 0.5 beside λ = 0.25 in training",
        LONG: "annealed mean",
        "most frequent bin": None,
        "by class and place": None,
        "grey": None,
    }


def test_any_stored_model_is_loaded_from_the_database_alone_and_paints_the_stored_pictures(finished: Finished) -> None:
    data = load_dataset(["photos"], train_images=40, validation_images=20, say=lambda line: None)
    indices = choose_sample_indices(data.validation_labels, 5)
    with one_thread(), read_session(finished.engine) as session:
        trials = session.execute(select(Arm.name, Trial).join(Arm, Arm.id == Trial.arm_id)).all()
        painted = set()
        for arm, trial in trials:
            if trial.status == "failed":
                with pytest.raises(UserError, match=f"{arm} #{trial.number} has no weights to load"):
                    load_trial(session, trial.id)
                continue
            found = select(Image.index_in_split, Sample.png, Sample.scores).join(Image, Image.id == Sample.image_id)
            stored = {
                index: (png, scores) for index, png, scores in session.execute(found.where(Sample.trial_id == trial.id))
            }
            task, model = load_trial(session, trial.id)
            of_indices = data.validation_images[indices], data.validation_labels[indices]
            pictures = paint_samples(task, model, *of_indices)[arm]
            assert [(picture.png, picture.scores) for picture in pictures] == [stored[index] for index in indices], arm
            painted.add(arm)
    assert painted == {*TRAINED, "tilted", *BASELINES}


def test_photographs_are_coloured_by_stored_models(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = load_dataset(["photos"], train_images=40, validation_images=20, say=lambda line: None).validation_images[0]
    photograph, out = tmp_path / "a photograph.png", tmp_path / "out"
    Picture.fromarray(image).save(photograph)
    before = photograph.read_bytes()

    def run(*arguments: str, to: Path = out) -> tuple[int, str, str]:
        told = [str(photograph), "--database", str(finished.folder / "d.sqlite"), "--out", str(to), *arguments]
        with one_thread():
            return (colorize(told), *capsys.readouterr())

    status, _, errors = run(str(tmp_path / "missing.jpg"), "--all-arms")
    assert (status, errors) == (2, f"There is no file {tmp_path / 'missing.jpg'}; check its name.\n")
    assert len(list(out.iterdir())) == len(TRAINED) + 2  # tilted, and the sheet of all
    with read_session(finished.engine) as session:
        trial_id = next(trial.id for trial in best_trials(session, 1) if trial.arm.name == "tilted")
        task, model = load_trial(session, trial_id)
    [sample] = paint_samples(task, model, image[None])["tilted"]
    same = np.asarray(Picture.open(out / "a photograph-tilted.png"))
    assert np.array_equal(same, np.asarray(Picture.open(io.BytesIO(sample.png))))

    # "tilted" is λ = 0.5 of the same training, and keeps it where a temperature is asked for; the other way round, too.
    for arguments, name in (
        (["--arm", "rebalanced", "--tilt", "0.5"], "tilted.png"),
        (["--arm", "tilted", "--temperature", "0.9"], "warm.png"),
        (["--arm", "rebalanced", "--tilt", "0.5", "--temperature", "0.9"], "the same.PNG"),
        (["--arm", "rebalanced", "--temperature", "0.9"], "plain.png"),
    ):
        assert run(*arguments, to=tmp_path / name)[0] == 0
    tilted, warm, the_same, plain = (
        np.asarray(Picture.open(tmp_path / name)) for name in ("tilted.png", "warm.png", "the same.PNG", "plain.png")
    )
    assert np.array_equal(tilted, same)
    assert np.array_equal(warm, the_same)
    assert not np.array_equal(warm, plain)
    assert not np.array_equal(warm, tilted)

    Picture.fromarray(image).save(photograph.with_suffix(".tif"))
    one_file = tmp_path / "coloured.png"
    for arguments, to, words in (
        (["--arm", "regression", "--tilt", "0.5"], out, "gives colours directly"),
        (["--arm", "tiltd"], out, "did you mean `tilted`?"),
        (["--arm", "rebalanced", "--tilt", "7"], out, "--tilt is 7.0: input should be less than or equal to 1.\n"),
        ([str(photograph.with_suffix(".tif")), "--arm", "tilted"], out, "the colours of one, which is not overwritten"),
        ([str(photograph.with_suffix(".tif")), "--arm", "tilted"], one_file, "is one file: for several photographs"),
        (["--all-arms"], one_file, "is one file: for several photographs or models give a folder"),
        (["--arm", "tilted"], photograph, "is a photograph or the colours of one, which is not overwritten"),
        (["--arm", "tilted"], photograph / "below.png", "cannot be written (File exists)"),
    ):
        status, _, errors = run(*arguments, to=to)
        assert (status, errors.count("\n")) == (2, 1)
        assert words in errors
    assert not one_file.exists()
    assert "with the least colour error" in run()[1]
    assert photograph.read_bytes() == before


def test_what_follows_from_the_data_is_not_computed_again(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "count_colours", None)  # they cannot be called
    monkeypatch.setattr(compose_module, "kmeans_centers", None)
    row = find_experiment(finished.engine, "tiny")
    assert row is not None
    drive = Drive(finished.engine, "tiny")
    drive.take()
    resumed = driver.Sweep.resume(drive, Console(quiet=True), row)
    resumed.load()
    palette = resumed.tasks[LONG].palette
    assert palette is not None
    assert len(palette.centers) == 16


def pixels(png: bytes) -> np.ndarray:
    with Picture.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


def test_every_figure_can_be_traced(finished: Finished) -> None:
    data = load_dataset(["photos"], train_images=40, validation_images=20, say=lambda line: None)
    with read_session(finished.engine) as session:
        experiment = session.scalars(select(Experiment)).one()
        assert experiment.config_yaml == finished.config.read_text()
        assert experiment.config["training"]["width"] == 4
        runs = session.scalars(select(Run).order_by(Run.id)).all()
        assert len(runs) == 3  # one of each process
        for of_process in runs:
            assert of_process.code_version
            assert {"python", "torch", "ray", "cluster"} <= of_process.environment.keys()
        assert {report.run_id for report in session.scalars(select(Report))} == {of_process.id for of_process in runs}
        assert session.scalars(select(StoredDataset)).one().fingerprint == data.fingerprint
        centers = dict(session.execute(select(Arm.name, Arm.centers)).all())
        assert centers["regression"] is None
        assert len(centers[LONG] or []) == 16
        arms = {arm.name: arm for arm in load_arms(session, experiment.id)}
    assert list(arms) == ["tilted", LONG, "regression", "rebalanced", *BASELINES]
    for name in TRAINED:
        assert Counter(trial.status for trial in arms[name].trials) == {"finished": 3, "failed": 1}
        best = arms[name].best
        assert best is not None
        assert best.epochs_done == 3


def test_checkpoints_are_those_that_the_database_names(finished: Finished) -> None:
    with read_session(finished.engine) as session:
        named = set(session.scalars(select(Trial.checkpoint).where(Trial.checkpoint.is_not(None))))
    there = finished.folder / "moved" / "tiny"
    assert {str(path.parent) for path in there.rglob(CHECKPOINT_FILE)} == named
    assert len(named) == 9


def test_the_results_are_printed_whatever_the_terminal_lacks(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Nobody has answered study 'tiny' (open) yet." in finished.output
    assert "is open; to ask people: HUEJURY_DATABASE=" in finished.output
    assert "?" in finished.output  # in place of Δ, which latin-1 does not have
    assert f"python -m platform.results tiny --database {finished.folder}/d.sqlite" in finished.output.splitlines()[-1]
    assert print_results(["--database", str(finished.folder / "d.sqlite")]) == 0
    printed = capsys.readouterr().out
    for shown in ("most frequent bin", "grey", "finished", "failed"):  # columns may wrap "3 finished, 1 failed"
        assert shown in printed
        assert shown in finished.output


def test_a_finished_experiment_is_shown_and_not_trained_again(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (command(finished.folder), ["--resume", "tiny", *command(finished.folder)[1:]]):
        assert sweep(arguments) == 1
        printed = capsys.readouterr().out
        assert "finished already" in printed
        assert "most frequent bin" in printed
    assert not (finished.folder / "s").exists()


def test_what_a_finished_record_lacks_is_said_and_completed_by_the_same_command(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a sweep that could not read its own checkpoints at its end."""
    with closing(sqlite3.connect(finished.folder / "d.sqlite")) as connection:
        connection.execute("VACUUM INTO ?", (str(tmp_path / "d.sqlite"),))
    with closing_engine(tmp_path / "d.sqlite") as engine:
        with write_session(engine) as session:
            # Failed trials are a reason of their own for the exit status.
            session.execute(update(Trial).where(Trial.status == "failed").values(status="stopped_early"))
            best = session.scalars(select(Trial).join(Arm).where(Arm.name == "tilted", Trial.number == 2)).one()
            best_id, pictures = best.id, Path(str(best.checkpoint)) / SAMPLES_FILE
            session.execute(delete(Sample).where(Sample.trial_id == best_id))
        arguments = [str(finished.config), "--database", str(tmp_path / "d.sqlite")]
        pictures.rename(tmp_path / "away")
        assert sweep(arguments) == 1
        assert "The sample pictures of tilted #2 are missing" in capsys.readouterr().out
        (tmp_path / "away").rename(pictures)
        assert sweep(arguments) == 0
        assert "are missing" not in capsys.readouterr().out
        with read_session(engine) as session:
            again = session.execute(select(Sample.image_id, Sample.png).where(Sample.trial_id == best_id)).all()
    with read_session(finished.engine) as session:
        before = session.execute(select(Sample.image_id, Sample.png).where(Sample.trial_id == best_id)).all()
    assert sorted(again) == sorted(before)


def test_a_machine_jury_judges_it(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_fit, "STEPS", 2)
    database = ["--database", str(finished.folder / "d.sqlite")]
    assert jury.main(database) == 0
    with write_session(finished.engine) as session:
        experiment = session.scalars(select(Experiment)).one()
        first = experiment.jury
        marks = {trial.arm.name: trial.score(JURY) or 0.0 for trial in best_trials(session, 1)}
        experiment.config, experiment.jury = experiment.config | {"jury": True}, None
    sweep(["--resume", "tiny", *database])  # what is finished is completed, here by a jury
    with read_session(finished.engine) as session:
        said = session.scalars(select(Experiment.jury)).one() or {}
        assert first is not None
        assert (said["acuity"], said["pair_accuracy"]) == (first["acuity"], first["pair_accuracy"])
        assert all(0 < mark < 1 for mark in marks.values())
        for trial in best_trials(session, 1):
            assert trial.score(JURY) == marks[trial.arm.name]  # the same input, the same verdict
            of_pictures = scores_of_samples(session, [trial.id]).values()
            assert sum(JURY in scores for scores in of_pictures) == 5
