"""The whole dashboard in a browser: links, downloads, what a blinded study gives away, phones."""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote_plus

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import select, update
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from db.schema import Question, Vote
from db.store import open_database, write_session
from db.surveys.study import create_study, find_study
from survey_app.dashboard.page import VIEWS
from survey_app.simulate import Observer, simulate
from tests.survey_browser import DESKTOP, PHONE, Server, check_looks
from tests.survey_data import ARMS, add_experiment, answer_all

DASHBOARD = "survey_app/dashboard/app.py"
SHARES = re.compile(r"\(\d+/\d+\)|\d+/\d+ picked|>\d+/\d+<")  # as votes are written, k of n


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("dashboard")
    engine = open_database(folder / "huejury.sqlite")
    add_experiment(engine, images=24)
    create_study(engine, "cats", name="blind", question_count=5, practice_count=1, planned_participants=2, blinded=True)
    answer_all(engine, "blind", wrong={*ARMS})
    create_study(engine, "cats", name="fresh", question_count=5, practice_count=0)
    create_study(engine, "cats", question_count=12, practice_count=3, sentinel_share=0.17, seed=0)
    simulate(engine, "cats", 6, Observer(), seed=0)
    engine.dispose()
    server = Server(folder / "huejury.sqlite", folder / "server.log", script=DASHBOARD)
    yield server
    server.stop()


def drawn(page: Page) -> None:
    """Wait until the server has run the page and the browser shows it."""
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
    page.get_by_text("Dataset cats").wait_for()


def test_what_is_chosen_stays_in_the_link_and_tables_can_be_saved(server: Server, browser: Browser) -> None:
    page = browser.new_page(viewport=DESKTOP)
    page.goto(server.url)
    drawn(page)
    assert "simulated" in page.get_by_role("alert").inner_text()  # nobody else has answered
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").first.click()
        page.get_by_role("button", name="CSV, all digits").click()
    assert download.value.suggested_filename == "results-simulated.csv"
    frame = pd.read_csv(download.value.path())
    assert frame["model"].tolist()[:3] == list(ARMS)
    assert len(frame) == 4
    page.keyboard.press("Escape")
    page.get_by_role("button", name="How sure").or_(page.get_by_role("radio", name="How sure")).first.click()
    page.get_by_text("Differences between models").wait_for()
    link = page.url
    assert "view=How+sure" in link
    assert "experiment=cats" in link
    page.close()
    other = browser.new_page(viewport=DESKTOP)
    other.goto(link)
    other.get_by_text("Differences between models").wait_for()
    other.goto(link.replace("How+sure", "Nothing").replace("study=cats", "study=gone"))
    other.get_by_text("Accuracy and votes").wait_for()
    other.close()


def received(server: Server, browser: Browser, views: Iterable[str]) -> set[str]:
    """Every element that a new browser is sent when these views of the blinded study are opened."""
    messages: list[str | bytes] = []
    page = browser.new_page(viewport=DESKTOP)
    page.on("websocket", lambda socket: socket.on("framereceived", lambda data: messages.append(data)))
    for view in views:
        page.goto(f"{server.url}?study=blind&view={quote_plus(view)}")
        drawn(page)
    page.close()
    elements = set()
    for message in messages:
        forward = ForwardMsg()
        forward.ParseFromString(message if isinstance(message, bytes) else message.encode())
        if forward.WhichOneof("type") == "delta":  # a download's address is drawn at random
            elements.add(re.sub(r'deferred_file_id: "\w+"', "", str(forward.delta)))
    return elements


@pytest.mark.long
def test_what_a_blinded_study_sends_to_the_browser_does_not_depend_on_the_answers(
    server: Server, browser: Browser
) -> None:
    views = [*list(VIEWS)[1:], "Results"]
    before = received(server, browser, views)
    assert any("is blinded" in element for element in before)
    assert any("Learning curves" in element for element in before)
    assert not [element for element in before if SHARES.search(element)]
    engine = open_database(server.database)
    with write_session(engine) as session:
        blind = find_study(session, "blind").id
        of_study = select(Question.id).where(Question.study_id == blind)
        session.execute(
            update(Vote)
            .where(Vote.question_id.in_(of_study))
            .values(correct=~Vote.correct, response_time_ms=3 * Vote.response_time_ms)
        )
    assert received(server, browser, views) == before
    answer_all(engine, "blind", wrong=set())  # the last participant who was planned
    engine.dispose()
    assert [element for element in received(server, browser, ["Results"]) if SHARES.search(element)]


@pytest.mark.long
def test_new_votes_appear_by_themselves(server: Server, browser: Browser) -> None:
    page = browser.new_page(viewport=DESKTOP)
    page.goto(f"{server.url}?study=fresh")
    page.get_by_text("Participants: 0 of 30 planned").wait_for()
    engine = open_database(server.database)
    answer_all(engine, "fresh", wrong=set())
    engine.dispose()
    page.get_by_text("Participants: 1 of 30 planned").wait_for()
    page.close()


@pytest.mark.long
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_legible_on_a_phone_in_the_dark(server: Server, browser: Browser, view: str) -> None:
    page = browser.new_page(viewport=PHONE, color_scheme="dark")
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{server.url}?view={view.replace(' ', '+').replace('?', '%3F')}")
    drawn(page)
    page.wait_for_timeout(500)
    check_looks(page)
    charts = page.get_by_test_id("stVegaLiteChart")
    for number in range(charts.count()):
        assert charts.nth(number).locator("[aria-label]").count()
    page.close()
    assert not errors
