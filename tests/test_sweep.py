"""The command, end to end: `python -m platform.sweep` in processes of its own, with a real Ray and real training.

One experiment serves all tests: its first process is killed, its second interrupted, its third finishes.
"""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from PIL import Image as Picture
from sqlalchemy import Engine, delete, func, select, update

from db.results import arm_results
from db.schema import Arm, Dataset, Experiment, Image, Measurement, Sample, Trial
from db.store import open_database, read_session, write_session
from platform.config import read_config
from platform.datasets import load_dataset
from platform.results import main as print_results
from platform.search import plan_trials
from platform.storage import is_restorable, located
from platform.sweep import main as sweep
from platform.training import Run, colour_statistics, train

CHECKOUT = Path(__file__).resolve().parent.parent

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
  weight_decay: 0.01
  schedule: one_cycle
  filter_size: 3
  soft_label_sigma: 5
  bins: reachable
  decoding: annealed_mean
  precision: float32
search:
  method: grid
  space: {learning_rate: [1e-3, 1e-2, 3e-2, 1e-1, 1e30]}  # the last one must diverge
samples: {images: 5}
profiles:
  gpu: {}
"""
TRIALS = 10


@dataclass(frozen=True)
class Finished:
    folder: Path
    config: Path
    engine: Engine
    output: str

    def command(self, *more: str) -> list[str]:
        return [
            str(self.config),
            "--database",
            str(self.folder / "d.sqlite"),
            "--storage",
            str(self.folder / "s"),
            *more,
        ]


def run(arguments: list[str], stop_at: str | None = None, stop_by: signal.Signals = signal.SIGKILL) -> tuple[int, str]:
    """Run the command to its end, or send it a signal when it has printed a line that matches `stop_at`."""
    with subprocess.Popen(
        [sys.executable, "-m", "platform.sweep", *arguments],
        cwd=CHECKOUT,
        env=os.environ | {"COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        output = ""
        try:
            for line in process.stdout:
                output += line
                if stop_at is not None and re.match(stop_at, line):
                    process.send_signal(stop_by)
                    stop_at = None
            return process.wait(), output
        finally:
            process.kill()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment whose first process was killed and whose second got a Ctrl-C."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.yaml").write_text(CONFIG)
    for stop_at, stop_by, expected_status, expected_state in (
        (r"\[1/10\]", signal.SIGKILL, -signal.SIGKILL, "running"),
        (r"\[\d+/10\]", signal.SIGINT, 130, "interrupted"),
    ):
        status, output = run(command(folder), stop_at, stop_by)
        assert status == expected_status, output
        assert "python -m platform.sweep --resume tiny --database" in output.splitlines()[-1 if status == 130 else 2]
        engine = open_database(folder / "d.sqlite")
        assert experiment_status(engine) == expected_state
        assert 1 <= ended(engine) < TRIALS
        if expected_state == "running":
            forget_what_was_recorded(engine)
        engine.dispose()
    assert "Interrupted" in output
    return folder


@pytest.fixture(scope="module")
def finished(interrupted: Path) -> Iterator[Finished]:
    status, output = run(command(interrupted))
    assert status == 1, output  # as some trials failed
    engine = open_database(interrupted / "d.sqlite")
    yield Finished(interrupted, interrupted / "tiny.yaml", engine, output)
    engine.dispose()


def forget_what_was_recorded(engine: Engine) -> None:
    """As if the process had been killed before it could write what Ray had told it: Ray knows of more."""
    of_ray = select(Trial.id).where(Trial.images_seen > 0)
    with write_session(engine) as session:
        for table in (Sample, Measurement):
            session.execute(delete(table).where(table.trial_id.in_(of_ray)))
        session.execute(update(Trial).where(Trial.images_seen > 0).values(status="running", epochs_done=0))


def command(folder: Path, *more: str) -> list[str]:
    return [str(folder / "tiny.yaml"), "--database", str(folder / "d.sqlite"), "--storage", str(folder / "s"), *more]


def experiment_status(engine: Engine) -> str:
    with read_session(engine) as session:
        return session.scalars(select(Experiment.status)).one()


def ended(engine: Engine) -> int:
    statement = select(func.count()).select_from(Trial).join(Arm, Arm.id == Trial.arm_id)
    with read_session(engine) as session:
        return session.scalars(statement.where(Arm.kind != "baseline", Trial.status.in_(["finished", "failed"]))).one()


def test_what_ends_a_sweep_leaves_no_trial_running(interrupted: Path) -> None:
    # After a Ctrl-C; after a kill there is nobody to say so, but the next process puts it right.
    engine = open_database(interrupted / "d.sqlite")
    with read_session(engine) as session:
        assert set(session.scalars(select(Trial.status))) <= {"finished", "failed", "pending"}
    engine.dispose()


def test_a_resumed_sweep_gives_what_an_uninterrupted_one_would(finished: Finished) -> None:
    data = load_dataset(["photos"], train_images=40, validation_images=20, say=lambda line: None)
    statistics = colour_statistics(data.train_images, 5.0, "reachable")
    with read_session(finished.engine) as session:
        rows = session.execute(select(Arm.name, Trial).join(Arm, Arm.id == Trial.arm_id).where(Arm.kind != "baseline"))
        found = sorted((arm, trial.config["learning_rate"]) for arm, trial in rows)
        assert found == sorted(
            (p.arm, p.run.learning_rate) for p in plan_trials(read_config(finished.config).configs["cpu"])
        )
        trials = session.scalars(select(Trial).where(Trial.status == "finished", Trial.images_seen > 0)).all()
        assert len(trials) == 8
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for trial in trials:
                config = {key: value for key, value in trial.config.items() if key != "device"}
                measured = session.execute(
                    select(Measurement.epoch, Measurement.loss)
                    .where(Measurement.trial_id == trial.id, Measurement.split == "validation")
                    .order_by(Measurement.epoch)
                ).all()
                reports = list(train(Run(**config), data, statistics, device="cpu"))
                assert [tuple(row) for row in measured] == [
                    (report.epoch, report.validation.scores["loss"]) for report in reports
                ]
                assert trial.images_seen == reports[-1].images_seen
        finally:
            torch.set_num_threads(threads)


def test_a_diverging_trial_is_recorded_with_its_reason_and_stops_no_other(finished: Finished) -> None:
    with read_session(finished.engine) as session:
        failed = session.execute(
            select(Arm.name, Trial).join(Arm, Arm.id == Trial.arm_id).where(Trial.status == "failed").order_by(Arm.name)
        ).all()
        assert [(arm, trial.config["learning_rate"]) for arm, trial in failed] == [
            ("rebalanced", 1e30),
            ("regression", 1e30),
        ]
        for _, trial in failed:
            assert trial.failure_reason is not None
            assert trial.failure_reason.startswith("diverged: the loss became")
    assert finished.output.count("Failed: ") == 2
    assert experiment_status(finished.engine) == "finished"


def test_every_finished_trial_has_the_same_samples_beside_the_truth(finished: Finished) -> None:
    with read_session(finished.engine) as session:
        images = session.scalars(select(Image)).all()
        labels = session.scalars(select(Dataset)).one().class_names
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
        pictures = {tuple(sample.png for sample in of_trial) for of_trial in samples.values()}
        assert len(pictures) == len(samples)  # no two trials paint alike


def pixels(png: bytes) -> np.ndarray:
    with Picture.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


def test_every_figure_can_be_traced(finished: Finished) -> None:
    with read_session(finished.engine) as session:
        experiment = session.scalars(select(Experiment)).one()
        assert experiment.config_yaml == CONFIG
        assert experiment.config["training"]["width"] == 4
        assert experiment.decoding == "annealed_mean"
        assert experiment.code_version
        assert {"python", "torch", "ray", "cluster"} <= experiment.environment.keys()
        data = load_dataset(["photos"], train_images=40, validation_images=20, say=lambda line: None)
        assert session.scalars(select(Dataset)).one().fingerprint == data.fingerprint
        results = {result.arm: result for result in arm_results(session, "tiny")}
    assert list(results) == ["regression", "rebalanced", "most frequent bin", "grey"]
    for name in ("regression", "rebalanced"):
        assert results[name].trials == {"finished": 4, "failed": 1}
        best = results[name].best
        assert best is not None
        assert best.config["device"].startswith("CPU, 1 threads")
        assert best.epoch == 3


def test_the_results_fit_80_columns(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_results(["--database", str(finished.folder / "d.sqlite")]) == 0
    printed = capsys.readouterr().out
    for shown in ("bin acc.", "most frequent bin", "grey", "4 finished, 1 failed", "ΔE2000"):
        assert shown in printed
        assert shown in finished.output
    table = printed[printed.index("Accuracy on photos") :]
    assert max(len(line) for line in table.splitlines()) <= 80
    assert print_results(["tinny", "--database", str(finished.folder / "d.sqlite")]) == 2
    assert "there is tiny" in capsys.readouterr().err


def test_a_finished_experiment_is_shown_and_not_trained_again(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (command(finished.folder), ["--resume", "tiny", *command(finished.folder)[1:]]):
        assert sweep(arguments) == 1
        printed = capsys.readouterr().out
        assert "finished already" in printed
        assert "most frequent bin" in printed
    assert not ray.is_initialized()


def test_a_damaged_state_of_ray_is_not_trusted(finished: Finished, tmp_path: Path) -> None:
    copy = tmp_path / "tiny"
    shutil.copytree(finished.folder / "s" / "tiny", copy)
    system, folder = located(str(copy))
    assert is_restorable(system, folder)
    state = max(copy.glob("experiment_state-*.json"))
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    assert not is_restorable(system, folder)
    assert not is_restorable(system, str(tmp_path / "nothing"))


def test_another_config_under_the_same_name_is_refused(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(command(finished.folder, "--set", "training.width=8", "--set", "resources.cpu=2")) == 2
    message = capsys.readouterr().err
    assert "training.width was 4 and is 8" in message
    assert "resources" not in message


def test_a_dry_run_starts_nothing(finished: Finished, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    database = tmp_path / "none.sqlite"
    asha = "early_stopping={grace_epochs: 1, reduction_factor: 2}"
    more = ["--dry-run", "--profile", "cpu", "--set", "dataset=imagenet32", "--set", asha, "--database", str(database)]
    assert sweep([str(finished.config), *more]) == 0
    printed = capsys.readouterr().out
    assert "Profile" not in printed  # there is none for a machine without a GPU
    assert "5 trials an arm (grid search), 10 trials in all, 3 epochs each" in printed
    assert "at most 1,200 images" in printed
    expected = re.search(r"about ([\d,]+) images", printed)
    assert expected is not None
    assert 10 * 40 < int(expected[1].replace(",", "")) < 1200
    assert not ray.is_initialized()
    assert not database.exists()


def test_a_profile_is_chosen_and_said(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    finished.config.with_name("p.yaml").write_text(CONFIG.replace("gpu: {}", "gpu: {epochs: 7}"))
    assert sweep([str(finished.config.with_name("p.yaml")), "--dry-run", "--profile", "gpu"]) == 0
    printed = capsys.readouterr().out
    assert "Profile gpu of" in printed
    assert "10 trials in all, 7 epochs each" in printed


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--set", "epochs=x"], 'expected a whole number, found "x"'),
        (["--dataset", "folder:/nowhere"], "/nowhere"),
        (["--database", "/dev/null/x.sqlite"], "/dev/null"),
        (["--address", "127.0.0.1:1"], "Ray cannot be started or reached at 127.0.0.1:1"),
    ],
)
def test_wrong_input_is_one_sentence_and_status_2(
    finished: Finished, capsys: pytest.CaptureFixture[str], tmp_path: Path, more: list[str], expected: str
) -> None:
    arguments = [str(finished.config), "--database", str(tmp_path / "d.sqlite"), "--storage", str(tmp_path), *more]
    assert sweep(arguments) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1, message
    assert not ray.is_initialized()
