"""README and docs say what is true: commands, keys, files and the page that a reader follows word by word."""

import ast
import io
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
TOPS = ("platform", "db", "survey_app")
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "deploy/README.md",
    *sorted(f"docs/{path.name}" for path in (CHECKOUT / "docs").glob("*.md") if path.stem != "log"),  # that is history
]
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (CHECKOUT / page).read_text(encoding="utf-8")


def commands() -> list[tuple[str, str]]:
    """Every `python -m MODULE ...` of the pages, with the page."""
    command = re.compile(r"python -m ((?:platform|db|survey_app|tests|benchmarks)[^`\n#]*)")
    return [(page, match) for page in PAGES for match in command.findall(text_of(page))]


def test_pages_name_files_that_are_there() -> None:
    file = re.compile(
        r"(?:`|\]\(|pytest )((?:platform|db|survey_app|tests|docs|deploy|tune_configs|benchmarks)/[\w./-]+\.\w+)"
    )
    named = [(page, name) for page in PAGES for name in file.findall(BLOCK.sub("", text_of(page)))]
    assert [found for found in named if not (CHECKOUT / found[1]).exists() and "hues" not in found[1]] == []


def test_every_picture_of_the_docs_is_shown() -> None:
    shown = {
        (CHECKOUT / page).parent / name for page in PAGES for name in re.findall(r"!\[.*?\]\((.+?)\)", text_of(page))
    }
    assert shown == {path for ending in ("png", "jpg") for path in (CHECKOUT / "docs").rglob(f"*.{ending}")}


def help_of(command: list[str]) -> str:
    """What `python -m MODULE --help` prints."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", [*command, "--help"])
        patch.delitem(sys.modules, command[0], raising=False)  # runpy warns of a module that was imported before
        runpy.run_module(command[0], run_name="__main__")
    assert end.value.code in (0, None), command
    return printed.getvalue()


def test_options_named_in_commands_are_known() -> None:
    helps: dict[str, str] = {}
    unknown = []
    for page, command in commands():
        module, *words = command.split()
        path = CHECKOUT / module.replace(".", "/")
        if not path.is_dir() and not path.with_suffix(".py").exists():
            unknown.append((page, module))
            continue
        sub = words[0] if module == "survey_app.studies" and words and words[0].isalpha() else ""
        key = f"{module} {sub}".strip()
        if key not in helps:
            helps[key] = help_of(key.split())
        for option in re.findall(r"(--[a-z][a-z-]*)", command):
            if option not in helps[key]:
                unknown.append((page, command))
    assert unknown == []


def test_make_targets_named_in_pages_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:^    |`)make ([a-z-]+)", text_of(page), re.MULTILINE)) <= targets, page


def test_readme_is_short_and_its_tree_is_the_folder() -> None:
    readme = text_of("README.md")
    assert len(readme.splitlines()) <= 110
    tree = readme.partition("## Layout\n")[2]
    listed = set(re.findall(r"[a-z_0-9]+\.py", tree.partition("arms/")[0]))
    assert listed == {path.name for path in (CHECKOUT / "platform").glob("*.py") if not path.name.startswith("__")}
    rooms = {path.parent.name for top in TOPS for path in (CHECKOUT / top).glob("*/*.py")} - {"migrations"}
    assert rooms | set(TOPS) <= set(re.findall(r"^ +([a-z_]+)/", tree, re.MULTILINE))


def test_rooms_are_small_and_no_name_stands_twice() -> None:
    modules = [path for top in TOPS for path in (CHECKOUT / top).rglob("*.py") if "migrations" not in path.parts]
    modules = [path for path in modules if not path.name.startswith("__")]
    assert max(Counter(path.parent for path in modules).values()) <= 13
    assert {name for name, times in Counter(path.name for path in modules).items() if times > 1} == {"app.py"}
    # Streamlit puts an app's folder first on the path, before Python's own modules.
    beside_apps = {path.stem for path in modules if (path.parent / "app.py").exists()}
    assert beside_apps & sys.stdlib_module_names == set()
    classes = Counter(
        node.name
        for path in modules
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, times in classes.items() if times > 1} == set()


@pytest.mark.long
def test_an_idea_is_added_as_the_page_says(tmp_path: Path) -> None:
    """Follow docs/add-an-idea.md: its files, its changes of two files, its contract tests and its config's dry run."""
    for name in ("platform", "tests", "db", "survey_app", "tune_configs", "pyproject.toml", "conftest.py"):
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    kinds = []
    for kind, name, body in BLOCK.findall(text_of("docs/add-an-idea.md")):
        kinds.append(kind)
        if kind == "diff":
            for of_file in body.split("--- a/")[1:]:
                changed, *hunks = of_file.split("@@\n")
                path = tmp_path / changed.partition("\n")[0]
                text = path.read_text(encoding="utf-8")
                for lines in map(str.splitlines, hunks):
                    before = "\n".join(line[1:] for line in lines if line[0] in " -")
                    after = "\n".join(line[1:] for line in lines if line[0] in " +")
                    assert text.count(before) == 1, before
                    text = text.replace(before, after)
                path.write_text(text, encoding="utf-8")
        else:
            (tmp_path / name).write_text(body, encoding="utf-8")
    assert kinds == ["python", "diff", "python", "yaml"]
    for arguments in (
        ["pytest", "-q", "tests/color/test_hues.py"],
        ["platform.sweep", "tune_configs/hues.yaml", "--dry-run"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "hues" in done.stdout
    wrong = [sys.executable, "-m", *arguments, "--set", "arms.hues.palette={hues: 2}"]
    done = subprocess.run(wrong, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    assert done.stderr.endswith("arms.hues.palette.hues: should be greater than or equal to 3, found 2\n")


def test_pages_speak_of_what_a_user_has() -> None:
    for page in PAGES:
        assert not re.search(r"/(?:home|root|Users)/\w|\.\./\w+/\w", text_of(page).replace("](../", "](/")), page
