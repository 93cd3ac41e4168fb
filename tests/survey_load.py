"""Many participants at once, each over Streamlit's own protocol: `make survey-load`, or

    python -m tests.survey_load --participants 100 --questions 20 --postgresql --servers 2

A server of its own on a new database; every participant goes from consent to completion code, answering as soon as
they are asked. Prints the time from answer to next stimulus (the data's arrival: the browser adds its fixation mark),
and checks that the database holds exactly the answers given.
"""

import argparse
import json
import random
import re
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from db.schema import Participant, Question, Vote
from db.store import open_database, read_session
from db.studies import create_study
from tests.postgres import PostgresServer
from tests.survey_browser import Server
from tests.survey_data import add_experiment


class Client:
    """One participant's page, without the browser."""

    def __init__(self, server: Server, query: str) -> None:
        self.query = query
        address = f"ws://127.0.0.1:{server.port}/_stcore/stream"
        self.socket = connect(
            address, subprotocols=[Subprotocol("streamlit")], max_size=None, open_timeout=60, legacy=True
        )
        self.page = ""
        self.buttons: dict[str, str] = {}
        self.stimulus: tuple[str, dict[str, Any]] | None = None
        self.text = ""
        self.run()

    def run(self, trigger: str | None = None, value: Any = True) -> None:
        """One run of the script, until it has finished; trigger: the widget that is pressed, or given a value."""
        message = BackMsg()
        message.rerun_script.query_string = self.query
        message.rerun_script.page_script_hash = self.page
        if trigger is not None:
            state = message.rerun_script.widget_states.widgets.add(id=trigger)
            if value is True:
                state.trigger_value = True
            else:
                state.json_trigger_value = json.dumps([value])
        if self.stimulus is not None:  # a browser sends the component's state with whatever it sends
            message.rerun_script.widget_states.widgets.add(id=self.stimulus[0], json_value="{}")
        self.buttons, self.stimulus, self.text = {}, None, ""
        self.arrived = 0.0
        self.socket.send(message.SerializeToString())
        while True:
            received = self.socket.recv(timeout=120)
            assert isinstance(received, bytes)
            forward = ForwardMsg()
            forward.ParseFromString(received)
            kind = forward.WhichOneof("type")
            if kind == "page_info_changed":
                self.query = forward.page_info_changed.query_string
            elif kind == "new_session":
                self.page = forward.new_session.page_script_hash
            elif kind == "delta":
                self.see(forward.delta.new_element)
            elif kind == "script_finished" and forward.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                return

    def see(self, element: Any) -> None:
        kind = element.WhichOneof("type")
        if kind == "button":
            self.buttons[element.button.label] = element.button.id
        elif kind == "bidi_component" and element.bidi_component.component_name.endswith("stimulus"):
            component = element.bidi_component
            self.arrived = time.perf_counter()
            self.stimulus = component.id, json.loads(component.json or component.mixed.json)
        elif kind in ("markdown", "code"):
            self.text += getattr(element, kind).body if kind == "markdown" else element.code.code_text
        assert kind not in ("exception", "alert"), str(element)
        assert "so far is safe" not in self.text, "something went wrong on the server"

    def press(self, label: str) -> None:
        self.run(next(widget for name, widget in self.buttons.items() if name.startswith(label)))

    def answer(self, answer: str) -> float | None:
        """Answer the question; return the seconds until the next one arrived, None if none did."""
        assert self.stimulus is not None
        question = self.stimulus[1]["question"]
        vote = {"question": question, "answer": answer, "response_time_ms": 800.5, "input": "key", "scale": 9}
        sent = time.perf_counter()
        self.send_vote({**vote, "exposure_measured_ms": 1000.0})
        return self.arrived - sent if self.arrived else None

    def send_vote(self, value: Any) -> None:
        """Send whatever as the component's answer."""
        assert self.stimulus is not None
        self.run(f"$$STREAMLIT_INTERNAL_KEY_{self.stimulus[0]}__events", {"event": "vote", "value": value})


def take_part(server: Server, questions: int, think_s: float, seconds: list[float], given: list[list[str]]) -> None:
    chance = random.Random()
    time.sleep(chance.uniform(0, think_s))
    client = Client(server, "study=load")
    client.press("I agree")
    client.press("Next: a short look")
    client.press("Next: practice")
    answers: list[str] = []
    while len(answers) < questions:
        if client.stimulus is None:
            client.press("Go on")
            continue
        time.sleep(chance.uniform(0.5, 1.5) * think_s)
        answers.append(chance.choice(["left", "right"]))
        took = client.answer(answers[-1])
        if took is not None:
            seconds.append(took)
    client.press("Finish")
    assert "completion code" in client.text
    client.socket.close()
    given.append(answers)


def largest_memory(server: Server) -> float:
    """The most memory that the server's process has had, in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=30)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--think", type=float, default=2.0, help="mean seconds until an answer (default: %(default)s)")
    parser.add_argument("--postgresql", action="store_true", help="on a PostgreSQL of its own, not on SQLite")
    parser.add_argument("--servers", type=int, default=1, help="processes; each participant stays with one of them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        database = str(Path(folder) / "survey.sqlite")
        if arguments.postgresql:
            postgres = PostgresServer()
            stack.callback(postgres.stop)
            database = postgres.new_database()
        engine = open_database(database)
        stack.callback(engine.dispose)
        add_experiment(engine, images=arguments.questions, size=32)
        create_study(engine, "cats", name="load", question_count=arguments.questions, practice_count=0)
        servers = [Server(database, Path(folder) / f"log{number}") for number in range(arguments.servers)]
        for server in servers:
            stack.callback(server.stop)
        seconds: list[float] = []
        given: list[list[str]] = []
        began = time.perf_counter()
        threads = [
            threading.Thread(
                target=take_part,
                args=(servers[number % len(servers)], arguments.questions, arguments.think, seconds, given),
            )
            for number in range(arguments.participants)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        megabytes = ", ".join(f"{largest_memory(server):.0f}" for server in servers)
        with read_session(engine) as session:
            stored = [
                list(session.scalars(query.where(Question.participant_id == row)))
                for row in session.scalars(select(Participant.id))
                for query in [select(Vote.answer).join(Question).order_by(Question.position)]
            ]
            votes = session.scalar(select(func.count()).select_from(Vote)) or 0
        for server in servers:
            assert "Traceback" not in server.log.read_text(), server.log.read_text()
    assert len(given) == arguments.participants, "some participants did not come through"
    assert sorted(stored) == sorted(given), "the database holds other answers than were given"
    median, high = np.percentile(np.array(seconds) * 1000, [50, 95])
    print(
        f"{len(given)} participants at once on {'PostgreSQL' if arguments.postgresql else 'SQLite'}, {len(servers)} "
        f"server process(es): {votes} votes in {took:.0f} s ({votes / took:.1f}/s), each stored once, no error on any "
        f"page. Answer to next stimulus: median {median:.0f} ms, 95th percentile {high:.0f} ms. "
        f"Most memory of a server: {megabytes} MB."
    )


if __name__ == "__main__":
    main()
