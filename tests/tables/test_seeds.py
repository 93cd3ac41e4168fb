"""What is said of replicates, against figures worked out another way."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from platform.color.scores import SCORES
from platform.tables.seeds import paired_difference, seed_tables

SEEDS = {"regression": [25.1, 25.4, 25.2], "classification": [25.6, 25.5, 25.9]}


def scores_of(values: dict[str, list[float]], name: str = "psnr_db") -> dict[str, dict[int, dict[str, float]]]:
    return {arm: {3 + place: {name: value} for place, value in enumerate(of)} for arm, of in values.items()}


def test_means_deviations_and_paired_differences() -> None:
    means, differences = seed_tables(scores_of(SEEDS))
    heading = SCORES["psnr_db"].heading
    shown = means.text().set_index("model")
    assert shown.loc["regression", heading] == "25.23 ± 0.15"  # by hand: 75.7 / 3, sqrt(0.0467 / 2)
    assert shown.loc["regression", "seeds"] == "3"
    each = np.subtract(SEEDS["classification"], SEEDS["regression"])
    half = t.ppf(0.975, 2) * each.std(ddof=1) / math.sqrt(3)
    row = differences.frame.set_index("model").loc["classification"]
    assert row[heading] == pytest.approx(each.mean())
    assert row[f"{heading}, 95 % from"] == pytest.approx(each.mean() - half)
    assert row[f"{heading}, 95 % to"] == pytest.approx(each.mean() + half)
    assert str(differences.text().iloc[0, 1]).startswith("+0.43 (")


def test_one_seed_is_no_table_and_what_only_one_arm_has_is_no_difference() -> None:
    assert seed_tables({}) == []
    assert seed_tables(scores_of({arm: values[:1] for arm, values in SEEDS.items()})) == []
    only = scores_of({"regression": SEEDS["regression"]}) | scores_of({"classification": [0.2, 0.3]}, "information")
    [means] = seed_tables(only)
    assert means.text().set_index("model").loc["regression", SCORES["information"].heading] == "–"


def test_seeds_that_only_one_has_are_left_out_and_equal_differences_have_no_width() -> None:
    of, reference = ({3: {"psnr_db": 2.0}, 4: {"psnr_db": 3.0}, 5: {"psnr_db": 9.0}}, {3: {"psnr_db": 1.0}})
    assert paired_difference(of, reference, "psnr_db") is None
    reference |= {4: {"psnr_db": 2.0}, 6: {"psnr_db": 0.0}}
    assert paired_difference(of, reference, "psnr_db") == (1.0, 1.0, 1.0)


@given(st.lists(st.tuples(*[st.floats(-1e3, 1e3, allow_subnormal=False)] * 2), min_size=2, max_size=6))
def test_a_difference_turned_round_is_its_negative(pairs: list[tuple[float, float]]) -> None:
    of, reference = ({place: {"x": pair[side]} for place, pair in enumerate(pairs)} for side in (0, 1))
    one, other = paired_difference(of, reference, "x"), paired_difference(reference, of, "x")
    assert one is not None
    assert other is not None
    assert np.allclose(one, [-value for value in (other[0], other[2], other[1])], atol=1e-6, rtol=1e-6)
    assert one[1] <= one[0] + 1e-9
    assert one[0] <= one[2] + 1e-9
