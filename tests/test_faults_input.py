"""Bad input of every kind that reaches HueJury: refused in words, never an error of another kind. Cases are counted."""

import contextlib
import hashlib
import io
import math
import random
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image
from sqlalchemy import Engine, text
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect
from websockets.typing import Origin

from db.store import open_database, write_session
from db.surveys.enrolment import enrol, withdraw
from db.surveys.study import create_study
from db.surveys.votes import open_study, progress
from platform.data.datasets import DatasetError, DatasetUnavailable, load_dataset
from platform.running.config import ConfigError, read_config
from tests.data.test_datasets import random_images, refused
from tests.data.test_imagenet32 import imagenet32
from tests.db.test_faults_database import stored_votes
from tests.faults import TIMES, count
from tests.participants.test_survey_pages import opened, words
from tests.survey_browser import CHECKOUT, Server
from tests.survey_data import add_experiment, to_first_question
from tests.survey_load import Client

pytestmark = pytest.mark.long

__all__ = ["imagenet32"]  # a fixture

tried: Counter[str] = Counter()
refusals: Counter[str] = Counter()
quiet: Any = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(scope="module", autouse=True)
def counts(request: pytest.FixtureRequest) -> Iterator[None]:
    tried.clear()
    refusals.clear()
    failed_before = request.session.testsfailed
    yield
    if request.session.testsfailed == failed_before:
        count(
            f"bad input: {', '.join(tried)}",
            f"{tried.total():,} cases ({', '.join(f'{times:,}' for times in tried.values())})",
            f"0; {refusals.total():,} refused in words, the others harmless",
            "tests/test_faults_input.py",
        )


@contextlib.contextmanager
def harmless_or_refused(what: str, *errors: type[Exception]) -> Iterator[None]:
    """One case: nothing is raised but, if anything, one of these errors, which has words."""
    tried[what] += 1
    said = "was taken"
    try:
        yield
    except errors as error:
        refusals[what] += 1
        said = str(error)
    assert re.search(r"\w \w", said)


@some.composite
def damaged(draw: some.DrawFn, original: bytes) -> bytes:
    """The bytes cut short, flipped, overwritten, doubled or with others put between."""
    content = bytearray(original)
    for _ in range(draw(some.integers(1, 4))):
        at = draw(some.integers(0, max(len(content) - 1, 0)))
        length = draw(some.integers(1, 64))
        match draw(some.sampled_from(["cut", "flip", "write", "insert", "remove", "double"])):
            case "cut":
                del content[at:]
            case "flip" if content:
                content[at] ^= 1 << draw(some.integers(0, 7))
            case "write":
                content[at : at + length] = draw(some.binary(min_size=length, max_size=length))
            case "insert":
                content[at:at] = draw(some.binary(max_size=length))
            case "remove":
                del content[at : at + length]
            case "double":
                content[at:at] = content[at : at + length]
    return bytes(content)


# Configs

CONFIGS = sorted((CHECKOUT / "tune_configs").glob("*.yaml"))
BOMBS = {
    "aliases of aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)),
    "an alias of itself": "experiment: x\narms: &a {regression: *a}\n",
    "deep lists": "experiment: " + "[" * 20_000,
    "deep keys": "experiment: " + "{a: " * 5_000,
    "a Python object": "experiment: !!python/object/apply:os.system ['true']\n",
    "a long number": "epochs: " + "9" * 5_000,
    "a long key": "k" * 100_000 + ": 1",
    "a NUL": "experiment: \0",
    "merged keys": "experiment: x\n<<: [1, 2]\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_configs_made_to_do_harm_are_refused(tmp_path: Path, bomb: str) -> None:
    (tmp_path / "bomb.yaml").write_text(BOMBS[bomb])
    with pytest.raises(ConfigError) as raised:
        read_config(tmp_path / "bomb.yaml")
    assert len(str(raised.value)) < 10_000
    tried["configs"] += 1
    refusals["configs"] += 1


@settings(max_examples=200 * TIMES, deadline=None, suppress_health_check=quiet)
@given(config=some.sampled_from([path.read_bytes() for path in CONFIGS]).flatmap(damaged))
def test_damaged_configs_are_read_or_refused(tmp_path: Path, config: bytes) -> None:
    (tmp_path / "damaged.yaml").write_bytes(config)
    with harmless_or_refused("configs", ConfigError):
        read_config(tmp_path / "damaged.yaml")


# Datasets


@settings(max_examples=100 * TIMES, deadline=None, suppress_health_check=quiet)
@given(data=some.data())
def test_damaged_npz_batches_are_read_or_refused(imagenet32: Path, data: some.DataObject) -> None:
    path = imagenet32 / "val_data.npz"
    whole = imagenet32 / "whole"
    if not whole.exists():
        whole.write_bytes(path.read_bytes())
    path.write_bytes(data.draw(damaged(whole.read_bytes())))
    with harmless_or_refused("npz batches", DatasetError):
        load_dataset(["imagenet32"], data_directory=imagenet32, say=lambda line: None)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random_images(1, 5)[0]).save(buffer, kind)
    return buffer.getvalue()


@settings(max_examples=200 * TIMES, deadline=None, suppress_health_check=quiet)
@given(picture=some.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"]).map(encoded).flatmap(damaged))
def test_damaged_pictures_are_read_or_refused(tmp_path: Path, picture: bytes) -> None:
    folder = tmp_path / "pictures"
    if not folder.exists():
        folder.mkdir()
        for number, image in enumerate(random_images(3, 0)):
            Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "damaged.png").write_bytes(picture)
    with harmless_or_refused("pictures", DatasetError):
        load_dataset([f"folder:{folder}"], data_directory=tmp_path, say=lambda line: None)


def test_a_pickle_that_poses_as_an_array_is_never_run(imagenet32: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return exec, (f"open({str(imagenet32 / 'harm')!r}, 'w')",)

    for name in ("labels", "data"):
        arrays: dict[str, Any] = {"data": np.zeros((6, 3072), np.uint8), "labels": np.ones(6, np.int64)}
        arrays[name] = np.array([Harm()] * 6, dtype=object)
        np.savez(imagenet32 / "val_data.npz", allow_pickle=True, **arrays)
        assert "val_data.npz" in refused("imagenet32", imagenet32)
        tried["npz batches"] += 1
        refusals["npz batches"] += 1
    assert not (imagenet32 / "harm").exists()


@settings(max_examples=100 * TIMES, deadline=None)
@given(name=some.text(max_size=40) | some.text(max_size=40).map("folder:{}".format))
def test_any_name_of_a_dataset_is_refused_or_found(name: str) -> None:
    with harmless_or_refused("datasets' names", DatasetError, DatasetUnavailable):
        load_dataset([name], data_directory=Path("/nowhere"), say=lambda line: None)


# Links, tokens, codes and comments

LIKELY = some.sampled_from(
    ["cats", "cats\0", "\0", "'; DROP TABLE votes; --", "%00", "../..", "<script>", "ａ", "\ud800"]
)
TEXT = some.text(max_size=80) | LIKELY | some.text(max_size=3).map(lambda text: text * 40_000)


@pytest.fixture(scope="module")
def surveyed(shared_engine: Engine) -> Engine:
    create_study(shared_engine, "cats", question_count=6, practice_count=0)
    return shared_engine


@settings(max_examples=150 * TIMES, deadline=None, suppress_health_check=quiet)
@given(typed=TEXT, link=some.dictionaries(some.sampled_from(["PROLIFIC_PID", "STUDY_ID", "SESSION_ID"]), TEXT))
def test_links_tokens_and_codes(surveyed: Engine, typed: str, link: dict[str, str]) -> None:
    assert (open_study(surveyed, typed) is not None) == (typed == "cats")
    assert progress(surveyed, typed) is None
    assert not withdraw(surveyed, typed)
    token = enrol(surveyed, "cats", link=link)
    assert withdraw(surveyed, token)
    tried[f"links, tokens and codes on {surveyed.dialect.name}"] += 3


@settings(max_examples=25 * TIMES, deadline=None, suppress_health_check=quiet)
@given(
    query=some.dictionaries(
        some.sampled_from(["study", "huejury", "participant", "PROLIFIC_PID", "STUDY_ID", "x", "embed"]),
        some.text(some.characters(exclude_categories=["Cs"]), max_size=30) | some.just("\0") | some.just("cats"),
    )
)
def test_pages_of_any_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: dict[str, str]) -> None:
    database = tmp_path / "survey.sqlite"
    if not database.exists():
        engine = open_database(database)
        add_experiment(engine, images=12)
        create_study(engine, "cats", question_count=6, practice_count=1)
        engine.dispose()
        st.cache_resource.clear()
    monkeypatch.setenv("HUEJURY_DATABASE", str(database))
    said = words(opened(**query))
    assert re.search(r"\w \w", said)
    assert not re.search("Traceback|Error|sqlite|went wrong", said)
    tried["pages of links"] += 1


# What a forged page may send over the socket

JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20) | some.just("x" * 100_000),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    *("question", "answer", "response_time_ms", "exposure_measured_ms", "input", "scale"),
    *("device_pixel_ratio", "hidden", "edited"),
)


def forged_answers(good: dict[str, Any], others: str, answered: str) -> list[Any]:
    """A good answer with one thing wrong in it. others: a question of another participant's; answered: one that was."""
    values: dict[str, Any] = {
        "question": (others, "", "x" * 10**6, "\0", None, 5, [good["question"]], {"a": good["question"]}),
        "answer": ("real", "LEFT", "", None, 0, ["left"], {"left": 1}, "x" * 10**6),
        "response_time_ms": (-1, math.nan, math.inf, 10**400, "1", None, [1]),
        "scale": (0, 1001, 1.5, True, "9", None, 10**30),
        "input": ("voice", None, ["key"], {"key": 1}),
    }
    wrong = [good | {field: value} for field, of_field in values.items() for value in of_field]
    return [good | {"question": answered, "answer": "right"}, *wrong]


def test_forged_answers_change_nothing_and_the_server_goes_on(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "survey.sqlite")
    add_experiment(engine, images=30)
    create_study(engine, "cats", question_count=20, practice_count=0)
    me, other = to_first_question(engine, "cats"), to_first_question(engine, "cats")
    server = Server(tmp_path / "survey.sqlite", tmp_path / "log")
    try:
        mine, theirs = Client(server.port, f"huejury={me}"), Client(server.port, f"huejury={other}")
        assert mine.stimulus is not None
        assert theirs.stimulus is not None
        mine.answer("left")
        question = mine.stimulus[1]["question"]
        before = stored_votes(engine)
        [answered] = before
        good = {
            "question": question,
            "answer": "left",
            "response_time_ms": 1.0,
            "exposure_measured_ms": None,
            "input": "key",
            "scale": 9,
        }
        forged = forged_answers(good, theirs.stimulus[1]["question"], answered)

        @settings(max_examples=60 * TIMES, deadline=None, database=None, suppress_health_check=quiet)
        @given(value=JSON | some.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)))
        def collect(value: Any) -> None:
            forged.append(value)

        collect()
        for value in forged:
            mine.send_vote(value)
            assert mine.stimulus is not None
            assert mine.stimulus[1]["question"] == question
            tried["forged answers"] += 1
        assert stored_votes(engine) == before

        chance = random.Random(0)
        for _ in range(20 * TIMES):  # what is no message at all costs its sender the connection at most
            with contextlib.suppress(OSError, WebSocketException):
                noise = Client(server.port, "study=cats").socket
                noise.send(chance.randbytes(chance.randrange(1, 2000)))
                tried["frames of noise"] += 1
                noise.recv(timeout=0.05)
                noise.close()
        assert tried["frames of noise"] == 20 * TIMES
        theirs.answer("right")
        mine.answer("left")
        assert len(stored_votes(engine)) == 3
        # No other site's page gets in, nor reads anything.
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{server.port}/_stcore/stream", origin=Origin("http://evil.example"))
        asked = urllib.request.Request(f"{server.url}?huejury={me}", headers={"Origin": "http://evil.example"})
        with urllib.request.urlopen(asked) as page:
            assert "Access-Control-Allow-Origin" not in page.headers

        # Tokens, their hashes and answers are not logged, even where the database fails.
        with write_session(engine) as session:
            broken = "CREATE TRIGGER broken BEFORE INSERT ON votes BEGIN SELECT RAISE(ABORT, 'as a test'); END"
            session.execute(text(broken))
        with pytest.raises(AssertionError, match="went wrong"):
            mine.answer("left")
        log = server.log.read_text()
        assert "as a test" in log
        for secret in (me, other, hashlib.sha256(me.encode()).hexdigest(), question):
            assert secret not in log

        # Nothing can be uploaded: no page has a place for it, and the address refuses it.
        upload = urllib.request.Request(f"{server.url}_stcore/upload_file/session/file", b"x" * 1000, method="PUT")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(upload)
    finally:
        server.stop()
        engine.dispose()
