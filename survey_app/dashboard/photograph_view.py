"""Your photograph: any picture, coloured by every stored model of an experiment, with settings to try on one of them.

The only part of `survey_app` that runs models: see tests/test_imports.py. A photograph stays in the server's memory as
long as its reader's page is open, and is written nowhere.
"""

import io
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import streamlit as st
import torch
from PIL import Image
from sqlalchemy.orm import Session
from torch import Tensor

from db.errors import UserError
from db.schema import Trial
from db.store import read_session
from db.sweeps.trials import best_trials
from platform.arms.compose import Reading, Task
from platform.data.photos import PHOTOS
from platform.model.network import Colorizer
from platform.model.stored import load_trial
from platform.paint.photographs import (
    Outputs,
    choose_reading,
    encode_photograph,
    measure_lightness,
    paint_lightness,
    predict_outputs,
    read_ab,
    read_photograph,
    reduce_lightness,
)
from survey_app.dashboard.choice import Choice
from survey_app.dashboard.exhibits import save

MOST_BYTES = 30_000_000
MOST_PIXELS = 25_000_000  # of a photograph that a browser sends
PREVIEW_PX = 720  # the longer side of what is drawn
STRIP_PX = 150  # the width of a picture in the row of all
EXAMPLES = {**PHOTOS, "cameraman, in grey": "camera.png"}  # that scikit-image's wheel contains
OWN = "one of yours"
OPENED = "photograph opened"

# One photograph at a time, whoever's it is, and on one core: beside anything else that runs, two threads that wait for
# each other took five times as long as one.
COLORING = threading.Lock()
torch.set_num_threads(1)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    trial: Trial
    task: Task
    network: Colorizer


@dataclass(eq=False)
class Opened:
    """A reader's photograph, and what has been made of it so far."""

    identity: str  # where it came from
    name: str
    data: bytes  # the file
    small: Tensor  # L, float32 (height, width), that colours are predicted from
    preview: np.ndarray  # uint8 (height, width, 3)
    pictures: dict[int, bytes] = field(default_factory=dict)  # previews, as JPEG, by trial id
    outputs: tuple[int, Outputs] | None = None  # of the trial that settings are tried on, by its id


def show(choice: Choice) -> None:
    """Draw the page: choose a photograph, see every model's picture of it, try settings on one of them."""
    st.caption(
        f"Any photograph, in colour or grey, up to {MOST_BYTES / 1e6:.0f} MB and {MOST_PIXELS / 1e6:.0f} megapixels. "
        "It stays in this server's memory while this page is open; nothing of it is stored or sent on. These models "
        "were trained on small pictures: expect plausible areas of colour, not every object's own."
    )
    try:
        opened = choose_photograph()
        if opened is None:
            return
        with read_session(choice.engine) as session:
            models = color_by_all(session, opened, best_trials(session, choice.experiment.id))
        if models:
            show_all(opened, models)
            best = list(models).index(find_best_classifier(models))
            arm = st.selectbox("Model", list(models), best, key="model", bind="query-params")
            try_settings(opened, models[arm])
    except UserError as error:
        st.error(str(error))


def choose_photograph() -> Opened | None:
    """Draw the choice, and open what was chosen. Raises UserError for what cannot be read."""
    source = st.segmented_control("Photograph", [OWN, *EXAMPLES], default=OWN, required=True)
    upload = st.file_uploader("A photograph of yours") if source == OWN else None
    if source == OWN and upload is None:
        st.session_state.pop(OPENED, None)
        return None
    identity = source if upload is None else upload.file_id
    if OPENED not in st.session_state or st.session_state[OPENED].identity != identity:
        st.session_state.pop(OPENED, None)
        with taking_turns():
            if upload is None:
                opened = open_photograph(identity, f"{source.partition(',')[0]}.png", read_example(source))
            else:
                name = re.sub(r"[^\w .-]", "", upload.name)[-60:] or "photograph"
                opened = open_photograph(identity, name, upload.getvalue())
        st.session_state[OPENED] = opened
    return st.session_state[OPENED]  # type: ignore[no-any-return]


def read_example(name: str) -> bytes:
    """The file of one of EXAMPLES."""
    return (files("skimage") / "data" / EXAMPLES[name]).read_bytes()


def open_photograph(identity: str, name: str, data: bytes) -> Opened:
    """Read the bytes of a file. Raises UserError, one sentence, for what is no picture, damaged, or too large."""
    rgb = decode_photograph(name, data)
    preview = Image.fromarray(rgb)
    preview.thumbnail((PREVIEW_PX, PREVIEW_PX), Image.Resampling.BOX, reducing_gap=None)
    small = reduce_lightness(measure_lightness(rgb))
    return Opened(identity, name, data, small, np.asarray(preview))


def decode_photograph(name: str, data: bytes) -> np.ndarray:
    """uint8 (height, width, 3): see `read_photograph`. Raises UserError."""
    if len(data) > MOST_BYTES:
        raise UserError(f"{name} has more than {MOST_BYTES / 1e6:.0f} MB; make it smaller.")
    return read_photograph(Path(name), io.BytesIO(data), most_pixels=MOST_PIXELS)


@contextmanager
def taking_turns() -> Iterator[None]:
    """Wait until nobody else's photograph is being coloured, and say so meanwhile."""
    if not COLORING.acquire(blocking=False):
        with st.spinner("Another reader's photograph is being coloured; yours is next."):
            COLORING.acquire()
    try:
        yield
    finally:
        COLORING.release()


@st.cache_resource(show_spinner=False, max_entries=32)
def load_model(_session: Session, database: str, trial_id: int) -> tuple[Task, Colorizer | None]:
    return load_trial(_session, trial_id)


def color_by_all(session: Session, opened: Opened, trials: list[Trial]) -> dict[str, LoadedModel]:
    """Colour the photograph by every model, as far as that has not been done; returns those whose weights are there."""
    if not trials:
        st.info("No trial has finished yet: photographs can be coloured as soon as the first has.")
    database = session.get_bind().engine.url.render_as_string()
    models = {}
    with st.spinner(f"Colouring by {len(trials)} models …"), taking_turns():
        for trial in trials:
            arm = trial.arm.name
            try:
                task, network = load_model(session, database, trial.id)
            except UserError as error:
                st.warning(str(error))
                continue
            assert network is not None  # a contender is no baseline
            models[arm] = LoadedModel(trial, task, network)
            if trial.id not in opened.pictures:
                outputs = predict_outputs(opened.small, task, network)
                opened.pictures[trial.id] = paint_preview(opened, outputs, task.readings[arm])
    return models


def paint_preview(opened: Opened, outputs: Outputs, reading: Reading) -> bytes:
    lightness = measure_lightness(opened.preview)
    return encode_photograph(paint_lightness(lightness, outputs.small, read_ab(outputs, reading)), ".jpg")


def show_all(opened: Opened, models: dict[str, LoadedModel]) -> None:
    """Draw the photograph, where it has colours, and what every model makes of it, side by side."""
    with st.container(horizontal=True):
        if np.ptp(opened.preview.astype(np.int16), axis=-1).max() > 2:  # else it is grey
            st.image(opened.preview, "photograph", width=STRIP_PX, alt=f"{opened.name}, the photograph")
        for arm, model in models.items():
            picture = opened.pictures[model.trial.id]
            st.image(picture, arm, width=STRIP_PX, alt=f"{opened.name}, coloured by {arm}")


def find_best_classifier(models: dict[str, LoadedModel]) -> str:
    """The arm with the least colour error among those that have settings to try; without any, among all."""
    classifiers = [arm for arm, model in models.items() if model.task.reread is not None]
    errors = {arm: model.trial.score("delta_e_2000") for arm, model in models.items()}
    return min(classifiers or models, key=lambda arm: math.inf if (error := errors[arm]) is None else error)


@st.fragment
def try_settings(opened: Opened, model: LoadedModel) -> None:
    """One model's settings, its picture beside the grey one, and the whole to take away; nothing else of the page is
    drawn again."""
    trial_id, arm = model.trial.id, model.trial.arm.name
    options = model.trial.arm.choices
    asked: dict[str, float] = {}
    settings, pictures = st.columns([1, 3])
    with settings:
        if model.task.reread is None:
            st.caption("This model gives one colour per place: there is nothing to set.")
        else:
            label = "λ: 1 leaves colours as likely as the model finds them, 0 makes rare ones likeliest"
            asked["tilt"] = st.slider(label, 0.0, 1.0, options.tilt, 0.01, key=f"tilt {trial_id}")
            if options.decoding == "annealed_mean":
                label, key = "Temperature: the lower, the more colourful", f"temperature {trial_id}"
                asked["temperature"] = st.slider(label, 0.05, 2.0, options.temperature, 0.01, key=key)
    reading = choose_reading(model.task, arm, options, asked)
    with taking_turns():
        if opened.outputs is None or opened.outputs[0] != trial_id:
            opened.outputs = trial_id, predict_outputs(opened.small, model.task, model.network)
        outputs = opened.outputs[1]
        picture = paint_preview(opened, outputs, reading)
    # The button comes first, so that whoever sees the picture also holds its file's name: see `save`.
    suffix = ".png" if opened.name.lower().endswith(".png") else ".jpg"
    with settings:
        save(
            "Download", lambda: color_whole(opened, outputs, reading, suffix),
            f"{Path(opened.name).stem}-coloured{suffix}", str(trial_id),
        )  # fmt: skip
    before, after = pictures.columns(2)
    before.image(paint_grey(opened.preview), "what the model sees", width="stretch", alt=f"{opened.name}, in grey")
    after.image(picture, f"coloured by {arm}", width="stretch", alt=f"{opened.name}, coloured by {arm} as set")


def paint_grey(rgb: np.ndarray) -> np.ndarray:
    """The lightness of uint8 (height, width, 3) alone."""
    lightness = measure_lightness(rgb)
    return paint_lightness(lightness, lightness, torch.zeros(*lightness.shape, 2))


def color_whole(opened: Opened, outputs: Outputs, reading: Reading, suffix: str) -> bytes:
    """The file to download, of full size."""
    with COLORING:
        rgb = decode_photograph(opened.name, opened.data)  # again, as only the file itself is kept
        painted = paint_lightness(measure_lightness(rgb), outputs.small, read_ab(outputs, reading))
        return encode_photograph(painted, suffix)
