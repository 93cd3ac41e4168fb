"""What is taken away colours as the sweep did, in a process that has nothing of this project."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sqlalchemy import Engine, select

from db.errors import UserError
from db.schema import Arm, StoredDataset, Trial
from db.store import open_database, read_session, write_session
from platform.arms.compose import compose
from platform.arms.options import ArmOptions, KMeans, SegmentPrior, TablePrior
from platform.colorize import main as colorize
from platform.export import export_models, main
from platform.model.stored import load_trial
from platform.model.training import build_model, save_checkpoint
from platform.paint.photographs import color_photograph
from tests.contracts import HYPERPARAMETERS, drawn_colours
from tests.survey_data import add_experiment

ARMS = {
    "regression": ArmOptions(kind="regression"),
    "classification": ArmOptions(kind="classification"),
    "tilted 0.5": ArmOptions(renders="classification", tilt=0.5, temperature=0.7),
    "mode": ArmOptions(kind="classification", decoding="mode", rebalancing=0.5),
    "k-means": ArmOptions(kind="classification", palette=KMeans(16)),
    "segments": ArmOptions(kind="classification", prior=SegmentPrior(8)),
    "table": ArmOptions(kind="classification", prior=TablePrior(0.01)),
}
# Runs each folder's colour.py, as Python would run it alone, on the photographs in the folder of the arm's name here.
RUN_EACH = """
import runpy, sys
from pathlib import Path
folders = sys.argv[1:]
for folder, photographs in zip(folders, ARMS):
    sys.argv = [f"{folder}/colour.py", *sorted(map(str, Path(photographs).glob("*.png")))]
    runpy.run_path(sys.argv[0], run_name="__main__")
""".replace("ARMS", repr(list(ARMS)))
# As sweeps have it; what has to be filled up; what is reduced and enlarged again.
SIZES = [(32, 32), (30, 21), (130, 201)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A finished experiment whose models have drawn weights, spread enough for pictures to differ."""
    folder = tmp_path_factory.mktemp("stored")
    engine = open_database(str(folder / "d.sqlite"))
    add_experiment(engine, images=12, arms=list(ARMS))
    with write_session(engine) as session:
        session.scalars(select(StoredDataset)).one().colour_counts = drawn_colours().to_bytes()
        for row in session.scalars(select(Arm).where(Arm.baseline.is_(False))):
            row.options = asdict(ARMS[row.name])
            trained = ARMS[row.name].renders or row.name
            task = compose(ARMS, trained, drawn_colours())
            if isinstance(ARMS[row.name].palette, KMeans):
                assert task.palette is not None
                row.centers = task.palette.centers.tolist()
            checkpoint = folder / trained
            if not checkpoint.exists():
                checkpoint.mkdir()
                model = build_model(task, HYPERPARAMETERS)
                generator = torch.Generator().manual_seed(len(trained))
                for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                    if "head" in name:
                        tensor.data += 2 * torch.randn(tensor.shape, generator=generator)
                    if "running" in name:
                        tensor.data += torch.rand(tensor.shape, generator=generator)
                save_checkpoint(
                    checkpoint / "checkpoint.pt",
                    {"hyperparameters": asdict(HYPERPARAMETERS), "model": model.state_dict()},
                )
            for trial in session.scalars(select(Trial).where(Trial.arm_id == row.id)):
                trial.checkpoint, trial.hyperparameters = str(checkpoint), asdict(HYPERPARAMETERS)
    return engine


def trial_of(engine: Engine, arm: str) -> int:
    with read_session(engine) as session:
        return session.scalars(select(Trial.id).join(Arm, Arm.id == Trial.arm_id).where(Arm.name == arm)).all()[-1]


@pytest.fixture(scope="module")
def folders(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    written = export_models(engine, "cats", None, tmp_path_factory.mktemp("away"))
    return dict(zip(ARMS, written, strict=True))


def test_every_kind_of_arm_colours_alike_without_this_project(
    engine: Engine, folders: dict[str, Path], tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    pictures = {}
    for height, width in SIZES:
        blocks = Image.fromarray(generator.integers(0, 256, (6, 6), dtype=np.uint8))
        noise = generator.integers(0, 20, (height, width), dtype=np.uint8)
        grey = np.asarray(blocks.resize((width, height), Image.Resampling.BICUBIC)) // 2 + noise + 40
        pictures[f"{height}x{width}"] = np.repeat(grey[..., None], 3, axis=2)
    for arm in folders:
        (tmp_path / arm).mkdir()
        for name, rgb in pictures.items():
            Image.fromarray(rgb).save(tmp_path / arm / f"{name}.png")
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", RUN_EACH, *folders.values()],
        cwd=tmp_path,
        env={"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for arm in folders:
        with read_session(engine) as session:
            task, model = load_trial(session, trial_of(engine, arm))
        assert model is not None
        for name, rgb in pictures.items():
            expected = color_photograph(rgb, task, model, task.readings[arm]).astype(int)
            found = np.asarray(Image.open(tmp_path / arm / f"{name}-coloured.png"))
            assert np.ptp(expected, axis=(0, 1)).max() > 20  # else there is nothing to differ in
            assert np.ptp(expected, axis=2).max() > 8, arm  # they are not grey
            # scikit-image computes Lab in float64: what lies halfway between two codes may be rounded to the other one.
            # A mode jumps where two colours are equally likely.
            different = np.abs(found - expected)
            assert (different > 1).mean() <= (0.002 if arm == "mode" else 0), (arm, name)
            assert (different > 0).mean() < 0.005, (arm, name)


def test_the_files_say_what_the_model_is(folders: dict[str, Path]) -> None:
    folder = folders["tilted 0.5"]
    assert sorted(path.name for path in folder.iterdir()) == ["colour.py", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert (config["tilt"], config["temperature"]) == (0.5, 0.7)
    assert (config["trained"]["kind"], config["code_version"]) == ("classification", ["test"])
    assert config["scores"]["validation"]["bin_accuracy"] == pytest.approx(0.22)
    palette = compose(ARMS, "classification", drawn_colours()).palette
    assert palette is not None
    shares = drawn_colours().mean_soft_label(palette).numpy()
    weights = 1 / (0.5 * shares + 0.5 / 400)  # Zhang et al. 2016, equation 4
    assert np.allclose(config["palette"]["offset"], np.log(weights / (shares @ weights)), atol=1e-5)
    assert json.loads((folders["regression"] / "config.json").read_text("utf-8"))["palette"] is None


def test_what_cannot_be_exported_is_one_sentence(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "regression").mkdir()
    (tmp_path / "file").write_text("")
    database = ["--database", str(engine.url.database)]
    for arguments, words in (
        (["dogs", "--to", str(tmp_path / "x")], "There is no experiment 'dogs'"),
        (["cats", "--to", str(tmp_path / "x"), "--arm", "regresion"], "did you mean `regression`?"),
        (["cats", "--to", str(tmp_path)], "regression is there already, and is not overwritten"),
        (["cats", "--to", str(tmp_path / "file"), "--arm", "mode"], "cannot be written (Not a directory)"),
    ):
        assert main([*arguments, *database]) == 2
        message = capsys.readouterr().err
        assert words in message
        assert message.count("\n") == 1
    assert list((tmp_path / "regression").iterdir()) == []


@pytest.mark.parametrize(
    ("bytes_left", "words"),
    [(None, "has no weights to load"), *((share, "is damaged or cut off") for share in (0.0, 0.001, 0.5, 0.999))],
)
def test_a_checkpoint_that_is_lost_or_cut_off_is_one_sentence(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str], bytes_left: float | None, words: str
) -> None:
    """In every place that reads weights: this one, `platform.colorize`, and the dashboard's photograph."""
    with write_session(engine) as session:
        trial = session.get_one(Trial, trial_of(engine, "mode"))
        assert trial.checkpoint is not None
        whole, trial.checkpoint = trial.checkpoint, str(tmp_path / "cut")
    if bytes_left is not None:
        (tmp_path / "cut").mkdir()
        content = (Path(whole) / "checkpoint.pt").read_bytes()
        (tmp_path / "cut" / "checkpoint.pt").write_bytes(content[: int(bytes_left * len(content))])
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "photograph.png")
    common = ["--arm", "mode", "--database", str(engine.url.database)]
    try:
        assert main(["cats", "--to", str(tmp_path / "x"), *common]) == 2
        assert colorize([str(tmp_path / "photograph.png"), "--experiment", "cats", *common]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert all(words in line and line.endswith("name another trial.") for line in lines)
        with read_session(engine) as session, pytest.raises(UserError, match=words):
            load_trial(session, trial_of(engine, "mode"))
    finally:
        with write_session(engine) as session:
            session.get_one(Trial, trial_of(engine, "mode")).checkpoint = whole
