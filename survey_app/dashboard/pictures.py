"""The pictures: what each model makes of the same photographs, which of it people believed, and which classes are hard.

The gallery is HTML, a row an image, for the page and for the report.
"""

import base64
import html
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db.answers import Answers, Contender
from db.gallery import Classes, Photograph, classes, contenders, photographs, sample_pngs, truth_pngs
from db.pictures import pixels
from db.store import read_session
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.dashboard.classes import class_exhibits
from survey_app.dashboard.exhibits import SIMULATED, Exhibit, file_stem, headed, save_drawing, show_exhibits, titled
from survey_app.dashboard.picture_scores import (
    PictureScores,
    ab_histograms,
    grey_png,
    histogram_svg,
    mean_chroma,
    score_pictures,
)
from survey_app.dashboard.sheets import Cell, picture, sheet_svg

ROWS = 12  # a page
PICTURE_PX = (96, 128, 160)  # about so wide on a phone, on a wide page, and opened
FOLDER = Path(__file__).parent
CSS = (FOLDER / "gallery.css").read_text(encoding="utf-8")
ALL = "all"
DISAGREE, WORST, CLOSEST = "where models disagree", "largest error", "smallest error"
CONVINCING, DISBELIEVED, IN_ORDER = "most convincing fakes", "fakes that nobody believed", "as in the dataset"

_component = st.components.v2.component(
    "huejury_gallery",
    html='<div class="gallery"></div>',
    css=CSS,
    js=(FOLDER / "gallery.js").read_text(encoding="utf-8"),
)


ScoresOf = Callable[[Session, Sequence[Contender], Sequence[int]], PictureScores]


@dataclass(frozen=True, eq=False)
class Gallery:
    """All that can be said of the pictures without looking at them.

    arms: the experiment's, in its order. missing: those without a picture to show. picked, asked: int (images,
    contenders), how often the picture was picked as real of how often somebody was asked about it; None where there are
    no votes to be shown.
    """

    contenders: list[Contender]
    arms: list[str]
    missing: list[str]
    classes: Classes
    photographs: list[Photograph]
    scores: PictureScores
    picked: np.ndarray | None
    asked: np.ndarray | None
    simulated: bool

    @property
    def trial_ids(self) -> list[int]:
        return [contender.trial.trial_id for contender in self.contenders]

    def class_of(self, photograph: Photograph) -> str:
        return self.classes.names[photograph.class_index]


def show(chosen: Chosen) -> None:
    """Draw the gallery and what can be said of classes."""
    answers = None if chosen.answers is None else chosen.answers.of(chosen.inclusion)
    study = None if chosen.study is None else chosen.study.view.name
    with read_session(chosen.engine) as session:
        gallery = load_gallery(session, chosen.experiment.name, study, answers, scores_of=_cached_scores)
        if not gallery.photographs:
            st.markdown(why_empty(gallery))
            return
        opened = _show_gallery(session, gallery, chosen.engine)
    if opened is not None:
        _show_enlarged(gallery, opened, chosen.engine)
    show_exhibits(class_exhibits(gallery.classes, gallery.arms, gallery.contenders, answers))


def exhibits(gallery: Gallery, answers: Answers | None) -> list[Exhibit]:
    """What the report shows beside the contact sheet: the analysis by class. answers: of those who are counted."""
    if not gallery.contenders:
        return [why_empty(gallery)]
    return class_exhibits(gallery.classes, gallery.arms, gallery.contenders, answers)


def load_gallery(
    session: Session,
    experiment: str,
    study: str | None,
    answers: Answers | None,
    *,
    scores_of: ScoresOf | None = None,
) -> Gallery:
    """answers: of those who are counted, or None where there are none to be shown. scores_of: as read_scores, which it
    is by default. Raises UnknownExperimentError."""
    shown, arms = contenders(session, experiment, study)
    trial_ids = [contender.trial.trial_id for contender in shown]
    found = photographs(session, trial_ids)
    image_ids = [photograph.image_id for photograph in found]
    picked = asked = None
    if answers is not None and answers.participants:
        picked, asked = _votes_by_picture(answers, shown, image_ids)
    return Gallery(
        contenders=shown,
        arms=arms,
        missing=[] if study else [arm for arm in arms if arm not in {contender.arm for contender in shown}],
        classes=classes(session, experiment),
        photographs=found,
        scores=(scores_of or read_scores)(session, shown, image_ids),
        picked=picked,
        asked=asked,
        simulated=answers is not None and answers.simulated,
    )


def read_scores(session: Session, shown: Sequence[Contender], image_ids: Sequence[int]) -> PictureScores:
    """Read all pictures of the contenders and score them."""
    trial_ids = [contender.trial.trial_id for contender in shown]
    truths, pngs = truth_pngs(session, image_ids), sample_pngs(session, trial_ids, image_ids)
    return score_pictures(
        [truths[image] for image in image_ids],
        [[pngs.get((trial, image)) for trial in trial_ids] for image in image_ids],
    )


def sorted_rows(gallery: Gallery, order: str, only: str | None = None) -> list[int]:
    """Places in gallery.photographs, sorted; only: of this class. What has nothing to be sorted by comes last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN
        if order == DISAGREE:
            key = -gallery.scores.disagreement
        elif order in (WORST, CLOSEST):
            key = np.nanmean(gallery.scores.delta_e, axis=1) * (-1 if order == WORST else 1)
        elif order == CONVINCING:
            key = -np.nanmax(_believed(gallery), axis=1)
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
    if gallery.asked is not None:
        whom = SIMULATED if gallery.simulated else "participants"
        parts.append(f"k/n: {whom} who picked it as real, of those asked (main questions).")
    if order in (CONVINCING, DISBELIEVED):
        parts.append(
            "Sorted by the picture with the orange frame, by (k + 1) / (n + 2): one answer does not outdo ten."
        )
    elif order == DISAGREE:
        parts.append("Sorted by how far apart the models' colours are (root mean square distance in ab).")
    elif order in (WORST, CLOSEST):
        parts.append("Sorted by the mean ΔE of the models.")
    return " ".join(parts)


def contact_sheet_html(session: Session, gallery: Gallery, rows: int = 8) -> str:
    """The first rows of the gallery as HTML that needs nothing else, for the report."""
    order = DISAGREE if gallery.asked is None else CONVINCING
    shown = sorted_rows(gallery, order)[:rows]
    grid = rows_html(session, gallery, shown, order, can_open=False)
    return f'<style>{CSS}</style><div class="gallery">{grid}</div><p>{html.escape(gallery_note(gallery, order))}</p>'


def rows_html(session: Session, gallery: Gallery, rows: Sequence[int], order: str, *, can_open: bool) -> str:
    """The rows of the gallery: grey, the photograph, and each contender's picture, with their numbers."""
    image_ids = [gallery.photographs[row].image_id for row in rows]
    truths = truth_pngs(session, image_ids)
    pngs = sample_pngs(session, gallery.trial_ids, image_ids)
    sections = []
    for row in rows:
        photograph = gallery.photographs[row]
        named = _named(gallery, photograph)
        truth = truths[photograph.image_id]
        cells = [_cell(grey_png(truth), "grey", f"{named}, in grey", []), _truth_cell(truth, named)]
        for column, contender in enumerate(gallery.contenders):
            png = pngs.get((contender.trial.trial_id, photograph.image_id))
            lines, words = _told(gallery, row, column)
            cells.append(
                _cell(
                    *(png, contender.arm, f"{named}, coloured by {contender.arm}: {words}", lines),
                    chosen=column == _leader(gallery, row, order),
                )
            )
        button = f'<button aria-label="Enlarge {html.escape(named)}">Enlarge</button>' if can_open else ""
        sections.append(
            f'<section{" class=open" if can_open else ""} data-image="{row}"><h4>{html.escape(named)}{button}</h4>'
            f"{_row(truth, cells, PICTURE_PX[0], PICTURE_PX[1])}</section>"
        )
    return "".join(sections)


def sheet(session: Session, gallery: Gallery, rows: Sequence[int], order: str) -> str:
    """The rows of the gallery as one SVG, to be saved."""
    image_ids = [gallery.photographs[row].image_id for row in rows]
    truths = truth_pngs(session, image_ids)
    pngs = sample_pngs(session, gallery.trial_ids, image_ids)
    lines = []
    for row, image in zip(rows, image_ids, strict=True):
        cells = [Cell(picture(grey_png(truths[image]))), Cell(picture(truths[image]))]
        for column, trial in enumerate(gallery.trial_ids):
            png = pngs.get((trial, image))
            drawing = None if png is None else picture(png)
            cells.append(Cell(drawing, _told(gallery, row, column)[0], column == _leader(gallery, row, order)))
        lines.append((_named(gallery, gallery.photographs[row]), cells))
    columns = ["grey", "photograph", *(contender.arm for contender in gallery.contenders)]
    box_px = _box_px(truths[image_ids[0]], PICTURE_PX[0])
    return sheet_svg(_title("Pictures", gallery), columns, lines, gallery_note(gallery, order), box_px=box_px)


@dataclass(frozen=True, eq=False)
class Enlarged:
    """One image, and the colours of its pictures.

    pictures: the photograph's and each contender's as (name, PNG, its numbers, alternative text). histograms: of each,
    see ab_histograms, and `half`, the part of the ab plane that they show.
    """

    named: str
    truth: bytes
    pictures: list[tuple[str, bytes, list[str], str]]
    histograms: list[np.ndarray]
    half: int

    @property
    def note(self) -> str:
        return (
            f"Below each picture its colours in the ab plane, from −{self.half} to {self.half}: grey in the middle, "
            "green to the left, red to the right, blue below, yellow above; the more solid, the more pixels. Chroma: "
            "the mean distance from grey."
        )

    def drawn(self, column: int) -> str:
        """The histogram of a picture as SVG."""
        name, png, *_ = self.pictures[column]
        label = html.escape(f"The colours of {name} in the ab plane: mean chroma {mean_chroma(png):.1f}")
        return histogram_svg(self.histograms[column], self.half, label)


def enlarge(session: Session, gallery: Gallery, row: int) -> Enlarged:
    """One image of the gallery with all its pictures."""
    photograph = gallery.photographs[row]
    truth = truth_pngs(session, [photograph.image_id])[photograph.image_id]
    pngs = sample_pngs(session, gallery.trial_ids, [photograph.image_id])
    named = _named(gallery, photograph)
    shown: list[tuple[str, bytes, list[str], str]] = [("photograph", truth, [], f"{named}, the photograph")]
    for column, contender in enumerate(gallery.contenders):
        png = pngs.get((contender.trial.trial_id, photograph.image_id))
        if png is not None:
            lines, words = _told(gallery, row, column)
            shown.append((contender.arm, png, lines, f"{named}, coloured by {contender.arm}: {words}"))
    numbers = [(name, png, [*lines, f"mean chroma {mean_chroma(png):.1f}"], words) for name, png, lines, words in shown]
    return Enlarged(named, truth, numbers, *ab_histograms([png for _, png, _, _ in shown]))


def enlarged_html(enlarged: Enlarged) -> str:
    """The image as large as may be, with the colours of the photograph and of each contender's picture."""
    cells = [_cell(grey_png(enlarged.truth), "grey", f"{enlarged.named}, in grey", ["what a model sees"])]
    for column, (name, png, lines, alternative) in enumerate(enlarged.pictures):
        cells.append(_cell(png, name, alternative, lines, below=enlarged.drawn(column)))
    return (
        f"<section>{_row(enlarged.truth, cells, PICTURE_PX[1], PICTURE_PX[2])}<p>{html.escape(enlarged.note)}</p>"
        "</section>"
    )


def enlarged_sheet(enlarged: Enlarged, title: str) -> str:
    """The same as one SVG, to be saved."""
    numbers = [lines for *_, lines, _ in enlarged.pictures]
    rows = [
        ("picture", [Cell(picture(png)) for _, png, _, _ in enlarged.pictures]),
        ("colours in the ab plane", [Cell(enlarged.drawn(column), lines) for column, lines in enumerate(numbers)]),
    ]
    box_px = _box_px(enlarged.truth, PICTURE_PX[1])
    return sheet_svg(title, [name for name, *_ in enlarged.pictures], rows, enlarged.note, box_px=box_px)


def _show_gallery(session: Session, gallery: Gallery, engine: Engine) -> int | None:
    """Draw what can be chosen and a page of the gallery; return which row was opened just now, if any."""

    def save() -> str:
        with read_session(engine) as session:
            return sheet(session, gallery, shown, order)

    orders = [DISAGREE, WORST, CLOSEST, IN_ORDER]
    first, second, third = st.columns(3)
    with first:
        order = choose("Sorted by", orders if gallery.asked is None else [CONVINCING, DISBELIEVED, *orders], key="sort")
    with second:
        names = sorted({gallery.class_of(photograph) for photograph in gallery.photographs})
        only = choose("Class", [ALL, *names], key="class")
    rows = sorted_rows(gallery, order, None if only == ALL else only)
    pages = -(-len(rows) // ROWS)
    with third:
        page = int(choose(f"Page (of {pages})", [str(number + 1) for number in range(pages)], key="page"))
    shown = rows[(page - 1) * ROWS : page * ROWS]
    title = _title("Pictures", gallery)
    with headed(title, "pictures"):
        save_drawing("pictures", file_stem("pictures", title), save)
    st.caption(gallery_note(gallery, order))
    result = _component(
        key="gallery",
        data={"html": rows_html(session, gallery, shown, order, can_open=True)},
        on_opened_change=lambda: None,
    )
    if page < pages:
        st.button(f"Next {min(ROWS, len(rows) - page * ROWS)} images", on_click=_turn_to, args=(page + 1,))
    opened = result.opened  # it comes from a browser
    return opened if isinstance(opened, int) and 0 <= opened < len(gallery.photographs) else None


def _turn_to(page: int) -> None:
    st.session_state["page"] = str(page)


def _show_enlarged(gallery: Gallery, row: int, engine: Engine) -> None:
    photograph = gallery.photographs[row]
    title = _title(_named(gallery, photograph), gallery)

    @st.dialog(title, width="large")
    def draw() -> None:
        with read_session(engine) as session:
            enlarged = enlarge(session, gallery, row)
        with st.popover("Save", type="tertiary"):
            stem = file_stem(f"image-{photograph.number}", title)
            save_drawing("enlarged", stem, lambda: enlarged_sheet(enlarged, title))
        _component(key="enlarged", data={"html": enlarged_html(enlarged)})

    draw()


def _cached_scores(session: Session, shown: Sequence[Contender], image_ids: Sequence[int]) -> PictureScores:
    """Pictures of finished trials do not change: they are scored once for all readers."""
    url = session.get_bind().engine.url.render_as_string()
    trials = tuple((contender.trial.trial_id, contender.trial.ray_id, contender.trial.epoch) for contender in shown)
    return _scores(session, shown, url, trials, tuple(image_ids))


@st.cache_resource(show_spinner=False, max_entries=32)
def _scores(
    _session: Session,
    _shown: Sequence[Contender],
    database: str,
    trials: tuple[tuple[int, str, int], ...],
    image_ids: tuple[int, ...],
) -> PictureScores:
    return read_scores(_session, _shown, image_ids)


def _votes_by_picture(
    answers: Answers, shown: Sequence[Contender], image_ids: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Picked and asked: int (images, contenders)."""
    votes = answers.votes.of_kind("arm")
    columns = {contender.arm_id: column for column, contender in enumerate(shown)}
    column = np.array([columns.get(contender.arm_id, -1) for contender in answers.contenders], dtype=int)
    ids = np.array(image_ids, dtype=int)
    order = np.argsort(ids)
    at = np.minimum(np.searchsorted(ids, votes.image, sorter=order), len(ids) - 1)
    row = order[at] if len(ids) else at
    here = (column[votes.contender] >= 0) & (ids[row] == votes.image) if len(ids) else np.zeros(len(at), dtype=bool)
    cell = (row * len(shown) + column[votes.contender])[here]
    size = len(ids) * len(shown)
    asked = np.bincount(cell, minlength=size).reshape(len(ids), len(shown))
    picked = np.bincount(cell[votes.picked_as_real[here]], minlength=size).reshape(len(ids), len(shown))
    return picked, asked


def _believed(gallery: Gallery) -> np.ndarray:
    """(k + 1) / (n + 2) of each picture, float (images, contenders), NaN where nobody was asked: the mean of what the
    share may be, with all shares as likely beforehand."""
    if gallery.picked is None or gallery.asked is None:
        return np.full(gallery.scores.delta_e.shape, np.nan)
    return np.where(gallery.asked > 0, (gallery.picked + 1) / (gallery.asked + 2), np.nan)


def _leader(gallery: Gallery, row: int, order: str) -> int | None:
    """The contender that the row is sorted by."""
    believed = _believed(gallery)[row]
    if order not in (CONVINCING, DISBELIEVED) or np.isnan(believed).all():
        return None
    return int(np.nanargmax(believed) if order == CONVINCING else np.nanargmin(believed))


def _named(gallery: Gallery, photograph: Photograph) -> str:
    return f"{gallery.class_of(photograph)}, image {photograph.number}"


def _title(text: str, gallery: Gallery) -> str:
    return titled(text, simulated=gallery.simulated and gallery.asked is not None)


def _told(gallery: Gallery, row: int, column: int) -> tuple[list[str], str]:
    """A picture's numbers, as short lines and in words."""
    delta_e = gallery.scores.delta_e[row, column]
    lines, words = ([], []) if np.isnan(delta_e) else ([f"ΔE {delta_e:.1f}"], [f"ΔE {delta_e:.1f}"])
    if gallery.picked is not None and gallery.asked is not None:
        picked, asked = int(gallery.picked[row, column]), int(gallery.asked[row, column])
        lines.append(f"{picked}/{asked} picked" if asked else "not asked")
        whom = f" {SIMULATED}" if gallery.simulated else ""
        words.append(f"picked as real by {picked} of {asked}{whom}" if asked else "nobody was asked")
    return lines, ", ".join(words)


def _row(truth: bytes, cells: Sequence[str], narrow_px: int, wide_px: int) -> str:
    """Cells of pictures of the photograph's size, enlarged by whole numbers."""
    height, width = pixels(truth).shape[:2]
    narrow, wide = (_box_px(truth, target)[0] // width for target in (narrow_px, wide_px))
    return (
        f'<div class="pictures" style="--width:{width};--height:{height};--narrow:{narrow};--wide:{wide}">'
        f"{''.join(cells)}</div>"
    )


def _box_px(truth: bytes, target_px: int) -> tuple[int, int]:
    """Width and height of the photograph, enlarged by a whole number to about this width."""
    height, width = pixels(truth).shape[:2]
    scale = max(1, round(target_px / width))
    return scale * width, scale * height


def _truth_cell(truth: bytes, named: str) -> str:
    return _cell(truth, "photograph", f"{named}, the photograph", [])


def _cell(
    png: bytes | None,
    name: str,
    alternative: str,
    lines: Sequence[str],
    *,
    chosen: bool = False,
    below: str = "",
) -> str:
    shown = '<div class="none">no picture</div>'
    if png is not None:
        source = base64.b64encode(png).decode("ascii")
        shown = f'<img src="data:image/png;base64,{source}" alt="{html.escape(alternative)}">'
    caption = "<br>".join(map(html.escape, lines))
    return (
        f"<figure{' class=chosen' if chosen else ''}>{shown}{below}"
        f"<figcaption><b>{html.escape(name)}</b>{caption}</figcaption></figure>"
    )
