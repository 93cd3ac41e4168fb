"""Models to take away: `python -m platform.export EXPERIMENT [--arm ARM] --to FOLDER`.

Each arm's best trial becomes a folder: weights (safetensors), its configuration and palette as JSON, a model card, and
`colour.py`, which colours photographs with them and without this project: it is `platform/paint/standalone.py`.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db.errors import UserError, run_command
from db.schema import StoredDataset, Study
from db.store import DATABASE_HELP, default_database, open_existing, read_session
from db.surveys.answers import StudyBlinded, load_answers
from db.surveys.study import studies_of
from db.sweeps.trials import Contender, ExperimentSummary, MeasuredTrial, experiment_progress
from platform.color.counts import ColourCounts
from platform.color.palettes import Palette
from platform.color.scores import SCORES
from platform.model.network import Colorizer
from platform.model.stored import finished_models, load_trial, name_file
from platform.paint import standalone
from platform.paint.photographs import SHORT_SIDE
from platform.tables.intervals import SIMULATED, wilson

CARD = """\
# {experiment}: {arm}

Colours grey photographs. A model of HueJury, which sweeps image-colourization models and lets people judge them.

## Data and training
{dataset}: {dataset_note}

Fingerprint of the data: `{fingerprint}`. Trial #{trial}, seed {seed}, {images_seen:,} images seen in {epochs} epochs. \
Code version: {code}. `config.json` has the rest.

## Scores
On the validation split, {images:,} images. Standard errors are over the choice of images; one training says nothing \
of how much another seed would differ.

| score | value | standard error |
|---|---|---|
{scores}

## Picked as real
{votes}

## Use
    pip install torch safetensors scikit-image pillow
    python colour.py photograph.jpg

In Python: `colour(Model(Path(FOLDER)), rgb)`, uint8 (height, width, 3) in and out. It reads what Pillow converts to \
8-bit RGB.
Colours are predicted at a short side of {short_side} pixels.

A model that was trained on small pictures knows skies, grass and skin-like tones; it does not know what things are, \
and colours that it gives a historical photograph are guesses, not a record.

## Licence
HueJury's code and these files: MIT. The data are their publishers', whose terms apply to what is made of them.
"""


@dataclass(frozen=True, eq=False)
class Exported:
    """All that a folder is made of."""

    arm: str
    model: Colorizer
    config: dict[str, Any]  # plain values, for config.json
    palette: dict[str, Any] | None  # likewise, for palette.json; None where the network gives ab
    card: str  # Markdown


def load_exported(session: Session, experiment: ExperimentSummary, contender: Contender) -> Exported:
    """Read a model and whatever is to be said of it. Raises UserError where its weights are lost."""
    trial = contender.trial
    task, model = load_trial(session, trial.trial_id)
    assert model is not None  # a contender is no baseline
    options = contender.options
    palette = None
    if task.palette is not None:
        packed = session.scalars(
            select(StoredDataset.colour_counts).where(StoredDataset.id == experiment.dataset_id)
        ).one()
        palette = describe_palette(task.palette, ColourCounts.from_bytes(packed), options.tilt)
    config = {
        "experiment": experiment.name,
        "arm": contender.arm,
        "trial": trial.number,
        "trained": task.options,
        "hyperparameters": trial.hyperparameters,
        "depth": len(model.encoder),
        "short_side": SHORT_SIDE,
        "decoding": None if palette is None else options.decoding,
        "temperature": 1.0 if options.decoding == "mean" else options.temperature,
        "tilt": options.tilt,
        "code_version": list(trial.code_versions),
    }
    return Exported(contender.arm, model, config, palette, write_card(session, experiment, contender))


def describe_palette(palette: Palette, colours: ColourCounts, tilt: float) -> dict[str, Any]:
    """Centres in ab, p̄ (the mean soft label of the training pixels), and log w_λ, which is added to the logits."""
    offset = torch.zeros(len(palette.centers))
    if tilt != 1:
        offset = colours.rarity_weights(palette, tilt).log().float()
    shares = colours.mean_soft_label(palette)
    return {"centers": palette.centers.tolist(), "mean_soft_label": shares.tolist(), "offset": offset.tolist()}


def write_card(session: Session, experiment: ExperimentSummary, contender: Contender) -> str:
    trial = contender.trial
    scores = trial.scores.get("validation", {})
    errors = trial.standard_errors.get("validation", {})
    rows = [
        f"| {score.heading} | {score.write(scores[name])} | {score.write(errors.get(name))} |"
        for name, score in SCORES.items()
        if name in scores
    ]
    votes = [line for study in studies_of(session, experiment.id) for line in count_votes(session, study, trial)]
    return CARD.format(
        experiment=experiment.name,
        arm=contender.arm,
        dataset=experiment.dataset,
        dataset_note=experiment.dataset_note,
        fingerprint=experiment.dataset_fingerprint,
        trial=trial.number,
        seed=trial.seed,
        images_seen=trial.images_seen,
        epochs=trial.epoch,
        code=", ".join(trial.code_versions),
        images=sum(experiment.validation_class_counts),
        scores="\n".join(rows),
        votes="\n".join(votes or ["Nobody has been asked."]),
        short_side=SHORT_SIDE,
    )


def count_votes(session: Session, study: Study, trial: MeasuredTrial) -> list[str]:
    """What a study's participants said of a trial's pictures: people, and simulated ones, never together."""
    lines = []
    for simulated in (False, True):
        try:
            answers = load_answers(session, study, simulated=simulated)
        except StudyBlinded as hidden:
            lines.append(f"- {hidden}")
            continue
        who = SIMULATED if simulated else "participants"
        means = "50 % cannot be told from the photograph" if answers.protocol == "pair" else "pictures one by one"
        for contender, count in zip(answers.contenders, answers.picked_as_real(), strict=True):
            if contender.trial.trial_id == trial.trial_id and count.total:
                share = wilson(count.count, count.total)
                lines.append(
                    f"- Study {study.name!r}, {answers.participants} {who}: {share}, 95 % Wilson interval "
                    f"{share.range} ({means})."
                )
    return lines


def write_folder(exported: Exported, folder: Path) -> None:
    """Fill a folder that is there."""
    # With what follows from the data, as the table of a prior, which checkpoints do without.
    tensors = dict(exported.model.named_parameters()) | dict(exported.model.named_buffers())
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    for name, values in (("config.json", exported.config), ("palette.json", exported.palette)):
        text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    (folder / "README.md").write_text(exported.card, encoding="utf-8")
    shutil.copyfile(standalone.__file__, folder / "colour.py")


def export_models(engine: Engine, experiment: str, arm: str | None, folder: Path) -> list[Path]:
    """Write a folder below this one for the arm, or for each, and return them. Raises UserError, also where a folder
    of that name holds anything."""
    with read_session(engine) as session:
        summary = experiment_progress(session, experiment)
        targets: dict[Path, Exported] = {}
        for name, contender in finished_models(session, experiment, None if arm is None else [arm]).items():
            target = folder / name_file(name)
            if target in targets:
                raise UserError(f"{name} and {targets[target].arm} would both be {target}: export them with --arm.")
            if target.is_file() or (target.is_dir() and any(target.iterdir())):
                raise UserError(f"{target} holds something already, which is not overwritten; give another --to.")
            targets[target] = load_exported(session, summary, contender)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for target, exported in targets.items():
            with tempfile.TemporaryDirectory(dir=folder, prefix=".") as name:  # so that no folder is ever half written
                partial = Path(name) / target.name
                partial.mkdir()
                write_folder(exported, partial)
                partial.replace(target)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror or error}); give another --to.") from error
    return list(targets)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m platform.export",
        description="Write models of a sweep, to be taken away: a folder each, which needs nothing of HueJury.",
    )
    parser.add_argument("experiment", metavar="EXPERIMENT")
    parser.add_argument("--arm", help="which of its models (default: every one)")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where to; each has a folder in it")
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    options = parser.parse_args(arguments)

    def body() -> int:
        engine = open_existing(options.database)
        for path in export_models(engine, options.experiment, options.arm, options.to):
            print(path)
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
