"""What runs in Ray's workers: one trial, and the files in its checkpoints. Imports little: each worker waits for it."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune

from platform.datasets import Dataset
from platform.samples import colorized_pngs
from platform.search import EPOCH, FAILURE, LOSS, PlannedTrial
from platform.training import (
    ColourStatistics,
    TrainingDiverged,
    load_checkpoint,
    load_model,
    save_checkpoint,
    train,
)

CHECKPOINT_FILE = "checkpoint.pt"
SAMPLES_FILE = "samples.npz"  # only after the last epoch: PNG bytes by index in the validation split


def run_trial(
    config: dict[str, Any], data: Dataset, statistics: ColourStatistics, samples: list[int], threads: int
) -> None:
    """Train one trial, from its checkpoint if it has one, reporting each epoch to Ray Tune.

    config: {"trial": a PlannedTrial as a dict}. samples: the images of the validation split to paint at the end.
    """
    torch.set_num_threads(threads)  # also decides in which order sums are taken, so it is part of what a seed fixes
    run = PlannedTrial.from_dict(config["trial"]).run
    resume = None
    if (checkpoint := tune.get_checkpoint()) is not None:
        with checkpoint.as_directory() as name:
            resume = load_checkpoint(Path(name) / CHECKPOINT_FILE)
    try:
        for report in train(run, data, statistics, resume=resume):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                save_checkpoint(folder / CHECKPOINT_FILE, report.checkpoint)
                if report.epoch == run.epochs and samples:
                    _, model = load_model(report.checkpoint, torch.device("cpu"))
                    pngs = colorized_pngs(run, model, data.validation_images[samples])
                    write_samples(folder, dict(zip(samples, pngs, strict=True)))
                metrics = {
                    EPOCH: report.epoch,
                    LOSS: report.validation.scores["loss"],
                    "images_seen": report.images_seen,
                    "seconds": report.seconds,
                    "device": report.device,
                    "train": report.train.scores,
                    "validation": report.validation.scores,
                    "train_class_bin_accuracy": report.train.class_bin_accuracy,
                    "validation_class_bin_accuracy": report.validation.class_bin_accuracy,
                }
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
    except TrainingDiverged as error:
        # Reported, not raised: it would diverge again, so Ray must not try again.
        tune.report({FAILURE: f"diverged: {error}"})


def write_samples(folder: Path, pngs: dict[int, bytes]) -> None:
    """Put PNG bytes, by index in the validation split, into a checkpoint's folder."""
    arrays = {str(index): np.frombuffer(png, np.uint8) for index, png in pngs.items()}
    np.savez(folder / SAMPLES_FILE, allow_pickle=False, **arrays)


def read_samples(checkpoint: tune.Checkpoint) -> dict[int, bytes]:
    """The PNG bytes in a finished trial's checkpoint, by index in the validation split."""
    with checkpoint.as_directory() as folder, np.load(Path(folder) / SAMPLES_FILE, allow_pickle=False) as arrays:
        return {int(index): arrays[index].tobytes() for index in arrays.files}
