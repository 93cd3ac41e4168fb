"""The survey's server killed again and again while people take part, on SQLite and on PostgreSQL."""

import random
import threading
import time
from pathlib import Path

import pytest
from websockets.exceptions import WebSocketException

from db.store import open_database
from db.surveys.study import create_study
from tests.db.test_faults_database import stored_votes
from tests.faults import TIMES, count
from tests.processes import check_integrity
from tests.survey_browser import Server
from tests.survey_data import add_experiment
from tests.survey_load import Client

pytestmark = pytest.mark.long

PARTICIPANTS = 4


class Browsers:
    """Participants whose pages connect again by themselves, until `over` is set."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.over = threading.Event()
        self.acknowledged: dict[str, str] = {}  # answers after which the next page came
        self.sent: dict[str, set[str]] = {}  # all answers
        self.failures: list[BaseException] = []
        self.threads = [threading.Thread(target=self._run) for _ in range(PARTICIPANTS)]
        for thread in self.threads:
            thread.start()

    def _run(self) -> None:
        query = "study=cats"
        chance = random.Random()
        while not self.over.is_set():
            try:
                client = Client(self.server.port, query)
                while not self.over.is_set():
                    if client.stimulus is not None:
                        question, answer = client.stimulus[1]["question"], chance.choice(["left", "right"])
                        self.sent.setdefault(question, set()).add(answer)
                        client.answer(answer)
                        self.acknowledged.setdefault(question, answer)
                    elif forward := [label for label in client.buttons if not label.startswith("Delete")]:
                        client.press(forward[0])
                    else:
                        assert "completion code" in client.text, client.text
                        query = "study=cats"  # the next participant
                        break
                    query = client.query
                client.socket.close()
            except (OSError, WebSocketException):  # the server is gone: what is not acknowledged is asked again
                time.sleep(0.1)
            except BaseException as error:
                self.failures.append(error)
                return


def test_the_server_killed_while_people_take_part_loses_no_vote(database: str, tmp_path: Path) -> None:
    engine = open_database(database)
    add_experiment(engine, images=60)
    create_study(engine, "cats", practice_count=2)
    server = Server(database, tmp_path / "log")
    browsers = Browsers(server)
    kills = 2 * TIMES if engine.dialect.name == "sqlite" else TIMES
    try:
        for number in range(kills + 1):
            until = len(browsers.acknowledged) + 10 + random.Random(number).randrange(10)
            deadline = time.monotonic() + 60
            while len(browsers.acknowledged) < until:
                assert not browsers.failures, browsers.failures
                assert time.monotonic() < deadline, server.log.read_text()
                time.sleep(0.005)
            if number < kills:
                server.kill()
                check_integrity(engine)
                server.start()
    finally:
        browsers.over.set()
        for thread in browsers.threads:
            thread.join()
        server.stop()
    assert not browsers.failures, browsers.failures
    check_integrity(engine)
    stored = stored_votes(engine)
    lost = browsers.acknowledged.items() - stored.items()
    assert not lost
    assert all(answer in browsers.sent[question] for question, answer in stored.items())
    assert "Traceback" not in server.log.read_text()
    count(
        f"`kill -9` of the survey's server while {PARTICIPANTS} people vote, on {engine.dialect.name}",
        f"{kills} times",
        f"{len(lost)} of {len(browsers.acknowledged)} votes",
        f"tests/participants/test_faults_survey.py -k {engine.dialect.name}",
    )
    engine.dispose()
