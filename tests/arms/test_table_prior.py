from dataclasses import replace

import pytest
import torch

from platform.arms.compose import compose
from platform.arms.options import ArmOptions, KMeans, TablePrior
from platform.arms.table_prior import TableHead, class_loss, entries_at_places
from platform.color.counts import PLACES, kmeans_centers, places
from platform.color.lab import rgb_to_lab
from platform.color.palettes import Palette, grid_palette, nearest_palette
from platform.model.evaluation import evaluate_splits, features
from platform.model.training import load_model, train
from platform.paint.samples import paint_samples
from tests.contracts import HYPERPARAMETERS, drawn_colours, drawn_data

ARMS = {"table": ArmOptions(kind="classification", prior=TablePrior(0.03))}


@pytest.fixture(scope="module")
def palettes() -> dict[str, Palette]:
    return {"grid": grid_palette(), "k-means": nearest_palette(kmeans_centers(drawn_colours(), 32, 0))}


def test_the_offset_mixes_the_shares_of_classes_at_the_pixels_place() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(3, PLACES, 5, generator=generator)
    table /= table.sum(-1, keepdim=True)
    head = TableHead(4, table)
    rows, place = torch.randn(50, 4 + 3 + 1, generator=generator), torch.randint(PLACES, (50,), generator=generator)
    rows[:, -1] = place
    found = head(rows)
    for row, number, logits in zip(rows, place.tolist(), found, strict=True):
        mixed = sum(row[4 + c : 5 + c].exp() / row[4:7].exp().sum() * table[c, number] for c in range(3))
        torch.testing.assert_close(logits, head.plain(row[:4]) + torch.as_tensor(mixed).log())
    torch.testing.assert_close(head(rows[:1]), found[:1])  # whatever else is in the batch


def test_the_shares_of_entries_are_those_of_bins(palettes: dict[str, Palette]) -> None:
    shares = drawn_colours().share_at_places()[:2].float()
    found = {name: entries_at_places(palette, drawn_colours()) for name, palette in palettes.items()}
    for of_entries in found.values():
        torch.testing.assert_close(of_entries.sum(-1), torch.ones(2, PLACES))
    # A soft label of a cell's own centre gives a few per cent to each neighbour.
    own = found["grid"]
    difference = (own - shares[..., palettes["grid"].bins]).abs().sum(-1)
    assert float(difference.max()) < 0.35
    assert torch.equal(own.argmax(-1), palettes["grid"].own_entry(palettes["grid"].centers[own.argmax(-1)]).view(2, -1))


@pytest.mark.long
def test_the_class_is_learned_from_the_picture_and_never_read_off_the_label() -> None:
    data = drawn_data()
    task = compose(ARMS, "table", drawn_colours())
    *_, report = train(task, replace(HYPERPARAMETERS, epochs=8), data)
    model = load_model(report.checkpoint, task)
    lab = rgb_to_lab(torch.tensor(data.validation_images))
    rows = features(task, model, lab).view(len(lab), -1, HYPERPARAMETERS.width + 2 + 1)
    labels = torch.tensor(data.validation_labels)
    assert float((rows[:, 0, -3:-1].argmax(1) == labels).double().mean()) > 0.8
    assert torch.equal(rows[..., -1].long(), places(lab[..., 0]).flatten(1))
    expected = 0.03 * torch.nn.functional.cross_entropy(rows[:, 0, -3:-1], labels)
    torch.testing.assert_close(class_loss(0.03, 2, rows.flatten(0, 1), labels), expected)

    turned = replace(data, validation_labels=1 - data.validation_labels)
    found, again = (evaluate_splits(task, model, images)["table"]["validation"] for images in (data, turned))
    assert found.values == again.values
    assert found.class_bin_accuracy == again.class_bin_accuracy[::-1]
    pictures, same = (
        paint_samples(task, model, images.validation_images[:4], images.validation_labels[:4])["table"]
        for images in (data, turned)
    )
    assert pictures == same


def test_it_goes_with_any_palette() -> None:
    arms = {"table": ArmOptions(kind="classification", palette=KMeans(16), prior=TablePrior(0.01))}
    [report, *_] = train(compose(arms, "table", drawn_colours()), replace(HYPERPARAMETERS, epochs=1), drawn_data())
    assert report.scores["table"]["validation"].values["delta_e_2000"] > 0
