import io

import numpy as np
import pytest
import torch
from PIL import Image

from platform.arms.compose import compose
from platform.arms.options import BASELINES, ArmOptions
from platform.color.lab import lab_to_rgb, rgb_to_lab
from platform.model.evaluation import evaluate_splits
from platform.model.training import build_model
from platform.paint.samples import choose_sample_indices, encode_truths, paint_samples
from tests.contracts import HYPERPARAMETERS, drawn_colours, drawn_data

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_samples_are_balanced_over_classes_and_fixed() -> None:
    labels = np.random.default_rng(1).integers(0, 10, 500)
    chosen = choose_sample_indices(labels, 40)
    assert len(set(chosen)) == 40
    assert np.bincount(labels[chosen]).tolist() == [4] * 10
    assert choose_sample_indices(labels, 40) == chosen
    assert choose_sample_indices(labels, 10) == chosen[:10]


def test_a_small_class_runs_out_and_a_small_split_is_taken_whole() -> None:
    labels = np.array([0, 0, 0, 1])
    assert choose_sample_indices(labels, 3) == [0, 3, 1]
    assert sorted(choose_sample_indices(labels, 99)) == [0, 1, 2, 3]


def test_truth_is_lossless_after_lab_and_back() -> None:
    for image, png in zip(IMAGES, encode_truths(IMAGES), strict=True):
        assert np.array_equal(decoded(png), lab_to_rgb(rgb_to_lab(torch.tensor(image))).numpy())


def test_grey_has_the_lightness_and_no_colour() -> None:
    painted = paint_samples(compose(BASELINES, "grey", drawn_colours()), None, IMAGES)["grey"]
    for image, picture in zip(IMAGES, painted, strict=True):
        lab = rgb_to_lab(torch.tensor(decoded(picture.png)))
        assert np.ptp(decoded(picture.png).astype(int), axis=-1).max() <= 1  # the matrices' white is not quite neutral
        assert (lab[..., 0] - rgb_to_lab(torch.tensor(image))[..., 0]).abs().max() < 0.3  # 8 bits of grey


def test_files_of_truth_and_colourization_have_the_same_form() -> None:
    task = compose({"arm": ArmOptions(kind="classification")}, "arm", drawn_colours())
    pictures = paint_samples(task, build_model(task, HYPERPARAMETERS).eval(), IMAGES)["arm"]
    for truth, fake in zip(encode_truths(IMAGES), (picture.png for picture in pictures), strict=True):
        opened = [Image.open(io.BytesIO(png)) for png in (truth, fake)]
        assert [(image.mode, image.size, image.info) for image in opened] == [("RGB", (16, 16), {})] * 2
        assert chunk_names(truth) == chunk_names(fake) == [b"IHDR", b"IDAT", b"IEND"]


def test_the_mean_of_the_pictures_scores_is_the_arms_score() -> None:
    task, images = compose(BASELINES, "most frequent bin", drawn_colours()), drawn_data().validation_images
    [pictures] = paint_samples(task, None, images).values()
    [scores] = evaluate_splits(task, None, drawn_data()).values()
    mean = np.mean([picture.scores["delta_e_2000"] for picture in pictures])
    assert mean == pytest.approx(scores["validation"].values["delta_e_2000"], rel=1e-5)


def chunk_names(png: bytes) -> list[bytes]:
    names, position = [], 8
    while position < len(png):
        length = int.from_bytes(png[position : position + 4], "big")
        names.append(png[position + 4 : position + 8])
        position += 12 + length
    return names
