"""A short look at the participant's screen and colour vision: stored, flagged, and never turning anybody away."""

import hashlib
import io

import numpy as np
import streamlit as st
from PIL import Image

from db.surveys import votes
from survey_app.participants import color_vision
from survey_app.participants.screen import attempt, title

PLATE_SETS = 16  # drawing one takes a while; neighbours need not see the same digits
GREY_SQUARES = 8


def display_check(token: str) -> None:
    """Draw the check, and store what is answered."""
    display = title("Your screen", report=True)
    st.write("This helps us to read your answers. Whatever you choose, you can go on.")
    plates = _plates(int.from_bytes(hashlib.sha256(token.encode()).digest()[:4], "big") % PLATE_SETS)
    with st.form("check", border=False):
        st.subheader("Brightness", anchor=False)
        st.image(_grey_squares(), width="stretch")
        brightness = st.radio(
            f"Turn up your screen's brightness until you can tell all {GREY_SQUARES} squares apart. Could you?",
            ["Yes", "No"],
            index=None,
            horizontal=True,
        )
        night_filter = st.radio(
            "Is a night-light, blue-light or colour filter on? If so, please switch it off now.",
            ["No, or switched off now", "Yes, it stays on", "I do not know"],
            index=None,
        )
        st.subheader("Which digit do you see?", anchor=False)
        answers = []
        for number, (plate, column) in enumerate(zip(plates, [*st.columns(2), *st.columns(2)], strict=True), 1):
            with column:
                st.image(plate.png, width=color_vision.SIDE * 4 // 5)
                answers.append(
                    st.radio(
                        f"Digit in disc {number}",
                        [*(str(choice) for choice in plate.choices), "none"],
                        index=None,
                        horizontal=True,
                    )
                )
        submit = st.form_submit_button("Next: practice", type="primary", width="stretch")
    if submit:
        flags = check_flags(brightness, night_filter, plates, answers)
        if display is not None and display.get("edited"):
            flags.append("edited")
        record = {
            "brightness": brightness,
            "night_filter": night_filter,
            "plates": [
                {"kind": plate.kind, "digit": plate.digit, "answer": answer}
                for plate, answer in zip(plates, answers, strict=True)
            ],
            "display": display,
        }
        attempt(lambda engine: votes.record_check(engine, token, record, flags))
        st.rerun()


def check_flags(
    brightness: str | None, night_filter: str | None, plates: list[color_vision.Plate], answers: list[str | None]
) -> list[str]:
    """What an analysis may want to leave out. A missed demonstration plate speaks of carelessness."""
    flags = []
    if brightness != "Yes":
        flags.append("brightness")
    if night_filter is None or not night_filter.startswith("No"):
        flags.append("night_filter")
    for plate, answer in zip(plates, answers, strict=True):
        if answer != str(plate.digit):
            flags.append(f"plate_{plate.kind}")
    return flags


@st.cache_data(show_spinner=False)
def _plates(seed: int) -> list[color_vision.Plate]:
    return color_vision.plates(seed)


@st.cache_data(show_spinner=False)
def _grey_squares() -> bytes:
    """Squares of grey, evenly spaced in sRGB from black to white, with a margin of mid grey."""
    squares = np.rint(np.linspace(0, 255, GREY_SQUARES)).astype(np.uint8)
    row = np.repeat(np.repeat(squares[None, :], 80, axis=0), 80, axis=1)
    file = io.BytesIO()
    Image.fromarray(np.pad(row, 16, constant_values=color_vision.SURROUND[0])).save(file, "PNG")
    return file.getvalue()
