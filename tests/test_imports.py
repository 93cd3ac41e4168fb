"""Which of our modules may import which of the large libraries (CONTRIBUTING.md, what always holds).

The modules are found by listing, so a new file is covered by being there.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
WITH_RAY = {"platform.running.on_ray", "platform.running.cluster"}
# The one view that runs models, and what every reader's page begins with: nothing that participants or commands import.
WITH_TORCH = {f"survey_app.dashboard.{name}" for name in ("photograph_view", "page", "app")}
# What an arm, a plan and a score is: the database, the survey and its readers ask these.
OF_MEANING = ("arms.options", "running.config", "model.hyperparameters", "color.scores", "running.plan")
# They act when they are run, and are never imported.
NOT_MODULES = {"platform.__main__", "db.migrations.env", "survey_app.participants.app"}

# Imports each named module in turn; prints which of the forbidden libraries each one was the first to bring in.
WATCH = """
import importlib, json, sys
forbidden, brought = set(json.loads(sys.argv[1])), {}
for name in json.loads(sys.argv[2]):
    before = forbidden & sys.modules.keys()
    importlib.import_module(name)
    brought[name] = sorted((forbidden & sys.modules.keys()) - before)
print(json.dumps(brought))
"""


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name, the package itself first."""
    names = {}
    for path in sorted((CHECKOUT / package).rglob("*.py")):
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def libraries_named_in(path: Path) -> set[str]:
    """The top-level names that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("package", "forbidden", "allowed"),
    [
        ("platform", {"ray"}, WITH_RAY),
        ("db", {"torch", "ray", "streamlit"}, set()),
        ("survey_app", {"torch", "ray"}, WITH_TORCH),
        ("survey_app", {"ray"}, set()),
    ],
    ids=[
        "platform without ray",
        "db without torch, ray, streamlit",
        "survey_app without torch",
        "survey_app without ray",
    ],
)
def test_forbidden_libraries_are_not_imported(package: str, forbidden: set[str], allowed: set[str]) -> None:
    bound = {name: path for name, path in modules(package).items() if name not in allowed}
    assert len(bound) > 2
    named = {name: libraries_named_in(path) & forbidden for name, path in bound.items()}
    assert {name for name, found in named.items() if found} == set()

    brought = brought_by([name for name in bound if name not in NOT_MODULES], forbidden)
    assert brought.keys() == bound.keys() - NOT_MODULES
    assert {name: found for name, found in brought.items() if found} == {}


def brought_by(names: list[str], forbidden: set[str]) -> dict[str, list[str]]:
    """What each module is the first to bring in: indirect imports show only in a fresh interpreter."""
    command = [sys.executable, "-c", WATCH, json.dumps(sorted(forbidden)), json.dumps(names)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    brought: dict[str, list[str]] = json.loads(done.stdout)
    return brought


def test_what_an_arm_a_plan_and_a_score_is_needs_no_torch() -> None:
    names = [f"platform.{name}" for name in OF_MEANING]
    assert brought_by(names, {"torch", "ray", "streamlit"}) == {name: [] for name in names}


def test_the_watch_sees_an_import() -> None:
    assert brought_by(["json", "ray.tune"], {"ray"}) == {"json": [], "ray.tune": ["ray"]}


def test_participants_server_loads_nothing_of_the_dashboard() -> None:
    """Streamlit itself loads pandas, for a component's lists."""
    forbidden = {"survey_app.dashboard", "altair", "statsmodels", "vl_convert", "skimage", "torch"}
    assert brought_by(["survey_app.participants.pages"], forbidden) == {"survey_app.participants.pages": []}
