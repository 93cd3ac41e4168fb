"""Both servers as `make survey` starts them: two doors, one end; and the settings that they promise."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import streamlit as st
from playwright.sync_api import Browser, WebSocket
from streamlit.testing.v1 import AppTest

from db.store import open_database
from db.surveys.study import create_study
from survey_app import serve
from survey_app.settings import TOKEN_VARIABLE
from tests.participants.test_survey_pages import opened
from tests.survey_browser import CHECKOUT, button, check_looks, settle
from tests.survey_data import add_experiment


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "huejury.sqlite"
    engine = open_database(path)
    add_experiment(engine, images=12)
    create_study(engine, "cats", question_count=5, practice_count=1)
    engine.dispose()
    return path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Serving:
    """`python -m survey_app.serve` on free ports, started in another folder than the checkout: paths are from there."""

    def __init__(self, database: Path, folder: Path, *options: str) -> None:
        self.survey, self.dashboard = free_port(), free_port()
        self.said = folder / "said"
        command = [sys.executable, "-m", "survey_app.serve", *options, "--address", "127.0.0.1"]
        command += ["--database", os.path.relpath(database, folder)]
        command += [f"--port={self.survey}", f"--dashboard-port={self.dashboard}"]
        # Variables that would take the promises back, were they believed.
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "STREAMLIT_CLIENT_SHOW_ERROR_DETAILS": "full"}
        environment |= {"STREAMLIT_BROWSER_GATHER_USAGE_STATS": "true"}
        with self.said.open("w") as output:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)

    def wait_for(self, *lines: str) -> str:
        deadline = time.monotonic() + 300
        while not all(line in self.said.read_text() for line in lines):
            assert time.monotonic() < deadline, self.said.read_text()
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.1)
        return self.said.read_text()

    @property
    def token(self) -> str:
        """Which the printed address of the dashboard ends in."""
        start = f"The dashboard is at http://127.0.0.1:{self.dashboard}/?token="
        return self.said.read_text().partition(start)[2].split()[0]

    def server_of(self, port: int) -> int:
        """The process that listens there, of those that it started."""
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if f"--server.port={port}".encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                return int(child)
        raise AssertionError(f"Nobody listens on {port}.")


@contextmanager
def serving(database: Path, folder: Path, *options: str) -> Iterator[Serving]:
    one = Serving(database, folder, *options)
    try:
        alone = {"survey", "dashboard"} & set(options)
        one.wait_for(*(f"The {door} is at" for door in alone or ("survey", "dashboard")))
        yield one
    finally:
        if one.process.poll() is None:
            one.process.terminate()
        one.process.wait(30)


def listens(port: int, address: str = "127.0.0.1") -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


@pytest.fixture(scope="module")
def both(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(database, tmp_path_factory.mktemp("both"), "--dashboard-host", "reader.localhost") as both:
        yield both


def libraries_of(process: int) -> set[str]:
    """Those of a few large libraries with compiled parts that a process has loaded."""
    maps = Path(f"/proc/{process}/maps").read_text()
    return set(re.findall(r"site-packages/(statsmodels|scipy|torch|vl_convert)/", maps))


def test_each_server_has_loaded_what_its_pages_need_before_anybody_comes(both: Serving) -> None:
    """The first of the tests that they serve."""
    assert libraries_of(both.server_of(both.dashboard)) == {"statsmodels", "scipy", "torch", "vl_convert"}
    assert libraries_of(both.server_of(both.survey)) == {"scipy"}


def test_readers_need_the_token_once_and_a_name_that_is_the_dashboards(browser: Browser, both: Serving) -> None:
    assert len(both.token) >= 32
    assert both.token.encode() not in Path(f"/proc/{both.server_of(both.dashboard)}/cmdline").read_bytes()
    address = f"http://127.0.0.1:{both.dashboard}/"
    context = browser.new_context()
    page = context.new_page()
    for path in ("", "?token=", "?token=wrong", f"?token={both.token[:-1]}", "?view=Sweep"):
        page.goto(address + path)
        page.get_by_text("python -m survey_app.serve").wait_for()
        check_looks(page)
        assert page.get_by_label("Experiment").count() == 0

    page.goto(f"{address}?token={both.token}")
    for view in ("Sweep", "Pictures"):
        page.get_by_role("radio", name=view, exact=True).click()
        page.wait_for_url(f"**view={view}**")
        settle(page)
        assert page.get_by_label("Experiment").count() == 1
    page.reload()
    page.get_by_label("Experiment").wait_for()
    # What the page asks for next is drawn whatever the address has become.
    page.evaluate("history.replaceState(null, '', '/')")
    page.get_by_role("radio", name="Sweep", exact=True).click()
    page.wait_for_url("**view=Sweep**")
    settle(page)
    assert page.get_by_label("Experiment").count() == 1

    # Chromium leads all names that end in .localhost to this machine, as a hostile site would its own name.
    page.goto(f"http://reader.localhost:{both.dashboard}/?token={both.token}")
    page.get_by_label("Experiment").wait_for()
    heard: list[object] = []
    refused: list[str] = []

    def follow(socket: WebSocket) -> None:
        socket.on("framereceived", lambda data: heard.append(data))
        socket.on("socketerror", lambda error: refused.append(error))

    page.on("websocket", follow)
    page.goto(f"http://hostile.localhost:{both.dashboard}/?token={both.token}")
    while not refused:  # until the test's own limit of time
        page.wait_for_timeout(100)
    assert "403" in refused[0]
    assert heard == []
    assert page.get_by_label("Experiment").count() == 0
    context.close()


def test_both_are_served_by_doors_of_their_own_and_stopped_together(browser: Browser, both: Serving) -> None:
    """The last of the tests that they serve."""
    said = both.said.read_text()
    assert f"The survey is at http://127.0.0.1:{both.survey}\n" in said
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"http://127.0.0.1:{both.survey}/")
    button(page, "I agree and take part").wait_for()
    page.goto(f"http://127.0.0.1:{both.dashboard}/?token={both.token}")
    page.get_by_label("Experiment").wait_for()
    # Neither telemetry nor anything else of other hosts.
    assert [url for url in asked if "127.0.0.1" not in url and not url.startswith(("data:", "blob:"))] == []
    # There is no dashboard behind the survey's door.
    page.goto(f"http://127.0.0.1:{both.survey}/dashboard")
    page.wait_for_timeout(1500)
    assert page.get_by_label("Experiment").count() == 0
    context.close()
    both.process.send_signal(signal.SIGINT)
    assert both.process.wait(30) == 0
    assert "Stopped." in both.said.read_text()
    assert not listens(both.survey)
    assert not listens(both.dashboard)


def access_page() -> None:
    import streamlit as st

    from survey_app.dashboard.page import reader_may_see

    if reader_may_see():
        st.write("The dashboard")


@pytest.mark.parametrize(
    ("token", "given", "may"),
    [
        ("secret", "secret", True),
        ("secret", "Secret", False),
        ("secret", "", False),
        ("secret", "sécret", False),
        ("sécret", "sécret", True),
        ("", "", True),  # --no-token
        (None, "", False),  # not started by our command
        (None, "None", False),
    ],
)
def test_who_may_see_the_dashboard(monkeypatch: pytest.MonkeyPatch, token: str | None, given: str, may: bool) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    if token is not None:
        monkeypatch.setenv(TOKEN_VARIABLE, token)
    app = AppTest.from_function(access_page, default_timeout=60)
    app.query_params["token"] = given
    assert (app.run().markdown[0].value == "The dashboard") == may
    del app.query_params["token"]
    assert (app.run().markdown[0].value == "The dashboard") == may


def test_one_is_served_alone_and_stopped_as_a_service_would(database: Path, tmp_path: Path) -> None:
    with serving(database, tmp_path, "survey") as alone:
        assert not listens(alone.dashboard)
        alone.process.send_signal(signal.SIGTERM)
        assert alone.process.wait(30) == 0
        assert "Stopped." in alone.said.read_text()
        assert not listens(alone.survey)


@pytest.mark.long
def test_where_one_dies_it_is_said_and_the_other_is_stopped(database: Path, tmp_path: Path) -> None:
    with serving(database, tmp_path) as both:
        os.kill(both.server_of(both.dashboard), signal.SIGKILL)
        assert both.process.wait(30) == 1
        assert re.search(
            r"The dashboard's server has ended with status -9; the other .* stopped", both.said.read_text()
        )
        assert not listens(both.survey)


def options_of_the_dashboard(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[serve.Door, list[str]]:
    doors: list[serve.Door] = []

    def note_doors(given: list[serve.Door], _database: str) -> int:
        doors.extend(given)
        return 0

    monkeypatch.setattr(serve, "serve", note_doors)
    assert serve.main(["dashboard", *arguments]) == 0
    return doors[0], doors[0].command()


def test_the_dashboard_is_for_this_machine_alone_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    door, command = options_of_the_dashboard(monkeypatch)
    assert "--server.address=127.0.0.1" in command
    hosts = [flag.partition("=")[2] for flag in command if flag.startswith("--server.allowedHosts=")]
    assert set(hosts) == {"localhost", "127.0.0.1", "::1"}
    assert options_of_the_dashboard(monkeypatch)[0].token != door.token

    door, command = options_of_the_dashboard(
        monkeypatch, "--dashboard-host=a.example", "--dashboard-host=b.example", "--dashboard-address=0.0.0.0"
    )
    assert {f"--server.allowedHosts={name}" for name in ("localhost", "a.example", "b.example")} <= set(command)
    assert "--server.address=0.0.0.0" in command
    assert door.url == f"http://localhost:8502/?token={door.token}"
    monkeypatch.setenv(TOKEN_VARIABLE, "&chosen")
    assert options_of_the_dashboard(monkeypatch)[0].url == "http://127.0.0.1:8502/?token=%26chosen"
    assert options_of_the_dashboard(monkeypatch, "--no-token")[0].url == "http://127.0.0.1:8502"


def test_a_port_that_is_taken_is_said_before_anything_starts(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = ["survey", "--address", "127.0.0.1", "--port", str(port), "--database", str(database)]
        assert serve.main(arguments) == 2
    said = capsys.readouterr()
    assert re.fullmatch(rf"The survey cannot listen on 127.0.0.1:{port} .*--port\.\n", said.err)
    assert said.out == ""


def test_started_in_another_folder_the_promised_settings_hold(database: Path, tmp_path: Path) -> None:
    """By Streamlit's own command, as a service or a container would."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", str(CHECKOUT / "survey_app" / "participants" / "app.py")]
    command += ["--server.headless=true", f"--server.port={port}", "--server.address=127.0.0.1"]
    environment = {**os.environ, "HUEJURY_DATABASE": str(database)}
    with (tmp_path / "log").open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/host-config") as answer:
                    assert answer.status == 200
                    break
            except urllib.error.URLError:
                time.sleep(0.1)
        upload = urllib.request.Request(f"http://127.0.0.1:{port}/_stcore/upload_file/s/f", b"x", method="PUT")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(upload)
    finally:
        process.terminate()
        process.wait()
    assert "usage statistics" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("setting", "value"), [("client.showErrorDetails", "full"), ("browser.gatherUsageStats", True)]
)
def test_other_settings_than_promised_are_refused(
    database: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: object
) -> None:
    """What a flag or a variable of the environment set otherwise."""
    monkeypatch.setenv("HUEJURY_DATABASE", str(database))
    st.cache_resource.clear()
    told = st.get_option
    monkeypatch.setattr(st, "get_option", lambda name: value if name == setting else told(name))
    app = opened()
    assert f"not started with the settings that it promises ({setting})" in app.error[0].value
    assert not app.button
    st.cache_resource.clear()
