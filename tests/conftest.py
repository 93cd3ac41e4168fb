"""What tests in several files share."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import Engine, delete
from xdist.scheduler import LoadScopeScheduling

from db.schema import Participant, Study
from db.store import open_database, write_session
from tests.faults import counted
from tests.postgres import PostgresServer
from tests.processes import Process, StartPython
from tests.survey_browser import CHROMIUM_ARGUMENTS, chromium
from tests.survey_data import add_experiment

ROOT = Path(__file__).parent.parent

# Tests train on small pictures: one thread is fastest, and beside other work on the same cores by far. Torch reads it
# when it is first imported, here and in every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray starts its workers at nice 15, and whatever else is tested beside them would go first.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - its name


# Under `make test` and `make test-all` two processes share the tests, by groups. What starts Ray never runs beside its
# like, as it takes all cores, nor does what is looked at in a browser. Any other file is a group of its own, so that
# its fixtures are made once. These two come first, and what is short fills up the time until both have ended.
GROUPS = {
    "ray": [
        "test_faults_trials",
        "test_platform_module",
        "test_recorder",
        "test_sweep",
        "test_sweep_command",
    ],
    "browser": [
        "test_dashboard_browser",
        "test_photograph_view",
        "test_pictures_view",
        "test_serve",
        "test_survey_flow",
    ],
}
GROUP_OF = {file: group for group, files in GROUPS.items() for file in files}


@pytest.hookimpl(tryfirst=True)  # before the long ones are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in GROUP_OF)
    for item in items:
        if "postgres" in item.fixturenames or "postgresql" in item.name:  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.long)  # what both engines do, SQLite shows


def group_of(test: str) -> str:
    file = Path(test.partition("::")[0]).stem
    return GROUP_OF.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = group_of  # its own groups do nothing with pytest 9.2
    return scheduler


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of two processes, whose summary nobody sees
        session.config.workeroutput["counted"] = counted


def pytest_testnodedown(node: Any) -> None:
    counted.extend(getattr(node, "workeroutput", {}).get("counted", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if counted:
        terminalreporter.section("faults and cases tried")
        for line in counted:
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def same_main() -> Iterator[None]:
    """Streamlit's AppTest leaves its script as __main__, which processes that a later test spawns would run."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture
def start_python() -> Iterator[StartPython]:
    """Starts Python on some code in the checkout, its input and output piped; what still runs at the end is killed."""
    with ExitStack() as stack:

        def start(code: str, *arguments: str | Path) -> Process:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code, *map(str, arguments)],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def empty_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A new database on each engine, SQLite's in memory."""
    sqlite = request.param == "sqlite"
    engine = open_database(":memory:" if sqlite else request.getfixturevalue("postgres").new_database())
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def shared_engine(empty_engine: Engine) -> Engine:
    """A new database on each engine, with an experiment."""
    add_experiment(empty_engine, images=24)
    return empty_engine


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    """The same database; a test's studies and participants are deleted after it."""
    yield shared_engine
    with write_session(shared_engine) as session:
        session.execute(delete(Participant))
        session.execute(delete(Study))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests, each of which opens contexts of its own."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new database on each engine: of a file, or of a server."""
    if request.param == "sqlite":
        return str(tmp_path / "huejury.sqlite")
    url: str = request.getfixturevalue("postgres").new_database()
    return url
