"""What people's machines have in store for commands: databases that are not there, users without a home."""

import importlib
import pwd
import shlex
from pathlib import Path

import pytest

from platform.data.datasets import default_data_directory
from platform.running import workers


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
    workers.set_ray_variables(environment)
    assert Path(environment["HOME"]).is_dir()
