"""Configs: what is read, and that every mistake is named with its line, its key, what was expected and the mend."""

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform.arm_options import ArmOptions, KMeans
from platform.config import ConfigError, ConfigFile, Range, SweepConfig, arm_mistakes, changes_between, read_config
from platform.hyperparameters import Hyperparameters

CONFIGS = sorted((Path(__file__).parent.parent / "tune_configs").glob("*.yaml"))

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
profiles:
  gpu:
    epochs: 30
    training: {width: 64}
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
        assert file.configs["cpu"].experiment == path.stem


def test_a_config_is_read(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD).configs["cpu"]
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


def test_profiles_and_settings_are_laid_over_the_file(tmp_path: Path) -> None:
    file = read(tmp_path, GOOD, "training.width=48", "early_stopping=null", 'arms."rebalanced 0.25".rebalancing=0.3')
    cpu, gpu = file.configs["cpu"], file.configs["gpu"]
    assert file.profiles == ("gpu",)
    assert (cpu.epochs, gpu.epochs) == (9, 30)
    assert cpu.fixed()["width"] == gpu.fixed()["width"] == 48  # a setting wins over a profile
    assert gpu.fixed()["depth"] == 3  # sections are merged, not replaced
    assert cpu.early_stopping is None
    assert cpu.arms["rebalanced 0.25"].rebalancing == 0.3


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
    config = read(tmp_path, text).configs["cpu"]
    assert Hyperparameters(**config.fixed(), learning_rate=0.003, epochs=2) == Hyperparameters(0.003, 2)
    assert config.arms == {
        "classification": ArmOptions(kind="classification"),
        "k-means": ArmOptions(kind="classification", palette=KMeans(64)),
        "tilted": ArmOptions(renders="classification", tilt=0.5),
    }
    searchable = {field.name for field in dataclasses.fields(Hyperparameters)} - {"epochs", "seed", "precision"}
    for name in searchable - config.search.values().keys():
        assert (
            name in read(tmp_path, text, f"search.space.{name}=[{config.fixed()[name]}]").configs["cpu"].search.values()
        )


def test_a_new_key_with_a_default_does_not_make_an_older_experiment_another(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD).configs["cpu"]
    recorded = config.model_dump(mode="json")
    assert changes_between(recorded, config) == []
    del recorded["tuning_images"], recorded["failures"], recorded["training"]["precision"]
    for options in recorded["arms"].values():
        del options["tilt"], options["palette"]
    assert changes_between(recorded, config) == []
    elsewhere = read(tmp_path, GOOD, "resources.cpu=4", "dataset=photos").configs["cpu"]
    assert changes_between(recorded, elsewhere) == []
    other = read(tmp_path, GOOD, "training.precision=float32", "arms.regression.rebalancing=1", "tuning_images=9")
    assert changes_between(recorded, other.configs["cpu"]) == [
        "training.precision was auto and is float32",
        "tuning_images was None and is 9",
    ]
    # A value that was resolved then counts, not what its default is now.
    recorded["training"]["batch_size"], recorded["gone"] = 8, 1
    assert changes_between(recorded, config)[:1] == ["arms.rebalanced 0.25.palette was None and is reachable"]
    del recorded["gone"]
    assert changes_between(recorded, config) == ["training.batch_size was 8 and is 32"]


CLASSIFICATION = ArmOptions(kind="classification")


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        ({"a": ArmOptions()}, ("a", None, "expected either `kind` (regression or classification) or `renders`")),
        ({"a": ArmOptions("classification", renders="b"), "b": CLASSIFICATION}, ("a", None, "expected either `kind`")),
        ({"a": ArmOptions(kind="grey")}, ("a", "kind", "is a baseline's, which every experiment has")),
        ({"a": ArmOptions(renders="b")}, ("a", "renders", 'expected the name of an arm that is trained, found "b"')),
        ({"a": ArmOptions(renders="a")}, ("a", "renders", "expected the name of an arm that is trained")),
        (
            {"arm": CLASSIFICATION, "b": ArmOptions(renders="arms")},
            ("b", "renders", 'expected the name of an arm that is trained, found "arms"; did you mean `arm`?'),
        ),
        (
            {"a": CLASSIFICATION, "b": ArmOptions(renders="a"), "c": ArmOptions(renders="b")},
            ("c", "renders", "expected the name of an arm that is trained"),
        ),
        ({"a": ArmOptions("classification", tilt=0.5)}, ("a", "tilt", "is of an arm that renders a classification")),
        ({"a": ArmOptions("regression", tilt=0.5)}, ("a", "tilt", "means nothing for regression")),
        ({"a": ArmOptions("regression", rebalancing=0.5)}, ("a", "rebalancing", "means nothing for regression")),
        ({"a": ArmOptions("regression", palette=KMeans(16))}, ("a", "palette", "means nothing for regression")),
        ({"a": ArmOptions("regression", soft_label_sigma=4)}, ("a", "soft_label_sigma", "means nothing for regr")),
        ({"a": ArmOptions("regression", decoding="mode")}, ("a", "decoding", "means nothing for regression")),
        (
            {"a": ArmOptions("regression"), "b": ArmOptions(renders="a", tilt=0.5)},
            ("b", "tilt", "means nothing for regression"),
        ),
        (
            {"a": CLASSIFICATION, "b": ArmOptions(renders="a", rebalancing=0.5)},
            ("b", "rebalancing", 'belongs to a training, and this arm renders that of "a"'),
        ),
        ({"": CLASSIFICATION}, ("", None, "expected a name of 1 to 80 printable characters")),
        ({" ": CLASSIFICATION}, (" ", None, "expected a name of 1 to 80 printable characters")),
        ({"x" * 81: CLASSIFICATION}, ("x" * 81, None, "expected a name of 1 to 80 printable characters")),
        ({"a\nb": CLASSIFICATION}, ("a\nb", None, "expected a name of 1 to 80 printable characters")),
        ({"grey": CLASSIFICATION}, ("grey", None, "is the name of a baseline")),
    ],
)
def test_arms_that_make_no_sense_together(arms: dict[str, ArmOptions], expected: tuple[str, str | None, str]) -> None:
    (mistake,) = arm_mistakes(arms)
    assert mistake[:2] == expected[:2]
    assert mistake[2].startswith(expected[2])


def test_arms_that_make_sense() -> None:
    arms = {
        "👩🏽‍🔬 ä %s": CLASSIFICATION,
        "x" * 80: ArmOptions("classification", rebalancing=0, palette="grid", soft_label_sigma=2, decoding="mode"),
        "tilted": ArmOptions(renders="👩🏽‍🔬 ä %s", tilt=0, decoding="mean"),
        "regression": ArmOptions("regression"),
    }
    assert list(arm_mistakes(arms)) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "epochs: 9",
            "epoch: 9",
            ["c.yaml: epochs: is missing", "c.yaml, line 4: epoch: unknown key; did you mean `e"],
        ),
        ("epochs: 9", "epochs: nine", ['c.yaml, line 4: epochs: expected a whole number, found "nine"']),
        ("epochs: 9", "epochs: 9.0", ["c.yaml, line 4: epochs: expected a whole number, found 9.0; write 9"]),
        ("epochs: 9", "epochs: true", ["c.yaml, line 4: epochs: expected a whole number, found true"]),
        ("epochs: 9", "epochs: 0", ["c.yaml, line 4: epochs: expected at least 1, found 0"]),
        (
            "epochs: 9",
            "epochs: 9\nepochs: 8",
            ["c.yaml, line 5: epochs: stands here twice (first in line 4)"],
        ),
        ("1e-4", "1e400", ["c.yaml, line 12: training.weight_decay: expected a finite number, found Infinity"]),
        ("1e-4", "!!str 1", ['c.yaml, line 12: training.weight_decay: expected a number, found "1"']),
        (
            "rebalancing: 0.25",
            'rebalancing: "1"',
            ['c.yaml, line 7: arms."rebalanced 0.25".rebalancing: expected a nu'],
        ),
        (
            "rebalancing: 0.25",
            "rebalancing: .nan",
            ['c.yaml, line 7: arms."rebalanced 0.25".rebalancing: expected a f'],
        ),
        (
            "rebalancing: 0.25",
            "rebalancig: 0.25",
            ['c.yaml, line 7: arms."rebalanced 0.25".rebalancig: unknown key; d'],
        ),
        (
            "rebalancing: 0.25",
            "palette: gird",
            ['c.yaml, line 7: arms."rebalanced 0.25".palette: expected \'reachable'],
        ),
        (
            "rebalancing: 0.25",
            "palette: {kmeans: 3}",
            ['c.yaml, line 7: arms."rebalanced 0.25".palette.kmeans: expected at least 16, found 3'],
        ),
        (
            "rebalancing: 0.25",
            "palette: {kmean: 64}",
            ['c.yaml, line 7: arms."rebalanced 0.25".palette.kmean: unknown key; did you mean `km'],
        ),
        ("{kind: regression}", "5", ["c.yaml, line 6: arms.regression: expected keys and values, found 5"]),
        (
            "{kind: regression}",
            "{kind: gray}",
            ["c.yaml, line 6: arms.regression.kind: expected 'regression' or 'classi"],
        ),
        ("1e-4", "no", ['c.yaml, line 12: training.weight_decay: expected a number, found "no"']),
        (
            "one_cycle",
            "onecycle",
            ["c.yaml, line 13: training.schedule: expected 'cosine' or 'one_cycle'"],
        ),
        ("depth: 3", "depth: 6", ["c.yaml, line 11: training.depth: expected at most 5, found 6"]),
        (
            "    learning_rate",
            "    #",
            [
                "c.yaml, line 8: training.learning_rate: is missing: give its",
                "c.yaml, line 25: profiles.gpu.training.learn",
            ],
        ),
        ("  width: 32\n", "  width: 32\n  optimizer: sgd\n", ["c.yaml, line 20: search.space.optimizer: has a value"]),
        ("[adamw, sgd]", "[adamw, sgdd]", ["c.yaml, line 19: search.space.optimizer[1]: expected 'sgd', 'adam', 'ad"]),
        ("[3, 5]", "{uniform: [3, 5]}", ["c.yaml, line 20: search.space.filter_size: expected a list, found"]),
        ("[1e-3, 1e-1]", "[1e-1, 1e-3]", ["c.yaml, line 18: search.space.learning_rate: expected [low, high] with lo"]),
        (
            "[1e-3, 1e-1]",
            "[0, 1]",
            ["c.yaml, line 18: search.space.learning_rate: expected a low end above 0"],
        ),
        ("[1e-3, 1e-1]", "[1e-3]", ["c.yaml, line 18: search.space.learning_rate.loguniform: expected at least 2 of"]),
        ("loguniform", "logunifor", ["c.yaml, line 18: search.space.learning_rate.logunifor: unknown key; did you"]),
        (
            "method: random",
            "method: grid",
            ["c.yaml, line 16: search.trials_per_arm: does not go", "c.yaml, line 18"],
        ),
        (
            "method: random",
            "method: rand",
            ["c.yaml, line 15: search.method: expected 'random', 'quasirandom'"],
        ),
        ("  trials_per_arm: 4\n", "", ["c.yaml, line 14: search.trials_per_arm: is missing: say how many"]),
        ("[cifar10, photos]", "[cifar]", ["c.yaml, line 2: dataset: expected one or more of cifar10, imagenet32, pho"]),
        ("regression: {kind", "grey: {kind", ["c.yaml, line 6: arms.grey: is the name of a baseline"]),
        ("{kind: regression}", "{kind: regression, rebalancing: 0}", ["c.yaml, line 6: arms.regression.rebalancing: "]),
        ("rebalancing: 0.25", "rebalancing: 2", ['c.yaml, line 7: arms."rebalanced 0.25".rebalancing: expected at mo']),
        (
            "rebalancing: 0.25",
            "decoding: mode, adversarial: 1",
            ['c.yaml, line 7: arms."rebalanced 0.25".adversarial: '],
        ),
        ("rebalancing: 0.25", "prior: {beside: true}", ['c.yaml, line 7: arms."rebalanced 0.25".prior: expected one']),
        ("experiment: good", "experiment: ../x", ["c.yaml, line 1: experiment: expected at most 80 letters"]),
        ("grace_epochs: 1", "grace_epochs: 10", ["c.yaml, line 21: early_stopping.grace_epochs: expected at most the"]),
        (
            "    epochs: 30",
            "    epochs: x",
            ['c.yaml, line 24: profiles.gpu.epochs: expected a whole number, found "x"'],
        ),
        (
            "  gpu:",
            "  gpuu:",
            ["c.yaml, line 23: profiles.gpuu: expected 'cpu' or 'gpu', found \"gpuu\"; did you"],
        ),
        (
            "width: 64",
            "widht: 64",
            ["c.yaml, line 25: profiles.gpu.training.widht: unknown key; did you mean `width`"],
        ),
        ("epochs: 9", "epochs:\u00a09", ["c.yaml, line 4: holds an odd space (U+00A0): type a plain one"]),
        ("  width: 32", "\u00a0 width: 3x2", ["c.yaml, line 10: holds an odd", "c.yaml, line 10: training.width: exp"]),
        ("epochs: 9", "epochs: 9 # nine\u00a0or so\nseed: -1", ["c.yaml, line 5: seed: expected at least 0"]),
        ("epochs: 9", "epochs: 9\nseed: \0", ["c.yaml, line 5: is not valid YAML: it holds U+0000"]),
        ("epochs: 9", "epochs: [9", ["c.yaml, line 5: is not valid YAML: "]),
        ("epochs: 9", "epochs: &n 9\nseed: *n", ["c.yaml, line 5: is not valid YAML: aliases (*name) are not used"]),
        ("epochs: 9", "epochs: !!python/name:os.system", ["c.yaml, line 4: is not valid YAML: could not determine"]),
        ("epochs: 9", "? [a]\n: 9", ["c.yaml, line 4: expected keys that are texts", "c.yaml: epochs: is missing"]),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert old in GOOD
    found = mistakes(tmp_path, GOOD.replace(old, new, 1))
    assert len(found) == len(expected)
    for message in expected:
        assert any(line.startswith(message) for line in found), found


@pytest.mark.parametrize("profiles", ["[]", "false", "0", "''"])
def test_profiles_that_are_none_are_mistakes(tmp_path: Path, profiles: str) -> None:
    text = f"{GOOD[: GOOD.index('profiles')]}profiles: {profiles}\n"
    (line,) = mistakes(tmp_path, text)
    assert line.startswith("c.yaml, line 22: profiles: expected keys and values, found")
    for empty in ("", "null", "{}"):
        assert read(tmp_path, text.replace(f"profiles: {profiles}", f"profiles: {empty}")).profiles == ()


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("epochs: 9", "epochs: x").replace("width: 64", "widht: 64").replace("sgd", "sdg")
    assert [line.split(": ")[0] for line in mistakes(tmp_path, text, "seed=-1", "nonsense")] == [
        "--set nonsense",
        "--set seed=-1",
        "c.yaml, line 4",
        "c.yaml, line 19",
        "c.yaml, line 25",
    ]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.width=x", '--set training.width=x: training.width: expected a whole number, found "x"'),
        ("trainin.width=3", "--set trainin.width=3: trainin: unknown key; did you mean `training`?"),
        ("epochs=[1", "--set epochs=[1, line 1: is not valid YAML"),
        ("epochs", "--set epochs: expected key=value"),
        ("profiles.gpu.epochs=3", "--set profiles.gpu.epochs=3: profiles: a setting goes over every profile"),
        ("search.space.bins=[grid]", "--set search.space.bins=[grid]: search.space.bins: unknown key"),
    ],
)
def test_a_mistaken_setting_is_named(tmp_path: Path, setting: str, expected: str) -> None:
    (line,) = mistakes(tmp_path, GOOD, setting)
    assert line.startswith(expected)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, expected in {
        tmp_path / "none.yaml": "cannot be read (No such file or directory)",
        tmp_path: "cannot be read (Is a directory)",
    }.items():
        with pytest.raises(ConfigError) as caught:
            read_config(path)
        assert str(caught.value).startswith(f"{path}: {expected}")
    (tmp_path / "latin.yaml").write_bytes(b"experiment: caf\xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml, line 1: is not UTF-8 text: save it as UTF-8"):
        read_config(tmp_path / "latin.yaml")
    for encoding in ("utf-16", "utf-8-sig"):
        (tmp_path / "other.yaml").write_text(GOOD, encoding=encoding)
        if encoding == "utf-16":
            with pytest.raises(ConfigError, match=r"other\.yaml: is UTF-16 or UTF-32 text: save it as UTF-8"):
                read_config(tmp_path / "other.yaml")
    assert read_config(tmp_path / "other.yaml").configs["cpu"].epochs == 9  # a byte order mark of UTF-8 does no harm
    assert mistakes(tmp_path, "") == ["c.yaml: expected keys and values, found nothing"]
    assert mistakes(tmp_path, "- a") == ['c.yaml: expected keys and values, found ["a"]']


YAML_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("experiment", "dataset", "epochs", "arms", "training", "search", "early_stopping", "resources", "profiles")


@given(text=st.text(max_size=60))
def test_no_text_ends_in_anything_but_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(ConfigError):
        read_config(path)


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
