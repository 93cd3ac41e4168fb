"""People's machines in a real Chromium: translators, extensions, servers that are gone; and what browsers are told."""

import base64
import io
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, WebSocketRoute
from sqlalchemy import Engine, select
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from db.schema import Image as PhotographRow
from db.schema import Question, Vote
from db.store import read_session
from tests.survey_browser import (
    DESKTOP,
    Server,
    at,
    button,
    check_looks,
    consent,
    go,
    participant,
    press,
    read_answers,
    to_practice,
    wait_for_end,
    wait_for_question,
)
from tests.survey_browser import desktop as desktop
from tests.survey_browser import engine as engine
from tests.survey_browser import page as page
from tests.survey_browser import server as server
from tests.survey_data import ARMS

pytestmark = pytest.mark.long

# What Chrome's translator does: it wraps every text in <font>, but where the page says that it may not.
TRANSLATE = """(respectful) => {
  const may = (node) => {
    if (!respectful) return true;
    for (let at = node.parentElement; at; at = at.parentElement)
      if (at.classList.contains("notranslate") || at.getAttribute("translate") === "no") return false;
    return true;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode())
    if (walker.currentNode.data.trim() && may(walker.currentNode)) texts.push(walker.currentNode);
  for (const text of texts) {
    if (["STYLE", "SCRIPT"].includes(text.parentElement?.tagName)) continue;
    const outer = document.createElement("font"), inner = document.createElement("font");
    inner.textContent = text.data.toUpperCase();
    outer.append(inner);
    text.replaceWith(outer);
  }
  if (texts.length) document.documentElement.classList.add("translated-ltr");
  return texts.length;
}"""
TRACE = re.compile(r"Error|Traceback|at \w+ \(|NotFound", re.IGNORECASE)


def votes(engine: Engine) -> list[Vote]:
    """The newest participant's."""
    with read_session(engine) as session:
        me = participant(engine).id
        query = select(Vote).join(Question).where(Question.participant_id == me).order_by(Question.position)
        return list(session.scalars(query))


def check_no_trace(page: Page) -> None:
    """Neither a stack trace nor a box of Streamlit's is on the page where somebody could see it."""
    visible = page.evaluate(
        """() => [...document.querySelectorAll('[data-testid="stException"], .stException')]
        .filter((element) => element.checkVisibility()).length"""
    )
    assert visible == 0
    assert not TRACE.search(page.locator("body").inner_text())


def test_a_polite_translator_leaves_the_page_alone(page: Page, server: Server, engine: Engine) -> None:
    consent(page, server, "short")
    button(page, "Next: a short look").wait_for()
    assert page.evaluate(TRANSLATE, True) == 0
    to_practice(page)
    go(page)
    press(page, "left")
    at(page, "before")
    assert [vote.flags for vote in votes(engine)] == [[]]


def test_whoever_rewrites_the_page_gets_no_trace_goes_on_and_is_flagged(
    page: Page, server: Server, engine: Engine
) -> None:
    consent(page, server, "short")
    button(page, "Next: a short look").wait_for()
    assert page.evaluate(TRANSLATE, False) > 0
    page.get_by_text(re.compile("Next: a short look", re.IGNORECASE)).first.click()
    again = page.locator(".huejury-apology button")
    again.or_(button(page, "Next: practice")).first.wait_for()
    page.wait_for_timeout(500)
    check_no_trace(page)
    if again.is_visible():
        check_looks(page)
        again.click()
    button(page, "Next: practice").wait_for()
    check_no_trace(page)
    button(page, "Next: practice").click()
    go(page)
    press(page, "left")
    at(page, "before")
    assert [vote.flags for vote in votes(engine)] == [["edited"]]


def test_a_trace_of_streamlits_is_covered_by_an_apology(page: Page, server: Server) -> None:
    """However it comes about."""
    consent(page, server, "short")
    button(page, "Next: a short look").wait_for()
    page.evaluate(
        """() => { const box = document.createElement("div"); box.dataset.testid = "stException";
        box.textContent = "NotFoundError: Failed to execute removeChild";
        document.querySelector("#root").append(box); }"""
    )
    page.get_by_text("Sorry, something went wrong on our side").wait_for()
    assert page.get_by_text("NotFoundError").is_hidden()
    page.locator(".huejury-apology button").click()
    button(page, "Next: a short look").wait_for()
    assert page.locator(".huejury-apology").is_hidden()


def test_what_translators_and_extensions_leave_is_flagged(page: Page, server: Server, engine: Engine) -> None:
    consent(page, server, "short")
    to_practice(page)
    for mark in (
        "document.body.setAttribute('data-gr-ext-installed', '')",
        "document.documentElement.lang = 'de'",  # a translator that keeps the elements
        "document.querySelector('#root').append(document.createElement('ya-tr-span'))",
        "document.documentElement.append(document.createElement('grammarly-desktop-integration'))",
        "document.documentElement.setAttribute('nighteye', 'active')",
    ):
        page.reload()
        at(page, "before")
        assert not page.evaluate("window.huejuryEdited"), mark
        page.evaluate(mark)
        page.wait_for_function("window.huejuryEdited")
    go(page)
    press(page, "left")
    at(page, "before")
    assert [vote.flags for vote in votes(engine)] == [["edited"]]


def test_a_page_out_of_sight_while_the_pictures_were_shown_is_flagged(
    page: Page, server: Server, engine: Engine
) -> None:
    consent(page, server, "short")
    to_practice(page)
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
    go(page)
    press(page, "left")
    at(page, "before")
    assert [vote.flags for vote in votes(engine)] == [["hidden"]]


def test_an_answer_that_does_not_arrive_is_sent_again_ever_later_and_not_for_ever(
    browser: Browser, server: Server, engine: Engine
) -> None:
    """On a clock of the test's own: a connection that looks open, but over which nothing arrives any more."""
    page = browser.new_page(viewport=DESKTOP)
    swallowed: list[bytes] = []
    gone = False

    def connect(socket: WebSocketRoute) -> None:
        upstream = socket.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            if not gone:
                upstream.send(message)
            elif b"response_time_ms" in _bytes(message):
                swallowed.append(_bytes(message))

        socket.on_message(pass_on)

    page.route_web_socket(re.compile("_stcore/stream"), connect)
    page.clock.install()
    consent(page, server, "short")
    to_practice(page)
    go(page)
    wait_for_question(page)
    gone = True
    press(page, "left")
    sent = []
    for _ in range(30):
        page.clock.run_for(60_000)
        sent.append(len(swallowed))
    assert 3 <= sent[0] <= 6  # in the first minute
    assert all(later - earlier <= 1 for earlier, later in pairwise(sent))
    assert sent[9] > sent[4]  # it still tries
    assert sent[14:] == [sent[14]] * 16  # and has given up
    assert "check your connection, then reload" in page.locator(".prompt").inner_text()
    assert read_answers(engine) == []
    gone = False
    page.clock.resume()
    page.reload()
    go(page)
    press(page, "left")
    at(page, "before")
    assert len(read_answers(engine)) == 1
    page.close()


def test_a_server_that_is_gone_for_long_is_apologised_for_and_the_page_goes_on_by_itself(
    page: Page, server: Server, engine: Engine
) -> None:
    """Streamlit's own words ("Connection error", "Is Streamlit still running?") are nobody's business here."""
    consent(page, server, "short")
    to_practice(page)
    go(page)
    wait_for_question(page)
    server.kill()
    press(page, "left")
    page.get_by_text("Sorry, something went wrong on our side").wait_for()
    assert page.get_by_test_id("stDialog").is_hidden()
    check_looks(page)
    server.start()
    page.locator(".huejury-apology").wait_for(state="hidden")
    go(page)
    assert wait_for_question(page) == "Question 1 of 5"
    assert [vote.flags for vote in votes(engine)] == [[]]


def test_a_refused_answer_releases_the_page_which_asks_anew(page: Page, server: Server, engine: Engine) -> None:
    consent(page, server, "short")
    to_practice(page)
    go(page)
    wait_for_question(page)
    sent: list[bytes] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda data: sent.append(_bytes(data))))
    page.evaluate("Object.defineProperty(window, 'devicePixelRatio', { get: () => 1 })")
    page.evaluate("Object.defineProperty(Event.prototype, 'timeStamp', { get: () => 1e17, configurable: true })")
    page.evaluate("performance.now = () => 2e17")
    press(page, "left")
    page.get_by_text("Once more, please").wait_for()
    check_looks(page)
    assert read_answers(engine) == []
    page.reload()
    go(page)
    press(page, "left")
    at(page, "before")
    assert len(read_answers(engine)) == 1


def test_the_answer_cannot_be_read_off_what_the_browser_received(page: Page, server: Server, engine: Engine) -> None:
    frames: list[bytes] = []
    addresses: list[str] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda data: frames.append(_bytes(data))))
    page.on("request", lambda request: addresses.append(request.url.removeprefix(server.url)))
    consent(page, server, "whole")
    to_practice(page)
    go(page)
    press(page, "left")
    go(page)
    press(page, "left")
    go(page)
    frames.clear()
    addresses.clear()
    looks = set()
    for _ in range(10):
        wait_for_question(page)
        look = page.locator(".trial").evaluate(
            """element => { const copy = element.cloneNode(true); copy.querySelector(".before").replaceChildren();
            return copy.outerHTML.replaceAll(' class=""', ""); }"""
        )
        looks.add(re.sub(r"[\d.]+", "0", look))
        press(page, "left")
    wait_for_end(page)
    page.wait_for_timeout(200)
    # Questions come over the socket alone, no picture has an address; what is fetched is Streamlit's own scripts.
    assert [address for address in addresses if not address.startswith("static/")] == []

    with read_session(engine) as session:
        questions = session.scalars(
            select(Question)
            .where(Question.participant_id == participant(engine).id, Question.phase == "main")
            .order_by(Question.position)
        ).all()
        truths = {
            question.public_id: session.get_one(PhotographRow, question.image_id).truth_png for question in questions
        }
    sides = {question.public_id: question.real_side for question in questions}
    kinds = {question.public_id: question.kind for question in questions}
    assert set(sides.values()) == {"left", "right"}
    assert set(kinds.values()) == {"arm", "sentinel"}

    # What the page looks like to a program is the same whatever is asked.
    assert len(looks) == 1

    sent = {}
    for data in component_data(frames):
        sent[data.pop("question")] = data
    assert sent.keys() >= sides.keys() - {questions[0].public_id}  # the first came with the last practice answer
    rest = []
    for public_id, data in sent.items():
        pictures = data.pop("pictures")
        rest.append({key: value for key, value in data.items() if key not in ("number", "count", "before")})
        assert re.fullmatch(r"[\w-]{16}", public_id)
        assert [len(base64.b64decode(picture)) for picture in pictures] == [32 * 32 * 3] * 2
        # The pictures are where the schedule says: the test looks at the right bytes.
        truth = np.asarray(Image.open(io.BytesIO(truths[public_id])).convert("RGB")).tobytes()
        assert [base64.b64decode(picture) == truth for picture in pictures] == [
            sides[public_id] == side for side in ("left", "right")
        ]
    assert all(one == rest[0] for one in rest)

    received = b"".join(frames)
    for secret in [*ARMS, "sentinel", "real_side", "correct", "trial_id", "sample"]:
        assert secret.encode() not in received, secret
    assert b"\x89PNG" not in received
    assert base64.b64encode(b"\x89PNG\r\n")[:7] not in received


def component_data(frames: list[bytes]) -> Iterator[dict[str, Any]]:
    """The data of every stimulus in what Streamlit's server sent."""
    for frame in frames:
        message = ForwardMsg()
        message.ParseFromString(frame)
        element = message.delta.new_element
        if element.WhichOneof("type") == "bidi_component" and element.bidi_component.component_name.endswith(
            "stimulus"
        ):
            yield json.loads(element.bidi_component.json or element.bidi_component.mixed.json)


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data
