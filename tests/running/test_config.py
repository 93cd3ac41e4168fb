"""Configs: what is read, and that every mistake is named with its line, its key and what was expected."""

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from platform.arms.options import ArmOptions, CriticOptions, KMeans
from platform.model.hyperparameters import Hyperparameters
from platform.running import config as config_module
from platform.running.config import (
    ConfigError,
    ConfigFile,
    Range,
    SweepConfig,
    changes_between,
    find_arm_mistakes,
    read_config,
    recorded_config,
)

CONFIGS = sorted((Path(__file__).parents[2] / "tune_configs").glob("*.yaml"))

GOOD = """\
experiment: good
dataset: [cifar10, photos]
train_images: 20000
epochs: 9
arms:
  regression: {kind: regression}
  rebalanced 0.25: {kind: classification, rebalancing: 0.25}
training:
  batch_size: 32
  width: 32
  depth: 3
  weight_decay: 1e-4
  schedule: one_cycle
search:
  method: random
  trials_per_arm: 4
  space:
    learning_rate: {loguniform: [1e-3, 1e-1]}
    optimizer: [adamw, sgd]
    filter_size: [3, 5]
early_stopping: {grace_epochs: 1, reduction_factor: 3}
"""


def read(folder: Path, text: str, *settings: str) -> ConfigFile:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return read_config(path, settings)


def mistakes(folder: Path, text: str, *settings: str) -> list[str]:
    """The lines that a user would be shown, without the file's folder."""
    with pytest.raises(ConfigError) as caught:
        read(folder, text, *settings)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_the_repository_s_configs_are_right() -> None:
    assert CONFIGS
    for path in CONFIGS:
        file = read_config(path)
        assert file.config.experiment == path.stem


def test_a_config_is_read(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD).config
    assert config.arms["rebalanced 0.25"].rebalancing == 0.25
    assert config.arms["regression"] == ArmOptions(kind="regression")
    assert config.fixed()["weight_decay"] == 1e-4  # YAML 1.1 takes 1e-4 for a text
    assert config.search.values() == {
        "learning_rate": Range(loguniform=[1e-3, 1e-1]),
        "optimizer": ["adamw", "sgd"],
        "filter_size": [3, 5],
    }
    assert (config.seed, config.resources.gpu, config.tuning_images, config.validation_images) == (
        0,
        "auto",
        None,
        None,
    )
    # What the database keeps is what a resumed sweep reads.
    recorded = config.model_dump(mode="json")
    assert SweepConfig.model_validate(recorded).model_dump(mode="json") == recorded


def test_settings_are_laid_over_the_file(tmp_path: Path) -> None:
    settings = (
        "training.width=48",
        "early_stopping=null",
        'arms."rebalanced 0.25".rebalancing=0.3',
        "samples.images=3",
    )
    config = read(tmp_path, GOOD, *settings, 'arms."rebalanced 0.25".rebalancing=0.3').config
    assert config.fixed() == read(tmp_path, GOOD).config.fixed() | {"width": 48}  # a section is changed, not replaced
    assert config.early_stopping is None
    assert config.arms["rebalanced 0.25"].rebalancing == 0.3
    assert config.samples.images == 3
    in_minutes = read(tmp_path, GOOD, "minutes=5").config
    assert (in_minutes.minutes, in_minutes.train_images, in_minutes.epochs) == (5, None, 2)


def test_what_a_config_does_not_say_is_as_the_dataclasses_have_it(tmp_path: Path) -> None:
    text = """\
experiment: short
dataset: photos
epochs: 2
arms:
  classification: {kind: classification}
  k-means: {kind: classification, palette: {kmeans: 64}}
  tilted: {renders: classification, tilt: 0.5}
search: {method: random, trials_per_arm: 1, space: {learning_rate: [0.003]}}
"""
    config = read(tmp_path, text).config
    assert Hyperparameters(**config.fixed(), learning_rate=0.003, epochs=2) == Hyperparameters(0.003, 2)
    assert config.arms == {
        "classification": ArmOptions(kind="classification"),
        "k-means": ArmOptions(kind="classification", palette=KMeans(64)),
        "tilted": ArmOptions(renders="classification", tilt=0.5),
    }
    searchable = {field.name for field in dataclasses.fields(Hyperparameters)} - {"epochs", "seed", "precision"}
    for name in searchable - config.search.values().keys():
        assert name in read(tmp_path, text, f"search.space.{name}=[{config.fixed()[name]}]").config.search.values()


def test_a_new_key_with_a_default_does_not_make_an_older_experiment_another(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD).config
    recorded = config.model_dump(mode="json")
    assert changes_between(recorded, config) == []
    del recorded["tuning_images"], recorded["failures"], recorded["training"]["precision"]
    for options in recorded["arms"].values():
        del options["tilt"], options["palette"]
    assert changes_between(recorded, config) == []
    elsewhere = read(tmp_path, GOOD, "resources.cpu=4", "dataset=photos").config
    assert changes_between(recorded, elsewhere) == []
    other = read(tmp_path, GOOD, "training.precision=float32", "arms.regression.rebalancing=1", "tuning_images=9")
    assert changes_between(recorded, other.config) == [
        "training.precision was auto and is float32",
        "tuning_images was None and is 9",
    ]
    # A value that was resolved then counts, not what its default is now.
    recorded["training"]["batch_size"], recorded["gone"] = 8, 1
    assert changes_between(recorded, config)[:1] == ["arms.rebalanced 0.25.palette was None and is reachable"]
    del recorded["gone"]
    assert changes_between(recorded, config) == ["training.batch_size was 8 and is 32"]


CLASSIFICATION = ArmOptions(kind="classification")


# Arms, the one that is wrong, its option (None: its name, or all), and how the sentence begins.
WRONG_ARMS: list[tuple[dict[str, ArmOptions], str, str | None, str]] = [
    ({"a": ArmOptions()}, "a", None, "expected either `kind` (regression or classification) or `renders`"),
    ({"a": ArmOptions("classification", renders="b"), "b": CLASSIFICATION}, "a", None, "expected either `kind`"),
    ({"a": ArmOptions("grey")}, "a", None, "expected either `kind`"),
    ({"arm": CLASSIFICATION, "b": ArmOptions(renders="arms")}, "b", "renders",
     'expected the name of an arm that is trained, found "arms"; did you mean `arm`?'),
    ({"a": CLASSIFICATION, "b": ArmOptions(renders="a"), "c": ArmOptions(renders="b")}, "c", "renders", "expected the"),
    ({"a": ArmOptions("classification", tilt=0.5)}, "a", "tilt",
     "means nothing for a classification, but for a rendering of a classification"),
    ({"a": ArmOptions("classification", decoding="mean", temperature=1)}, "a", "temperature", "is of the annealed"),
    ({"a": ArmOptions("classification", decoding="mode", adversarial=1)}, "a", "adversarial", "needs a decoding that"),
    ({"a": ArmOptions("classification", critic=CriticOptions(1))}, "a", "critic", "belongs to an adversarial training"),
    ({"a": ArmOptions("regression", palette=KMeans(16))}, "a", "palette", "means nothing for a regression"),
    ({"a": ArmOptions("regression"), "b": ArmOptions(renders="a", tilt=0.5)}, "b", "tilt",
     "means nothing for a rendering of a regression"),
    ({"a": CLASSIFICATION, "b": ArmOptions(renders="a", rebalancing=0.5)}, "b", "rebalancing",
     "means nothing for a rendering of a classification"),
    *(({name: CLASSIFICATION}, name, None, "expected a name of 1 to 80 printable characters")
      for name in ("", " ", "x" * 81, "a\nb", "\u200b", "\u202eabc")),
    ({"grey": CLASSIFICATION}, "grey", None, "is the name of a baseline"),
]  # fmt: skip


@pytest.mark.parametrize(("arms", "arm", "option", "expected"), WRONG_ARMS)
def test_arms_that_make_no_sense_together(
    arms: dict[str, ArmOptions], arm: str, option: str | None, expected: str
) -> None:
    [(found, of_option, message)] = find_arm_mistakes(arms)
    assert (found, of_option) == (arm, option)
    assert message.startswith(expected)


def test_every_option_of_an_arm_has_a_use() -> None:
    """An option that is added to arms is added to what says which arms have a use for it."""
    options = {field.name for field in dataclasses.fields(ArmOptions)} - {"kind", "renders"}
    assert config_module._USED_BY.keys() == options


def test_arms_that_make_sense() -> None:
    arms = {
        "ä %s": CLASSIFICATION,
        "x" * 80: ArmOptions("classification", rebalancing=0, palette="grid", soft_label_sigma=2, decoding="mode"),
        "tilted": ArmOptions(renders="ä %s", tilt=0, decoding="mean"),
        "regression": ArmOptions("regression", adversarial=0.1, critic=CriticOptions(1)),
        **dict.fromkeys(["../x", "-x", "con", "[/]", "e\u0301", "😀" * 80], CLASSIFICATION),
    }
    assert list(find_arm_mistakes(arms)) == []


# What is put in GOOD in the place of what, and how each line begins that is said.
MISTAKES = [
    ("epochs: 9", "epoch: 9", ["c.yaml: epochs: is missing", "c.yaml, line 4: epoch: unknown key; did you mean `e"]),
    ("epochs: 9", "epochs: nine", ['c.yaml, line 4: epochs: should be a valid integer, found "nine"']),
    ("epochs: 9", "epochs: 9.0", ["c.yaml, line 4: epochs: should be a valid integer, found 9.0"]),
    ("epochs: 9", "epochs: 0", ["c.yaml, line 4: epochs: should be greater than or equal to 1, found 0"]),
    ("epochs: 9", "epochs: 9\nepochs: 8", ['c.yaml, line 5: is not valid YAML: found duplicate key "epochs"']),
    ("epochs: 9", "epochs: 9\nminutes: 5", [f"c.yaml, line {line}: {key}: follows from `minutes`"
                                            for line, key in ((3, "train_images"), (4, "epochs"))]),
    ("1e-4", "1e400", ["c.yaml, line 12: training.weight_decay: should be a finite number, found Infinity"]),
    ("0.25}", '"1"}', ['c.yaml, line 7: arms."rebalanced 0.25".rebalancing: should be a valid number, found "1"']),
    ("0.25}", ".nan}", ['c.yaml, line 7: arms."rebalanced 0.25".rebalancing: should be a finite number, found NaN']),
    ("g: 0.25", "ig: 0.25", ['c.yaml, line 7: arms."rebalanced 0.25".rebalancinig: unknown key; did you mean `rebal']),
    ("rebalancing: 0.25", "palette: gird", ['c.yaml, line 7: arms."rebalanced 0.25".palette: should be \'reach']),
    ("rebalancing: 0.25", "palette: {kmeans: 3}", ['c.yaml, line 7: arms."rebalanced 0.25".palette.kmeans: should be']),
    ("rebalancing: 0.25", "palette: {kmean: 64}",
     [f'c.yaml, line 7: arms."rebalanced 0.25".palette.{said}' for said in ("kmeans: is missing", "kmean: unknown")]),
    ("rebalancing: 0.25", "tilt: 0.25", ['c.yaml, line 7: arms."rebalanced 0.25".tilt: means nothing for']),
    ("rebalancing: 0.25", "prior: {table: 2}", ['c.yaml, line 7: arms."rebalanced 0.25".prior.table: should be less']),
    ("{kind: regression}", "5", ["c.yaml, line 6: arms.regression: expected keys and values, found 5"]),
    ("{kind: regression}", "{kind: gray}", ["c.yaml, line 6: arms.regression.kind: should be 'regression' or 'classi"]),
    ("regression: {kind", "grey: {kind", ["c.yaml, line 6: arms.grey: is the name of a baseline"]),
    ("    learning_rate", "    #", ["c.yaml, line 8: training.learning_rate: is missing: give its value here, or"]),
    ("  width: 32\n", "  width: 32\n  optimizer: sgd\n", ["c.yaml, line 20: search.space.optimizer: has a value"]),
    ("[adamw, sgd]", "[adamw, sgdd]", ["c.yaml, line 19: search.space.optimizer[1]: should be 'sgd', 'adam', 'ad"]),
    ("[3, 5]", "{uniform: [3, 5]}", ["c.yaml, line 20: search.space.filter_size: should be a valid list, found"]),
    ("[1e-3, 1e-1]", "[1e-1, 1e-3]", ["c.yaml, line 18: search.space.learning_rate: expected [low, high] with lo"]),
    ("[1e-3, 1e-1]", "[0, 1]", ["c.yaml, line 18: search.space.learning_rate: expected a low end above 0"]),
    ("[1e-3, 1e-1]", "[1e-3]", ["c.yaml, line 18: search.space.learning_rate.loguniform: List should have at least 2"]),
    ("loguniform", "logunifor", ["c.yaml, line 18: search.space.learning_rate.logunifor: unknown key; did you mean"]),
    ("{loguniform: [1e-3, 1e-1]}", "[x]", ["c.yaml, line 18: search.space.learning_rate[0]: should be a valid number"]),
    ("method: random", "method: grid",
     ["c.yaml, line 16: search.trials_per_arm: does not go", "c.yaml, line 18: search.space.learning_rate: expected"]),
    ("  trials_per_arm: 4\n", "", ["c.yaml, line 14: search.trials_per_arm: is missing: say how many"]),
    ("[cifar10, photos]", "[cifar]", ["c.yaml, line 2: dataset[0]: String should match pattern '^(cifar10|imag"]),
    ("experiment: good", "experiment: ../x", ["c.yaml, line 1: experiment: String should match pattern"]),
    ("epochs: 9", "epochs: 9\nresources: {gpu: 1.5}", ["c.yaml, line 5: resources.gpu: should be 'auto', found 1.5"]),
    ("grace_epochs: 1", "grace_epochs: 10", ["c.yaml, line 21: early_stopping.grace_epochs: expected at most the"]),
    ("epochs: 9", "epochs:\t9", ["c.yaml, line 4: is not valid YAML: found a tab instead of spaces"]),
    ("epochs: 9", "epochs: &n 9\nseed: *n", ["c.yaml, line 4: is not valid YAML: anchors and aliases (&name"]),
    ("epochs: 9", "epochs: 9\n? [a]\n: 9", ["c.yaml: Keys should be strings"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert old in GOOD
    found = mistakes(tmp_path, GOOD.replace(old, new, 1))
    assert len(found) == len(expected), found
    for message in expected:
        assert any(line.startswith(message) for line in found), found


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("epochs: 9", "epochs: x").replace("depth: 3", "detph: 3").replace("sgd", "sdg")
    assert [line.split(": ")[0] for line in mistakes(tmp_path, text, "seed=-1")] == [
        "--set seed=-1",
        "c.yaml, line 4",
        "c.yaml, line 11",
        "c.yaml, line 19",
    ]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.width=x", '--set training.width=x: training.width: should be a valid integer, found "x"'),
        ("trainin.width=3", "--set trainin.width=3: trainin: unknown key; did you mean `training`?"),
        ("epochs=[1", "--set epochs=[1, line 1: is not valid YAML"),
        ("epochs", "--set epochs: expected key=value"),
    ],
)
def test_a_mistaken_setting_is_named(tmp_path: Path, setting: str, expected: str) -> None:
    (line,) = mistakes(tmp_path, GOOD, setting)
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "c.yaml: cannot be read (No such file or directory)"),
        (b"experiment: caf\xe9", "c.yaml: is not UTF-8 text: save it as UTF-8"),
        (GOOD.encode("utf-16"), "c.yaml: is not UTF-8 text: save it as UTF-8"),
        (GOOD.encode("utf-16-le"), "c.yaml: is not valid YAML: unacceptable character #x0000"),
        (b"", "c.yaml: expected keys and values, found nothing"),
        (b"- a", 'c.yaml: expected keys and values, found ["a"]'),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{tmp_path}/{expected}")


YAML_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("experiment", "dataset", "epochs", "arms", "training", "search", "early_stopping", "resources")


@settings(deadline=None)
@given(key=st.sampled_from(KEYS), value=YAML_VALUES)
def test_no_value_ends_in_anything_but_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    kept = [line for line in GOOD.splitlines() if not line.startswith(key)]
    path.write_text("\n".join([*kept, f"{key}: {value!r}"]), encoding="utf-8", errors="replace")
    with contextlib.suppress(ConfigError):
        read_config(path)


@given(low=st.floats(1e-9, 1e9), factor=st.floats(1.001, 1e6), log=st.booleans())
def test_a_range_goes_from_its_low_to_its_high_end(low: float, factor: float, log: bool) -> None:
    bounds = [low, low * factor]
    values = Range(loguniform=bounds) if log else Range(uniform=bounds)
    middle = math.sqrt(low * bounds[1]) if log else (low + bounds[1]) / 2
    assert [values.at(0), values.at(0.5), values.at(1)] == pytest.approx([low, middle, bounds[1]])


def test_a_recorded_config_is_shown_without_the_keys_that_are_gone() -> None:
    config = SweepConfig.model_validate(
        {
            "experiment": "x",
            "dataset": "photos",
            "epochs": 1,
            "arms": {"regression": {"kind": "regression"}},
            "training": {"learning_rate": 0.1},
            "search": {"method": "random", "trials_per_arm": 1},
        }
    )
    recorded = config.model_dump(mode="json")
    older = recorded | {"gone": 1, "training": recorded["training"] | {"gone": {"deep": 2}}}
    older["arms"] = {"regression": recorded["arms"]["regression"] | {"gone": []}}
    assert recorded_config(older).model_dump(mode="json") == recorded
    with pytest.raises(ValidationError, match="epochs"):
        recorded_config(recorded | {"epochs": "many"})
