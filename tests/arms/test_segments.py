"""Pictures of segments: as the model divides pixels, in the file, in the database and on the dashboard's page."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture
from sqlalchemy import select

from db.png import encode_png, pixels
from db.schema import Sample
from db.store import open_database, read_session, write_session
from db.sweeps.trials import best_trials, find_experiment
from platform.arms.compose import compose
from platform.arms.options import ArmOptions, SegmentPrior
from platform.arms.segments import DRAWN_LIGHTNESS, SegmentHead
from platform.color.lab import lab_to_rgb, rgb_to_lab
from platform.model.evaluation import features
from platform.model.training import build_model
from platform.paint.samples import paint_samples
from survey_app.dashboard import pictures_view
from tests.contracts import HYPERPARAMETERS, drawn_colours, drawn_data
from tests.survey_data import add_experiment

ARMS = {
    "segments": ArmOptions(kind="classification", prior=SegmentPrior(12)),
    "tilted": ArmOptions(renders="segments", tilt=0.5),
}


def test_a_picture_of_segments_is_what_the_model_divides_it_into() -> None:
    task = compose(ARMS, "segments", drawn_colours())
    model = build_model(task, HYPERPARAMETERS).eval()
    images = drawn_data().validation_images[:3]
    painted = paint_samples(task, model, images)
    assert [picture.segments_png for picture in painted["tilted"]] == [None] * 3
    assert isinstance(model.head, SegmentHead)
    rows = features(task, model, rgb_to_lab(torch.tensor(images)))
    belongs = model.head.segment(rows).argmax(1).view(3, 16, 16)
    assert len(belongs.unique()) > 1
    assert task.palette is not None
    for picture, expected in zip(painted["segments"], belongs, strict=True):
        assert picture.segments_png is not None
        with Picture.open(io.BytesIO(picture.segments_png)) as opened:
            assert np.asarray(opened).tolist() == expected.tolist()
        likeliest = task.palette.centers[model.head.colours.argmax(1)]  # of each segment
        colours = lab_to_rgb(torch.cat((torch.full((12, 1), DRAWN_LIGHTNESS), likeliest), dim=1))
        assert pixels(picture.segments_png).tolist() == colours[expected].tolist()


def test_no_model_without_segments_has_such_pictures() -> None:
    task = compose({"plain": ArmOptions(kind="classification")}, "plain", drawn_colours())
    [picture] = paint_samples(task, build_model(task, HYPERPARAMETERS).eval(), drawn_data().validation_images[:1])[
        "plain"
    ]
    assert picture.segments_png is None


def test_the_gallery_shows_them_beside_the_colours(tmp_path: Path) -> None:
    stored = encode_png(np.zeros((8, 8, 3), dtype=np.uint8))
    engine = open_database(tmp_path / "cats.sqlite")
    add_experiment(engine, images=4, size=8)
    with read_session(engine) as session:
        best = {trial.arm.name: trial.id for trial in best_trials(session, 1)}
    with write_session(engine) as session:
        for sample in session.scalars(select(Sample).where(Sample.trial_id == best["classification"])):
            sample.segments_png = stored
    with read_session(engine) as session:
        gallery = pictures_view.load_gallery(session, find_experiment(session, "cats"), None, None)
        shown = pictures_view.gallery_html(session, gallery, [0, 1])
    assert shown.count("segments of ") == shown.count("segments of classification</b>") == 2
    sources = re.findall(r'src="data:image/png;base64,([^"]+)" alt="[^"]*the segments that classification', shown)
    assert [base64.b64decode(source) for source in sources] == [stored] * 2
    engine.dispose()
