"""Renderings that a finished experiment is given: as if its sweep had had them, and nothing is trained."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, func, select, update

from db.schema import Arm, Base, Driver, Experiment, Run, Sample, StoredDataset, Trial
from db.store import open_database, read_session, write_session
from db.sweeps.frames import trials_frame
from db.sweeps.trials import load_arms
from platform.color.scores import JURY
from platform.data.datasets import load_dataset
from platform.model.storage import CHECKPOINT_FILE
from platform.running.config import SweepConfig, changes_between
from platform.running.verdict import judge
from platform.sweep import main as sweep
from tests.processes import CHECKOUT
from tests.running.scripted_sweep import rates, train_here

CONFIG: dict[str, Any] = {
    "experiment": "tilts",
    "dataset": "photos",
    "train_images": 40,
    "validation_images": 16,
    "epochs": 1,
    "arms": {
        "regression": {"kind": "regression"},
        "classification": {"kind": "classification"},
        "k-means": {"kind": "classification", "palette": {"kmeans": 16}, "decoding": "mode"},
        "tilted 0.5": {"renders": "classification", "tilt": 0.5},
        "cooler": {"renders": "k-means", "tilt": 0.5, "temperature": 0.7},
    },
    "training": {"width": 8, "depth": 1, "batch_size": 20, "precision": "float32"},
    "search": rates(3e-3, 1e-3),
    "replicates": 1,
    "samples": {"images": 6},
}
AGAIN = ["again: {renders: classification, tilt: 0.5}", "cooler again: {renders: k-means, tilt: 0.5, temperature: 0.7}"]
WITHOUT_RAY = """
import sys
from platform.sweep import main
assert main(sys.argv[1:]) == 0
assert "ray" not in sys.modules
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep, and of its database: each arm has a trial that was stopped early, as far as the
    database knows, one that was not, and a replicate."""
    folder = tmp_path_factory.mktemp("trained")
    engine = open_database(folder / "d.sqlite")
    data = load_dataset(["photos"], train_images=40, validation_images=16, say=lambda line: None)
    train_here(SweepConfig.model_validate(CONFIG), data, engine, folder / "results")
    with write_session(engine) as session:
        models = select(Arm.id).where(~Arm.baseline)
        stopped = (Trial.arm_id.in_(models), Trial.number == 1)
        session.execute(delete(Sample).where(Sample.trial_id.in_(select(Trial.id).where(*stopped))))
        session.execute(update(Trial).where(*stopped).values(status="stopped_early"))
        session.execute(delete(Driver))  # this process ends no sweep of its own
    engine.dispose()
    return folder


@pytest.fixture
def engine(trained: Path, tmp_path: Path) -> Iterator[Engine]:
    """A copy of its database; the weights are the same."""
    shutil.copy(trained / "d.sqlite", tmp_path / "d.sqlite")
    engine = open_database(tmp_path / "d.sqlite")
    yield engine
    engine.dispose()


def add(engine: Engine, *texts: str, resume: str = "tilts") -> list[str]:
    """The command's arguments."""
    additions = [part for text in texts for part in ("--add", text)]
    return ["--resume", resume, "--database", str(engine.url.database), *additions]


def counted(engine: Engine) -> dict[str, int]:
    """The rows of each table but the drivers'."""
    with read_session(engine) as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
            if table.name != "drivers"
        }


def pictures(engine: Engine, arm: str) -> list[Any]:
    columns = Trial.number, Sample.image_id, Sample.epoch, Sample.png, Sample.scores
    of_arm = select(*columns).join(Trial, Trial.id == Sample.trial_id).join(Arm, Arm.id == Trial.arm_id)
    with read_session(engine) as session:
        return [tuple(row) for row in session.execute(of_arm.where(Arm.name == arm).order_by(*columns[:2]))]


def test_an_added_rendering_is_what_the_sweep_would_have_recorded(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    before = counted(engine)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *add(engine, *AGAIN)], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Reading the weights of classification: again." in done.stdout
    with read_session(engine) as session:
        arms = load_arms(session, 1)
        frame = trials_frame(session, "tilts").drop(columns="options")
        experiment = session.get_one(Experiment, 1)
        centers = dict(session.execute(select(Arm.name, Arm.centers)).all())
        runs = session.scalars(select(func.count()).select_from(Run)).one()
    names = [*CONFIG["arms"], "again", "cooler again"]
    assert [arm.name for arm in arms] == [*names, "most frequent bin", "by class and place", "grey"]
    decodings = {arm.name: arm.decoding for arm in arms}
    assert decodings["again"] == decodings["tilted 0.5"] == "annealed mean, tilted by λ = 0.5"
    assert runs == before["runs"] + 1
    for arm, reference in (("again", "tilted 0.5"), ("cooler again", "cooler")):
        one, other = (
            frame[frame["arm"] == name].drop(columns="arm").reset_index(drop=True) for name in (arm, reference)
        )
        assert one["replicate"].tolist() == [False, False, True]
        assert one.equals(other)
        assert pictures(engine, arm) == pictures(engine, reference) != []
        assert centers[arm] == centers[reference] is not None
    assert len(pictures(engine, "again")) == 2 * 6
    # The same again adds nothing.
    before = counted(engine)
    assert sweep(add(engine, AGAIN[0], "tilted 0.5: {renders: classification, tilt: 0.5}")) == 0
    printed = capsys.readouterr().out
    assert "again is there already." in printed
    assert "tilted 0.5 is there already." in printed
    assert counted(engine) == before
    # The sweep's own command still finds the experiment as it was begun, and no study was opened.
    assert changes_between(experiment.config, SweepConfig.model_validate(CONFIG)) == []
    assert experiment.status == "finished"
    assert counted(engine)["studies"] == 0


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["again: {renders: classification}", "wide: {kind: regression}"], "--add wide: it would be trained"),
        (["tilted 0.5: {renders: classification, tilt: 0.4}"], "--add tilted 0.5: it is there with other options"),
        (["x: {renders: tilted 0.5, tilt: 0.4}"], ": arms.x.renders: expected the name of an arm that is trained"),
        (["x: {renders: regression, tilt: 0.4}"], ": arms.x.tilt: means nothing for a rendering of a regression"),
        (["x: {renders: classification, tlit: 0.4}"], ": arms.x.tlit: unknown key; did you mean `tilt`?"),
        (["x: {renders: classification, tilt: 4}"], ": arms.x.tilt: should be less than or equal to 1, found 4"),
        (["grey: {renders: classification}"], ": arms.grey: is the name of a baseline"),
        (["x: 0.4"], ": arms.x: expected keys and values, found 0.4"),
        (["x"], "--add x: expected an arm, as in"),
        (["x: {"], "--add x: {, line 1: is not valid YAML"),
    ],
)
def test_what_cannot_be_added_is_one_sentence(
    engine: Engine, capsys: pytest.CaptureFixture[str], texts: list[str], expected: str
) -> None:
    before = counted(engine)
    assert sweep(add(engine, *texts)) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1
    assert counted(engine) == before


def test_weights_data_and_experiments_that_are_not_there_are_one_sentence(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = counted(engine)

    def refused(expected: str, resume: str = "tilts") -> None:
        assert sweep(add(engine, *AGAIN, resume=resume)) == 2
        message = capsys.readouterr().err
        assert re.search(expected, message), message
        assert message.count("\n") == 1
        assert counted(engine) == before

    refused("There is no experiment 'nowhere'", resume="nowhere")
    with write_session(engine) as session:  # after those of classification, which are there, have been read
        of_arm = select(Trial).join(Arm, Arm.id == Trial.arm_id).where(Arm.name == "k-means", Trial.number == 3)
        gone = session.scalars(of_arm).one()
        gone.checkpoint = str(tmp_path)
    refused("k-means #3 has no weights to load")
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"")
    with write_session(engine) as session:
        session.execute(update(StoredDataset).values(fingerprint="other"))
    refused("The data found as .* are not those of the experiment")
    with write_session(engine) as session:
        session.execute(update(Experiment).values(status="interrupted"))
    refused("Experiment 'tilts' has not finished: go on with it first")


def test_a_jury_is_held_again_for_what_was_added(
    engine: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.arms.cross_fit.STEPS", 2)
    judge(engine, "tilts", lambda line: None)
    assert sweep(add(engine, AGAIN[0])) == 0
    assert "The whole jury is held again, as its critics are not kept" in capsys.readouterr().out
    with read_session(engine) as session:
        marks = {arm.name: arm.best and arm.best.score(JURY) for arm in load_arms(session, 1)}
    assert marks["again"] == pytest.approx(marks["tilted 0.5"])
    assert None not in marks.values()
    assert sweep(add(engine, AGAIN[0])) == 0
    assert "held again" not in capsys.readouterr().out
