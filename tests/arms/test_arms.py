from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from platform.arms.compose import compose
from platform.arms.options import (
    BASELINES,
    ArmOptions,
    CriticOptions,
    KMeans,
    SegmentPrior,
    TablePrior,
    describe_decoding,
    rebalancing_of,
)
from platform.color.counts import places
from platform.color.lab import rgb_to_lab
from platform.color.palettes import ab_to_bin, bin_centers, grid_palette
from platform.model.evaluation import evaluate_splits
from platform.model.training import train
from tests.contracts import (
    HYPERPARAMETERS,
    ClassificationContract,
    RegressionContract,
    drawn_colours,
    drawn_data,
    numbers,
)

CLASSIFICATION = ArmOptions(kind="classification")
REBALANCED = ArmOptions(kind="classification", rebalancing=0.5)


class TestRegression(RegressionContract):
    arms: ClassVar = {"regression": ArmOptions(kind="regression")}


class TestClassification(ClassificationContract):
    arms: ClassVar = {"classification": CLASSIFICATION}


class TestWholeGridAndWiderLabels(ClassificationContract):
    arms: ClassVar = {"wide": ArmOptions(kind="classification", palette="grid", soft_label_sigma=8.0, decoding="mean")}


class TestRebalanced(ClassificationContract):
    arms: ClassVar = {"rebalanced": REBALANCED}


class TestKMeans(ClassificationContract):
    arms: ClassVar = {"k-means": ArmOptions(kind="classification", palette=KMeans(16), rebalancing=0.5)}


class TestSegments(ClassificationContract):
    arms: ClassVar = {
        "segments": ArmOptions(kind="classification", prior=SegmentPrior(8), rebalancing=0.5),
        "tilted": ArmOptions(renders="segments", tilt=0.5),
    }


class TestTablePrior(ClassificationContract):
    arms: ClassVar = {"table": ArmOptions(kind="classification", prior=TablePrior(0.01), rebalancing=0.5)}


class TestAdversarialRegression(RegressionContract):
    arms: ClassVar = {"gan": ArmOptions(kind="regression", adversarial=0.3)}


class TestAdversarialClassification(ClassificationContract):
    arms: ClassVar = {"gan": ArmOptions(kind="classification", adversarial=0.3, critic=CriticOptions(0, 4))}


class TestTilted(ClassificationContract):
    arms: ClassVar = {
        "classification": CLASSIFICATION,
        "tilted": ArmOptions(renders="classification", tilt=0.5),
        "more": ArmOptions(renders="classification", tilt=0.0),
        "likeliest": ArmOptions(renders="classification", decoding="mode"),
        "colder": ArmOptions(renders="classification", temperature=0.2),
    }


def test_a_tilt_adds_the_logarithm_of_the_weights_and_a_tilt_of_one_changes_nothing() -> None:
    arms = {"plain": CLASSIFICATION, **{str(tilt): ArmOptions(renders="plain", tilt=tilt) for tilt in (1.0, 0.5)}}
    task = compose(arms, "plain", drawn_colours())
    assert task.palette is not None
    logits = 4 * torch.randn(200, task.outputs, generator=torch.Generator().manual_seed(0))
    plain, unchanged, tilted = (task.readings[name].read(logits, None) for name in ("plain", "1.0", "0.5"))
    torch.testing.assert_close(unchanged.ab, plain.ab, rtol=1e-5, atol=1e-4)
    assert torch.equal(unchanged.bins, plain.bins)
    weights = drawn_colours().rarity_weights(task.palette, 0.5).float()
    by_product = logits.softmax(1) * weights  # the tilted distribution, but for its sum
    annealed = by_product ** (1 / 0.38)
    expected = annealed @ task.palette.centers / annealed.sum(1, keepdim=True)
    torch.testing.assert_close(tilted.ab, expected, rtol=1e-4, atol=1e-2)
    assert torch.equal(tilted.bins, task.palette.bins[by_product.argmax(1)])


def test_a_rendering_decodes_as_it_says() -> None:
    arms = {
        "plain": CLASSIFICATION,
        "mean": ArmOptions(renders="plain", decoding="mean"),
        "warm": ArmOptions(renders="plain", temperature=1.0),
        "cold": ArmOptions(renders="plain", temperature=0.05),
        "mode": ArmOptions(renders="plain", decoding="mode"),
    }
    task = compose(arms, "plain", drawn_colours())
    logits = 20 * torch.randn(200, task.outputs, generator=torch.Generator().manual_seed(0))
    ab = {name: reading.read(logits, None).ab for name, reading in task.readings.items()}
    torch.testing.assert_close(ab["warm"], ab["mean"])
    assert float((ab["cold"] - ab["mode"]).norm(dim=1).median()) < 0.01
    assert not torch.allclose(ab["plain"], ab["mean"], atol=0.1)
    assert describe_decoding(arms["cold"], arms["plain"]) == "annealed mean at T = 0.05"


def test_no_rebalancing_trains_plain_classification() -> None:
    """λ = 1 leaves the weights out; weights of one, spelt out, must give the same training. With p̄ uniform every w is
    1."""
    plain = numbers(compose({"arm": CLASSIFICATION}, "arm", drawn_colours()))
    palette = grid_palette()
    task = compose({"arm": ArmOptions(kind="classification", rebalancing=1 - 1e-12)}, "arm", drawn_colours())
    assert numbers(task)[0][0] == pytest.approx(plain[0][0], rel=1e-6)
    once = replace(drawn_colours(), counts=torch.ones(256 * 256, dtype=torch.int64))
    assert len(palette.centers) == compose({"arm": CLASSIFICATION}, "arm", once).outputs


def test_rendered_arms_are_evaluated_with_their_training() -> None:
    arms = {"plain": CLASSIFICATION, "tilted": ArmOptions(renders="plain", tilt=0.25)}
    [report, *_] = train(compose(arms, "plain", drawn_colours()), HYPERPARAMETERS, drawn_data())
    assert list(report.scores) == ["plain", "tilted"]
    plain, tilted = (report.scores[name] for name in arms)
    assert plain["tuning"] == tilted["tuning"]
    assert plain["tuning"].values == {"loss": report.loss}
    assert tilted["validation"].values["delta_e_2000"] != plain["validation"].values["delta_e_2000"]
    assert [rebalancing_of(arms, name) for name in arms] == [1.0, 0.25]


@pytest.mark.parametrize(
    ("trained", "rendering", "expected"),
    [
        (CLASSIFICATION, None, 1.0),
        (CLASSIFICATION, ArmOptions(renders="trained", decoding="mode"), 1.0),
        (CLASSIFICATION, ArmOptions(renders="trained", tilt=0.5), 0.5),
        (REBALANCED, None, 0.5),
        (REBALANCED, ArmOptions(renders="trained", temperature=0.2), 0.5),
        (REBALANCED, ArmOptions(renders="trained", tilt=0.25), None),
        (REBALANCED, ArmOptions(renders="trained", tilt=0.5), None),
        (ArmOptions(kind="regression"), None, None),
        (ArmOptions(kind="regression"), ArmOptions(renders="trained"), None),
        (BASELINES["grey"], None, None),
    ],
)
def test_an_arm_has_one_lambda_or_none(
    trained: ArmOptions, rendering: ArmOptions | None, expected: float | None
) -> None:
    """λ of the training or of the decoding; an arm with both is on no axis of λ, and its pictures say both."""
    arms = {"trained": trained} if rendering is None else {"trained": trained, "rendering": rendering}
    assert rebalancing_of(arms, [*arms][-1]) == expected


def test_information_is_the_entropy_of_training_bins_less_the_cross_entropy_of_the_true_bin() -> None:
    data, colours = drawn_data(), drawn_colours()
    arms = {"arm": CLASSIFICATION}
    task = compose(arms, "arm", colours)
    [report, *_] = train(task, HYPERPARAMETERS, data)
    ab = rgb_to_lab(torch.tensor(data.train_images))[..., 1:]
    share = np.bincount(ab_to_bin(ab).flatten().numpy(), minlength=400) / ab[..., 0].numel()
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    assert task.bin_entropy == pytest.approx(entropy)
    # Always giving the training bins' own shares is worth nothing, on the training pixels.
    grid = grid_palette(reachable=False)
    logits = torch.tensor(share).clamp_min(1e-30).log()[grid_palette().bins].float().expand(ab[..., 0].numel(), -1)
    found = task.readings["arm"].read(logits[:50_000], ab.reshape(-1, 2)[:50_000]).log_probability
    assert found is not None
    expected = np.log(share[grid.own_entry(ab).numpy()[:50_000]]).mean()
    assert float(found.mean()) == pytest.approx(expected, rel=1e-4)
    assert "information" in report.scores["arm"]["validation"].values


def test_another_palette_has_no_information_on_bins() -> None:
    arms = {"arm": ArmOptions(kind="classification", palette=KMeans(16))}
    [report, *_] = train(compose(arms, "arm", drawn_colours()), HYPERPARAMETERS, drawn_data())
    assert "information" not in report.scores["arm"]["validation"].values


def test_centres_that_were_found_before_are_taken() -> None:
    arms = {"arm": ArmOptions(kind="classification", palette=KMeans(16))}
    found = compose(arms, "arm", drawn_colours(), seed=3)
    assert found.palette is not None
    stored = found.palette.centers.tolist()
    again = compose(arms, "arm", drawn_colours(), seed=4, centers={"arm": stored})
    assert again.palette is not None
    assert torch.equal(again.palette.centers, found.palette.centers)


def test_baselines_are_their_constants_by_the_same_road() -> None:
    data, colours = drawn_data(), drawn_colours()
    ab = rgb_to_lab(torch.tensor(data.validation_images))[..., 1:]
    scores = {}
    for name in BASELINES:
        evaluated = evaluate_splits(compose(BASELINES, name, colours), None, data)
        assert set(evaluated[name]) == {"train", "validation"}
        scores[name] = evaluated[name]["validation"].values
    most_frequent = colours.share(grid_palette(reachable=False)).argmax()
    share = float((ab_to_bin(ab) == most_frequent).double().mean())
    assert scores["most frequent bin"]["bin_accuracy"] == pytest.approx(share)
    neutral = float((ab_to_bin(ab) == ab_to_bin(torch.zeros(2))).double().mean())
    assert scores["grey"]["bin_accuracy"] == pytest.approx(neutral)
    center = bin_centers()[most_frequent]
    exact = float((ab.round() == center.round()).all(-1).double().mean())
    assert scores["most frequent bin"]["exact_accuracy"] == pytest.approx(exact)
    assert "loss" not in scores["grey"]
    place = places(rgb_to_lab(torch.tensor(data.validation_images))[..., 0])
    known = colours.share_at_places()[torch.tensor(data.validation_labels)[:, None, None], place]
    right = ab_to_bin(ab)
    assert scores["by class and place"]["bin_accuracy"] == pytest.approx(
        float((known.argmax(-1) == right).double().mean())
    )
    entropy = float(torch.special.entr(colours.share(grid_palette(reachable=False))).sum())
    information = entropy + float(known.gather(-1, right[..., None]).log().mean())
    assert scores["by class and place"]["information"] == pytest.approx(information, abs=1e-5)
    assert scores["by class and place"]["bin_accuracy"] > 3 * share  # in these pictures colour follows from lightness
    assert scores["grey"]["colourfulness_ratio"] == pytest.approx(0, abs=0.01)
