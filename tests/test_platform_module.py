"""`platform` is our package and Python's own module at once, in every kind of process that HueJury runs in.

The kinds differ in which of the two is found first; platform_probe.py says what each of them answers.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests import platform_probe

CHECKOUT = Path(__file__).resolve().parent.parent
PROBE = str(CHECKOUT / "tests" / "platform_probe.py")
SCRIPTS = Path(sysconfig.get_path("scripts"))
# No cluster of the developer's is touched, and no token is written into the home folder.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(16),
    "RAY_USAGE_STATS_ENABLED": "0",
}


def run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=CHECKOUT, env=ENVIRONMENT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def results(output: str) -> list[dict[str, Any]]:
    return [
        json.loads(line.removeprefix(platform_probe.MARK))
        for line in output.splitlines()
        if line.startswith(platform_probe.MARK)
    ]


@pytest.fixture(scope="module")
def standard() -> dict[str, Any]:
    """What Python's own module answers where our folder cannot be seen."""
    [found] = results(run([sys.executable, "-I", PROBE, "standard"]))
    assert found["answers"].keys() >= {"system", "machine", "platform", "python_version", "uname"}
    return found


def test_python_started_in_the_checkout(standard: dict[str, Any]) -> None:
    [found] = results(run([sys.executable, "-m", "tests.platform_probe", "python -m"]))
    assert found["answers"] == standard["answers"]
    assert found["submodule"] == str(CHECKOUT / "platform" / "running" / "workers.py")


def test_python_that_imported_the_standard_module_first(standard: dict[str, Any]) -> None:
    program = f"import platform, sys; assert not hasattr(platform, '__path__'); sys.path.insert(0, {str(CHECKOUT)!r}); "
    program += "import conftest; from tests import platform_probe; platform_probe.main('python -I')"
    [found] = results(run([sys.executable, "-I", "-c", program]))
    assert found["answers"] == standard["answers"]
    assert found["submodule"] == str(CHECKOUT / "platform" / "running" / "workers.py")


def test_this_process(standard: dict[str, Any]) -> None:
    found = platform_probe.result("pytest", "model.training")
    assert found["answers"] == standard["answers"]
    assert found["submodule"] == str(CHECKOUT / "platform" / "model" / "training.py")


@pytest.mark.long
@pytest.mark.parametrize(
    "command", [[str(SCRIPTS / "pytest")], [sys.executable, "-m", "pytest"]], ids=["pytest", "python -m pytest"]
)
def test_both_ways_to_start_pytest(command: list[str]) -> None:
    output = run([*command, "-q", "-p", "no:cacheprovider", f"{__file__}::{test_this_process.__name__}"])
    assert "1 passed" in output


def test_python_m_platform_prints_what_it_always_does() -> None:
    assert run([sys.executable, "-m", "platform"]) == run([sys.executable, "-I", "-m", "platform"])


@pytest.mark.long
def test_local_ray_worker_and_submitted_job(standard: dict[str, Any]) -> None:
    found = results(run([sys.executable, "-m", "tests.platform_probe", "local"]))
    assert [one["process"] for one in found] == ["local worker", "job's driver", "job's worker"]
    for one in found:
        assert one["answers"] == standard["answers"], one["process"]
        assert Path(one["submodule"]).parts[-3:] == ("platform", "model", "training.py")
        assert not Path(one["submodule"]).is_relative_to(CHECKOUT)  # Ray brought it


@pytest.mark.long
def test_worker_on_a_second_ray_node(standard: dict[str, Any]) -> None:
    [found] = results(run([sys.executable, "-m", "tests.platform_probe", "second_node"]))
    assert found["answers"] == standard["answers"]
    assert not Path(found["submodule"]).is_relative_to(CHECKOUT)


def test_streamlit_run(standard: dict[str, Any], tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    app = tmp_path / "app.py"
    app.write_text(
        f"""
import json, os, sys
sys.path.insert(0, {str(CHECKOUT)!r})
import conftest  # its recipe is the one that an entry script needs
from tests import platform_probe
with open({str(told) + ".part"!r}, "w") as file:
    json.dump(platform_probe.result("streamlit run", "running.workers"), file)
os.replace({str(told) + ".part"!r}, {str(told)!r})
"""
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(SCRIPTS / "streamlit"), "run", str(app), "--server.headless=true", f"--server.port={port}"]
    command += ["--server.address=127.0.0.1", "--browser.gatherUsageStats=false"]
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=CHECKOUT, env=ENVIRONMENT, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not told.exists():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                # Streamlit runs a script when a browser's first message asks for it.
                with connect(
                    f"ws://127.0.0.1:{port}/_stcore/stream", subprotocols=[Subprotocol("streamlit")]
                ) as browser:
                    message = BackMsg()
                    message.rerun_script.query_string = ""
                    browser.send(message.SerializeToString())
                    while not told.exists() and time.monotonic() < deadline:
                        time.sleep(0.1)
            except ConnectionRefusedError:
                time.sleep(0.2)
    finally:
        server.terminate()
        server.wait()
    found = json.loads(told.read_text())
    assert found["answers"] == standard["answers"]
    assert found["submodule"] == str(CHECKOUT / "platform" / "running" / "workers.py")


def test_no_submodule_hides_a_name_of_the_standard_module(standard: dict[str, Any]) -> None:
    ours = {path.stem for path in (CHECKOUT / "platform").iterdir()} - {"__init__", "__main__", "__pycache__"}
    assert len(ours) > 5
    assert not ours & set(standard["names"])
