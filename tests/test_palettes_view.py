"""The figure of palettes, against what `platform.palettes` and `platform.metrics` say of them."""

from pathlib import Path

import pytest

from db.recording import record_arm, record_dataset, record_experiment
from db.store import open_database, read_session, write_session
from platform.colour_counts import kmeans_centers
from platform.metrics import delta_e_2000
from platform.palettes import all_colours, centers_as_list, grid_palette, nearest_palette
from survey_app.dashboard import palettes
from survey_app.dashboard.exhibits import Figure, svg
from tests.contracts import drawn_colours


def test_every_palette_is_drawn_once_with_its_shares_and_its_floor(tmp_path: Path) -> None:
    colours = drawn_colours()
    made = {"grid": grid_palette(), "k-means": nearest_palette(kmeans_centers(colours, 16, seed=0))}
    engine = open_database(str(tmp_path / "sweep.sqlite"))
    with write_session(engine) as session:
        dataset_id = record_dataset(
            session,
            name="drawn",
            fingerprint="drawn",
            note="",
            class_names=["dark"],
            train_count=1,
            tuning_count=1,
            validation_count=1,
            validation_class_counts=[1],
            colour_counts=colours.to_bytes(),
        )
        experiment_id = record_experiment(
            *(session,),
            name="palettes",
            dataset_id=dataset_id,
            config={},
            config_yaml="",
            profile=None,
            storage_path="",
        )
        for position, (name, of) in enumerate([("first", "grid"), ("second", "k-means"), ("third", "grid")]):
            record_arm(
                session,
                experiment_id=experiment_id,
                name=name,
                position=position,
                options={"kind": "classification"},
                centers=centers_as_list(made[of]),
            )
    with read_session(engine) as session:
        [figure] = palettes.exhibits(session, experiment_id)
    assert isinstance(figure, Figure)
    assert "second" in svg(figure)
    assert figure.data is not None
    groups = dict(list(figure.data.groupby("palette")))
    assert set(groups) == {"167 colours: first, third", "16 colours: second"}
    for rows, palette in zip(
        (groups["167 colours: first, third"], groups["16 colours: second"]), made.values(), strict=True
    ):
        shares = {
            tuple(center): share
            for center, share in zip(rows[["a", "b"]].to_numpy().tolist(), rows["share"], strict=True)
        }
        expected = colours.share(palette).tolist()
        assert [shares[tuple(center)] for center in centers_as_list(palette)] == pytest.approx(expected, abs=1e-3)
        nearest = palette.own_entry(all_colours())
        errors = delta_e_2000(all_colours(), palette.centers[nearest]).double()
        floor = float((colours.counts * errors).sum() / colours.counts.sum())
        assert rows["floor"].iloc[0] == pytest.approx(floor, rel=1e-3)


def test_a_sweep_without_palettes_has_no_figure(tmp_path: Path) -> None:
    engine = open_database(str(tmp_path / "empty.sqlite"))
    with read_session(engine) as session:
        assert palettes.exhibits(session, 1) == []
