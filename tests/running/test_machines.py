"""What people's machines have in store for commands: odd addresses, encodings, homes, names."""

import importlib
import os
import pwd
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from db.store import StoreError, open_database, open_existing
from db.surveys.study import create_study
from platform.data.datasets import default_data_directory
from platform.running import workers
from tests.survey_browser import CHECKOUT
from tests.survey_data import add_experiment

# Databases


@pytest.mark.parametrize("name", ["postgres", "a:b@c", "password=x", "~nobody here", "100 %", "it's"])
def test_odd_paths_are_paths(tmp_path: Path, name: str) -> None:
    open_database(tmp_path / name / "x.sqlite").dispose()
    open_existing(str(tmp_path / name / "x.sqlite")).dispose()


@pytest.mark.parametrize("text", ["x" * 300, "sqlite:///" + "x" * 300, "a/" * 3000])
def test_paths_that_are_none_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"give|check that you may"):
        open_existing(text)
    with pytest.raises(StoreError, match=r"give|check that you may"):
        open_database(text)


@pytest.mark.parametrize(
    "command",
    [
        "platform.results",
        "platform.jury",
        "platform.contact_sheet",
        "platform.colorize x.png",
        "platform.export x --to models",
        "platform.sweep --resume x",
        "platform.sweep --resume x --add 'y: {renders: z, tilt: 0.5}'",
        "survey_app.studies list",
        "survey_app.simulate",
        "survey_app.propose x",
        "survey_app.report x --to x.html",
        "survey_app.serve --port 0 --dashboard-port 0",
        "db.backup y.sqlite",
        "db.copy missing.sqlite postgresql://h/x",
    ],
)
def test_reading_a_database_that_is_not_here_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    module, *arguments = shlex.split(command)
    if module != "db.copy":
        arguments = ["--database", "missing.sqlite", *arguments]
    assert importlib.import_module(module).main(arguments) == 2
    said = capsys.readouterr()
    assert f"There is no database {tmp_path}/missing.sqlite; " in (said.out + said.err).replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


# Terminals, homes, names


@pytest.mark.long
@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "LC_ALL": "C"}])
def test_every_command_prints_on_any_terminal(tmp_path: Path, environment: dict[str, str]) -> None:
    engine = open_database(tmp_path / "d.sqlite")
    add_experiment(engine, images=12)
    create_study(engine, "cats", name="Größe λ", question_count=5, practice_count=1)
    engine.dispose()
    environment = {**os.environ, "HUEJURY_DATABASE": str(tmp_path / "d.sqlite"), **environment}
    for command in ("platform.results", "survey_app.studies show", "survey_app.studies list"):
        arguments = [sys.executable, "-m", *command.split()]
        done = subprocess.run(arguments, cwd=CHECKOUT, env=environment, capture_output=True)
        assert done.returncode == 0, (command, done.stderr)
        assert b"?" in done.stdout


def test_a_user_without_a_home_has_one_for_ray_and_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs with a number for a user."""

    def nobody(user: int) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HUEJURY_DATA", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert default_data_directory().is_absolute()
    environment: dict[str, str] = {}
    [line] = workers.set_ray_variables(environment)
    assert Path(environment["HOME"]).is_dir()
    assert "no home folder" in line
