"""What all participants' pages are made of: style, guard, heading, apology, and changes that are not lost."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.store import StoreError
from survey_app.database import database

FOLDER = Path(__file__).parent
FAILURES = (SQLAlchemyError, StoreError)
APOLOGY = "Sorry, something went wrong on our side"
SAFE = "What you have answered so far is safe. Please try again in a moment."
TRY_AGAIN = "Try again"

# In a <dialog> of guard.js, which has nothing but this where Streamlit's page is gone.
APOLOGY_HTML = f"""<style>.huejury-apology {{ inset: 0; width: auto; height: auto; max-width: none; max-height: none;
border: 0; padding: 3rem 1rem; text-align: center; font: 1.1rem / 1.5 system-ui, sans-serif;
color-scheme: light dark; }}
.huejury-apology button {{ font: inherit; padding: 0.6rem 1.6rem; border: 0; border-radius: 8px; background: #1d4ed8;
color: #fff; }}</style><h1>{APOLOGY}</h1><p>{SAFE}</p><button>{TRY_AGAIN}</button>"""

# One thread writes at a time. SQLite lets waiting connections poll, and in a rush some would wait until they gave up.
WRITING = threading.Lock()

logger = logging.getLogger("huejury.survey")

# Nothing of Streamlit's own is of use to a participant, and nothing may fade while the next question comes. Its stack
# traces are hidden from the first moment; guard.js covers them with an apology, and its word on a lost connection.
STYLE = """<style>
[data-testid="stHeader"], [data-testid="stToolbar"], [data-testid="stDecoration"], [data-testid="stStatusWidget"],
[data-testid="stSidebar"], [data-testid="stSidebarCollapsedControl"], [data-testid="stException"],
[data-testid="stDialog"],
[data-testid="stElementContainer"]:has([data-testid="stErrorElementStack"], [data-testid="stErrorCodeBlock"]),
footer { display: none !important; }
[data-testid="stMainBlockContainer"] { padding: 1.25rem 1rem 3rem; max-width: 46rem; }
[data-testid="stElementToolbar"] { display: none !important; }
[data-testid="stRadioOption"] > div > div:first-child { box-shadow: 0 0 0 1.5px #888; }
[data-stale="true"] { opacity: 1 !important; transition: none !important; }
</style>"""

_heading = st.components.v2.component(
    "huejury_heading",
    html='<h1 tabindex="-1"></h1>',
    css="""h1 { margin: 0; padding: 0.5rem 0; font: 700 clamp(1.6rem, 6vw, 2.25rem) / 1.2 var(--st-heading-font);
    color: var(--st-heading-color); outline: none; }""",
    js=(FOLDER / "heading.js").read_text(encoding="utf-8"),
)
_guard = st.components.v2.component("huejury_guard", js=(FOLDER / "guard.js").read_text(encoding="utf-8"))


def frame() -> None:
    """The first of every page: its style, and what guards it."""
    st.html(STYLE)
    _guard(key="guard", data={"apology": APOLOGY_HTML})


def title(text: str, *, report: bool = False, first: bool = False) -> dict[str, Any] | None:
    """The page's heading; with `report`, also what the page is shown on, once that is known."""
    result = _heading(
        key="heading", data={"text": text, "report": report, "first": first}, on_display_change=lambda: None
    )
    display = result.get("display")
    if not isinstance(display, dict):
        return None
    # It comes from a browser, and is stored.
    return {name: value for name, value in list(display.items())[:20] if isinstance(value, int | float)}


def button(label: str, token: str, change: Callable[[Engine, str], None]) -> None:
    """A page's way on."""
    st.button(label, type="primary", width="stretch", on_click=attempt, args=(lambda engine: change(engine, token),))


def attempt(change: Callable[[Engine], object]) -> None:
    """Make a change; if the database cannot take it, keep it for the button of `apologise`."""
    st.session_state["pending"] = change
    try:
        engine = database()
        with WRITING:
            change(engine)
    except FAILURES:
        logger.exception("A change could not be stored")
        st.session_state.pop("question", None)  # the question starts anew, by its button
    else:
        del st.session_state["pending"]


def apologise(pending: Callable[[Engine], object] | None = None) -> None:
    """Say that something failed; the button tries the change again that could not be made."""
    title(APOLOGY)
    st.write(SAFE)
    st.button(TRY_AGAIN, type="primary", on_click=None if pending is None else partial(attempt, pending))
