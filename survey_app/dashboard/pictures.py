"""The pictures: what each model makes of the same photographs, which of it people believed, and which classes are hard.

The gallery is HTML, a row per image, for the page and for the report.
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

from db.answers import Answers
from db.gallery import Photograph, photographs, sample_pngs, sample_scores, truth_pngs
from db.pictures import pixels
from db.results import Contender, ExperimentSummary, arm_names, arm_results, best_contenders, contenders
from db.store import read_session
from db.studies import find_study
from platform.contact_sheet import Cell, box_px, drawn, grey_png, sheet_svg
from platform.results import SIMULATED, titled
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.dashboard.classes import class_exhibits
from survey_app.dashboard.exhibits import Exhibit, file_stem, headed, save_drawing, show_exhibits
from survey_app.dashboard.picture_scores import ab_histograms, disagreement, histogram_svg, mean_chroma

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

DisagreementOf = Callable[[Session, Sequence[Contender], Sequence[int]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Gallery:
    """All that can be said of the pictures without looking at them."""

    experiment: ExperimentSummary
    contenders: list[Contender]
    arms: list[str]  # the experiment's, in its order
    missing: list[str]  # those without a picture to show
    photographs: list[Photograph]
    delta_e: np.ndarray  # float (images, contenders), mean ΔE2000 against the photograph; NaN where there is no picture
    disagreement: np.ndarray  # float (images,), see `picture_scores.disagreement`
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
    answers = None if chosen.answers is None else chosen.answers.of(chosen.inclusion)
    study = None if chosen.study is None else chosen.study.view.name
    with read_session(chosen.engine) as session:
        gallery = load_gallery(session, chosen.experiment, study, answers, disagreement_of=_cached_disagreement)
        if not gallery.photographs:
            st.markdown(why_empty(gallery))
            return
        opened = _show_gallery(session, gallery, chosen.engine)
    if opened is not None:
        _show_enlarged(gallery, opened, chosen.engine)
    show_exhibits(exhibits(gallery, answers))


def exhibits(gallery: Gallery, answers: Answers | None) -> list[Exhibit]:
    """What stands below the pictures: the analysis by class. answers: of those who are counted."""
    if not gallery.contenders:
        return [why_empty(gallery)]
    return class_exhibits(gallery.experiment, gallery.arms, gallery.contenders, answers)


def load_gallery(
    session: Session,
    experiment: ExperimentSummary,
    study: str | None,
    answers: Answers | None,
    *,
    disagreement_of: DisagreementOf | None = None,
) -> Gallery:
    """The trials that the study asks about, else each arm's best. answers: of those who are counted, or None where
    there are none to be shown. disagreement_of: as read_disagreement, which it is by default."""
    if study is None:
        shown = best_contenders(arm_results(session, experiment.name))
    else:
        shown = contenders(session, find_study(session, study))
    trial_ids = [contender.trial.trial_id for contender in shown]
    found = photographs(session, trial_ids)
    image_ids = [photograph.image_id for photograph in found]
    errors = sample_scores(session, trial_ids, "delta_e_2000")
    delta_e = [[errors.get((trial, image), np.nan) for trial in trial_ids] for image in image_ids]
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
        delta_e=np.array(delta_e, dtype=float).reshape(len(image_ids), len(trial_ids)),
        disagreement=(disagreement_of or read_disagreement)(session, shown, image_ids),
        picked=picked,
        asked=asked,
        simulated=answers is not None and answers.simulated,
    )


def read_disagreement(session: Session, shown: Sequence[Contender], image_ids: Sequence[int]) -> np.ndarray:
    """Read all pictures of the contenders, and tell how far apart they are."""
    trial_ids = [contender.trial.trial_id for contender in shown]
    pngs = sample_pngs(session, trial_ids, image_ids)
    return disagreement([[pngs.get((trial, image)) for trial in trial_ids] for image in image_ids])


def sorted_rows(gallery: Gallery, order: str, only: str | None = None) -> list[int]:
    """Places in gallery.photographs, sorted; only: of this class. What has nothing to be sorted by comes last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN
        if order == DISAGREE:
            key = -gallery.disagreement
        elif order in (WORST, CLOSEST):
            key = np.nanmean(gallery.delta_e, axis=1) * (-1 if order == WORST else 1)
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


@dataclass(frozen=True)
class _Shown:
    """A picture of a row: its PNG, what stands below it, and what it is in words."""

    name: str
    png: bytes | None
    lines: list[str]
    alternative: str
    chosen: bool = False  # the row is sorted by it


def _rows(session: Session, gallery: Gallery, rows: Sequence[int], order: str = IN_ORDER) -> list[list[_Shown]]:
    """Of each row the photograph, and each contender's picture with its numbers."""
    image_ids = [gallery.photographs[row].image_id for row in rows]
    truths = truth_pngs(session, image_ids)
    pngs = sample_pngs(session, gallery.trial_ids, image_ids)
    found = []
    for row, image in zip(rows, image_ids, strict=True):
        named = gallery.name(gallery.photographs[row])
        shown = [_Shown("photograph", truths[image], [], f"{named}, the photograph")]
        for column, contender in enumerate(gallery.contenders):
            lines, words = _told(gallery, row, column)
            alternative = f"{named}, coloured by {contender.arm}: {words}"
            png = pngs.get((contender.trial.trial_id, image))
            shown.append(_Shown(contender.arm, png, lines, alternative, column == _leader(gallery, row, order)))
        found.append(shown)
    return found


def rows_html(session: Session, gallery: Gallery, rows: Sequence[int], order: str, *, can_open: bool) -> str:
    """The rows of the gallery: grey, the photograph, and each contender's picture, with their numbers."""
    sections = []
    for row, pictures in zip(rows, _rows(session, gallery, rows, order), strict=True):
        named = html.escape(gallery.name(gallery.photographs[row]))
        button = f'<button aria-label="Enlarge {named}">Enlarge</button>' if can_open else ""
        sections.append(
            f'<section{" class=open" if can_open else ""} data-image="{row}"><h4>{named}{button}</h4>'
            f"{_row_html(_with_grey(pictures), PICTURE_PX[0], PICTURE_PX[1])}</section>"
        )
    return "".join(sections)


def sheet(session: Session, gallery: Gallery, rows: Sequence[int], order: str) -> str:
    """The rows of the gallery as one SVG, to be saved."""
    found = [_with_grey(pictures) for pictures in _rows(session, gallery, rows, order)]
    lines = [
        (gallery.name(gallery.photographs[row]), [Cell(drawn(one.png), one.lines, one.chosen) for one in pictures])
        for row, pictures in zip(rows, found, strict=True)
    ]
    box = box_px(found[0][0].png or b"", PICTURE_PX[0])
    note = gallery_note(gallery, order)
    return sheet_svg(gallery.title("Pictures"), [one.name for one in found[0]], lines, note, box_px=box)


@dataclass(frozen=True, eq=False)
class Enlarged:
    """One image, and the colours of its pictures."""

    pictures: list[_Shown]  # the photograph and the contenders' that there are
    histograms: list[np.ndarray]  # of each, see `ab_histograms`
    half: int  # the part of the ab plane that they show

    @property
    def note(self) -> str:
        return (
            f"Below each picture its colours in the ab plane, from −{self.half} to {self.half}: grey in the middle, "
            "green to the left, red to the right, blue below, yellow above; the more solid, the more pixels. Chroma: "
            "the mean distance from grey."
        )

    def told(self, column: int) -> tuple[list[str], str]:
        """The numbers of a picture, and its histogram as SVG."""
        shown = self.pictures[column]
        chroma = f"mean chroma {mean_chroma(shown.png or b''):.1f}"
        label = html.escape(f"The colours of {shown.name} in the ab plane: {chroma}")
        return [*shown.lines, chroma], histogram_svg(self.histograms[column], self.half, label)


def enlarge(session: Session, gallery: Gallery, row: int) -> Enlarged:
    """One image of the gallery with all its pictures."""
    (pictures,) = _rows(session, gallery, [row])
    there = [shown for shown in pictures if shown.png is not None]
    return Enlarged(there, *ab_histograms([shown.png for shown in there if shown.png is not None]))


def enlarged_html(enlarged: Enlarged) -> str:
    """The image as large as may be, with the colours of the photograph and of each contender's picture."""
    told = [enlarged.told(column) for column in range(len(enlarged.pictures))]
    pictures = [
        _Shown(shown.name, shown.png, lines, shown.alternative)
        for shown, (lines, _) in zip(enlarged.pictures, told, strict=True)
    ]
    below = ["", *(histogram for _, histogram in told)]
    row = _row_html(_with_grey(pictures, ["what a model sees"]), PICTURE_PX[1], PICTURE_PX[2], below)
    return f"<section>{row}<p>{html.escape(enlarged.note)}</p></section>"


def enlarged_sheet(enlarged: Enlarged, title: str) -> str:
    """The same as one SVG, to be saved."""
    told = [enlarged.told(column) for column in range(len(enlarged.pictures))]
    rows = [
        ("picture", [Cell(drawn(shown.png)) for shown in enlarged.pictures]),
        ("colours in the ab plane", [Cell(histogram, lines) for lines, histogram in told]),
    ]
    box = box_px(enlarged.pictures[0].png or b"", PICTURE_PX[1])
    return sheet_svg(title, [shown.name for shown in enlarged.pictures], rows, enlarged.note, box_px=box)


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
    title = gallery.title("Pictures")
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
    title = gallery.title(gallery.name(photograph))

    @st.dialog(title, width="large")
    def draw() -> None:
        with read_session(engine) as session:
            enlarged = enlarge(session, gallery, row)
        with st.popover("Save", type="tertiary"):
            stem = file_stem(f"image-{photograph.number}", title)
            save_drawing("enlarged", stem, lambda: enlarged_sheet(enlarged, title))
        _component(key="enlarged", data={"html": enlarged_html(enlarged)})

    draw()


def _cached_disagreement(session: Session, shown: Sequence[Contender], image_ids: Sequence[int]) -> np.ndarray:
    """Pictures of finished trials do not change: they are looked at once for all readers."""
    url = session.get_bind().engine.url.render_as_string()
    trials = tuple((contender.trial.trial_id, contender.trial.epoch) for contender in shown)
    return _disagreement(session, shown, url, trials, tuple(image_ids))


@st.cache_resource(show_spinner=False, max_entries=32)
def _disagreement(
    _session: Session,
    _shown: Sequence[Contender],
    database: str,
    trials: tuple[tuple[int, int], ...],
    image_ids: tuple[int, ...],
) -> np.ndarray:
    return read_disagreement(_session, _shown, image_ids)


def _believed(gallery: Gallery) -> np.ndarray:
    """(k + 1) / (n + 2) of each picture, float (images, contenders), NaN where nobody was asked: the mean of what the
    share may be, with all shares as likely beforehand."""
    if gallery.picked is None or gallery.asked is None:
        return np.full(gallery.delta_e.shape, np.nan)
    return np.where(gallery.asked > 0, (gallery.picked + 1) / (gallery.asked + 2), np.nan)


def _leader(gallery: Gallery, row: int, order: str) -> int | None:
    """The contender that the row is sorted by."""
    believed = _believed(gallery)[row]
    if order not in (CONVINCING, DISBELIEVED) or np.isnan(believed).all():
        return None
    return int(np.nanargmax(believed) if order == CONVINCING else np.nanargmin(believed))


def _told(gallery: Gallery, row: int, column: int) -> tuple[list[str], str]:
    """A picture's numbers, as short lines and in words."""
    delta_e = gallery.delta_e[row, column]
    lines, words = ([], []) if np.isnan(delta_e) else ([f"ΔE {delta_e:.1f}"], [f"ΔE {delta_e:.1f}"])
    if gallery.picked is not None and gallery.asked is not None:
        picked, asked = int(gallery.picked[row, column]), int(gallery.asked[row, column])
        lines.append(f"{picked}/{asked} picked" if asked else "not asked")
        whom = f" {SIMULATED}" if gallery.simulated else ""
        words.append(f"picked as real by {picked} of {asked}{whom}" if asked else "nobody was asked")
    return lines, ", ".join(words)


def _with_grey(pictures: Sequence[_Shown], lines: Sequence[str] = ()) -> list[_Shown]:
    """A row, the photograph first, with what a model sees before it."""
    photograph = pictures[0]
    alternative = photograph.alternative.replace("the photograph", "in grey")
    return [_Shown("grey", grey_png(photograph.png or b""), list(lines), alternative), *pictures]


def _row_html(pictures: Sequence[_Shown], narrow_px: int, wide_px: int, below: Sequence[str] | None = None) -> str:
    """Pictures of one size, enlarged by whole numbers; below: what is drawn below each."""
    png = pictures[0].png or b""
    height, width = pixels(png).shape[:2]
    narrow, wide = (box_px(png, target)[0] // width for target in (narrow_px, wide_px))
    cells = "".join(_cell_html(*cell) for cell in zip(pictures, below or [""] * len(pictures), strict=True))
    return (
        f'<div class="pictures" style="--width:{width};--height:{height};--narrow:{narrow};--wide:{wide}">{cells}</div>'
    )


def _cell_html(shown: _Shown, below: str) -> str:
    image = '<div class="none">no picture</div>'
    if shown.png is not None:
        source = base64.b64encode(shown.png).decode("ascii")
        image = f'<img src="data:image/png;base64,{source}" alt="{html.escape(shown.alternative)}">'
    caption = "<br>".join(map(html.escape, shown.lines))
    return (
        f"<figure{' class=chosen' if shown.chosen else ''}>{image}{below}"
        f"<figcaption><b>{html.escape(shown.name)}</b>{caption}</figcaption></figure>"
    )
