"""The report: the whole dashboard as one file."""

import re
from pathlib import Path

import pytest
from sqlalchemy import select

from db.schema import Study
from db.store import open_database, read_session
from db.surveys.study import close_study, create_study
from survey_app import report
from survey_app.simulate import Observer, simulate
from tests.dashboard.test_dashboard import study
from tests.dashboard.test_dashboard_browser import SHARES
from tests.survey_data import ARMS, add_experiment, answer_all


def test_the_report_needs_nothing_else(database: str) -> None:
    engine = open_database(database)
    add_experiment(engine, images=24)
    study(engine)
    simulate(engine, "cats", 3, Observer(), seed=0)
    answer_all(engine, "cats", wrong={"regression"})
    page = report.report_html(engine, "cats", simulated=True)
    for section in ("Results", "Do scores predict people?", "How sure", "Sweep", "Pictures"):
        assert f"<h2>{section}</h2>" in page
    assert "observer model answered" in page
    assert page.count("<svg") >= 4
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    assert "@import" not in page
    assert "observer model" not in report.report_html(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("report") / "huejury.sqlite")
    engine = open_database(path)
    add_experiment(engine, images=5, size=4)
    create_study(engine, "cats", question_count=5, practice_count=0)
    engine.dispose()
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dogs"], "There is no experiment 'dogs'; there is cats."),
        (["cats", "--study", "dogs"], "There is no study 'dogs'; there is cats."),
        (["cats", "--to", "/proc/nowhere/report.html"], "give another --to"),
    ],
)
def test_the_command_says_in_one_sentence_what_is_wrong(
    small: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert report.main([*arguments, "--database", small]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_command_writes_one_file(small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out" / "report.html"
    assert report.main(["--attentive", "--database", small, "--to", str(file)]) == 0
    assert str(file) in capsys.readouterr().out
    assert file.read_text(encoding="utf-8").endswith("</html>\n")


def test_the_report_of_a_blinded_study_has_no_outcomes(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "blinded.sqlite")
    add_experiment(engine, images=12)
    create_study(engine, "cats", question_count=5, practice_count=1, planned_participants=2, blinded=True)
    answer_all(engine, "cats", wrong={*ARMS})
    page = report.report_html(engine, "cats")
    assert "is blinded" in page
    assert "How sure" not in page
    assert "k/n</th>" in page
    assert not SHARES.search(page)
    with read_session(engine) as session:
        assert session.scalars(select(Study.status)).all() == ["open"]
    close_study(engine, "cats")
    assert SHARES.search(report.report_html(engine, "cats"))
    engine.dispose()
