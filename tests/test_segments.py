"""Pictures of segments: as the model divides pixels, in the file, in the database and on the dashboard's page."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture
from sqlalchemy import select

from db.pictures import pixels
from db.results import arm_results, experiment_progress
from db.schema import Sample
from db.store import open_database, read_session, write_session
from platform.arm_options import ArmOptions, Prior
from platform.color import lab_to_rgb, rgb_to_lab
from platform.compose import compose
from platform.evaluation import features
from platform.samples import paint
from platform.segments import SWATCH_LIGHTNESS, SegmentHead, segment_pngs
from platform.training import build_model
from survey_app.dashboard import pictures_view
from survey_app.dashboard.segments import SWATCHES, legend_html, marked_png, marks, read_segments
from tests.contracts import HYPERPARAMETERS, drawn_colours, drawn_data
from tests.survey_data import add_experiment

ARMS = {
    "segments": ArmOptions(kind="classification", prior=Prior(segments=12)),
    "tilted": ArmOptions(renders="segments", tilt=0.5),
}


def test_a_picture_of_segments_is_what_the_model_divides_it_into() -> None:
    task = compose(ARMS, "segments", drawn_colours())
    model = build_model(task, HYPERPARAMETERS).eval()
    images = drawn_data().validation_images[:3]
    painted = paint(task, model, images)
    assert [picture.segments_png for picture in painted["tilted"]] == [None] * 3
    assert isinstance(model.head, SegmentHead)
    rows = features(task, model, rgb_to_lab(torch.tensor(images)))
    belongs = model.head.segment(rows).argmax(1).view(3, 16, 16)
    assert len(belongs.unique()) > 1
    assert task.palette is not None
    for picture, expected in zip(painted["segments"], belongs, strict=True):
        assert picture.segments_png is not None
        segments, swatches = read_segments(picture.segments_png)
        assert segments.tolist() == expected.tolist()
        assert swatches.shape == (12, SWATCHES, 3)
        for segment, colours in enumerate(swatches):
            likeliest = model.head.colours[segment].argsort(descending=True)[:SWATCHES]
            lab = torch.cat((torch.full((SWATCHES, 1), SWATCH_LIGHTNESS), task.palette.centers[likeliest]), dim=1)
            assert colours.tolist() == lab_to_rgb(lab).tolist()


def test_fewer_colours_than_swatches_repeat_the_last() -> None:
    task = compose(ARMS, "segments", drawn_colours())
    assert task.palette is not None
    head = SegmentHead(4, torch.tensor([[0.0, 1.0, -9.0], [1.0, 0.0, -9.0]]), beside=False)
    [png] = segment_pngs(task.palette, head, torch.randn(6, 4), (2, 3))
    segments, swatches = read_segments(png)
    assert segments.shape == (2, 3)
    assert (swatches[:, 2] == swatches[:, 3]).all()


def test_no_model_without_segments_has_such_pictures() -> None:
    task = compose({"plain": ArmOptions(kind="classification")}, "plain", drawn_colours())
    [picture] = paint(task, build_model(task, HYPERPARAMETERS).eval(), drawn_data().validation_images[:1])["plain"]
    assert picture.segments_png is None


def test_the_gallery_shows_them_beside_the_colours(tmp_path: Path) -> None:
    numbers = np.arange(64).reshape(8, 8) // 24  # segments 0 and 1 of 24 pixels each, 2 of 16
    picture = Picture.fromarray((SWATCHES * numbers).astype(np.uint8), mode="P")
    picture.putpalette(bytes(range(3 * SWATCHES * 5)))  # five segments, two of which are not seen
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    engine = open_database(tmp_path / "cats.sqlite")
    add_experiment(engine, images=4, size=8)
    with read_session(engine) as session:
        best = {result.arm: result.best.trial_id for result in arm_results(session, "cats") if result.best}
    with write_session(engine) as session:
        for sample in session.scalars(select(Sample).where(Sample.trial_id == best["classification"])):
            sample.segments_png = buffer.getvalue()
    with read_session(engine) as session:
        experiment = experiment_progress(session, "cats")
        gallery = pictures_view.load_gallery(session, experiment, None, None)
        shown = pictures_view.rows_html(session, gallery, [0, 1], pictures_view.IN_ORDER, can_enlarge=True)
        saved = pictures_view.sheet(session, gallery, [0, 1], pictures_view.IN_ORDER)
    assert shown.count("segments of classification</b>") == 2
    assert shown.count("segments of ") == 2
    assert saved.count("segments of") == 1  # in the column's heading
    sources = re.findall(r'src="data:image/png;base64,([^"]+)" alt="[^"]*the segments', shown)
    colours = marks(5)
    assert len(np.unique(colours, axis=0)) == 5
    for source in sources:
        assert np.array_equal(pixels(base64.b64decode(source)), colours[numbers])
    legend = shown[shown.index('<div class="segments">') :]
    assert legend == legend_html("classification", [buffer.getvalue()] * 2)
    assert re.findall(r"(\d+)%", legend) == ["38", "38", "25"]
    assert "rgb(12, 13, 14)" in legend  # the second segment's first swatch
    assert np.array_equal(pixels(marked_png(buffer.getvalue())), colours[numbers])
    engine.dispose()
