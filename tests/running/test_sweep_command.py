"""What the sweep's command says and refuses before and beside its trials."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select, update

from db.schema import Arm, Driver, Experiment, Trial
from db.store import read_session, write_session
from platform.running import preparation
from platform.running.cluster import take_lack_of_memory_for_death
from platform.running.progress import command_for, command_to_ask, command_to_resume
from platform.sweep import main as sweep
from tests.db.test_drivers import DRIVE
from tests.processes import StartPython, hear_from, run_sweep, say_to
from tests.running.test_sweep import CHECKOUT, CONFIG, closing_engine, command


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path / "tiny.yaml"


def test_a_dry_run_trains_nothing_and_says_how_long_it_would_take(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = config.parent / "none.sqlite"
    halving = "early_stopping={grace_epochs: 1, reduction_factor: 2}"
    more = ["--dry-run", "--set", halving, "--database", str(database)]
    assert sweep([str(config), *more]) == 0
    printed = capsys.readouterr().out
    assert "4 trials per arm (grid search), 8 trials in all, of 3 epochs each" in printed
    assert f"to be trained: {40 * 2 * (4 + 2 + 1)} images, with early stopping within each arm" in printed
    assert re.search(r"at 40 images per epoch: about \d+ s here", printed)
    assert not database.exists()


def test_a_dry_run_without_the_data_says_what_it_cannot_know(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUEJURY_DATA", str(tmp_path))
    assert sweep([str(config), "--dry-run", "--set", "dataset=imagenet32"]) == 0
    assert "How long it takes is not known: imagenet32: ImageNet 32x32 is not in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--set", "epochs=x"], 'should be a valid integer, found "x"'),
        (["--dataset", "folder:/nowhere"], "/nowhere"),
        (["--database", "/dev/null/x.sqlite"], "/dev/null"),
        (["--address", "127.0.0.1:1"], "Ray cannot be reached at 127.0.0.1:1"),
    ],
)
def test_wrong_input_is_one_sentence_and_status_2(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, more: list[str], expected: str
) -> None:
    arguments = [str(config), "--database", str(tmp_path / "d.sqlite"), "--storage", str(tmp_path), *more]
    assert sweep(arguments) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1, message


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "http://127.0.0.1:8265", "ray://127.0.0.1:10001", "somewhere"],
)
def test_an_address_from_the_environment_is_said_to_be_from_there(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert sweep(command(config.parent)) == 2
    message = capsys.readouterr().err
    assert f"at {address} (from the environment variable RAY_ADDRESS)" in message
    assert "give the HOST:PORT that `ray start` prints" in message
    assert message.count("\n") == 1, message


def test_two_processes_do_not_run_one_experiment_or_add_to_it_whatever_their_storage(
    config: Path, capsys: pytest.CaptureFixture[str], start_python: StartPython
) -> None:
    arguments = command(config.parent)
    first = start_python(DRIVE, arguments[2], "tiny")
    say_to(first, "go")
    assert [hear_from(first), hear_from(first)] == ["ready", "drives"]
    addition = ["--resume", "tiny", *arguments[1:3], "--add", "x: {renders: rebalanced, tilt: 0.5}"]
    for given in (arguments, [*arguments, "--storage", "s3://somewhere/else"], addition):
        assert sweep(given) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"Experiment 'tiny' is being run by process {first.pid} on ")
        assert message.count("\n") == 1, message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "either a CONFIG file, or --resume"),
        (["x.yaml", "--resume", "x"], "either a CONFIG file, or --resume"),
        (["--resume", "x", "--set", "epochs=3"], "is resumed as it was begun"),
        (["x.yaml", "--add", "y: {renders: x}"], "--add goes with --resume"),
        (["--resume", "x", "--add", "y: {renders: x}", "--storage", "z"], "whose weights stay where they are"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    capsys: pytest.CaptureFixture[str], given: list[str], expected: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        sweep(given)
    assert expected in capsys.readouterr().err


@pytest.mark.long
def test_a_sweep_that_another_process_took_over_ends_and_records_nothing_more(config: Path) -> None:
    arguments = [sys.executable, "-m", "platform.sweep", *command(config.parent, "--set", "epochs=100000")]
    with (
        subprocess.Popen(
            arguments, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        closing_engine(config.parent / "d.sqlite") as engine,
    ):
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            if line.startswith("If it is interrupted"):
                with write_session(engine) as session:
                    session.execute(update(Driver).values(host="elsewhere", token="another's"))
        assert process.wait() == 2, output
        assert output.splitlines()[-1] == "Experiment 'tiny' was taken over by another process."
        with read_session(engine) as session:
            assert session.scalars(select(Experiment.status)).one() == "running"
            assert session.scalars(select(Driver.token)).one() == "another's"


@pytest.mark.long
def test_the_command_repeated_goes_on_with_what_minutes_were_resolved_to(config: Path) -> None:
    for old, new in (("train_images: 40\n", ""), ("epochs: 3", "minutes: 1"), ("[1e-3, 1e-2, 3e-2, 1e30]", "[1e-3]")):
        config.write_text(config.read_text().replace(old, new))
    arguments = command(config.parent)
    status, output = run_sweep(arguments, {}, r"\[1/2\]", signal.SIGINT)
    assert status == 130, output
    with closing_engine(config.parent / "d.sqlite") as engine:
        with read_session(engine) as session:
            begun = session.scalars(select(Experiment)).one()
        status, output = run_sweep(arguments, {})
        assert status == 0, output
        assert "1 trials had ended before." in output
        with read_session(engine) as session:
            ended = session.scalars(select(Experiment)).one()
            epochs = set(session.scalars(select(Trial.epochs_done).join(Arm).where(~Arm.baseline)))
    assert (ended.config, ended.dataset_id, ended.status) == (begun.config, begun.dataset_id, "finished")
    assert epochs == {begun.config["epochs"]}


def test_a_ray_that_differs_inside_is_said_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.air.execution._internal.actor_manager import RayActorManager

    monkeypatch.delattr(RayActorManager, "_actor_task_failed")
    problem = take_lack_of_memory_for_death()
    assert "a trial without memory may end the sweep" in str(problem)
    assert "_actor_task_failed" in str(problem)


def test_a_checkout_of_somebody_else_has_a_version_or_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    ours = preparation.find_code_version(said.append)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way to test its refusal
    refused = subprocess.run(["git", "-C", CHECKOUT, "status"], capture_output=True, text=True)
    assert "dubious ownership" in refused.stderr
    assert preparation.find_code_version(said.append) == ours != "unknown"
    assert said == []
    monkeypatch.setattr(preparation, "CHECKOUT", tmp_path)
    assert preparation.find_code_version(said.append) == "unknown"
    assert "not a git repository" in said[0]


def test_commands_to_go_on_name_the_database_as_it_is_typed(tmp_path: Path) -> None:
    with closing_engine(tmp_path / "Größe 1.sqlite") as engine:
        database = ["--database", f"{tmp_path}/Größe 1.sqlite"]
        resume = ["python", "-m", "platform.sweep", "--resume", "tiny 2", *database]
        assert shlex.split(command_to_resume("tiny 2", engine, None)) == resume
        assert shlex.split(command_to_resume("tiny 2", engine, "auto")) == [*resume, "--address", "auto"]
        assert shlex.split(command_for("results", "tiny 2", engine))[2:] == ["platform.results", "tiny 2", *database]
        assert shlex.split(command_to_ask(engine)) == [f"HUEJURY_DATABASE={database[1]}", "make", "survey"]


OUTPUT_THAT_ENDS = """
import sys
from platform.running.progress import open_console, say_on
say = say_on(open_console())
for line in range(10_000):
    say(f"line {line}")
print("outlived", file=sys.stderr)
"""


@pytest.mark.long
def test_a_sweep_outlives_its_output() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OUTPUT_THAT_ENDS],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        assert process.stderr.read() == "outlived\n"
        assert process.wait() == 0
