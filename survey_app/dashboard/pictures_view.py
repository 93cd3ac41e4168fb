"""The pictures: what each model makes of the same photographs, which of it people believed, and which classes are hard.

The gallery is HTML, a row per image, for the page and for the report.
"""

import base64
import html
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
from skimage.color import rgb2lab
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db.answers import Answers
from db.gallery import Photograph, photographs, sample_pngs, scores_of_samples, segment_pngs, truth_pngs
from db.pictures import pixels
from db.results import Contender, ExperimentSummary, arm_names, arm_results, best_contenders, contenders
from db.store import read_session
from db.studies import find_study
from platform.contact_sheet import Cell, box_px, drawn, grey_png, sheet_svg
from platform.results import SIMULATED, titled
from platform.scores import JURY
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.dashboard.classes_view import class_exhibits
from survey_app.dashboard.exhibits import Exhibit, file_stem, headed, save_drawing, show_exhibits
from survey_app.dashboard.segments import legend_html, marked_png

ROWS = 12  # a page
PICTURE_PX = {"narrow": 96, "wide": 128, "large": 256}  # about so wide on a phone, on a wide page, and enlarged
MOST_WIDE = 5  # contenders whose larger pictures stand in one row on a wide page
FOLDER = Path(__file__).parent
CSS = (FOLDER / "gallery.css").read_text(encoding="utf-8")
ALL = "all"
DISAGREE, WORST, CLOSEST = "where models disagree", "largest error", "smallest error"
BY_JURY = "most convincing by the jury, a machine"
CONVINCING, DISBELIEVED, IN_ORDER = "most convincing fakes", "fakes that nobody believed", "as in the dataset"

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

    def class_of(self, photograph: Photograph) -> str:
        return self.experiment.class_names[photograph.class_index]

    def name(self, photograph: Photograph) -> str:
        return f"{self.class_of(photograph)}, image {photograph.number}"

    def title(self, text: str) -> str:
        return titled(text, simulated=self.simulated and self.asked is not None)


def show(chosen: Chosen) -> None:
    """Draw the gallery and what can be said of classes."""
    with read_session(chosen.engine) as session:
        gallery = gallery_of(session, chosen)
        if not gallery.photographs:
            st.markdown(why_empty(gallery))
            return
        _show_gallery(session, gallery, chosen.engine)
    show_exhibits(exhibits(gallery, chosen.kept))


def exhibits(gallery: Gallery, answers: Answers | None) -> list[Exhibit]:
    """What stands below the pictures: the analysis by class. answers: of those who are counted."""
    if not gallery.contenders:
        return [why_empty(gallery)]
    return class_exhibits(gallery.experiment, gallery.arms, gallery.contenders, answers)


def gallery_of(session: Session, chosen: Chosen) -> Gallery:
    """The gallery of what is chosen."""
    study = None if chosen.study is None else chosen.study.view.name
    return load_gallery(session, chosen.experiment, study, chosen.kept)


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
def disagreement(_session: Session, database: str, trial_ids: Sequence[int], image_ids: Sequence[int]) -> np.ndarray:
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


def sorted_rows(session: Session, gallery: Gallery, order: str, only: str | None = None) -> list[int]:
    """Places in gallery.photographs, sorted; only: of this class. What has nothing to be sorted by comes last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN
        if order == DISAGREE:
            database = session.get_bind().engine.url.render_as_string()
            image_ids = [photograph.image_id for photograph in gallery.photographs]
            key = -disagreement(session, database, gallery.trial_ids, image_ids)
        elif order in (WORST, CLOSEST):
            key = np.nanmean(gallery.delta_e, axis=1) * (-1 if order == WORST else 1)
        elif order == CONVINCING:
            key = -np.nanmax(_believed(gallery), axis=1)
        elif order == BY_JURY:
            key = -np.nanmax(gallery.by_jury, axis=1)
        elif order == DISBELIEVED:
            key = np.nanmin(_believed(gallery), axis=1)
        else:
            key = np.arange(len(gallery.photographs), dtype=float)
    rows: list[int] = np.argsort(key, kind="stable").tolist()
    return [row for row in rows if only is None or gallery.class_of(gallery.photographs[row]) == only]


def why_empty(gallery: Gallery) -> str:
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
    parts = [f"{len(gallery.photographs)} images of the validation split, enlarged without smoothing."]
    if gallery.missing:
        parts.append(f"Not here yet, as none of its trials has finished: {', '.join(gallery.missing)}.")
    parts.append("ΔE: the mean colour difference to the photograph (ΔE2000).")
    if not np.isnan(gallery.by_jury).all():
        parts.append("jury: how probably a machine would pick it as real, see *Results*.")
    if gallery.asked is not None:
        whom = SIMULATED if gallery.simulated else "participants"
        parts.append(f"k/n: {whom} who picked it as real, of those asked (main questions).")
    if order in (CONVINCING, DISBELIEVED):
        parts.append(
            "Sorted by the picture with the orange frame, by (k + 1) / (n + 2): one answer does not outdo ten."
        )
    elif order == BY_JURY:
        parts.append("Sorted by the picture with the orange frame, by the jury's mark. It is a machine, nobody's vote.")
    elif order == DISAGREE:
        parts.append("Sorted by how far apart the models' colours are (root mean square distance in ab).")
    elif order in (WORST, CLOSEST):
        parts.append("Sorted by the mean ΔE of the models.")
    return " ".join(parts)


def contact_sheet_html(session: Session, gallery: Gallery, rows: int = 8) -> str:
    """The first rows of the gallery as HTML that needs nothing else, for the report."""
    order = DISAGREE if gallery.asked is None else CONVINCING
    shown = sorted_rows(session, gallery, order)[:rows]
    return _still(rows_html(session, gallery, shown, order, can_enlarge=False), gallery_note(gallery, order))


def strip_sheet_html(session: Session, gallery: Gallery) -> str:
    """The strip as HTML that needs nothing else, for the report."""
    return _still(strip_html(session, gallery, can_enlarge=False), strip_note(gallery)) if gallery.photographs else ""


def _still(grid: str, note: str) -> str:
    return f'<style>{CSS}</style><div class="gallery">{grid}</div><p>{html.escape(note)}</p>'


def separating_row(gallery: Gallery) -> int:
    """The place of the photograph whose pictures votes tell apart best, by the spread of (k + 1) / (n + 2), or before
    there are any by that of ΔE."""
    marks = np.ma.masked_invalid(gallery.delta_e)
    if gallery.picked is not None and gallery.asked is not None:
        marks = np.ma.asarray((gallery.picked + 1) / (gallery.asked + 2))  # one half where nobody was asked
    return int(marks.var(axis=1).filled(0.0).argmax())


def strip_html(session: Session, gallery: Gallery, *, can_enlarge: bool) -> str:
    """That photograph, in grey, and every contender's picture of it."""
    row = separating_row(gallery)
    (pictures,) = _rows(session, gallery, [row], IN_ORDER, segments=False)
    return _section_html(gallery, gallery.photographs[row], pictures, can_enlarge=can_enlarge)


def show_strip(session: Session, gallery: Gallery) -> None:
    """Draw it."""
    if gallery.photographs:
        _component(key="strip", data={"html": strip_html(session, gallery, can_enlarge=True)})
        st.caption(strip_note(gallery))


def strip_note(gallery: Gallery) -> str:
    """Why this photograph."""
    if gallery.asked is None:
        return (
            "The photograph whose pictures differ most in their errors. ΔE: the mean colour difference to it (ΔE2000)."
        )
    whom = SIMULATED if gallery.simulated else "participants"
    return (
        f"The photograph whose pictures the votes tell apart best. k/n: {whom} who picked it as real, of those asked."
    )


@dataclass(frozen=True)
class _Shown:
    """A picture of a row: its PNG, what stands below it, and what it is in words."""

    name: str
    png: bytes | None
    alternative: str
    lines: Sequence[str] = ()
    chosen: bool = False  # the row is sorted by it


def _rows(
    session: Session, gallery: Gallery, rows: Sequence[int], order: str, *, segments: bool = True
) -> list[list[_Shown]]:
    """Of each row what a model sees, the photograph, and each contender's picture with its numbers. segments: with what
    it divides the picture into."""
    image_ids = [gallery.photographs[row].image_id for row in rows]
    truths = truth_pngs(session, image_ids)
    pngs = sample_pngs(session, gallery.trial_ids, image_ids)
    segmented = segment_pngs(session, gallery.trial_ids, image_ids) if segments else {}
    segmenting = {trial for trial, _ in segmented}
    found = []
    for row, image in zip(rows, image_ids, strict=True):
        named = gallery.name(gallery.photographs[row])
        shown = [
            _Shown("grey", grey_png(truths[image]), f"{named}, in grey"),
            _Shown("photograph", truths[image], f"{named}, the photograph"),
        ]
        leader = _leader(gallery, row, order)
        for column, contender in enumerate(gallery.contenders):
            lines, words = _told(gallery, row, column)
            alternative = f"{named}, coloured by {contender.arm}: {words}"
            png = pngs.get((contender.trial.trial_id, image))
            shown.append(_Shown(contender.arm, png, alternative, lines, chosen=column == leader))
            if contender.trial.trial_id in segmenting:
                divided = segmented.get((contender.trial.trial_id, image))
                alternative = f"{named}, the segments that {contender.arm} divides it into"
                marked = None if divided is None else marked_png(divided)
                shown.append(_Shown(f"segments of {contender.arm}", marked, alternative))
        found.append(shown)
    return found


def rows_html(session: Session, gallery: Gallery, rows: Sequence[int], order: str, *, can_enlarge: bool) -> str:
    """The rows of the gallery: grey, the photograph, and each contender's picture, with their numbers."""
    sections = [
        _section_html(gallery, gallery.photographs[row], pictures, can_enlarge=can_enlarge)
        for row, pictures in zip(rows, _rows(session, gallery, rows, order), strict=True)
    ]
    image_ids = [gallery.photographs[row].image_id for row in rows]
    segmented = segment_pngs(session, gallery.trial_ids, image_ids)
    for contender in gallery.contenders:
        of_trial = [png for (trial, _), png in segmented.items() if trial == contender.trial.trial_id]
        if of_trial:
            sections.append(legend_html(contender.arm, of_trial))
    return "".join(sections)


def _section_html(gallery: Gallery, photograph: Photograph, pictures: Sequence[_Shown], *, can_enlarge: bool) -> str:
    wide = "wide" if len(gallery.contenders) <= MOST_WIDE else "narrow"
    truth = pictures[1].png or b""
    height, width = pixels(truth).shape[:2]
    scales = {name: box_px(truth, target)[0] // width for name, target in PICTURE_PX.items()}
    sizes = {"width": width, "height": height, **scales, "wide": scales[wide]}
    style = ";".join(f"--{name}:{size}" for name, size in sizes.items())
    named = html.escape(gallery.name(photograph))
    button = f'<button aria-label="Enlarge {named}">Enlarge</button>' if can_enlarge else ""
    return (
        f'<section><h4>{named}{button}</h4><div class="pictures" style="{style}">'
        f"{''.join(map(_picture_html, pictures))}</div></section>"
    )


def _picture_html(shown: _Shown) -> str:
    image = '<div class="none">no picture</div>'
    if shown.png is not None:
        source = base64.b64encode(shown.png).decode("ascii")
        image = f'<img src="data:image/png;base64,{source}" alt="{html.escape(shown.alternative)}">'
    caption = "<br>".join(map(html.escape, shown.lines))
    return (
        f"<figure{' class=chosen' if shown.chosen else ''}>{image}"
        f"<figcaption><b>{html.escape(shown.name)}</b>{caption}</figcaption></figure>"
    )


def sheet(session: Session, gallery: Gallery, rows: Sequence[int], order: str) -> str:
    """The rows of the gallery as one SVG, to be saved."""
    found = _rows(session, gallery, rows, order)
    lines = [
        (gallery.name(gallery.photographs[row]), [Cell(drawn(one.png), one.lines, one.chosen) for one in pictures])
        for row, pictures in zip(rows, found, strict=True)
    ]
    box = box_px(found[0][0].png or b"", PICTURE_PX["narrow"])
    note = gallery_note(gallery, order)
    return sheet_svg(gallery.title("Pictures"), [one.name for one in found[0]], lines, note, box_px=box)


def _show_gallery(session: Session, gallery: Gallery, engine: Engine) -> None:
    """Draw what can be chosen and a page of the gallery."""

    def save() -> str:
        with read_session(engine) as session:
            return sheet(session, gallery, shown, order)

    orders = [DISAGREE, WORST, CLOSEST, IN_ORDER, *([] if np.isnan(gallery.by_jury).all() else [BY_JURY])]
    first, second, third = st.columns(3)
    with first:
        order = choose("Sorted by", orders if gallery.asked is None else [CONVINCING, DISBELIEVED, *orders], key="sort")
    with second:
        names = sorted({gallery.class_of(photograph) for photograph in gallery.photographs})
        only = choose("Class", [ALL, *names], key="class")
    rows = sorted_rows(session, gallery, order, None if only == ALL else only)
    pages = -(-len(rows) // ROWS)
    with third:
        page = int(choose(f"Page (of {pages})", [str(number + 1) for number in range(pages)], key="page"))
    shown = rows[(page - 1) * ROWS : page * ROWS]
    title = gallery.title("Pictures")
    with headed(title, "pictures"):
        save_drawing("pictures", file_stem("pictures", title), save)
    st.caption(gallery_note(gallery, order))
    _component(key="gallery", data={"html": rows_html(session, gallery, shown, order, can_enlarge=True)})
    if page < pages:
        st.button(f"Next {min(ROWS, len(rows) - page * ROWS)} images", on_click=_turn_to, args=(page + 1,))


def _turn_to(page: int) -> None:
    st.session_state["page"] = str(page)


def _believed(gallery: Gallery) -> np.ndarray:
    """(k + 1) / (n + 2) of each picture, float (images, contenders), NaN where nobody was asked: the mean of what the
    share may be, with all shares as likely beforehand."""
    if gallery.picked is None or gallery.asked is None:
        return np.full(gallery.delta_e.shape, np.nan)
    return np.where(gallery.asked > 0, (gallery.picked + 1) / (gallery.asked + 2), np.nan)


def _leader(gallery: Gallery, row: int, order: str) -> int | None:
    """The contender that the row is sorted by."""
    marks = (gallery.by_jury if order == BY_JURY else _believed(gallery))[row]
    if order not in (CONVINCING, DISBELIEVED, BY_JURY) or np.isnan(marks).all():
        return None
    return int(np.nanargmin(marks) if order == DISBELIEVED else np.nanargmax(marks))


def _told(gallery: Gallery, row: int, column: int) -> tuple[list[str], str]:
    """A picture's numbers, as short lines and in words."""
    delta_e = gallery.delta_e[row, column]
    lines, words = ([], []) if np.isnan(delta_e) else ([f"ΔE {delta_e:.1f}"], [f"ΔE {delta_e:.1f}"])
    if gallery.picked is not None and gallery.asked is not None:
        picked, asked = int(gallery.picked[row, column]), int(gallery.asked[row, column])
        lines.append(f"{picked}/{asked} picked" if asked else "not asked")
        whom = f" {SIMULATED}" if gallery.simulated else ""
        words.append(f"picked as real by {picked} of {asked}{whom}" if asked else "nobody was asked")
    mark = gallery.by_jury[row, column]
    if not np.isnan(mark):
        lines.append(f"jury {100 * mark:.0f} %")
        words.append(f"picked as real by the jury, a machine, with a probability of {100 * mark:.0f} %")
    return lines, ", ".join(words)
