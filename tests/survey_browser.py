"""What the survey's browser tests share: a real Streamlit server, and a participant in a real Chromium."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize
from sqlalchemy import Engine, select

from db.schema import Participant, Question, Vote
from db.store import open_database, read_session
from db.surveys.study import create_study
from survey_app.settings import TOKEN_VARIABLE
from tests.survey_data import add_experiment

CHECKOUT = Path(__file__).resolve().parent.parent
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
CHROMIUM_ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]
DESKTOP = ViewportSize(width=1100, height=800)
PHONE = ViewportSize(width=360, height=640)
COMPLETION_URL = "https://app.prolific.com/submissions/complete?cc=C0DE"


def chromium() -> str:
    """The path of Chromium; without one the test is skipped, or fails where HUEJURY_NEED_CHROMIUM is set."""
    if CHROMIUM is not None:
        return CHROMIUM
    message = "NO CHROMIUM: the survey was not tried in a browser. Install it (Debian: apt-get install chromium)."
    if os.environ.get("HUEJURY_NEED_CHROMIUM"):
        pytest.fail(message)
    pytest.skip(message)


class Server:
    """`streamlit run survey_app/participants/app.py` on a free port of this machine, on one database.

    script: another one instead of survey_app/participants/app.py.
    """

    def __init__(
        self, database: str | Path, log: Path, *, script: str | Path = "survey_app/participants/app.py"
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.database = database
        self.log = log
        self.script = script
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "streamlit", "run", str(self.script), "--server.headless=true"]
        command += [f"--server.port={self.port}", "--server.address=127.0.0.1"]
        environment = {**os.environ, "HUEJURY_DATABASE": str(self.database), TOKEN_VARIABLE: ""}
        with self.log.open("a") as output:
            self.process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=output, stderr=output)
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                with urllib.request.urlopen(f"{self.url}_stcore/health"):
                    return
            except OSError:
                time.sleep(0.1)

    def kill(self) -> None:
        """As a crash would: kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database of studies of pairs: "short" and the like, and "whole", longer and with a link at the end."""
    engine = open_database(tmp_path_factory.mktemp("survey") / "survey.sqlite")
    add_experiment(engine, images=24, size=32)
    short: dict[str, Any] = {"practice_count": 1, "question_count": 5, "exposure_ms": 50, "sentinel_share": 0.2}
    differences: dict[str, dict[str, Any]] = {
        "short": {},
        "untimed": {"exposure_ms": None},
        "single": {"protocol": "single"},
        "whole": {"practice_count": 2, "question_count": 10, "completion_url": COMPLETION_URL},
    }
    for name, different in differences.items():
        create_study(engine, "cats", name=name, **short | different)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def server(browser: Browser, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(Path(str(engine.url.database)), tmp_path_factory.mktemp("server") / "log")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def desktop(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=DESKTOP)  # for all tests: its cache has Streamlit's scripts
    yield context
    context.close()


@pytest.fixture
def page(desktop: BrowserContext) -> Iterator[Page]:
    yield desktop.new_page()
    for page in desktop.pages:
        page.close()


# What a participant does. Answers are "left" or "right", the protocol is pair.


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name)


def consent(page: Page, server: Server, study: str) -> None:
    page.goto(f"{server.url}?study={study}")
    button(page, "I agree and take part").click()


def to_practice(page: Page) -> None:
    """From the instructions to practice's start."""
    button(page, "Next: a short look").click()
    button(page, "Next: practice").click()
    at(page, "before")


def at(page: Page, phase: str) -> None:
    """Wait until the stimulus is at this phase."""
    page.locator(f'.trial[data-phase="{phase}"]').wait_for()


def go(page: Page) -> None:
    """Past what is said before a question."""
    at(page, "before")
    page.wait_for_timeout(400)  # presses right after it appears may belong to the last question
    page.locator(".go").press("Enter")


def wait_for_end(page: Page) -> None:
    page.locator("#completion-code").wait_for()


def wait_for_question(page: Page) -> str:
    """Wait for the question to be asked, and return which one it is: "Question 2 of 6"."""
    at(page, "answer")
    return page.locator(".count").inner_text()


def press(page: Page, answer: str) -> None:
    at(page, "answer")
    page.keyboard.press({"left": "ArrowLeft", "right": "ArrowRight"}[answer])
    page.locator('.trial[data-phase="answer"]').wait_for(state="detached")


def participant(engine: Engine) -> Participant:
    """The newest participant."""
    with read_session(engine) as session:
        found = session.scalars(select(Participant).order_by(Participant.id.desc())).first()
        assert found is not None
        return found


def read_answers(engine: Engine) -> list[tuple[str, str]]:
    """The newest participant's answers, as (phase, answer) in the order of the questions."""
    with read_session(engine) as session:
        rows = session.execute(
            select(Question.phase, Vote.answer)
            .join(Vote, Vote.question_id == Question.id)
            .where(Question.participant_id == participant(engine).id)
            .order_by(Question.position)
        )
        return [(phase, answer) for phase, answer in rows]


# WCAG AA of all text on the page, as it is: 4.5:1, large text 3:1.
CONTRAST = """() => {
  const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const over = (colour, below) => {
    context.fillStyle = `rgb(${below.join(",")})`; context.fillRect(0, 0, 1, 1);
    context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parent = (node) => node.parentElement ?? (node.parentNode instanceof ShadowRoot ? node.parentNode.host : null);
  const background = (element) => {
    const layers = [];
    for (let at = element; at; at = parent(at)) layers.push(getComputedStyle(at).backgroundColor);
    return layers.reverse().reduce((below, colour) => over(colour, below), [255, 255, 255]);
  };
  const poor = [];
  const walk = (root) => {
    for (const element of root.querySelectorAll("*")) {
      if (element.shadowRoot) walk(element.shadowRoot);
      const text = [...element.childNodes].map((n) => (n.nodeType === 3 ? n.textContent : "")).join("").trim();
      const box = element.getBoundingClientRect();
      const seen = text && box.width > 1 && box.height > 1 && element.checkVisibility({ visibilityProperty: true });
      // A slider's value stands above the thumb that it is in; what cannot be used need not stand out (WCAG 1.4.3).
      if (!seen || element.closest("style, script, [data-testid=stSliderThumbValue], :disabled")) continue;
      const style = getComputedStyle(element);
      const below = background(element);
      const [a, b] = [light(over(style.color, below)), light(below)];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
      if (ratio < (large ? 3 : 4.5)) poor.push(`${ratio.toFixed(2)} ${text.slice(0, 60)}`);
    }
  };
  walk(document.body);
  return poor;
}"""


def settle(page: Page) -> None:
    """Wait until the server has run the page; until then Streamlit shows what was there before, faded."""
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for(state="attached")
    page.wait_for_timeout(250)
    page.evaluate(
        """() => Promise.all(document.getAnimations()
        .filter((fading) => fading.effect.getComputedTiming().endTime < Infinity)
        .map((fading) => fading.finished.catch(() => {})))"""
    )


def check_looks(page: Page) -> None:
    """Text has contrast, and nothing is wider than the window."""
    settle(page)
    poor = page.evaluate(CONTRAST)
    assert not poor, poor
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    main = page.get_by_test_id("stMain")
    assert main.evaluate("element => element.scrollWidth <= element.clientWidth")
