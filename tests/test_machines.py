"""What people's machines have in store for commands: odd addresses, encodings, homes, pictures."""

import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from db.enrolment import recruited_as
from db.store import StoreError, open_database, open_existing
from db.studies import create_study
from platform import image_files, workers
from platform.arm_options import ArmOptions
from platform.config import ConfigError, arm_mistakes, read_config
from platform.datasets import DatasetError, default_data_directory, load_dataset
from tests.survey_browser import CHECKOUT
from tests.survey_data import add_experiment
from tests.test_config import GOOD

# Databases


@pytest.mark.parametrize(
    "text",
    [
        "host=db user=me password=tiger dbname=x",
        "PGPASSWORD=tiger psql -h db",
        "postgres:me:tiger@host/x",
        "postgresql//me:tiger@host/x",
        "jdbc:postgresql:me:tiger",
        "me:tiger@host:5432/x",
    ],
)
def test_what_is_no_url_is_not_shown_as_a_path_with_its_password(tmp_path: Path, text: str) -> None:
    for open_it in (open_existing, open_database):
        with pytest.raises(
            StoreError, match="is no path, and no URL that can be read; give a path, or a URL"
        ) as raised:
            open_it(text)
        assert "tiger" not in str(raised.value)


@pytest.mark.parametrize("name", ["postgres", "a:b@c", "password=x", "~nobody here", "100 %", "it's"])
def test_odd_paths_are_paths(tmp_path: Path, name: str) -> None:
    open_database(tmp_path / name / "x.sqlite").dispose()
    open_existing(str(tmp_path / name / "x.sqlite")).dispose()


@pytest.mark.parametrize(
    "text", ["sqlite://x.sqlite", "sqlite:///x.sqlite?cache=shared", "x" * 300, "sqlite:///" + "x" * 300, "a/" * 3000]
)
def test_paths_that_are_none_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"give|check that you may"):
        open_existing(text)
    with pytest.raises(StoreError, match=r"give|check that you may"):
        open_database(text)


# Pictures and folders


def picture(folder: Path, name: str, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


def fill(folder: Path, seed: int) -> Path:
    for number in range(3):
        picture(folder, f"{number}.png", 10 * seed + number)
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(DatasetError) as raised:
        load_dataset([f"folder:{folder}"], say=lambda line: None)
    return str(raised.value)


DEEP_GREYS = np.linspace(0, 65535, 1024).reshape(32, 32).astype(np.uint16)


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (65535 - DEEP_GREYS, {"photometric": "miniswhite"}, "white is zero"),
        ((1 - DEEP_GREYS / 65535).astype(np.float32), {"photometric": "miniswhite"}, "white is zero"),
        (np.dstack([DEEP_GREYS] * 4), {"photometric": "separated"}, "CMYK in more than 8 bits"),
        (np.stack([DEEP_GREYS] * 3), {"photometric": "rgb", "planarconfig": "separate"}, "in planes"),
    ],
)
def test_deep_tiffs_that_pillow_gives_wrongly_are_refused(
    tmp_path: Path, pixels: Any, options: dict[str, Any], words: str
) -> None:
    tifffile.imwrite(fill(tmp_path, 0) / "deep.tif", pixels, **options)
    message = refused(tmp_path)
    assert "deep.tif" in message
    assert words in message


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": True}])
def test_deep_tiffs_of_either_byte_order_look_like_their_8_bit_twin(
    tmp_path: Path, order: Any, options: dict[str, Any]
) -> None:
    tifffile.imwrite(tmp_path / "deep.tif", DEEP_GREYS, photometric="minisblack", byteorder=order, **options)
    found = image_files._read_image(tmp_path / "deep.tif")
    assert np.abs(found - DEEP_GREYS[..., None] / 257).max() <= 1


@pytest.mark.parametrize(
    "names",
    [
        ["train2017", "val2017", "test2017"],
        ["train_set", "test_set"],
        ["train", "test", "unlabeled"],
        ["train", "test", "preview.png"],
        ["train/cats", "train/dogs"],
        ["DIV2K_train_HR", "DIV2K_valid_HR"],
        ["faces-train", "faces-test"],
    ],
)
def test_splits_are_known_by_other_names_and_beside_other_things(tmp_path: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        if name.endswith(".png"):
            picture(tmp_path, name, 99)
        else:
            fill(tmp_path / name, seed)
    assert f"folder:{tmp_path / names[0].partition('/')[0]}" in refused(tmp_path)


@pytest.mark.parametrize("names", [("bus", "car", "train"), ("test_tube", "train_station"), ("high_test", "low")])
def test_a_class_whose_name_has_the_word_is_one(tmp_path: Path, names: tuple[str, ...]) -> None:
    for seed, name in enumerate(names):
        fill(tmp_path / name, seed)
    assert load_dataset([f"folder:{tmp_path}"], say=lambda line: None).class_names == names


def test_links_that_lead_nowhere_are_named_where_nothing_else_is_there(tmp_path: Path) -> None:
    (tmp_path / "cats").symlink_to("/gone/cats")
    message = refused(tmp_path)
    assert f"{tmp_path / 'cats'} leads nowhere" in message
    assert "put files" not in message


def test_folders_that_link_to_each_other_are_read_once_per_class(tmp_path: Path) -> None:
    folders = [fill(tmp_path / f"class {number}", number) for number in range(8)]
    for one in folders:
        for other in folders:
            if one != other:
                (one / other.name).symlink_to(other)
    (folders[0] / "long").symlink_to("x" * 300)
    data = load_dataset([f"folder:{tmp_path}"], say=lambda line: None)
    assert len(data.class_names) == 8
    assert "192 images" in data.note  # each class has all pictures of all


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    fill(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")), 0)
    assert "is not UTF-8: rename the folder" in refused(tmp_path)


# Terminals, homes, names


@pytest.mark.long
@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "LC_ALL": "C"}])
def test_every_command_prints_on_any_terminal(tmp_path: Path, environment: dict[str, str]) -> None:
    engine = open_database(tmp_path / "d.sqlite")
    add_experiment(engine, images=12)
    create_study(engine, "cats", name="Größe λ", question_count=5, practice_count=1)
    engine.dispose()
    environment = {**os.environ, "HUEJURY_DATABASE": str(tmp_path / "d.sqlite"), **environment}
    for command in ("platform.results", "survey_app.studies show", "survey_app.studies list"):
        arguments = [sys.executable, "-m", *command.split()]
        done = subprocess.run(arguments, cwd=CHECKOUT, env=environment, capture_output=True)
        assert done.returncode == 0, (command, done.stderr)
        assert b"?" in done.stdout


def test_a_user_without_a_home_has_one_for_ray_and_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs with a number for a user."""

    def nobody(user: int) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HUEJURY_DATA", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert default_data_directory().is_absolute()
    environment: dict[str, str] = {}
    [line] = workers.set_ray_variables(environment)
    assert Path(environment["HOME"]).is_dir()
    assert "no home folder" in line


@pytest.mark.parametrize("odd", ["\u00a0", "\u200b", "\u200d", "\u200e", "\u2060", "\u00ad", "\ufeff", "\u3000"])
@pytest.mark.parametrize(
    ("old", "new"), [("epochs: 9", "epochs: {}9"), ("epochs: 9", "epochs: 9{}"), ("epochs: 9", '"epochs":{}9')]
)
def test_what_nobody_sees_in_a_config_is_named_with_its_line(tmp_path: Path, odd: str, old: str, new: str) -> None:
    old, new = old.format(), new.format(odd)
    assert old in GOOD
    (tmp_path / "c.yaml").write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_config(tmp_path / "c.yaml")
    line = GOOD[: GOOD.index(old)].count("\n") + 1
    assert f"c.yaml, line {line}: holds an odd space (U+{ord(odd):04X})" in str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_called_by_name(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "c.yaml").write_bytes(GOOD.encode(encoding))
    with pytest.raises(ConfigError, match="is UTF-16 or UTF-32 text: save it as UTF-8"):
        read_config(tmp_path / "c.yaml")


def test_a_tab_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(GOOD.replace("epochs: 9", "epochs:\t9"))
    with pytest.raises(ConfigError, match="a tab cannot start any token: type spaces instead"):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("name", ["\u200b", "\u200d", "\ufeff", "\u202eabc", "😀" * 81, "a\u2029b"])
def test_arms_that_nobody_could_read_are_refused(name: str) -> None:
    [(_, _, message)] = arm_mistakes({name: ArmOptions("classification")})
    assert message.startswith("expected a name of 1 to 80 printable characters")


@pytest.mark.parametrize("name", ["../x", "-x", "con", "[/]", "e\u0301", "👨‍👩‍👧", "😀" * 80])
def test_odd_names_of_arms_are_names(name: str) -> None:
    assert list(arm_mistakes({name: ArmOptions("classification")})) == []


@pytest.mark.parametrize("value", ["0" * 24, "f" * 24, "-1", "000", "undefined1", "preview-2", "sample_3"])
@pytest.mark.parametrize("parameter", ["PROLIFIC_PID", "workerId"])
def test_what_people_try_is_no_id(parameter: str, value: str) -> None:
    assert recruited_as({parameter: value}, parameter)["external_id"] is None
