"""The machine jury: what it can see, that it never judges what it has seen, and where its word stands."""

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from sqlalchemy import select

from db.schema import Experiment
from db.store import open_database, read_session, write_session
from db.surveys.answers import load_answers
from db.surveys.study import create_study, find_study
from db.sweeps.recording import record_score, record_verdict
from db.sweeps.trials import find_experiment, load_arms
from platform.arms import cross_fit
from platform.color.lab import rgb_to_lab
from platform.color.scores import JURY, SCORES
from platform.tables.outcome import jury_note, results_tables
from survey_app.analysis.finding import state_no_votes
from survey_app.dashboard import pictures_view
from tests.survey_data import add_experiment, photographs


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_fit, "STEPS", 40)


def lab_pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    lab = rgb_to_lab(torch.from_numpy(np.stack(photographs(count)))).movedim(-1, 1)
    lightness, ab = lab.split((1, 2), dim=1)
    return lightness, ab


def test_acuities_halve_from_the_whole_picture_to_a_pixel() -> None:
    assert cross_fit.acuities(32) == [32, 16, 8, 4, 1]
    assert cross_fit.acuities(16) == [16, 8, 4, 1]


def test_a_jury_of_the_whole_picture_sees_its_mean_colour_and_no_texture() -> None:
    lightness, truth = lab_pictures(64)
    texture = truth + 30 * torch.tensor([1.0, -1.0]).repeat(8)[None, None, None, :]  # leaves the mean as it is
    tinted = truth + 40
    whole = cross_fit.hold_jury(lightness, truth, torch.stack((texture, tinted)), [0, 1], 16)
    fine = cross_fit.hold_jury(lightness, truth, torch.stack((texture, tinted)), [0, 1], 1)
    assert whole.picked[0] == pytest.approx(0.5, abs=1e-4)
    assert whole.picked[1].mean() < 0.3
    assert fine.picked.mean(axis=1).max() < 0.3
    assert fine.pair_accuracy > whole.pair_accuracy


@pytest.mark.long
def test_pictures_that_are_photographs_are_picked_half_of_the_time_and_the_same_input_gives_the_same() -> None:
    lightness, truth = lab_pictures(24)
    held = [cross_fit.hold_jury(lightness, truth, truth[None], [0], 4) for _ in range(2)]
    assert held[0].pair_accuracy == 0.5
    assert np.array_equal(held[0].picked, np.full((1, 24), 0.5))
    assert held[0].temperature == held[1].temperature
    assert held[0].marks() == [(0.5, 0.0)]


@pytest.mark.long
def test_what_a_critic_has_seen_it_does_not_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that can be told apart by being remembered alone are not told apart."""
    monkeypatch.setattr(cross_fit, "STEPS", 150)
    noise = torch.Generator().manual_seed(0)
    lightness = 100 * torch.rand(60, 1, 16, 16, generator=noise)
    truth, colourized = (40 * torch.randn(60, 2, 16, 16, generator=noise) for _ in range(2))
    held = cross_fit.hold_jury(lightness, truth, colourized[None], [0], 1)
    assert 0.3 < held.pair_accuracy < 0.7


@pytest.mark.parametrize(
    ("told_apart", "acuity"),
    [
        ({16: 0.7, 8: 0.84, 4: 0.9, 1: 0.8}, 8),  # the one after 4 is not held
        ({16: 0.9}, 16),
        ({16: 0.5, 8: 0.5, 4: 0.5, 1: 0.5}, 1),
    ],
)
def test_the_last_undecided_jury_counts(
    told_apart: dict[int, float], acuity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        cross_fit, "hold_jury", lambda *rest: cross_fit.Jury(rest[-1], told_apart[rest[-1]], 1.0, np.zeros((1, 2)))
    )
    picture = torch.zeros(1, 2, 16, 16)
    assert cross_fit.find_jury(picture[:, :1], picture, picture[None], [0]).acuity == acuity


def test_its_word_stands_beside_votes_as_a_machines() -> None:
    engine = open_database(":memory:")
    add_experiment(engine, images=12)
    create_study(engine, "cats", question_count=6, practice_count=1)
    with read_session(engine) as session:
        trials = {arm.name: arm.best.id for arm in load_arms(session, 1) if arm.best is not None}
        assert jury_note(session, "cats", "cats") == ""
    marks = dict(zip(trials, (0.2, 0.4, 0.3, 0.1), strict=True))
    said = {"judged_at": datetime.now(UTC).isoformat(), "acuity": 16, "pair_accuracy": 0.8}
    with write_session(engine) as session:
        record_verdict(session, session.scalars(select(Experiment.id)).one(), said)
        for arm, trial_id in trials.items():
            record_score(
                session,
                trial_id,
                JURY,
                marks[arm],
                0.01,
                {3: {JURY: 1.0 if arm == "classification" else 0.5}, 5: {JURY: 0.6}},
            )
    with read_session(engine) as session:
        votes, *_ = results_tables(session, "cats", load_answers(session, find_study(session, "cats")))
        heading = SCORES[JURY].heading
        assert votes.frame[heading].tolist() == pytest.approx([20.0, 40.0, 30.0, 10.0])
        assert votes.text()[heading].tolist()[1] == "40.0 ± 1.0"
        assert "after study 'cats' had opened" in votes.note
        assert "over 16×16 pixels and tells 80 % of pairs apart. Its marks are no votes." in votes.note
        summary = find_experiment(session, "cats")
        gallery = pictures_view.load_gallery(session, summary, None, None)
        assert pictures_view.sort_rows(gallery, pictures_view.BY_JURY)[:2] == [3, 5]
        assert "jury 100 %" in pictures_view.gallery_html(session, gallery, [3])
        assert "the jury, a machine, would pick **classification** most often (40.0 %)" in state_no_votes(
            gallery.contenders
        )
    engine.dispose()
