"""What people make of studies: their command, their export, and the printed results."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Engine, select
from statsmodels.stats.proportion import proportion_confint

from db.schema import Participant, Study
from db.store import open_database, read_session
from db.surveys.answers import ExclusionRule, load_answers
from db.surveys.study import create_study, find_study
from db.surveys.votes import progress, record_vote
from db.surveys.votes_frame import VOTE_COLUMNS
from platform.tables.intervals import Share, wilson
from platform.tables.outcome import print_results
from survey_app import report, studies
from tests.survey_data import add_experiment, answer_all, to_first_question

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("total", [1, 2, 7, 40, 1000])
def test_wilson_intervals_agree_with_statsmodels(total: int) -> None:
    for count in {0, 1, total // 3, total - 1, total}:
        expected = proportion_confint(count, total, method="wilson")
        share = wilson(count, total)
        assert share.share == count / total
        assert (share.low, share.high) == pytest.approx(expected, abs=1e-12)
    assert wilson(0, 0) == Share(0, 0, None, None, None)


def printed(engine: Engine) -> str:
    console = Console(width=80, file=io.StringIO(), record=True)
    print_results(engine, "cats", console)
    return console.export_text()


def test_the_printed_table_has_what_people_picked(engine: Engine) -> None:
    assert "No study asks people about it yet." in " ".join(printed(engine).split())
    create_study(
        engine,
        "cats",
        arms=["regression", "classification=1"],
        protocol="single",
        question_count=12,
        practice_count=3,
        sentinel_share=0.17,
        seed=0,
    )
    table = printed(engine)
    assert "Nobody has answered study" in " ".join(table.split())
    answer_all(engine, "cats", wrong={"regression"})
    answer_all(engine, "cats", wrong={"sentinel", "real"})
    table = printed(engine)
    blank = "[ \N{NO-BREAK SPACE}]"
    assert re.search(rf"regression +20.00 .* 50.0{blank}% +2/4 +15–85{blank}%", table), table
    assert re.search(rf"classification +21.00 .* 0.0{blank}% +0/4 +0–49{blank}%", table), table
    assert re.search(r"rebalanced 0.25 +22.00 .* – +– +–", table)
    assert re.search(rf"the photographs .* 50.0{blank}% +6/12", table)
    note = " ".join(table.split())
    assert "Study 'cats' (open): 2 participants of 30 planned, 1 of them attentive" in note
    assert re.search(r"classification +\S.* #1 ", table), table  # which the study asks about, not the best


@pytest.mark.parametrize(
    ("rule", "wrong", "finished", "counted"),
    [
        (ExclusionRule(1), 1, True, True),
        (ExclusionRule(1), 2, True, False),
        (ExclusionRule(1), 0, False, False),
        (ExclusionRule(1, finished=False), 0, False, True),
        (ExclusionRule(None), 9, True, True),
    ],
)
def test_exclusion_rule(rule: ExclusionRule, wrong: int, finished: bool, counted: bool) -> None:
    assert rule.counts(sentinels_wrong=wrong, finished=finished) == counted


# The command, and files


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "survey.sqlite"
    engine = open_database(path)
    add_experiment(engine, images=24)
    engine.dispose()
    return path


def test_the_command_creates_shows_exports_and_closes(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> str:
        monkeypatch.setenv("COLUMNS", "160")
        code = studies.main(["--database", str(database), *arguments])
        said = capsys.readouterr()
        assert code == 0, said.err
        return " ".join(said.out.split())

    short = ("--questions", "12", "--practice", "3")
    assert "Study 'cats' is open: protocol pair, 12 questions (1 of them sentinels)" in run("create", *short)
    said = run(
        "create", "cats", "--name", "a/b", "--arm", "grey", "--exposure", "none", "--id-parameter", "workerId", *short
    )
    assert "shown until answered" in said
    assert "link's workerId" in said
    assert "Contenders of experiment 'cats' (cats): grey; 24 images" in said
    assert re.search(r"a/b open cats pair 0 30 0 cats open cats pair 0 30 0", run("list"))

    engine = open_database(database)
    answer_all(engine, "cats", wrong={"regression"}, flags=("night shift", "plates"))
    answer_all(engine, "cats", wrong={"sentinel"}, questions=14)
    answer_all(engine, "cats", wrong={"sentinel"}, simulated=True)
    shown = run("show", "cats")
    assert re.search(r"all \(2\).*attentive \(1\).*regression", shown), shown
    assert "2 participants so far, 1 of them finished" in shown
    assert "2 of them came without an id in their link's PROLIFIC_PID" in shown
    assert "simulated" in run("show", "cats", "--simulated")

    assert "29 votes are in" in run("export", "cats", "--to", str(tmp_path / "out"))
    with (tmp_path / "out" / "votes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == VOTE_COLUMNS
    assert len({row["participant"] for row in rows}) == 2
    assert {row["simulated"] for row in rows} == {"0"}
    assert {row["check_flags"] for row in rows} == {"night shift;plates", ""}
    main = [row for row in rows if row["phase"] == "main"]
    assert len(main) == 23
    for row in rows:
        assert row["picked_as_real"] == str(1 - int(row["correct"]))
        assert row["real_side"] == row["answer"] or row["correct"] == "0"
        assert (row["kind"] == "arm") == bool(row["arm"]) == bool(row["trial"])
        assert row["sentinel"] == str(int(row["kind"] == "sentinel"))
        assert row["attentive"] == row["finished"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["answered_on"])  # a time of day would tell who came when
        assert (row["exposure_ms"], row["response_time_ms"], row["scale"]) == ("1000", "700.0", "4")
    with read_session(engine) as session:
        answers = load_answers(session, find_study(session, "cats"))
        private = session.scalars(select(Participant.completion_code)).all()
    for trial, picked in zip(answers.contenders, answers.of("all").picked_as_real(), strict=True):
        about = [row for row in main if row["arm"] == trial.arm.name]
        assert (sum(int(row["picked_as_real"]) for row in about), len(about)) == (picked.count, picked.total)
    exported = "".join(file.read_text() for file in (tmp_path / "out").iterdir())
    assert not any(code in exported for code in private)
    definition = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [arm["trial"] for arm in definition["arms"]] == [2, 2, 2]
    assert (len(definition["images"]), definition["dataset"]["fingerprint"]) == (24, "cats 24 16")
    stored = {column.name for column in Study.__table__.columns} - {"id", "name", "experiment_id"}
    assert stored <= definition.keys()  # all that a study is

    monkeypatch.chdir(tmp_path)
    assert "12 votes" not in run("export", "a/b")
    assert (tmp_path / "a_b" / "votes.csv").read_text().count("\n") == 1  # the header
    assert "takes no more participants and no more answers. 1 under way are thanked" in run("close", "cats")
    engine.dispose()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--database", "nowhere.sqlite", "list"], "nowhere.sqlite; run a sweep first"),
        (["list"], "There is no study yet; finish a sweep, or create one"),
        (["show"], "There is no study yet"),
        (["close", "x"], "There is no study 'x'; there is none yet"),
        (["create", "--questions", "40"], "40 questions and 4 for practice need 44 images"),
        (["create", "dogs"], "There is no experiment 'dogs'; there is cats"),
    ],
)
def test_the_command_says_in_one_sentence_what_is_wrong(
    database: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert studies.main(["--database", str(database), *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_without_an_experiment_the_commands_say_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "empty.sqlite")
    open_database(path).dispose()
    for run, arguments in ((studies.main, ["create"]), (report.main, [])):
        assert run(["--database", path, *arguments]) == 2
        assert capsys.readouterr().err == "The database holds no experiment yet; run a sweep first (make sweep).\n"


def test_the_data_dictionary_explains_every_column_in_order() -> None:
    text = (ROOT / "docs" / "data-dictionary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \| ([^|]+) \|$", text, flags=re.MULTILINE)
    assert rows[0][0] == "column"
    assert tuple(name for name, _, _ in rows[1:]) == VOTE_COLUMNS


def test_an_export_stays_in_a_folder_of_its_own(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study named ".." was exported into the parent folder."""
    names = {"rebalance": "rebalance", "a/../b": "a____b", ".hidden": "_hidden", "C:\\x": "C__x", "/etc": "_etc"}
    assert {study: studies.name_folder(study) for study in names} == names
    assert len(studies.name_folder("ä" * 100).encode()) <= 143  # what some file systems take
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    arguments = ["--database", str(database)]
    assert studies.main([*arguments, "create", "--name", ".."]) == 0
    assert studies.main([*arguments, "export", ".."]) == 0
    assert [path.name for path in inside.iterdir()] == ["__"]
    assert not (tmp_path / "votes.csv").exists()
    capsys.readouterr()


def test_votes_out_of_sight_are_exported_counted_and_excluded_by_the_rule(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--database", str(database)]
    engine = open_database(database)
    create_study(engine, "cats", question_count=10, practice_count=0, hidden_at_most=0)
    token = to_first_question(engine, "cats")
    now = progress(engine, token)
    assert now is not None
    assert now.next is not None
    measured: dict[str, Any] = {"response_time_ms": 700, "exposure_measured_ms": None, "input": "tap", "scale": 3}
    sent = {**measured, "device_pixel_ratio": 2.5, "hidden": True, "edited": True}
    assert record_vote(engine, token, now.next.public_id, "left", **sent).status == "stored"
    engine.dispose()
    assert studies.main([*arguments, "show"]) == 0
    assert "1 votes (1 edited, 1 hidden)" in " ".join(capsys.readouterr().out.split())
    assert studies.main([*arguments, "export", "--to", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "votes.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["flags"], row["device_pixel_ratio"], row["attentive"]) == ("hidden;edited", "2.5", "0")
