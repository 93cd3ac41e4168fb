"""What the sweep's command meets on other people's machines: addresses, folders, outputs, checkouts, another Ray."""

import subprocess
import sys
from pathlib import Path

import pytest

from platform import sweep as sweep_module
from platform.ray_cluster import take_lack_of_memory_for_death
from platform.sweep import main as sweep
from tests.test_sweep import CHECKOUT, CONFIG, command, run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("127.0.0.1:1", "start the cluster"),
        ("http://127.0.0.1:8265", "not a cluster's own"),
        ("ray://127.0.0.1:10001", "not a cluster's own"),
        ("somewhere", "give HOST:PORT, auto or local"),
    ],
)
def test_an_address_from_the_environment_is_said_to_be_from_there(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    expected: str,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    assert sweep(command(config.parent)) == 2
    message = capsys.readouterr().err
    assert variable in message
    assert "from the environment variable RAY_ADDRESS" in message
    assert expected in message
    assert message.count("\n") == 1, message


def test_folders_that_ray_cannot_use_are_one_sentence_with_the_mend(config: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 20) / ("er" * 20)
    deep.mkdir(parents=True)
    arguments = [str(config), "--database", str(tmp_path / "d.sqlite"), "--storage", str(tmp_path / "s")]
    status, output = run(arguments, {"TMPDIR": str(deep)})
    assert status == 2, output
    assert "set TMPDIR to a shorter folder" in output.splitlines()[-1]
    assert "Traceback" not in output


WITHOUT_RAY = """
import sys
from platform.sweep import main
assert main(sys.argv[1:]) == 0
assert "ray" not in sys.modules
"""


def test_a_dry_run_needs_no_ray(config: Path) -> None:
    arguments = [sys.executable, "-c", WITHOUT_RAY, str(config), "--dry-run", "--profile", "cpu"]
    done = subprocess.run(arguments, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_ray_that_differs_inside_is_said_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.air.execution._internal.actor_manager import RayActorManager

    monkeypatch.delattr(RayActorManager, "_actor_task_failed")
    problem = take_lack_of_memory_for_death()
    assert "a trial without memory may end the sweep" in str(problem)
    assert "_actor_task_failed" in str(problem)


def test_a_checkout_of_somebody_else_has_a_version_or_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    ours = sweep_module._code_version(said.append)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way to test its refusal
    refused = subprocess.run(["git", "-C", CHECKOUT, "status"], capture_output=True, text=True)
    assert "dubious ownership" in refused.stderr
    assert sweep_module._code_version(said.append) == ours != "unknown"
    assert said == []
    monkeypatch.setattr(sweep_module, "CHECKOUT", tmp_path)
    assert sweep_module._code_version(said.append) == "unknown"
    assert "not a git repository" in said[0]


OUTPUT_THAT_ENDS = """
import sys
from platform.progress import open_console, say_on
say = say_on(open_console())
for line in range(100_000):
    say(f"line {line}")
print("outlived", file=sys.stderr)
"""


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
