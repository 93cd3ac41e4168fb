import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import nn

from platform.arms.compose import Task, compose
from platform.arms.options import BASELINES, ArmOptions
from platform.model.evaluation import evaluate_splits
from platform.model.hyperparameters import Optimizer, Schedule
from platform.model.muon import Muon, orthogonal
from platform.model.network import Colorizer, pixel_rows
from platform.model.training import (
    TrainingDiverged,
    build_model,
    learning_rate_factor,
    load_checkpoint,
    save_checkpoint,
    train,
)
from tests.contracts import HYPERPARAMETERS, drawn_colours, drawn_data

ARMS = {"regression": ArmOptions(kind="regression"), "classification": ArmOptions(kind="classification")}


def task_of(arm: str) -> Task:
    return compose(ARMS, arm, drawn_colours())


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_every_optimizer_learns_what_the_pictures_teach(arm: str, optimizer: Optimizer) -> None:
    rate = {"sgd": 0.1, "rmsprop": 5e-3}.get(optimizer, 1e-2)
    hyperparameters = replace(HYPERPARAMETERS, optimizer=optimizer, learning_rate=rate, epochs=6)
    reports = list(train(task_of(arm), hyperparameters, drawn_data()))
    assert [report.epoch for report in reports] == [1, 2, 3, 4, 5, 6]
    assert reports[-1].images_seen == 6 * 12 * 16
    baseline = evaluate_splits(compose(BASELINES, "most frequent bin", drawn_colours()), None, drawn_data())
    most_frequent = baseline["most frequent bin"]["validation"].values["bin_accuracy"]
    assert reports[-1].scores[arm]["validation"].values["bin_accuracy"] > most_frequent + 0.1
    assert reports[-1].loss < reports[0].loss


# Seen alike with one and two threads, and with the processor's newer instructions switched off.
GOLDEN = {
    "classification": {
        "loss": 1.7166,
        "exact_accuracy": 0.0116374,
        "bin_accuracy": 0.524984,
        "balanced_bin_accuracy": 0.325831,
        "information": 0.349525,
        "raw_auc": 0.963447,
        "rebalanced_auc": 0.957664,
        "psnr_db": 31.054,
        "delta_e_2000": 4.60729,
        "colourfulness_ratio": 0.999434,
    },
    "tilted 0.5": {"raw_auc": 0.969827, "psnr_db": 33.0476, "delta_e_2000": 3.84609, "colourfulness_ratio": 1.02098},
}


def test_golden_run_of_a_fixed_seed_gives_fixed_scores() -> None:
    """Whoever changes what a seed gives, data, loss, training or scores, has to say so here and in the changelog."""
    arms = {"classification": ARMS["classification"], "tilted 0.5": ArmOptions(renders="classification", tilt=0.5)}
    *_, report = train(compose(arms, "classification", drawn_colours()), HYPERPARAMETERS, drawn_data())
    assert report.loss == pytest.approx(1.680912, rel=1e-4)
    for arm, expected in GOLDEN.items():
        found = report.scores[arm]["validation"].values
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-3)


def test_muon_steps_along_the_nearest_orthogonal_matrix() -> None:
    """Against the singular value decomposition: the same singular vectors, all singular values near 1."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((8, 36), (36, 8)):
        gradient = torch.randn(shape, generator=generator)
        left, _, right = torch.linalg.svd(gradient, full_matrices=False)
        found = left.T @ orthogonal(gradient) @ right.T
        assert float((found - torch.diag(found.diag())).abs().max()) < 1e-4
        assert 0.5 < float(found.diag().min()) <= float(found.diag().max()) < 1.3


def test_muon_leaves_what_the_loss_does_not_depend_on() -> None:
    used, unused = (torch.ones(2, 3, requires_grad=True) for _ in range(2))
    used.sum().backward()
    Muon([used, unused], lr=0.1).step()
    assert not torch.equal(used, torch.ones(2, 3))
    assert torch.equal(unused, torch.ones(2, 3))


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_every_optimizer_goes_on_from_its_state(tmp_path: Path, optimizer: Optimizer) -> None:
    hyperparameters = replace(HYPERPARAMETERS, optimizer=optimizer, schedule="cosine")
    task = task_of("classification")
    losses = []
    for report in train(task, hyperparameters, drawn_data()):
        losses.append(report.loss)
        if report.epoch == 1:
            save_checkpoint(tmp_path / "1.pt", report.checkpoint)
    resumed = train(task, hyperparameters, drawn_data(), resume=load_checkpoint(tmp_path / "1.pt"))
    assert [report.loss for report in resumed] == losses[1:]


def test_a_checkpoint_of_another_training_is_refused() -> None:
    report = next(train(task_of("classification"), HYPERPARAMETERS, drawn_data()))
    for task, hyperparameters in (
        (task_of("classification"), replace(HYPERPARAMETERS, seed=9)),
        (task_of("regression"), HYPERPARAMETERS),
    ):
        with pytest.raises(ValueError, match="another training"):
            next(train(task, hyperparameters, drawn_data(), resume=report.checkpoint))


@pytest.mark.parametrize("arm", ARMS)
def test_divergence_ends_the_trial_with_its_reason(arm: str) -> None:
    with pytest.raises(TrainingDiverged, match=r"the loss became (nan|inf) in epoch 1"):
        list(train(task_of(arm), replace(HYPERPARAMETERS, optimizer="sgd", learning_rate=1e30), drawn_data()))


def test_pictures_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="depth 5 needs pictures whose sides divide by 32"):
        next(train(task_of("regression"), replace(HYPERPARAMETERS, depth=5), drawn_data()))


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_schedules_rise_to_the_highest_rate_and_end_at_zero(schedule: Schedule) -> None:
    factors = [learning_rate_factor(schedule, step / 1000) for step in range(1, 1001)]
    top = factors.index(max(factors))
    assert max(factors) == pytest.approx(1, abs=1e-3)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] == pytest.approx(0, abs=1e-9)
    assert top == pytest.approx(50 if schedule == "cosine" else 300, abs=2)
    assert math.isfinite(learning_rate_factor(schedule, 1e-9))


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_training_of_one_step_changes_its_weights(schedule: Schedule) -> None:
    task, images = task_of("classification"), len(drawn_data().train_images)
    hyperparameters = replace(HYPERPARAMETERS, batch_size=images, epochs=1, schedule=schedule)
    [report] = train(task, hyperparameters, drawn_data())
    first = dict(build_model(task, hyperparameters).named_parameters())
    assert not torch.equal(report.checkpoint["model"]["head.weight"], first["head.weight"])


@pytest.mark.parametrize("filter_size", [3, 5, 7])
@pytest.mark.parametrize("width", [1, 8, 16, 32])
def test_the_stem_starts_as_the_cosine_transform_of_a_neighbourhood(filter_size: int, width: int) -> None:
    model = Colorizer(partial(nn.Linear, out_features=2), filter_size=filter_size, width=width, depth=1)
    filters = model.stem.get_parameter("0.weight").detach()[:, 0]
    pairs = min(width // 2, 9)
    assert torch.equal(filters[:pairs], -filters[pairs : 2 * pairs])
    coefficients = np.eye(9).reshape(9, 3, 3)  # patterns from slow to fast, each with its mirror image beside it
    patterns = torch.tensor(dctn(coefficients, type=3, axes=(1, 2), norm="ortho")[[0, 1, 3, 4, 2, 6, 5, 7, 8]])
    rim = (filter_size - 3) // 2
    inner = filters[:pairs, rim : filter_size - rim, rim : filter_size - rim].double()
    gains = inner.flatten(1).norm(dim=1)
    assert torch.allclose(inner / gains[:, None, None], patterns[:pairs], atol=1e-6)
    assert float(filters[:pairs].abs().sum()) == pytest.approx(float(inner.abs().sum()), rel=1e-6)
    assert gains.tolist() == sorted(gains.tolist())  # the less a pattern varies in photographs, the more it is raised


@pytest.mark.parametrize("filter_size", [3, 5, 7])
@pytest.mark.parametrize(("width", "depth"), [(8, 1), (16, 3)])
def test_models_keep_the_picture_size(filter_size: int, width: int, depth: int) -> None:
    model = Colorizer(partial(nn.Linear, out_features=167), filter_size=filter_size, width=width, depth=depth)
    features = model(torch.rand(2, 1, 32, 16) * 100)
    assert features.shape == (2, width, 32, 16)
    rows = pixel_rows(features)
    assert rows.shape == (2 * 32 * 16, width)
    assert torch.equal(rows[32 * 16 + 3 * 16 + 5], features[1, :, 3, 5])  # image 1, row 3, column 5
