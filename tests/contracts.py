"""What every palette and every arm must hold. A new one inherits its contract:

class TestMyPalette(PaletteContract):
    palette = staticmethod(lambda: my_palette())


class TestMyArm(ClassificationContract):
    arms: ClassVar = {"mine": ArmOptions(kind="classification", my_option=3)}
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from platform.arms.compose import Task, compose
from platform.arms.options import ArmOptions, trained_arms
from platform.color.counts import ColourCounts, count_colours
from platform.color.lab import rgb_to_lab
from platform.color.palettes import BINS, CELL, COLOURS, Palette, ab_to_bin, all_colours, decode, reachable_colours
from platform.data.datasets import Dataset
from platform.model.hyperparameters import Hyperparameters
from platform.model.training import load_checkpoint, save_checkpoint, train

# float32 everywhere, so that the numbers are the same on every processor that the tests meet.
HYPERPARAMETERS = Hyperparameters(learning_rate=3e-3, epochs=3, width=8, depth=2, batch_size=16, precision="float32")


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw 16x16 pictures whose colour follows from their lightness: bright is bluish, dark is reddish."""
    generator = np.random.default_rng(seed)
    light = generator.uniform(30, 220, (count, 1, 1, 1)) + generator.normal(0, 12, (count, 16, 16, 1))
    tint = (light - 128) / 128 * np.array([-45.0, 0.0, 45.0])
    labels = (light.mean((1, 2, 3)) > 125).astype(np.int64)
    return np.ascontiguousarray(np.clip(light + tint, 0, 255).astype(np.uint8)), labels


@cache
def drawn_data() -> Dataset:
    train_images, train_labels = pictures(200, 0)
    tuning_images, tuning_labels = pictures(24, 2)
    validation_images, validation_labels = pictures(48, 1)
    return Dataset(
        name="drawn",
        class_names=("dark", "bright"),
        train_images=train_images,
        train_labels=train_labels,
        tuning_images=tuning_images,
        tuning_labels=tuning_labels,
        validation_images=validation_images,
        validation_labels=validation_labels,
        note="drawn",
    )


def colours_of(data: Dataset) -> ColourCounts:
    return count_colours(data.train_images, data.train_labels, len(data.class_names))


@cache
def drawn_colours() -> ColourCounts:
    return colours_of(drawn_data())


def dense(palette: Palette, entries: Tensor, weights: Tensor) -> Tensor:
    """Soft labels over all entries, (pixels, Q)."""
    return torch.zeros(len(entries), len(palette.centers), dtype=weights.dtype).scatter_add_(1, entries, weights)


class PaletteContract:
    palette: Callable[[], Palette]
    sigma = 5.0  # Lab units, of its soft labels
    own_is_nearest = True  # among colours that sRGB has

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls) -> Palette:
        return cls.palette()

    def test_tables_name_every_colour(self, made: Palette) -> None:
        assert made.entries.shape == made.weights.shape
        assert made.entries.shape[0] == COLOURS
        assert int(made.entries.min()) >= 0
        assert int(made.entries.max()) < len(made.centers)
        assert made.bins.tolist() == ab_to_bin(made.centers).tolist()

    def test_weights_sum_to_one(self, made: Palette) -> None:
        assert (made.weights >= 0).all()
        torch.testing.assert_close(made.weights.sum(1), torch.ones(COLOURS))

    def test_own_entry_is_first_and_none_is_heavier(self, made: Palette) -> None:
        assert torch.equal(made.own_entry(all_colours()), made.entries[:, 0])
        lighter = made.weights.amax(1) - dense(made, made.entries, made.weights).gather(1, made.entries[:, :1])[:, 0]
        assert float(lighter.max()) <= 1e-6

    def test_own_entry_is_the_nearest_by_brute_force(self, made: Palette) -> None:
        if not self.own_is_nearest:
            pytest.skip("this palette names colours by another rule")
        colours = all_colours().double()[reachable_colours()]
        distance = torch.cdist(colours, made.centers.double())
        own = distance.gather(1, made.entries[reachable_colours(), :1])[:, 0]
        torch.testing.assert_close(own, distance.amin(1), rtol=0, atol=1e-4)  # the centres are float32

    def test_weights_are_gaussian_in_the_distance(self, made: Palette) -> None:
        chosen = torch.randint(COLOURS, (500,), generator=torch.Generator().manual_seed(0))
        for colour in chosen.tolist():
            ab, there = all_colours()[colour].double().numpy(), made.weights[colour] > 0
            centers = made.centers[made.entries[colour, there]].double().numpy()
            expected = np.exp(-((centers - ab) ** 2).sum(1) / (2 * self.sigma**2))
            if expected.sum() > 1e-250:
                found = made.weights[colour, there].numpy()
                assert found == pytest.approx(expected / expected.sum(), rel=1e-4, abs=1e-7)

    def test_a_one_hot_is_decoded_to_its_centre(self, made: Palette) -> None:
        logits = torch.full((len(made.centers), len(made.centers)), -1e4).fill_diagonal_(0.0)
        for temperature in (0, 0.38, 1):
            torch.testing.assert_close(decode(logits, made.centers, temperature), made.centers, rtol=1e-5, atol=1e-4)

    def test_mean_soft_label_and_rarity_follow_from_the_pixels(self, made: Palette) -> None:
        ab = rgb_to_lab(torch.tensor(drawn_data().train_images))[..., 1:].reshape(-1, 2)
        colours = drawn_colours()
        by_pixel = dense(made, *made.soft_labels(ab)).double().mean(0)
        mean = colours.mean_soft_label(made)
        torch.testing.assert_close(mean, by_pixel, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(
            colours.share(made), torch.bincount(made.own_entry(ab), minlength=len(mean)).double() / len(ab)
        )
        assert torch.equal(colours.rarity_weights(made, 1.0).float(), torch.ones(len(mean)))
        for rebalancing in (0.0, 0.5):
            raw = 1 / ((1 - rebalancing) * mean + rebalancing / made.size)
            seen = raw.isfinite()
            weights = colours.rarity_weights(made, rebalancing)
            assert float(mean @ weights) == pytest.approx(1)
            torch.testing.assert_close(weights[seen], (raw / (mean @ raw.masked_fill(~seen, 0)))[seen])


class ArmContract:
    """Of a trained arm and all that render it. A kind of loss adds what a perfect prediction is and costs."""

    arms: ClassVar[Mapping[str, ArmOptions]]

    @pytest.fixture(scope="class")
    @classmethod
    def task(cls) -> Task:
        [name] = trained_arms(cls.arms)
        return compose(cls.arms, name, drawn_colours())

    def perfect(self, task: Task, ab: Tensor) -> Tensor:
        """What the head should give for the true ab (n, height, width, 2): (pixels, outputs)."""
        raise NotImplementedError

    def floor(self, task: Task, ab: Tensor) -> float:
        """The loss of that."""
        raise NotImplementedError

    def test_loss_is_at_its_floor_for_a_perfect_prediction(self, task: Task) -> None:
        ab = rgb_to_lab(torch.tensor(drawn_data().validation_images))[..., 1:]
        assert task.loss is not None
        floor = self.floor(task, ab)
        assert float(task.loss(identity(task), self.perfect(task, ab), ab)) == pytest.approx(floor, rel=1e-4, abs=1e-6)
        worse = self.perfect(task, ab) + torch.randn(ab[..., 0].numel(), task.outputs) * 0.3
        assert float(task.loss(identity(task), worse, ab)) > floor

    def test_gradients_by_finite_differences(self, task: Task) -> None:
        assert task.objective is not None
        generator = torch.Generator().manual_seed(0)
        head = task.make_head(3).double()
        rows = torch.randn(8, 3 + task.classes, generator=generator, dtype=torch.float64)
        if task.classes:  # then the place, a number rounded down
            rows = torch.cat((rows, torch.arange(8.0, dtype=torch.float64)[:, None] + 0.5), dim=1)
        rows.requires_grad_()
        names, weights = zip(*head.named_parameters(), strict=True)
        ab = rgb_to_lab(torch.tensor(drawn_data().train_images[:2, :2, :2]))[..., 1:].double()
        assert torch.autograd.gradcheck(
            lambda x, *given: task.objective(with_weights(head, dict(zip(names, given, strict=True))), x, ab),  # type: ignore[misc]
            (rows, *weights),
            atol=1e-4,
        )

    def test_a_seed_fixes_the_result(self, task: Task) -> None:
        first = numbers(task)
        torch.manual_seed(123)  # what ran before in the same process does not matter
        torch.rand(10)
        assert numbers(task) == first
        assert numbers(task, seed=1) != first

    def test_a_resumed_training_is_an_uninterrupted_one(self, task: Task, tmp_path: Path) -> None:
        uninterrupted = []
        for report in train(task, HYPERPARAMETERS, drawn_data()):
            uninterrupted.append((report.epoch, report.images_seen, report.loss, report.scores))
            save_checkpoint(tmp_path / f"{report.epoch}.pt", report.checkpoint)
        for epoch in (1, 2, 3):
            resume = load_checkpoint(tmp_path / f"{epoch}.pt")
            resumed = train(task, HYPERPARAMETERS, drawn_data(), resume=resume)
            found = [(report.epoch, report.images_seen, report.loss, report.scores) for report in resumed]
            assert found == uninterrupted[epoch:]

    def test_readings_are_colours_and_say_how_they_were_read(self, task: Task) -> None:
        assert set(task.readings) == set(self.arms)
        rows = 30 * torch.randn(5000, task.outputs, generator=torch.Generator().manual_seed(0))
        truth = 100 * torch.rand(5000, 2) - 50
        for reading in task.readings.values():
            found = reading.read(rows, truth)
            assert found.ab.shape == (5000, 2)
            assert found.ab.isfinite().all()
            assert int(found.bins.min()) >= 0
            assert int(found.bins.max()) < BINS
            if found.log_probability is not None:
                assert found.log_probability.isfinite().all()
                assert (found.log_probability <= 1e-5).all()


class RegressionContract(ArmContract):
    def perfect(self, task: Task, ab: Tensor) -> Tensor:
        return ab.reshape(-1, 2) / CELL

    def floor(self, task: Task, ab: Tensor) -> float:
        return 0.0


class ClassificationContract(ArmContract):
    def perfect(self, task: Task, ab: Tensor) -> Tensor:
        return self._labels(task, ab).clamp_min(1e-30).log()

    def floor(self, task: Task, ab: Tensor) -> float:
        """The entropy of the soft labels, each weighted by the rarity of its own entry."""
        assert task.palette is not None
        options = next(iter(options for options in self.arms.values() if options.kind is not None))
        rarity = drawn_colours().rarity_weights(task.palette, options.rebalancing)[task.palette.own_entry(ab)]
        return float((rarity * torch.special.entr(self._labels(task, ab).double()).sum(1)).mean())

    @staticmethod
    def _labels(task: Task, ab: Tensor) -> Tensor:
        assert task.palette is not None
        return dense(task.palette, *task.palette.soft_labels(ab))


def identity(task: Task) -> nn.Module:
    """A head that gives the features themselves."""
    head = nn.Linear(task.outputs, task.outputs)
    return with_weights(head, {"weight": torch.eye(task.outputs), "bias": torch.zeros(task.outputs)})


def with_weights(head: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A head whose weights are these very tensors, also where one is no Parameter."""
    for name, weight in weights.items():
        path, _, last = name.rpartition(".")
        module = head.get_submodule(path)
        if last in module._parameters:
            del module._parameters[last]
        setattr(module, last, weight)
    return head


def numbers(task: Task, seed: int = 0) -> list[tuple[float, object]]:
    hyperparameters = replace(HYPERPARAMETERS, seed=seed, epochs=1)
    return [(report.loss, report.scores) for report in train(task, hyperparameters, drawn_data())]
