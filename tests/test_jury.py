"""The machine jury: what it can see, that it never judges what it has seen, and where its word stands."""

import numpy as np
import pytest
import torch

from platform import jury
from platform.color import rgb_to_lab
from tests.survey_data import photographs


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jury, "STEPS", 40)


def lab_pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    lab = rgb_to_lab(torch.from_numpy(np.stack(photographs(count)))).movedim(-1, 1)
    lightness, ab = lab.split((1, 2), dim=1)
    return lightness, ab


def test_acuities_halve_from_the_whole_picture_to_a_pixel() -> None:
    assert jury.acuities(32) == [32, 16, 8, 4, 1]
    assert jury.acuities(16) == [16, 8, 4, 1]


def test_a_jury_of_the_whole_picture_sees_its_mean_colour_and_no_texture() -> None:
    lightness, truth = lab_pictures(64)
    texture = truth + 30 * torch.tensor([1.0, -1.0]).repeat(8)[None, None, None, :]  # leaves the mean as it is
    tinted = truth + 40
    whole = jury.hold_jury(lightness, truth, torch.stack((texture, tinted)), [0, 1], 16)
    fine = jury.hold_jury(lightness, truth, torch.stack((texture, tinted)), [0, 1], 1)
    assert whole.picked[0] == pytest.approx(0.5, abs=1e-4)
    assert whole.picked[1].mean() < 0.3
    assert fine.picked.mean(axis=1).max() < 0.3
    assert fine.pair_accuracy > whole.pair_accuracy


def test_pictures_that_are_photographs_are_picked_half_of_the_time_and_the_same_input_gives_the_same() -> None:
    lightness, truth = lab_pictures(24)
    held = [jury.hold_jury(lightness, truth, truth[None], [0], 4) for _ in range(2)]
    assert held[0].pair_accuracy == 0.5
    assert np.array_equal(held[0].picked, np.full((1, 24), 0.5))
    assert held[0].fingerprint == held[1].fingerprint
    assert held[0].marks() == [(0.5, 0.0)]


def test_what_a_critic_has_seen_it_does_not_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that can be told apart by being remembered alone are not told apart."""
    monkeypatch.setattr(jury, "STEPS", 150)
    noise = torch.Generator().manual_seed(0)
    lightness = 100 * torch.rand(60, 1, 16, 16, generator=noise)
    truth, colourized = (40 * torch.randn(60, 2, 16, 16, generator=noise) for _ in range(2))
    held = jury.hold_jury(lightness, truth, colourized[None], [0], 1)
    assert 0.3 < held.pair_accuracy < 0.7


def test_the_finest_undecided_jury_counts() -> None:
    def held(acuity: int, pair_accuracy: float) -> jury.Jury:
        return jury.Jury(acuity, pair_accuracy, 1.0, np.zeros((1, 2)), "")

    assert jury.the_jury([held(32, 0.7), held(16, 0.84), held(8, 0.9)]).acuity == 16
    assert jury.the_jury([held(32, 0.9)]).acuity == 32
