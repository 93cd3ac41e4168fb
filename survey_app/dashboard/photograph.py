"""Your photograph: any picture, coloured by every stored model of an experiment, with settings to try live.

The only part of `survey_app` that runs models: see tests/test_imports.py. A photograph stays in the server's memory as
long as its reader's page is open, and is written nowhere.
"""

import base64
import html
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import streamlit as st
import torch
from sqlalchemy.orm import Session

from db.errors import UserError
from db.results import Contender, arm_results, best_contenders
from db.store import read_session
from platform.canvas import (
    EXAMPLES,
    MOST_BYTES,
    MOST_PIXELS,
    Canvas,
    Look,
    Photograph,
    Place,
    begin,
    example,
    jpeg,
    open_photograph,
    pixels_of,
)
from platform.compose import Task
from platform.models import Colorizer
from platform.photographs import lightness_of, painted, photograph_file
from platform.stored_models import load_trial
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.dashboard.exhibits import save

FOLDER = Path(__file__).parent
WAITING = "Another reader's photograph is being coloured; yours is next."
UPLOAD, EXAMPLE, SOURCE, OPENED = "photograph upload", "photograph example", "photograph source", "photograph opened"

# One photograph at a time, whoever's it is, and on one core: beside anything else that runs, two threads that wait for
# each other took five times as long as one.
COLOURING = threading.Lock()
torch.set_num_threads(1)

STRIP = """.strip { display: flex; flex-wrap: wrap; gap: 0.6rem; }
.strip figure { margin: 0; width: 9rem; font-size: 0.8rem; }
.strip img { display: block; width: 100%; }"""

logger = logging.getLogger("huejury.dashboard")

_component = st.components.v2.component(
    "huejury_photograph",
    html=(FOLDER / "photograph.html").read_text(encoding="utf-8"),
    css=(FOLDER / "photograph.css").read_text(encoding="utf-8"),
    js=(FOLDER / "photograph.js").read_text(encoding="utf-8"),
)


@dataclass(eq=False)
class Opened:
    """A reader's photograph, and what has been made of it so far."""

    identity: tuple[str, str]  # where it came from
    name: str
    data: bytes  # the file
    photograph: Photograph
    thumbs: dict[int, bytes]  # JPEG by trial id
    canvas: tuple[int, Canvas] | None = None  # of one trial, by its id
    tried: dict[str, float] = field(default_factory=dict)  # λ and temperature, where the reader changed them


def show(chosen: Chosen) -> None:
    """Draw the page: choose a photograph, see every model's picture of it, try settings on one of them."""
    st.caption(
        f"Any photograph, in colour or grey, up to {MOST_BYTES / 1e6:.0f} MB and {MOST_PIXELS / 1e6:.0f} megapixels. "
        "It stays in this server's memory while this page is open; nothing of it is stored or sent on. These models "
        "were trained on small pictures: expect plausible areas of colour, not every object's own."
    )
    try:
        opened = _chosen_photograph()
        if opened is None:
            return
        with read_session(chosen.engine) as session:
            contenders = best_contenders(arm_results(session, chosen.experiment.name))
            models = _colour_all(session, opened, contenders)
        if models:
            arm = choose("Model", list(models), key="model")
            _easel(opened, models[arm], *_canvas(chosen, opened, models[arm]))
    except UserError as error:
        st.error(str(error))


# What is coloured


def _chosen_photograph() -> Opened | None:
    """The photograph that the reader chose last. Raises UserError for one that cannot be read."""
    first, second = st.columns(2)
    with first:
        upload = st.file_uploader("A photograph of yours", key=UPLOAD, on_change=_from, args=(UPLOAD,))
    with second:
        name = st.segmented_control("or an example", EXAMPLES, key=EXAMPLE, on_change=_from, args=(EXAMPLE,))
    state = st.session_state
    if upload is not None and (state.get(SOURCE) == UPLOAD or name is None):
        identity, file_name = (UPLOAD, upload.file_id), re.sub(r"[^\w .-]", "", upload.name)[-60:] or "photograph"
    elif name is not None:
        identity, file_name = (EXAMPLE, name), f"{name.partition(',')[0]}.png"
    else:
        state.pop(OPENED, None)
        return None
    if OPENED not in state or state[OPENED].identity != identity:
        state.pop(OPENED, None)
        with _colouring():
            data = example(identity[1]) if upload is None or identity[0] == EXAMPLE else upload.getvalue()
            state[OPENED] = Opened(identity, file_name, data, open_photograph(data, file_name), {})
    opened: Opened = state[OPENED]
    return opened


def _from(source: str) -> None:
    st.session_state[SOURCE] = source


@contextmanager
def _colouring() -> Iterator[None]:
    """Wait until nobody else's photograph is being coloured, and say so meanwhile."""
    if not COLOURING.acquire(blocking=False):
        with st.spinner(WAITING):
            COLOURING.acquire()
    try:
        yield
    finally:
        COLOURING.release()


@st.cache_resource(show_spinner=False, max_entries=32)
def _model(_session: Session, database: str, trial_id: int) -> tuple[Task, Colorizer | None]:
    return load_trial(_session, trial_id)


def _look_at(session: Session, photograph: Photograph, contender: Contender) -> Canvas:
    """Raises UserError where the model's weights are not to be had."""
    database = session.get_bind().engine.url.render_as_string()
    task, model = _model(session, database, contender.trial.trial_id)
    return begin(photograph.small, task, model, contender.arm, asdict(contender.options))


def _colour_all(session: Session, opened: Opened, contenders: list[Contender]) -> dict[str, Contender]:
    """Draw what every model makes of the photograph, side by side; returns those whose weights are there."""
    photograph, faults = opened.photograph, []
    missing = [contender for contender in contenders if contender.trial.trial_id not in opened.thumbs]
    if missing:
        with st.spinner(f"Colouring by {len(missing)} models …"), _colouring():
            for contender in missing:
                try:
                    canvas = _look_at(session, photograph, contender)
                except UserError as error:
                    faults.append(str(error))
                    continue
                picture = painted(photograph.thumb, photograph.small, canvas.ab(canvas.start))
                opened.thumbs[contender.trial.trial_id] = jpeg(picture)
    models = {one.arm: one for one in contenders if one.trial.trial_id in opened.thumbs}
    if not contenders:
        st.info("No trial has finished yet: photographs can be coloured as soon as the first has.")
    for fault in faults:
        st.warning(fault)
    figures = [
        (f"{opened.name}, coloured by {arm}", arm, opened.thumbs[one.trial.trial_id]) for arm, one in models.items()
    ]
    if photograph.colours_jpeg is not None and models:
        figures.insert(0, (f"{opened.name}, the photograph", "photograph", photograph.colours_jpeg))
    st.html(f'<style>{STRIP}</style><div class="strip">{"".join(_figure(*figure) for figure in figures)}</div>')
    return models


def _figure(alternative: str, caption: str, picture: bytes) -> str:
    return (
        f'<figure><img src="{_as_link(picture)}" alt="{html.escape(alternative)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _as_link(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"


# What is tried on it


def _canvas(chosen: Chosen, opened: Opened, contender: Contender) -> tuple[Canvas, str]:
    """The photograph before the model, and the key of what the reader tries there."""
    trial_id = contender.trial.trial_id
    if opened.canvas is None or opened.canvas[0] != trial_id:
        with read_session(chosen.engine) as session, _colouring():
            opened.canvas = trial_id, _look_at(session, opened.photograph, contender)
    return opened.canvas[1], f"photograph {'/'.join(opened.identity)} {trial_id}"


@st.fragment
def _easel(opened: Opened, contender: Contender, canvas: Canvas, key: str) -> None:
    """The large picture, its settings, and its ways to be taken away; nothing else of the page is drawn again."""
    sent = st.session_state.get(key, {}).get("asked")
    sent = sent if isinstance(sent, dict) else {}
    look, photograph = _asked(canvas, sent, opened.tried), opened.photograph
    if look is not None and canvas.start is not None and "look" in sent:
        now, before = asdict(look), asdict(canvas.start)
        opened.tried = {name: now[name] for name in ("tilt", "temperature") if now[name] != before[name]}
    easel = st.container()
    # The buttons come first, so that whoever sees the picture also holds its file's name: see `save`.
    with st.container(horizontal=True):
        for suffix in (".png", ".jpg"):
            save(
                f"Download as {'PNG' if suffix == '.png' else 'JPEG'}",
                partial(_full_size, opened, canvas, look, suffix),
                f"{Path(opened.name).stem}-coloured{suffix}",
                key,
            )
    with _colouring():
        picture = jpeg(painted(photograph.preview, photograph.small, canvas.ab(look)))
        swatches = None if look is None or look.place is None else _swatches(canvas, look, look.place)
    height, width = photograph.preview.shape
    with easel:
        _component(
            key=key,
            data={
                "turn": sent.get("turn"),
                "name": f"{opened.name}, coloured by {contender.arm}",
                "width": width,
                "height": height,
                "coloured": _as_link(picture),
                "grey": _as_link(photograph.grey_jpeg),
                "true": None if photograph.colours_jpeg is None else _as_link(photograph.colours_jpeg),
                "start": None if canvas.start is None else asdict(canvas.start),
                "look": None if look is None else asdict(look),
                "annealed": canvas.options.decoding == "annealed_mean",
                "swatches": swatches,
            },
            on_asked_change=lambda: None,
        )


def _asked(canvas: Canvas, sent: Mapping[str, object], tried: Mapping[str, Any]) -> Look | None:
    """What the browser asks for, or at first what was tried on another model; what makes no sense is passed over."""
    if canvas.start is None:
        return None
    if "look" not in sent:
        return replace(canvas.start, **tried)
    try:
        return canvas.look(sent["look"])
    except ValueError:
        logger.warning("A look that makes no sense was refused")
        return canvas.start


def _swatches(canvas: Canvas, look: Look, place: Place) -> list[dict[str, Any]]:
    """The palette's colours as they would look at a place, the likeliest first."""
    probabilities, colours = canvas.colours_at(look, place)
    shares, written = probabilities.tolist(), [f"#{bytes(colour).hex()}" for colour in colours.tolist()]
    order = probabilities.argsort(descending=True).tolist()
    return [{"entry": entry, "colour": written[entry], "share": shares[entry]} for entry in order]


def _full_size(opened: Opened, canvas: Canvas, look: Look | None, suffix: Literal[".png", ".jpg"]) -> bytes:
    """The file to download: the photograph is decoded again, as only the file itself is kept."""
    with COLOURING:
        rgb, exif = pixels_of(opened.data, opened.name)
        return photograph_file(painted(lightness_of(rgb), canvas.small, canvas.ab(look)), suffix, exif)
