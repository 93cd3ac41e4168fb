"""Many participants at once, each over Streamlit's own protocol: `make survey-load`, or

    python -m tests.survey_load --participants 200 --questions 20 --postgresql --servers 2

A server of its own on a new database; every participant goes from consent to completion code, at people's pace, and
nobody answers before all have come. Prints the time from answer to next stimulus (the data's arrival: the browser adds
its fixation mark), and checks that the database holds exactly the answers given. A server is at its end where its core
is full.
"""

import argparse
import json
import os
import random
import re
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, select
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from db.schema import Question, Study, Vote
from db.store import open_database, read_session
from db.surveys.study import create_study
from tests.postgres import PostgresServer
from tests.survey_browser import Server
from tests.survey_data import add_experiment

PROCESSES = 4  # of participants: threads of one would wait for each other
COMING_S = 0.1  # for each participant to come, before anybody answers


class Client:
    """One participant's page, without the browser."""

    def __init__(self, port: int, query: str) -> None:
        self.query = query
        address = f"ws://127.0.0.1:{port}/_stcore/stream"
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


@dataclass(frozen=True)
class Taken:
    """What came of some participants: each one's answers, and the seconds from every answer to the next stimulus.
    core_share: of a core, what they took of it while they answered."""

    answers: list[list[str]]
    seconds: list[float]
    core_share: float


def take_part(port: int, questions: int, think_s: float, begin: float, seconds: list[float]) -> list[str]:
    """Consent, from `begin` on (Unix time) answer so many questions, and finish. Returns the answers.

    seconds: gets those from each answer to the next stimulus.
    """
    chance = random.Random()
    time.sleep(chance.uniform(0, 0.8) * (begin - time.time()))  # they do not come all at once
    client = Client(port, "study=load")
    client.press("I agree")
    client.press("Next: a short look")
    client.press("Next: practice")
    time.sleep(max(begin - time.time(), 0) + chance.uniform(0, think_s))
    answers: list[str] = []
    while len(answers) < questions:
        answers.append(chance.choice(["left", "right"]))
        took = client.answer(answers[-1])
        if took is not None:
            seconds.append(took)
        time.sleep(chance.uniform(0.5, 1.5) * think_s)
    assert "completion code" in client.text
    client.socket.close()
    return answers


def crowd(ports: list[int], questions: int, think_s: float, begin: float) -> Taken:
    """A participant for each port, all at once, in this process."""
    seconds: list[float] = []
    with ThreadPoolExecutor(len(ports)) as threads:
        taking = [threads.submit(take_part, port, questions, think_s, begin, seconds) for port in ports]
        time.sleep(max(begin - time.time(), 0))
        began, before_s = time.monotonic(), time.process_time()
        answers = [each.result() for each in taking]
        return Taken(answers, seconds, (time.process_time() - before_s) / (time.monotonic() - began))


def processor_s(server: Server) -> float:
    """The processor time that a server's process has had, in seconds."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def largest_memory(server: Server) -> float:
    """The most memory that the server's process has had, in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1000


def measure(
    processes: Executor, servers: list[Server], participants: int, questions: int, think_s: float
) -> list[list[str]]:
    """Have so many participants at once, print how it went, and return each one's answers."""
    begin = time.time() + 5 + COMING_S * participants
    ports = [servers[number % len(servers)].port for number in range(participants)]
    parts = filter(None, (ports[number::PROCESSES] for number in range(PROCESSES)))
    crowds = [processes.submit(crowd, part, questions, think_s, begin) for part in parts]
    time.sleep(begin - time.time())
    began, before_s = time.monotonic(), [processor_s(server) for server in servers]
    wait(crowds)
    took, after_s = time.monotonic() - began, [processor_s(server) for server in servers]
    taken = [each.result() for each in crowds]
    answers = [each for part in taken for each in part.answers]
    votes = sum(map(len, answers))
    median, high = np.percentile([1000 * second for part in taken for second in part.seconds], [50, 95])
    busy = " and ".join(f"{(after - before) / took:.0%}" for before, after in zip(before_s, after_s, strict=True))
    print(
        f"{participants} participants at once: {votes} votes, {votes / took:.1f}/s; answer to next stimulus: median "
        f"{median:.0f} ms, 95th percentile {high:.0f} ms. Of a core: server {busy}, participants "
        f"{sum(part.core_share for part in taken):.0%}. Memory of a server at most: "
        f"{' and '.join(f'{largest_memory(server):.0f}' for server in servers)} MB.",
        flush=True,
    )
    return answers


def stored_answers(engine: Engine) -> list[list[str]]:
    """Each participant's answers in the study "load", in the order of their questions."""
    votes = select(Question.participant_id, Vote.answer).join(Vote).join(Study, Study.id == Question.study_id)
    votes = votes.where(Study.name == "load").order_by(Question.participant_id, Question.position)
    stored: dict[int, list[str]] = {}
    with read_session(engine) as session:
        for participant, answer in session.execute(votes):
            stored.setdefault(participant, []).append(answer)
    return list(stored.values())


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
        add_experiment(engine, images=max(arguments.questions, 40), size=32)
        create_study(engine, "cats", name="load", question_count=arguments.questions, practice_count=0)
        servers = []
        for number in range(arguments.servers):
            servers.append(Server(database, Path(folder) / f"log{number}"))
            stack.callback(servers[-1].stop)
        processes = stack.enter_context(ProcessPoolExecutor(PROCESSES, get_context("spawn")))
        list(processes.map(time.sleep, [1.0] * PROCESSES))  # until they have imported all
        given = measure(processes, servers, arguments.participants, arguments.questions, arguments.think)
        stored = stored_answers(engine)
        for server in servers:
            assert "Traceback" not in server.log.read_text(), server.log.read_text()
    assert sorted(stored) == sorted(given), "the database holds other answers than were given"
    print(f"{sum(map(len, given))} votes, each stored once; no page showed an error.")


if __name__ == "__main__":
    main()
