"""The pictures: what each model makes of the same photographs, which of it people believed, and which classes are hard.

The gallery is HTML, a row per image, for the page and for the report.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
from skimage.color import rgb2lab
from sqlalchemy.orm import Session

from db.store import read_session
from db.surveys.answers import Answers
from db.surveys.sentinels import encode_png, pixels
from db.surveys.study import find_study
from db.sweeps.pictures import Photograph, photographs, sample_pngs, scores_of_samples, segment_pngs, truth_pngs
from db.sweeps.trials import Contender, ExperimentSummary, arm_names, arm_results, best_contenders, contenders
from platform.color.scores import JURY
from platform.paint.sheet import choose_scale, convert_to_grey
from platform.tables.intervals import SIMULATED, title_votes
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.dashboard.classes_view import class_exhibits
from survey_app.dashboard.exhibits import Exhibit, draw_heading, file_stem, save, show_exhibits

ROWS = 12  # a page
PICTURE_PX = {"narrow": 96, "wide": 128, "large": 256}  # about so wide on a phone, on a wide page, and enlarged
MOST_WIDE = 5  # contenders whose larger pictures stand in one row on a wide page
FOLDER = Path(__file__).parent
CSS = (FOLDER / "gallery.css").read_text(encoding="utf-8")
ALL = "all"
CONVINCING, DISBELIEVED, TELLING = "most convincing fakes", "fakes that nobody believed", "what tells models apart"
DISAGREE, WORST, IN_ORDER = "where models disagree", "largest error", "as in the dataset"
BY_JURY = "most convincing by the jury, a machine"
FRAMED = "Sorted by the picture with the orange frame, by"
SORTED = {
    CONVINCING: f"{FRAMED} (k + 1) / (n + 2): one answer does not outdo ten.",
    DISBELIEVED: f"{FRAMED} (k + 1) / (n + 2): one answer does not outdo ten.",
    BY_JURY: f"{FRAMED} the jury's mark. It is a machine, nobody's vote.",
    TELLING: "First comes what votes tell apart best or, before there are any, what differs most in its errors.",
    DISAGREE: "Sorted by how far apart the models' colours are (root mean square distance in ab).",
    WORST: "Sorted by the mean ΔE of the models.",
    IN_ORDER: "",
}

_component = st.components.v2.component(
    "huejury_gallery",
    html='<div class="gallery"></div>',
    css=CSS,
    js=(FOLDER / "gallery.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True, eq=False)
class Gallery:
    """All that can be said of the pictures without looking at them."""

    experiment: ExperimentSummary
    contenders: list[Contender]
    arms: list[str]  # the experiment's, in its order
    missing: list[str]  # those without a picture to show
    photographs: list[Photograph]
    delta_e: np.ndarray  # float (images, contenders), mean ΔE2000 against the photograph; NaN where there is no picture
    by_jury: np.ndarray  # float, as delta_e: p(picked as real) by the machine jury; NaN where it was not asked
    # int (images, contenders), how often the picture was picked as real of how often somebody was asked about it; None
    # where there are no votes to be shown.
    picked: np.ndarray | None
    asked: np.ndarray | None
    simulated: bool

    @property
    def trial_ids(self) -> list[int]:
        return [contender.trial.trial_id for contender in self.contenders]

    @property
    def shown_arms(self) -> list[str]:
        return [contender.arm for contender in self.contenders]

    def class_of(self, photograph: Photograph) -> str:
        return self.experiment.class_names[photograph.class_index]

    def name(self, photograph: Photograph) -> str:
        return f"{self.class_of(photograph)}, image {photograph.number}"


def show(chosen: Chosen) -> None:
    """Draw the gallery and what can be said of classes."""
    with read_session(chosen.engine) as session:
        gallery = gallery_of(session, chosen)
        if not gallery.photographs:
            st.markdown(explain_emptiness(gallery))
            return
        _show_gallery(session, gallery, chosen)
    show_exhibits(exhibits(gallery, chosen.counted))


def exhibits(gallery: Gallery, answers: Answers | None) -> list[Exhibit]:
    """What stands below the pictures: the analysis by class. answers: of those who are counted."""
    if not gallery.contenders:
        return [explain_emptiness(gallery)]
    return class_exhibits(gallery.experiment, gallery.arms, gallery.contenders, answers)


def gallery_of(session: Session, chosen: Chosen) -> Gallery:
    """The gallery of what is chosen."""
    study = None if chosen.study is None else chosen.study.name
    return load_gallery(session, chosen.experiment, study, chosen.counted)


def load_gallery(
    session: Session, experiment: ExperimentSummary, study: str | None, answers: Answers | None
) -> Gallery:
    """The trials that the study asks about, else each arm's best. answers: of those who are counted, or None where
    there are none to be shown."""
    if study is None:
        shown = best_contenders(arm_results(session, experiment.name))
    else:
        shown = contenders(session, find_study(session, study))
    trial_ids = [contender.trial.trial_id for contender in shown]
    found = photographs(session, trial_ids)
    image_ids = [photograph.image_id for photograph in found]
    scores = scores_of_samples(session, trial_ids)
    delta_e, by_jury = (
        np.array([[scores.get((trial, image), {}).get(name, np.nan) for trial in trial_ids] for image in image_ids])
        for name in ("delta_e_2000", JURY)
    )
    picked = asked = None
    if answers is not None and answers.participants:
        picked, asked = answers.picked_and_asked("image", image_ids)
    arms = arm_names(session, experiment.id)
    return Gallery(
        experiment=experiment,
        contenders=shown,
        arms=arms,
        missing=[] if study else [arm for arm in arms if arm not in {contender.arm for contender in shown}],
        photographs=found,
        delta_e=delta_e.reshape(len(image_ids), len(trial_ids)),
        by_jury=by_jury.reshape(len(image_ids), len(trial_ids)),
        picked=picked,
        asked=asked,
        simulated=answers is not None and answers.simulated,
    )


@st.cache_resource(show_spinner=False, max_entries=32)
def measure_disagreement(
    _session: Session, database: str, trial_ids: Sequence[int], image_ids: Sequence[int]
) -> np.ndarray:
    """How far apart the trials' colours are, float (images,): the root mean square distance in ab, over pixels and
    trials, from the trials' mean; NaN where there are fewer than two pictures. Read once for all readers: pictures of
    finished trials do not change."""
    pngs = sample_pngs(_session, trial_ids, image_ids)
    distances = np.full(len(image_ids), np.nan)
    for row, image in enumerate(image_ids):
        there = [pngs[trial, image] for trial in trial_ids if (trial, image) in pngs]
        if len(there) > 1:
            ab = np.stack([rgb2lab(pixels(png))[..., 1:] for png in there])
            distances[row] = np.sqrt(((ab - ab.mean(axis=0)) ** 2).sum(axis=-1).mean())
    return distances


def sort_rows(session: Session, gallery: Gallery, order: str, only: str | None = None) -> list[int]:
    """Places in gallery.photographs, sorted; only: of this class. What has nothing to be sorted by comes last."""
    marks = _marks_sorted_by(gallery, order)
    if marks is not None:
        key = -np.ma.masked_invalid(marks).max(axis=1).filled(-np.inf)
    elif order == TELLING:
        voted = gallery.picked is not None and gallery.asked is not None
        told = _estimate_shares(gallery, unasked=0.5) if voted else gallery.delta_e
        key = -np.ma.masked_invalid(told).var(axis=1).filled(-np.inf)
    elif order == DISAGREE:
        database = session.get_bind().engine.url.render_as_string()
        image_ids = [photograph.image_id for photograph in gallery.photographs]
        key = -measure_disagreement(session, database, gallery.trial_ids, image_ids)
    elif order == WORST:
        key = -np.ma.masked_invalid(gallery.delta_e).mean(axis=1).filled(-np.inf)
    else:
        key = np.arange(len(gallery.photographs), dtype=float)
    rows: list[int] = np.argsort(key, kind="stable").tolist()
    return [row for row in rows if only is None or gallery.class_of(gallery.photographs[row]) == only]


def _marks_sorted_by(gallery: Gallery, order: str) -> np.ndarray | None:
    """float (images, contenders), NaN where there is none: the picture of a row with the highest decides on its place.
    None where no single picture does."""
    if order == BY_JURY:
        return gallery.by_jury
    if order in (CONVINCING, DISBELIEVED):
        return _estimate_shares(gallery) * (1 if order == CONVINCING else -1)
    return None


def _estimate_shares(gallery: Gallery, *, unasked: float = np.nan) -> np.ndarray:
    """(k + 1) / (n + 2) of each picture, float (images, contenders), `unasked` where nobody was asked: the mean of what
    the share may be, with all shares as likely beforehand."""
    if gallery.picked is None or gallery.asked is None:
        return np.full(gallery.delta_e.shape, unasked)
    return np.where(gallery.asked > 0, (gallery.picked + 1) / (gallery.asked + 2), unasked)


def explain_emptiness(gallery: Gallery) -> str:
    """What to say where there is no picture."""
    if not gallery.contenders:
        return (
            "No trial has finished yet. Pictures appear here as soon as the first trial of a model has; "
            "how far the sweep is stands under *Sweep*."
        )
    return (
        "This sweep kept no sample pictures. To have some, set `samples: {images: 100}` in its config and run it again "
        "under another name."
    )


def gallery_note(gallery: Gallery, order: str) -> str:
    """What is shown, in what order, and what the numbers are."""
    parts = ["Images of the validation split, enlarged without smoothing."]
    if gallery.missing:
        parts.append(f"Not here yet, as none of its trials has finished: {', '.join(gallery.missing)}.")
    parts.append("ΔE: the mean colour difference to the photograph (ΔE2000).")
    if not np.isnan(gallery.by_jury).all():
        parts.append("jury: how probably a machine would pick it as real, see *Results*.")
    if gallery.asked is not None:
        whom = SIMULATED if gallery.simulated else "participants"
        parts.append(f"k/n: {whom} who picked it as real, of those asked (main questions).")
    return " ".join([*parts, SORTED[order]]).strip()


def gallery_html(session: Session, gallery: Gallery, rows: Sequence[int], order: str, *, can_enlarge: bool) -> str:
    """Rows of the gallery: what a model sees, the photograph, and each contender's picture with its numbers, beside it
    the segments that it divides the picture into, if it does."""
    image_ids = [gallery.photographs[row].image_id for row in rows]
    truths = truth_pngs(session, image_ids)
    pngs = sample_pngs(session, gallery.trial_ids, image_ids)
    segments = segment_pngs(session, gallery.trial_ids, image_ids)
    dividing = {trial for trial, _ in segments}
    marks = _marks_sorted_by(gallery, order)
    sections = []
    for row, image in zip(rows, image_ids, strict=True):
        name = gallery.name(gallery.photographs[row])
        figures = [
            _figure_html("grey", encode_png(convert_to_grey(truths[image])), f"{name}, in grey"),
            _figure_html("photograph", truths[image], f"{name}, the photograph"),
        ]
        leader = None if marks is None or np.isnan(marks[row]).all() else int(np.nanargmax(marks[row]))
        for column, (arm, trial) in enumerate(zip(gallery.shown_arms, gallery.trial_ids, strict=True)):
            numbers = _numbers(gallery, row, column)
            words = f"{name}, coloured by {arm}: {', '.join(numbers)}"
            figures.append(_figure_html(arm, pngs.get((trial, image)), words, numbers, framed=column == leader))
            if trial in dividing:
                words = f"{name}, the segments that {arm} divides it into, each in its likeliest colour"
                figures.append(_figure_html(f"segments of {arm}", segments.get((trial, image)), words))
        button = f'<button aria-label="Enlarge {html.escape(name)}">Enlarge</button>' if can_enlarge else ""
        sections.append(
            f"<section><h4>{html.escape(name)}{button}</h4>"
            f'<div class="pictures" style="{_sizes(gallery, truths[image])}">{"".join(figures)}</div></section>'
        )
    return "".join(sections)


def _numbers(gallery: Gallery, row: int, column: int) -> list[str]:
    """A picture's error, votes and jury's mark, as far as there are any."""
    delta_e, mark = gallery.delta_e[row, column], gallery.by_jury[row, column]
    numbers = [] if np.isnan(delta_e) else [f"ΔE {delta_e:.1f}"]
    if gallery.picked is not None and gallery.asked is not None:
        picked, asked = gallery.picked[row, column], gallery.asked[row, column]
        numbers.append(f"{picked}/{asked} picked" if asked else "not asked")
    return numbers if np.isnan(mark) else [*numbers, f"jury {100 * mark:.0f} %"]


def _sizes(gallery: Gallery, truth: bytes) -> str:
    """The photograph's width and height, and the whole numbers that pictures are enlarged by, as CSS variables."""
    picture = pixels(truth)
    height, width = picture.shape[:2]
    scales = {name: choose_scale(picture, target) for name, target in PICTURE_PX.items()}
    if len(gallery.contenders) > MOST_WIDE:
        scales["wide"] = scales["narrow"]
    return ";".join(f"--{name}:{size}" for name, size in {"width": width, "height": height, **scales}.items())


def _figure_html(
    name: str, png: bytes | None, alternative: str, numbers: Sequence[str] = (), *, framed: bool = False
) -> str:
    image = '<div class="none">no picture</div>'
    if png is not None:
        source = base64.b64encode(png).decode("ascii")
        image = f'<img src="data:image/png;base64,{source}" alt="{html.escape(alternative)}">'
    return (
        f"<figure{' class=chosen' if framed else ''}>{image}"
        f"<figcaption><b>{html.escape(name)}</b>{'<br>'.join(map(html.escape, numbers))}</figcaption></figure>"
    )


def still_gallery_html(session: Session, gallery: Gallery, rows: Sequence[int], order: str) -> str:
    """Rows of the gallery and the note to them, as HTML that needs nothing else."""
    shown = gallery_html(session, gallery, rows, order, can_enlarge=False)
    note = html.escape(gallery_note(gallery, order))
    return f'<style>{CSS}</style><div class="gallery">{shown}</div><p>{note}</p>'


def show_rows(session: Session, gallery: Gallery, rows: Sequence[int], order: str) -> None:
    """Draw rows of the gallery and the note to them."""
    st.caption(gallery_note(gallery, order))
    _component(key="gallery", data={"html": gallery_html(session, gallery, rows, order, can_enlarge=True)})


def _show_gallery(session: Session, gallery: Gallery, chosen: Chosen) -> None:
    """Draw what can be chosen and a page of the gallery."""
    orders = [TELLING, DISAGREE, WORST, IN_ORDER, *([] if np.isnan(gallery.by_jury).all() else [BY_JURY])]
    first, second, third = st.columns(3)
    with first:
        order = choose("Sorted by", orders if gallery.asked is None else [CONVINCING, DISBELIEVED, *orders], key="sort")
    with second:
        names = sorted({gallery.class_of(photograph) for photograph in gallery.photographs})
        only = choose("Class", [ALL, *names], key="class")
    rows = sort_rows(session, gallery, order, None if only == ALL else only)
    pages = -(-len(rows) // ROWS)
    with third:
        page = int(choose(f"Page (of {pages})", [str(number + 1) for number in range(pages)], key="page"))
    shown = rows[(page - 1) * ROWS : page * ROWS]
    title = title_votes("Pictures", simulated=gallery.simulated and gallery.asked is not None)

    def write_page() -> str:
        with read_session(chosen.engine) as session:
            return f"<!DOCTYPE html><title>{title}</title>{still_gallery_html(session, gallery, shown, order)}"

    with draw_heading(title, "pictures"):
        save("HTML", write_page, f"{file_stem('pictures', title)}.html", "pictures")
    show_rows(session, gallery, shown, order)
    if page < pages:
        st.button(f"Next {min(ROWS, len(rows) - page * ROWS)} images", on_click=_turn_to, args=(page + 1,))


def _turn_to(page: int) -> None:
    st.session_state["page"] = str(page)
