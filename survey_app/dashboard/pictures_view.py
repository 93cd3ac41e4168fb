"""The pictures: what each model makes of the same photographs, which of it people believed, and which classes are hard.

The gallery is HTML, a row per image, for the page and for the report.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from sqlalchemy.orm import Session

from db.png import encode_png, pixels
from db.schema import Experiment, Trial
from db.store import read_session
from db.surveys.answers import Answers
from db.surveys.study import find_study
from db.sweeps.pictures import Photograph, photographs, sample_pngs, scores_of_samples, segment_pngs, truth_pngs
from db.sweeps.trials import best_trials, contenders
from platform.color.scores import JURY
from platform.paint.sheet import choose_scale, convert_to_grey
from platform.tables.intervals import SIMULATED, wilson
from platform.tables.table import Table
from survey_app.dashboard.choice import Choice
from survey_app.dashboard.exhibits import show_exhibits

ROWS = 12  # a page
PICTURE_PX = 128  # about so wide
CSS = (Path(__file__).parent / "gallery.css").read_text(encoding="utf-8")
ALL = "all"
TELLING, CONVINCING = "what tells models apart", "most convincing fakes"
BY_JURY, IN_ORDER = "most convincing by the jury, a machine", "as in the dataset"
SORTED = {
    TELLING: "First comes what votes tell apart best or, before there are any, what differs most in its errors.",
    CONVINCING: "Sorted by the picture with the highest (k + 1) / (n + 2): one answer does not outdo ten.",
    BY_JURY: "Sorted by the jury's highest mark. It is a machine, nobody's vote.",
    IN_ORDER: "",
}


@dataclass(frozen=True, eq=False)
class Gallery:
    """All that can be said of the pictures without looking at them."""

    experiment: Experiment
    contenders: list[Trial]
    photographs: list[Photograph]
    delta_e: np.ndarray  # float (images, contenders), mean ΔE2000 against the photograph; NaN where there is no picture
    by_jury: np.ndarray  # float, as delta_e: p(picked as real) by the machine jury; NaN where it was not asked
    # int (images, contenders), how often the picture was picked as real of how often somebody was asked about it; all 0
    # where there are no votes to be shown.
    picked: np.ndarray
    asked: np.ndarray
    simulated: bool

    @property
    def trial_ids(self) -> list[int]:
        return [trial.id for trial in self.contenders]

    def class_of(self, photograph: Photograph) -> str:
        return self.experiment.dataset.class_names[photograph.class_index]


def show(choice: Choice) -> None:
    """Draw the gallery and what can be said of classes."""
    with read_session(choice.engine) as session:
        gallery = gallery_of(session, choice)
        if gallery.photographs:
            _show_gallery(session, gallery)
        else:
            st.markdown(explain_emptiness(gallery))
    show_exhibits(class_tables(gallery))


def gallery_of(session: Session, choice: Choice) -> Gallery:
    """The gallery of what is chosen."""
    study = None if choice.study is None else choice.study.name
    return load_gallery(session, choice.experiment, study, choice.counted)


def load_gallery(session: Session, experiment: Experiment, study: str | None, answers: Answers | None) -> Gallery:
    """The trials that the study asks about, else each arm's best. answers: of those who are counted, or None where
    there are none to be shown."""
    shown = best_trials(session, experiment.id) if study is None else contenders(session, find_study(session, study))
    trial_ids = [trial.id for trial in shown]
    found = photographs(session, trial_ids)
    image_ids = [photograph.image_id for photograph in found]
    scores, shape = scores_of_samples(session, trial_ids), (len(image_ids), len(trial_ids))
    delta_e, by_jury = (
        np.array([[scores.get((trial, image), {}).get(name, np.nan) for trial in trial_ids] for image in image_ids])
        for name in ("delta_e_2000", JURY)
    )
    picked = asked = np.zeros(shape, dtype=int)
    if answers is not None:
        picked, asked = answers.picked_and_asked("image", image_ids)
    return Gallery(
        experiment=experiment,
        contenders=shown,
        photographs=found,
        delta_e=delta_e.reshape(shape),
        by_jury=by_jury.reshape(shape),
        picked=picked,
        asked=asked,
        simulated=answers is not None and answers.simulated,
    )


def orders_of(gallery: Gallery) -> list[str]:
    """What rows can be sorted by."""
    by_votes, by_jury = gallery.asked.any(), np.isfinite(gallery.by_jury).any()
    return [TELLING, *([CONVINCING] if by_votes else []), *([BY_JURY] if by_jury else []), IN_ORDER]


def sort_rows(gallery: Gallery, order: str = TELLING, only: str | None = None) -> list[int]:
    """Places in gallery.photographs, sorted; only: of this class. What has nothing to be sorted by comes last."""
    # The mean of what a picture's share may be, with all shares as likely beforehand.
    shares = (gallery.picked + 1) / (gallery.asked + 2)
    if order == TELLING:
        marks = np.ma.masked_invalid(shares if gallery.asked.any() else gallery.delta_e).var(axis=1)
    elif order == CONVINCING:
        marks = np.ma.array(shares, mask=gallery.asked == 0).max(axis=1)
    elif order == BY_JURY:
        marks = np.ma.masked_invalid(gallery.by_jury).max(axis=1)
    else:
        marks = np.ma.zeros(len(gallery.photographs))
    rows: list[int] = np.argsort(-marks.filled(-np.inf), kind="stable").tolist()
    return [row for row in rows if only is None or gallery.class_of(gallery.photographs[row]) == only]


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


def gallery_html(session: Session, gallery: Gallery, rows: Sequence[int], order: str = TELLING) -> str:
    """Rows of the gallery: what a model sees, the photograph, and each contender's picture with its numbers, beside it
    the segments that it divides the picture into, if it does; under them what the numbers are. Nothing without rows."""
    if not rows:
        return ""
    image_ids = [gallery.photographs[row].image_id for row in rows]
    truths = truth_pngs(session, image_ids)
    pngs = sample_pngs(session, gallery.trial_ids, image_ids)
    segments = segment_pngs(session, gallery.trial_ids, image_ids)
    dividing = {trial for trial, _ in segments}
    sections = []
    for row, image in zip(rows, image_ids, strict=True):
        name = f"{gallery.class_of(gallery.photographs[row])}, image {gallery.photographs[row].number}"
        figures = [
            _figure_html("grey", encode_png(convert_to_grey(truths[image])), f"{name}, in grey"),
            _figure_html("photograph", truths[image], f"{name}, the photograph"),
        ]
        for column, contender in enumerate(gallery.contenders):
            arm, trial, numbers = contender.arm.name, contender.id, _numbers(gallery, row, column)
            words = f"{name}, coloured by {arm}: {', '.join(numbers)}"
            figures.append(_figure_html(arm, pngs.get((trial, image)), words, numbers))
            if trial in dividing:
                words = f"{name}, the segments that {arm} divides it into, each in its likeliest colour"
                figures.append(_figure_html(f"segments of {arm}", segments.get((trial, image)), words))
        height, width = pixels(truths[image]).shape[:2]
        scale = choose_scale(pixels(truths[image]), PICTURE_PX)  # a whole number, so that every pixel is as large
        sections.append(
            f'<h4>{html.escape(name)}</h4><div class="pictures" '
            f'style="--width:{scale * width}px;--ratio:{width}/{height}">{"".join(figures)}</div>'
        )
    note = html.escape(gallery_note(gallery, order))
    return f'<style>{CSS}</style><div class="gallery">{"".join(sections)}</div><p><small>{note}</small></p>'


def gallery_note(gallery: Gallery, order: str) -> str:
    """In what order, and what the numbers are."""
    parts = ["ΔE: the mean colour difference to the photograph (ΔE2000)."]
    if np.isfinite(gallery.by_jury).any():
        parts.append("jury: how probably a machine would pick it as real, see *Results*.")
    if gallery.asked.any():
        whom = SIMULATED if gallery.simulated else "participants"
        parts.append(f"k/n: {whom} who picked it as real, of those asked, with the 95 % Wilson interval.")
    return " ".join([*parts, SORTED[order]]).strip()


def _numbers(gallery: Gallery, row: int, column: int) -> list[str]:
    """A picture's error, votes and jury's mark, as far as there are any."""
    delta_e, mark = gallery.delta_e[row, column], gallery.by_jury[row, column]
    votes = wilson(int(gallery.picked[row, column]), int(gallery.asked[row, column]))
    of_votes = f"{votes.count}/{votes.total} picked ({votes.range})" if votes.total else "not asked"
    return [
        *([] if np.isnan(delta_e) else [f"ΔE {delta_e:.1f}"]),
        *([of_votes] if gallery.asked.any() else []),
        *([] if np.isnan(mark) else [f"jury {100 * mark:.0f} %"]),
    ]


def _figure_html(name: str, png: bytes | None, alternative: str, numbers: Sequence[str] = ()) -> str:
    image = '<div class="none">no picture</div>'
    if png is not None:
        source = base64.b64encode(png).decode("ascii")
        image = f'<img src="data:image/png;base64,{source}" alt="{html.escape(alternative)}">'
    caption = f"<b>{html.escape(name)}</b>{'<br>'.join(map(html.escape, numbers))}"
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _show_gallery(session: Session, gallery: Gallery) -> None:
    """Draw what can be chosen and a page of the gallery."""
    first, second = st.columns(2)
    order = first.selectbox("Sorted by", orders_of(gallery), key="sort", bind="query-params")
    names = sorted({gallery.class_of(photograph) for photograph in gallery.photographs})
    only = second.selectbox("Class", [ALL, *names], key="class", bind="query-params")
    rows = sort_rows(gallery, order, None if only == ALL else only)
    pictures = st.container()
    pages = -(-len(rows) // ROWS)
    page = st.pagination(pages, key=f"page of {pages}") if pages > 1 else 1
    pictures.html(gallery_html(session, gallery, rows[(page - 1) * ROWS : page * ROWS], order))


def class_tables(gallery: Gallery) -> list[Table]:
    """Bin accuracy by class of the photograph, the hardest class first; none where it was not measured, or there is
    one class."""
    names, counts = gallery.experiment.dataset.class_names, gallery.experiment.dataset.validation_class_counts
    shares = {
        trial.arm.name: trial.last.class_bin_accuracy.get("validation")
        for trial in gallery.contenders
        if trial.last is not None
    }
    accuracies = {arm: [None if v is None else 100 * v for v in of] for arm, of in shares.items() if of}
    if len(names) < 2 or not accuracies:
        return []
    frame = pd.DataFrame({"class": names, "images": counts, **accuracies})
    order = frame[list(accuracies)].astype(float).mean(axis=1).sort_values(kind="stable").index
    return [
        Table(
            name="class-accuracy",
            title="Bin accuracy by class (%)",
            frame=frame.loc[order].reset_index(drop=True),
            formats=dict.fromkeys(accuracies, ".1f"),
            note="Share of validation pixels with the right bin of colour, the hardest class first.",
        )
    ]
