import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from platform.color import BINS, ab_to_bin, bin_centers, bin_table, rgb_to_lab, soft_labels
from platform.datasets import Dataset
from platform.models import Colorizer, pixel_rows
from platform.training import (
    ColourStatistics,
    EpochReport,
    Run,
    TrainingDiverged,
    baselines,
    build_model,
    colour_statistics,
    learning_rate_factor,
    load_checkpoint,
    load_model,
    save_checkpoint,
    train,
)

Kind = Literal["regression", "classification"]
Optimizer = Literal["sgd", "adam", "adamw", "rmsprop"]
Schedule = Literal["cosine", "one_cycle"]

# float32 everywhere, so that the numbers are the same on every processor that the tests meet.
RUN = Run(kind="classification", learning_rate=3e-3, epochs=3, width=8, depth=2, batch_size=16, precision="float32")


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw 16x16 pictures whose colour follows from their lightness: bright is bluish, dark is reddish."""
    generator = np.random.default_rng(seed)
    light = generator.uniform(30, 220, (count, 1, 1, 1)) + generator.normal(0, 12, (count, 16, 16, 1))
    tint = (light - 128) / 128 * np.array([-45.0, 0.0, 45.0])
    labels = (light.mean((1, 2, 3)) > 125).astype(np.int64)
    return np.ascontiguousarray(np.clip(light + tint, 0, 255).astype(np.uint8)), labels


@pytest.fixture(scope="module")
def data() -> Dataset:
    train_images, train_labels = pictures(200, 0)
    validation_images, validation_labels = pictures(48, 1)
    return Dataset(
        "drawn", ("dark", "bright"), train_images, train_labels, validation_images, validation_labels, "0" * 64, "drawn"
    )


@pytest.fixture(scope="module")
def statistics(data: Dataset) -> ColourStatistics:
    return colour_statistics(data.train_images, 5.0, "reachable")


def reports(
    run: Run, data: Dataset, statistics: ColourStatistics, **options: object
) -> list[tuple[int, int, dict[str, float], dict[str, float]]]:
    return [summary(report) for report in train(run, data, statistics, device="cpu", **options)]  # type: ignore[arg-type]


def summary(report: EpochReport) -> tuple[int, int, dict[str, float], dict[str, float]]:
    return report.epoch, report.images_seen, report.train.scores, report.validation.scores


@pytest.mark.parametrize("kind", ["regression", "classification"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_every_optimizer_learns_what_the_pictures_teach(
    kind: Kind, optimizer: Optimizer, data: Dataset, statistics: ColourStatistics
) -> None:
    rate = {"sgd": 0.1, "rmsprop": 5e-3}.get(optimizer, 1e-2)
    run = replace(RUN, kind=kind, optimizer=optimizer, learning_rate=rate, epochs=6)
    epochs = reports(run, data, statistics)
    assert [epoch for epoch, *_ in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1][1] == 6 * 12 * 16
    most_frequent = baselines(data, statistics)["most frequent bin"][1].scores["bin_accuracy"]
    assert epochs[-1][3]["bin_accuracy"] > most_frequent + 0.1
    assert epochs[-1][3]["loss"] < epochs[0][3]["loss"]


@pytest.mark.parametrize("run", [RUN, replace(RUN, kind="regression", optimizer="sgd", schedule="cosine")])
def test_a_seed_fixes_the_result(run: Run, data: Dataset, statistics: ColourStatistics) -> None:
    first = reports(run, data, statistics)
    torch.manual_seed(123)  # what ran before in the same process does not matter
    torch.rand(10)
    assert reports(run, data, statistics) == first
    assert reports(replace(run, seed=1), data, statistics) != first


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_checkpoint_continues_exactly(
    optimizer: Optimizer, data: Dataset, statistics: ColourStatistics, tmp_path: Path
) -> None:
    run = replace(RUN, optimizer=optimizer, rebalancing=0.5)
    uninterrupted = []
    for report in train(run, data, statistics, device="cpu"):
        uninterrupted.append(summary(report))
        save_checkpoint(tmp_path / f"{report.epoch}.pt", report.checkpoint)
    for epoch in (1, 2, 3):
        checkpoint = load_checkpoint(tmp_path / f"{epoch}.pt")
        assert reports(run, data, statistics, resume=checkpoint) == uninterrupted[epoch:]


def test_a_checkpoint_of_another_run_is_refused(data: Dataset, statistics: ColourStatistics, tmp_path: Path) -> None:
    report = next(train(RUN, data, statistics, device="cpu"))
    save_checkpoint(tmp_path / "checkpoint.pt", report.checkpoint)
    with pytest.raises(ValueError, match="another run"):
        next(train(replace(RUN, seed=9), data, statistics, resume=load_checkpoint(tmp_path / "checkpoint.pt")))


def test_a_rebuilt_model_predicts_the_same(data: Dataset, statistics: ColourStatistics, tmp_path: Path) -> None:
    report = next(train(RUN, data, statistics, device="cpu"))
    save_checkpoint(tmp_path / "checkpoint.pt", report.checkpoint)
    run, model = load_model(load_checkpoint(tmp_path / "checkpoint.pt"), torch.device("cpu"))
    assert run == RUN
    original = build_model(RUN, torch.device("cpu"))
    original.load_state_dict(report.checkpoint["model"])
    lightness = torch.rand(2, 1, 16, 16) * 100
    assert torch.equal(model(lightness), original.eval()(lightness))


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_divergence_ends_the_trial_with_its_reason(kind: Kind, data: Dataset, statistics: ColourStatistics) -> None:
    run = replace(RUN, kind=kind, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match=r"the loss became (nan|inf) in epoch 1, after \d+ images"):
        list(train(run, data, statistics, device="cpu"))


def test_no_rebalancing_trains_plain_classification(data: Dataset, statistics: ColourStatistics) -> None:
    """λ = 1 leaves the weights out; weights of one, spelt out, must give the same training."""
    plain = reports(replace(RUN, epochs=1), data, statistics)
    uniform = ColourStatistics(
        torch.full((BINS,), 1 / BINS, dtype=torch.float64), statistics.bin_share, statistics.sigma, statistics.bins
    )
    # With p̄ uniform every w is 1, whatever λ.
    weighted = reports(replace(RUN, epochs=1, rebalancing=0.5), data, uniform)
    assert weighted[0][3]["loss"] == pytest.approx(plain[0][3]["loss"], rel=1e-6)


def test_colour_statistics_equal_a_plain_count(data: Dataset, statistics: ColourStatistics) -> None:
    ab = rgb_to_lab(torch.tensor(data.train_images))[..., 1:].reshape(-1, 2)
    counts = np.bincount(ab_to_bin(ab).numpy(), minlength=BINS)
    assert statistics.bin_share.numpy() == pytest.approx(counts / counts.sum())
    table = bin_table("reachable")
    outputs, weights = soft_labels(ab, table)
    dense = torch.zeros(len(ab), len(table.grid_bins)).scatter_add_(1, outputs, weights).double().mean(0)
    assert statistics.mean_soft_label[table.grid_bins].numpy() == pytest.approx(dense.numpy(), abs=1e-6)
    assert float(statistics.mean_soft_label.sum()) == pytest.approx(1)


def test_statistics_made_otherwise_are_refused(data: Dataset, statistics: ColourStatistics) -> None:
    with pytest.raises(ValueError, match="soft_label_sigma"):
        next(train(replace(RUN, soft_label_sigma=7.0), data, statistics))


def test_pictures_that_cannot_be_halved_are_refused(data: Dataset, statistics: ColourStatistics) -> None:
    with pytest.raises(ValueError, match="depth 5 needs pictures whose sides divide by 32"):
        next(train(replace(RUN, depth=5), data, statistics))


def test_baselines_are_their_constants(data: Dataset, statistics: ColourStatistics) -> None:
    ab = rgb_to_lab(torch.tensor(data.validation_images))[..., 1:]
    scores = {name: validation.scores for name, (_, validation) in baselines(data, statistics).items()}
    most_frequent = statistics.bin_share.argmax()
    assert scores["most frequent bin"]["bin_accuracy"] == pytest.approx(
        float((ab_to_bin(ab) == most_frequent).double().mean())
    )
    assert scores["grey"]["bin_accuracy"] == pytest.approx(
        float((ab_to_bin(ab) == ab_to_bin(torch.zeros(2))).double().mean())
    )
    center = bin_centers()[most_frequent]
    exact = (ab.round() == center.round()).all(-1).double().mean()
    assert scores["most frequent bin"]["exact_accuracy"] == pytest.approx(float(exact))


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_schedules_rise_to_the_highest_rate_and_end_at_zero(schedule: Schedule) -> None:
    factors = [learning_rate_factor(schedule, step / 1000) for step in range(1, 1001)]
    top = factors.index(max(factors))
    assert max(factors) == pytest.approx(1, abs=1e-3)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] == pytest.approx(0, abs=1e-9)
    assert top == pytest.approx(50 if schedule == "cosine" else 300, abs=2)


@pytest.mark.parametrize("filter_size", [3, 5, 7])
@pytest.mark.parametrize(("width", "depth"), [(8, 1), (16, 3)])
def test_models_keep_the_picture_size(filter_size: int, width: int, depth: int) -> None:
    model = Colorizer(167, filter_size=filter_size, width=width, depth=depth)
    features = model(torch.rand(2, 1, 32, 16) * 100)
    assert features.shape == (2, width, 32, 16)
    rows = pixel_rows(features)
    assert rows.shape == (2 * 32 * 16, width)
    assert torch.equal(rows[32 * 16 + 3 * 16 + 5], features[1, :, 3, 5])  # image 1, row 3, column 5


def test_learning_rate_is_finite_at_the_first_step() -> None:
    assert math.isfinite(learning_rate_factor("cosine", 1e-9))
