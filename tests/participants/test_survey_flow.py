"""Participants in a real Chromium, on a real server: whatever they do, the database holds exactly their answers."""

import base64
import hashlib
import re
import sqlite3
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import Engine, func, select

from db.png import pixels
from db.schema import Image, Participant, Question, Sample, Vote
from db.store import read_session
from tests.survey_browser import (
    COMPLETION_URL,
    DESKTOP,
    PHONE,
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

ID = "5f1e" * 6  # as Prolific's are: 24 hexadecimal digits


def tab_to(page: Page, name: str) -> None:
    """Press the tab key until what has the focus bears this name or holds this text."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if name in page.evaluate(
            """() => { let at = document.activeElement;
            while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
            if (!at.matches("a, button, input, summary, textarea")) return "";
            const group = at.closest("[role=radiogroup]");
            return `${at.ariaLabel ?? ""} ${at.innerText ?? ""} ${group?.ariaLabel ?? ""}`; }"""
        ):
            return
    pytest.fail(f"The tab key does not reach {name!r}.")


def count(engine: Engine, table: type[Any]) -> int:
    with read_session(engine) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_whole_survey_with_the_keyboard_alone(page: Page, server: Server, engine: Engine) -> None:
    before = count(engine, Participant)
    page.goto(f"{server.url}?study=whole&PROLIFIC_PID={ID}&STUDY_ID=60aa&SESSION_ID=61bb&utm=x&participant=7")
    button(page, "I agree").wait_for()
    check_looks(page)
    assert count(engine, Participant) == before  # nothing is stored before consent
    tab_to(page, "I agree")
    page.keyboard.press("Enter")
    button(page, "Next: a short look").wait_for()
    check_looks(page)

    [(name, [token])] = parse_qs(urlsplit(page.url).query).items()
    assert name == "huejury"
    me = participant(engine)
    assert me.token_hash == hashlib.sha256(token.encode()).hexdigest()
    assert (me.external_id, me.external_study_id, me.external_session_id) == (ID, "60aa", "61bb")

    tab_to(page, "Next: a short look")
    page.keyboard.press("Enter")
    button(page, "Next: practice").wait_for()
    check_looks(page)
    tab_to(page, "brightness")
    page.keyboard.press("Space")
    tab_to(page, "Digit in disc 1")
    page.keyboard.press("Space")
    tab_to(page, "Next: practice")
    page.keyboard.press("Enter")

    given = []
    for turn in range(12):
        if turn < 3:  # practice's start, its feedback, and the start of what counts
            at(page, "before")
            check_looks(page)
            page.wait_for_timeout(300)
            page.keyboard.press("Space")
        expected = f"Practice {turn + 1} of 2" if turn < 2 else f"Question {turn - 1} of 10"
        assert wait_for_question(page) == expected
        if turn == 0:
            check_looks(page)
        answer = "left" if turn % 3 else "right"
        given.append(("practice" if turn < 2 else "main", answer))
        press(page, answer)

    wait_for_end(page)
    check_looks(page)

    assert read_answers(engine) == given
    with read_session(engine) as session:
        me = session.get_one(Participant, me.id)
        votes = session.execute(select(Vote, Question).join(Question).where(Question.participant_id == me.id)).all()
    assert me.check is not None
    assert me.check["answers"]["brightness"] == "Yes"
    assert me.check["answers"]["display"]["width"] == DESKTOP["width"]
    assert "night_filter" in me.check["flags"]
    assert me.completion_code in page.locator("body").inner_text().replace("-", "")
    assert page.get_by_role("link", name="complete").get_attribute("href") == COMPLETION_URL
    for vote, _ in votes:
        assert vote.input == "key"
        assert vote.scale >= 5
        assert vote.exposure_measured_ms is not None
        assert vote.response_time_ms > vote.exposure_measured_ms > 0
        assert (vote.device_pixel_ratio, vote.flags) == (1.0, [])
    main = [vote.correct for vote, question in votes if question.phase == "main"]
    assert f"{sum(main)} of {len(main)}" in page.locator("body").inner_text()


@pytest.mark.long
def test_on_a_phone_with_taps_in_the_dark(browser: Browser, server: Server, engine: Engine) -> None:
    context = browser.new_context(
        viewport=PHONE,
        device_scale_factor=3,
        has_touch=True,
        is_mobile=True,
        color_scheme="dark",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(f"{server.url}?study=short")
    button(page, "I agree").wait_for()
    check_looks(page)
    button(page, "I agree").tap()
    button(page, "Next: a short look").wait_for()
    check_looks(page)
    button(page, "Next: a short look").tap()
    button(page, "Next: practice").wait_for()
    check_looks(page)
    button(page, "Next: practice").tap()
    for turn in range(6):
        if turn < 2:
            at(page, "before")
            check_looks(page)
            page.wait_for_timeout(300)
            page.locator(".go").tap()
        wait_for_question(page)
        check_looks(page)
        assert page.locator(".answers").bounding_box()["y"] + 64 <= PHONE["height"]  # type: ignore[index]
        # A button the first times, then the pictures themselves.
        if turn < 3:
            page.locator(".answers button").last.tap()
        else:
            page.locator(".slot").last.tap()
        page.locator('.trial[data-phase="answer"]').wait_for(state="detached")
    wait_for_end(page)
    check_looks(page)
    context.close()
    assert read_answers(engine) == [("practice", "right")] + 5 * [("main", "right")]
    with read_session(engine) as session:
        query = select(Vote).join(Question).where(Question.participant_id == participant(engine).id)
        votes = session.scalars(query).all()
    assert {vote.input for vote in votes} == {"tap"}
    # 3 gaps of 8 and 2 margins of 16 CSS pixels leave 912 of 1080 screen pixels to 2 pictures of 32 pixels.
    assert [(vote.scale, vote.device_pixel_ratio) for vote in votes] == [(14, 3.0)] * 6


@pytest.mark.long
def test_double_clicks_reloads_and_the_back_button(page: Page, server: Server, engine: Engine) -> None:
    page.goto(f"{server.url}?study=short")
    before = count(engine, Participant)
    button(page, "I agree").dblclick()
    to_practice(page)
    assert count(engine, Participant) == before + 1
    link = page.url
    go(page)
    wait_for_question(page)
    page.locator(".answers button").first.dblclick()
    go(page)
    for number in range(1, 6):
        assert wait_for_question(page) == f"Question {number} of 5"
        if number == 2:
            page.reload()
            go(page)
            assert wait_for_question(page) == "Question 2 of 5"
        if number == 3:
            page.go_back()
            page.wait_for_url(link)  # brought back to the participant's own link
            assert wait_for_question(page) == "Question 3 of 5"
        if number == 4:
            page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', repeat: true}))")
        page.locator(".answers button").first.dblclick(delay=20)
    wait_for_end(page)
    assert read_answers(engine) == [("practice", "left")] + 5 * [("main", "left")]
    with read_session(engine) as session:
        query = select(Vote.input).join(Question).where(Question.participant_id == participant(engine).id)
        assert set(session.scalars(query)) == {"click"}
    assert count(engine, Participant) == before + 1


@pytest.mark.long
def test_reload_just_after_an_answer(page: Page, server: Server, engine: Engine) -> None:
    consent(page, server, "short")
    to_practice(page)
    for turn in range(30):  # an answer may not have left the browser yet: then the question is asked again
        page.locator('.trial[data-phase="before"], #completion-code').wait_for()
        if page.locator("#completion-code").is_visible():
            break
        go(page)
        if turn == 2:
            press(page, "right")
        press(page, "right")
        page.reload()
    assert read_answers(engine) == [("practice", "right")] + 5 * [("main", "right")]


@pytest.mark.long
def test_two_tabs(page: Page, server: Server, engine: Engine) -> None:
    consent(page, server, "short")
    to_practice(page)
    go(page)
    press(page, "left")
    other = page.context.new_page()
    other.goto(page.url)
    for tab in (page, other):
        tab.bring_to_front()
        go(tab)
        assert wait_for_question(tab) == "Question 1 of 5"
    page.bring_to_front()
    press(page, "left")
    other.bring_to_front()
    press(other, "right")  # the question has its answer
    assert wait_for_question(other) == "Question 2 of 5"
    press(other, "right")
    assert wait_for_question(other) == "Question 3 of 5"
    page.bring_to_front()
    assert wait_for_question(page) == "Question 2 of 5"
    press(page, "left")  # so has this one
    assert wait_for_question(page) == "Question 3 of 5"
    for number in (3, 4, 5):
        assert wait_for_question(page) == f"Question {number} of 5"
        press(page, "left")
    wait_for_end(page)
    assert [answer for _, answer in read_answers(engine)] == ["left", "left", "right", "left", "left", "left"]


@pytest.mark.long
def test_database_that_cannot_write(page: Page, server: Server, engine: Engine) -> None:
    consent(page, server, "short")
    to_practice(page)
    go(page)
    press(page, "left")
    go(page)
    wait_for_question(page)
    with sqlite3.connect(str(engine.url.database)) as database:
        database.execute("CREATE TRIGGER broken BEFORE INSERT ON votes BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    press(page, "right")
    page.get_by_text("Sorry, something went wrong").wait_for()
    check_looks(page)
    seen = page.locator("body").inner_text()
    assert not re.search("Traceback|sqlite|Error|disk", seen, re.IGNORECASE)
    button(page, "Try again").click()
    page.wait_for_timeout(300)
    page.get_by_text("Sorry, something went wrong").wait_for()
    with sqlite3.connect(str(engine.url.database)) as database:
        database.execute("DROP TRIGGER broken")
    button(page, "Try again").click()
    go(page)
    assert wait_for_question(page) == "Question 2 of 5"
    assert read_answers(engine) == [("practice", "left"), ("main", "right")]


@pytest.mark.long
def test_withdrawal_at_once_and_by_code(page: Page, server: Server, engine: Engine) -> None:
    consent(page, server, "short")
    to_practice(page)
    go(page)
    press(page, "left")
    go(page)
    press(page, "left")
    me, link = participant(engine), page.url
    wait_for_question(page)
    page.get_by_text("Withdraw and delete my answers").click()
    button(page, "Delete all my answers").click()
    page.get_by_text("Your answers have been deleted").wait_for()
    check_looks(page)
    assert "huejury" not in page.url
    with read_session(engine) as session:
        assert session.get(Participant, me.id) is None
        assert session.scalar(select(func.count()).where(Question.participant_id == me.id)) == 0
    page.goto(link)
    page.get_by_text("There are no answers under this link").wait_for()
    check_looks(page)

    consent(page, server, "short")
    button(page, "Next: a short look").wait_for()
    me = participant(engine)
    page.goto(f"{server.url}withdraw")
    field = page.get_by_role("textbox")
    field.fill("AAAA-AAAA-AAAA")
    button(page, "Delete all my answers").click()
    page.get_by_text("There are no answers under this code").wait_for()
    check_looks(page)
    field.fill(me.completion_code.lower())
    button(page, "Delete all my answers").click()
    page.get_by_text("Your answers have been deleted").wait_for()
    check_looks(page)
    with read_session(engine) as session:
        assert session.get(Participant, me.id) is None


@pytest.mark.long
def test_untimed_pictures_stay_until_the_answer(page: Page, server: Server, engine: Engine) -> None:
    consent(page, server, "untimed")
    to_practice(page)
    go(page)
    wait_for_question(page)
    see = "canvases => canvases.map((canvas) => canvas.toDataURL())"
    shown = page.locator("canvas").evaluate_all(see)
    page.wait_for_timeout(400)
    assert page.locator("canvas").evaluate_all(see) == shown
    press(page, "left")
    at(page, "before")
    with read_session(engine) as session:
        vote, question = session.execute(
            select(Vote, Question).join(Question).where(Question.participant_id == participant(engine).id)
        ).one()
        pngs = [session.get_one(Image, question.image_id).truth_png, session.get_one(Sample, question.sample_id).png]
    assert vote.exposure_measured_ms is None
    for address, stored_png in zip(shown, pngs if question.real_side == "left" else pngs[::-1], strict=True):
        large = pixels(base64.b64decode(address.partition(",")[2]))
        small = pixels(stored_png)
        assert np.array_equal(large, small.repeat(vote.scale, axis=0).repeat(vote.scale, axis=1))


@pytest.mark.long
def test_single_pictures(page: Page, server: Server, engine: Engine) -> None:
    consent(page, server, "single")
    to_practice(page)
    go(page)
    wait_for_question(page)
    assert page.locator("canvas:visible").count() == 1
    check_looks(page)
    page.locator(".slot").first.click()  # a single picture is no answer
    at(page, "answer")
    press(page, "left")
    go(page)
    for _ in range(5):
        press(page, "right")
    wait_for_end(page)
    assert [answer for _, answer in read_answers(engine)] == ["real", "fake", "fake", "fake", "fake", "fake"]
