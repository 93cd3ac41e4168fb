"""`platform` is our package and Python's own module at once, in every kind of process that HueJury runs in.

The kinds differ in which of the two is found first; platform_probe.py says what each of them answers. Streamlit, which
imports Python's own first, is held by the tests that serve the real pages from another folder.
"""

import ast
import json
import os
import secrets
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests import platform_probe

CHECKOUT = Path(__file__).resolve().parent.parent
SUBMODULE = CHECKOUT / "platform" / "model" / "hyperparameters.py"
# No cluster of the developer's is touched, and no token is written into the home folder.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(16),
    "RAY_USAGE_STATS_ENABLED": "0",
}


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=CHECKOUT, env=ENVIRONMENT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def results(output: str) -> list[dict[str, Any]]:
    lines = [line for line in output.splitlines() if line.startswith(platform_probe.MARK)]
    return [json.loads(line.removeprefix(platform_probe.MARK)) for line in lines]


@pytest.fixture(scope="module")
def standard() -> dict[str, Any]:
    """What Python's own module answers where our folder cannot be seen."""
    [found] = results(run(sys.executable, "-I", platform_probe.__file__, "standard"))
    assert found["answers"].keys() >= {"system", "machine", "platform", "python_version", "uname"}
    return found


OTHER_FIRST = f"""import platform, sys
assert not hasattr(platform, "__path__")
sys.path.insert(0, {str(CHECKOUT)!r})
import conftest  # its recipe is the one that an entry script needs
from tests import platform_probe
platform_probe.main("python -I")"""


@pytest.mark.parametrize(
    "command",
    [["-m", "tests.platform_probe", "python -m"], ["-I", "-c", OTHER_FIRST]],
    ids=["started in the checkout", "the standard module first"],
)
def test_python_has_both(standard: dict[str, Any], command: list[str]) -> None:
    [found] = results(run(sys.executable, *command))
    assert found["answers"] == standard["answers"]
    assert found["submodule"] == str(SUBMODULE)


def test_this_process(standard: dict[str, Any]) -> None:
    found = platform_probe.result("pytest")
    assert found["answers"] == standard["answers"]
    assert found["submodule"] == str(SUBMODULE)


@pytest.mark.long
def test_pytest_by_its_own_script() -> None:
    """It does not put the checkout first on the path, as `python -m pytest` does."""
    script = str(Path(sysconfig.get_path("scripts")) / "pytest")
    output = run(script, "-q", "-p", "no:cacheprovider", f"{__file__}::{test_this_process.__name__}")
    assert "1 passed" in output


def test_python_m_platform_prints_what_it_always_does(standard: dict[str, Any]) -> None:
    assert run(sys.executable, "-m", "platform") == ast.literal_eval(standard["answers"]["platform"]) + "\n"


@pytest.mark.long
def test_ray_workers_on_two_nodes_and_a_submitted_job(standard: dict[str, Any]) -> None:
    found = results(run(sys.executable, "-m", "tests.platform_probe", "cluster"))
    assert [one["process"] for one in found] == ["worker", "second node's worker", "job's driver", "job's worker"]
    for one in found:
        assert one["answers"] == standard["answers"], one["process"]
        assert Path(one["submodule"]).parts[-3:] == SUBMODULE.parts[-3:]
        assert not Path(one["submodule"]).is_relative_to(CHECKOUT)  # Ray brought it


def test_no_submodule_hides_a_name_of_the_standard_module(standard: dict[str, Any]) -> None:
    ours = {path.stem for path in (CHECKOUT / "platform").iterdir()} - {"__init__", "__main__", "__pycache__"}
    assert len(ours) > 5
    assert not ours & set(standard["names"])
