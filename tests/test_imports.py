"""Which rooms a room may import, and which of the large libraries (CONTRIBUTING.md, what always holds).

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

# What each room imports of ours, at most: rooms or single modules. What you type (platform/*.py, survey_app/*.py)
# stands in front and may import all of them; no room imports it.
READS_DATABASE = {"db", "db.sweeps", "db.surveys"}
MAY_IMPORT = {
    "db": {"platform.arms.options"},  # what an arm's row says of itself
    "db.sweeps": {"db", "platform.arms.options", "platform.color.scores"},
    "db.surveys": {"db", "db.sweeps", "platform.arms.options", "platform.color.scores"},
    "platform.color": set(),
    "platform.arms": {"platform.color"},
    "platform.data": {"db.errors"},
    "platform.model": {"db", "db.sweeps", "platform.color", "platform.arms", "platform.data"},
    "platform.paint": {"db", "platform.color", "platform.arms", "platform.data", "platform.model"},
    "platform.tables": {*READS_DATABASE, "platform.color.scores"},
    "platform.running": {
        *READS_DATABASE,
        *(f"platform.{room}" for room in ("color", "arms", "data", "model", "paint", "tables")),
    },
    "survey_app.participants": {"db", "db.surveys", "survey_app.database", "survey_app.settings"},
    "survey_app.analysis": {*READS_DATABASE, "platform.tables", "platform.arms.options", "platform.color.scores"},
    "survey_app.dashboard": {
        *READS_DATABASE,
        *("survey_app.analysis", "survey_app.database", "survey_app.settings", "platform.tables"),
        *("platform.color.scores", "platform.running.config", "platform.running.plan", "platform.paint.sheet"),
    },
    # The one view that runs models.
    "survey_app.dashboard.photograph_view": {
        *("db", "db.sweeps", "survey_app.dashboard"),
        *(f"platform.{room}" for room in ("arms", "data", "model", "paint")),
    },
}

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


def imported_by(path: Path) -> set[str]:
    """The dotted names that a file imports anywhere, inside functions too: modules, and names in them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def libraries_named_in(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported_by(path)}


def rooms_above(name: str) -> list[str]:
    """The name and all that it stands in, innermost first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def test_rooms_import_what_they_may() -> None:
    ours = modules("db") | modules("platform") | modules("survey_app")
    rooms = {name.rpartition(".")[0] for name, path in ours.items() if path.name != "__init__.py"}
    assert rooms - {"platform", "survey_app"} - MAY_IMPORT.keys() == {"db.migrations", "db.migrations.versions"}
    found = set()
    for name, path in ours.items():
        room = next((above for above in rooms_above(name) if above in MAY_IMPORT), None)
        if room is None:  # a command
            continue
        allowed = MAY_IMPORT[room] | {room, name.rpartition(".")[0]}
        for imported in imported_by(path):
            module = next((above for above in rooms_above(imported) if above in ours), "platform")
            # A library, or Python's own `platform`, is another test's.
            if module != "platform" and not {module, module.rpartition(".")[0]} & allowed:
                found.add(f"{name} imports {module}")
    assert found == set()


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
