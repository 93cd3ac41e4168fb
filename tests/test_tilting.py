"""Scores over λ, tilted beside trained: which models are compared, and where they are said to differ."""

import math
from typing import Any

import pytest
from scipy.stats import t

from db.results import Contender, MeasuredTrial
from survey_app.dashboard.exhibits import Figure, svg
from survey_app.dashboard.tilting import exhibits, score_points


def contender(arm: str, rebalancing: float | None, accuracy: float, psnr: float = 20.0, **options: Any) -> Contender:
    """With a standard error of 0.01 of its bin accuracy, and none of its PSNR where that is unknown."""
    scores = {"bin_accuracy": accuracy, "psnr_db": psnr}
    errors = {"bin_accuracy": 0.01, "psnr_db": 0.5}
    trial = MeasuredTrial(1, 1, {}, 0, 4, 100, 1.0, 1.0, {"validation": scores}, {"validation": errors}, {}, (), None)
    return Contender(1, arm, False, rebalancing, {"decoding": "annealed_mean", "temperature": 0.38} | options, trial)


def arms(trained_half: float) -> list[Contender]:
    """Tilted by 0.5 bin accuracy is 10 %, trained with λ = 0.5 it is as given."""
    tilted: dict[str, Any] = {"renders": "plain"}
    return [
        contender("regression", None, 0.2, kind="regression"),
        contender("trained", 0.5, trained_half, kind="classification"),
        contender("plain", 1.0, 0.22, kind="classification"),
        contender("a half", 0.5, 0.1, **tilted),
        contender("a quarter", 0.25, 0.05, 19.0, **tilted),
        contender("sharp", 0.5, 0.1, 18.0, **tilted, temperature=0.2),
        contender("coarse", 1.0, 0.3, kind="classification", coarse=[5]),
    ]


def test_only_what_differs_in_lambda_is_compared() -> None:
    points = score_points(arms(0.14))
    assert set(points["score"]) == {"bin accuracy (%)", "PSNR (dB)"}
    for score, series in points.groupby("score"):
        found = {of: list(zip(rows["λ"], rows["model"], strict=True)) for of, rows in series.groupby("λ is of")}
        expected = {
            "tilted": [(0.25, "a quarter"), (0.5, "a half"), (1.0, "plain")],
            "trained": [(0.5, "trained"), (1.0, "plain")],
        }
        # Bins are of the likeliest entry, which no temperature changes.
        assert found == expected | ({"tilted, T = 0.2": [(0.5, "sharp")]} if score == "PSNR (dB)" else {})
    of_half = points[points["model"] == "a half"].set_index("score")
    assert of_half["value"].to_dict() == {"bin accuracy (%)": pytest.approx(10.0), "PSNR (dB)": 20.0}
    assert of_half["limit"]["bin accuracy (%)"] == pytest.approx(t.ppf(0.975, 19), abs=1e-3)


LIMIT = math.sqrt(2) * t.ppf(0.975, 19) * 0.01  # of a difference between two accuracies


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (
            1.01 * LIMIT,
            "Tilted less trained with the same λ, beyond their errors over images: bin accuracy (%) −2.99 at λ = 0.5. "
            "No difference beyond them in PSNR.",
        ),
        (0.99 * LIMIT, "Tilted and trained with the same λ differ in no score by more than their errors over images."),
    ],
)
def test_the_sentence_says_what_is_beyond_the_errors(difference: float, said: str) -> None:
    (figure,) = exhibits(arms(0.1 + difference))
    assert isinstance(figure, Figure)
    assert figure.note.startswith(said)
    assert "tilted, T = 0.2" in svg(figure)


def test_without_a_training_beside_the_tilts_nothing_is_said_of_one() -> None:
    (figure,) = exhibits([arm for arm in arms(0.1) if arm.arm != "trained"])
    assert isinstance(figure, Figure)
    assert figure.note.startswith("Bars: ")


def test_fewer_than_three_values_are_no_curve() -> None:
    assert exhibits([arm for arm in arms(0.1) if arm.arm != "a quarter"]) == []
    assert exhibits([]) == []
