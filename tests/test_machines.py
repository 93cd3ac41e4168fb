"""What people's machines have in store for commands: odd addresses, encodings, homes, names."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from db.store import StoreError, open_database, open_existing
from db.studies import create_study
from platform import workers
from platform.datasets import default_data_directory
from tests.survey_browser import CHECKOUT
from tests.survey_data import add_experiment

# Databases


@pytest.mark.parametrize(
    "text",
    [
        "host=db user=me password=tiger dbname=x",
        "PGPASSWORD=tiger psql -h db",
        "postgres:me:tiger@host/x",
        "postgresql//me:tiger@host/x",
        "jdbc:postgresql:me:tiger",
        "me:tiger@host:5432/x",
    ],
)
def test_what_is_no_url_is_not_shown_as_a_path_with_its_password(tmp_path: Path, text: str) -> None:
    for open_it in (open_existing, open_database):
        with pytest.raises(
            StoreError, match="is no path, and no URL that can be read; give a path, or a URL"
        ) as raised:
            open_it(text)
        assert "tiger" not in str(raised.value)


@pytest.mark.parametrize("name", ["postgres", "a:b@c", "password=x", "~nobody here", "100 %", "it's"])
def test_odd_paths_are_paths(tmp_path: Path, name: str) -> None:
    open_database(tmp_path / name / "x.sqlite").dispose()
    open_existing(str(tmp_path / name / "x.sqlite")).dispose()


@pytest.mark.parametrize(
    "text", ["sqlite://x.sqlite", "sqlite:///x.sqlite?cache=shared", "x" * 300, "sqlite:///" + "x" * 300, "a/" * 3000]
)
def test_paths_that_are_none_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"give|check that you may"):
        open_existing(text)
    with pytest.raises(StoreError, match=r"give|check that you may"):
        open_database(text)


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
