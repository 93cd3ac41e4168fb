"""The dashboard: what its views say of a study's votes. tests/survey_app/test_report.py tries its queries on both
engines.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from rich.console import Console
from scipy.stats import spearmanr
from sqlalchemy import Engine, select
from statsmodels.stats.proportion import proportion_confint
from streamlit.testing.v1 import AppTest

from db.schema import Protocol, Question, Vote
from db.store import open_database, read_session
from db.surveys.answers import Inclusion, load_answers
from db.surveys.study import create_study, find_study
from db.sweeps.trials import experiment_progress
from platform.tables.table import Table
from survey_app.dashboard import certainty_view, pictures_view, prediction_view, results_view
from survey_app.dashboard.chosen import Chosen, describe_choice
from survey_app.dashboard.exhibits import Exhibit, Figure, arm_scale, png, svg
from survey_app.settings import TOKEN_VARIABLE
from survey_app.simulate import Observer, simulate
from tests.survey_data import ARMS, answer_all


@pytest.fixture(scope="module")
def empty_engine() -> Iterator[Engine]:
    """On SQLite alone: how votes are counted on either engine, other tests try."""
    engine = open_database(":memory:")
    yield engine
    engine.dispose()


def study(engine: Engine, protocol: Protocol = "pair") -> None:
    create_study(engine, "cats", question_count=12, practice_count=3, sentinel_share=0.17, seed=0, protocol=protocol)


def chosen(engine: Engine, *, simulated: bool = False, inclusion: Inclusion = "all") -> Chosen:
    with read_session(engine) as session:
        study = find_study(session, "cats")
        answers = load_answers(session, study, simulated=simulated)
        experiment = experiment_progress(session, "cats")
    return Chosen(engine, experiment, study, simulated, inclusion, answers)


def exhibits(engine: Engine, what: Chosen) -> list[Exhibit]:
    assert what.answers is not None
    assert what.study is not None
    with read_session(engine) as session:
        shown = results_view.exhibits(session, what)
        shown += prediction_view.exhibits(session, what.answers.of(what.inclusion))
    return [*shown, *certainty_view.exhibits(what.answers, what, what.study)]


def tables(shown: list[Exhibit]) -> dict[str, Table]:
    return {exhibit.name: exhibit for exhibit in shown if isinstance(exhibit, Table)}


def figures(shown: list[Exhibit]) -> list[Figure]:
    flat = [part for exhibit in shown for part in (exhibit if isinstance(exhibit, tuple) else (exhibit,))]
    return [part for part in flat if isinstance(part, Figure)]


def test_the_results_table_has_votes_and_scores(engine: Engine) -> None:
    study(engine)
    answer_all(engine, "cats", wrong={"regression"})
    answer_all(engine, "cats", wrong={"regression", "classification"})
    what = chosen(engine)
    with read_session(engine) as session:
        table = tables(results_view.exhibits(session, what))["results"]
    assert what.answers is not None
    picked, asked = (counts.sum(0) for counts in what.answers.picked_and_asked())
    rows = table.frame.set_index("model")
    assert list(rows.index) == [*ARMS, "grey"]
    for column, arm in enumerate(ARMS):
        row = rows.loc[arm]
        low, high = proportion_confint(picked[column], asked[column], method="wilson")
        assert (row["times picked"], row["times asked"]) == (picked[column], asked[column])
        assert (row["95 % from"], row["95 % to"]) == pytest.approx((low, high), abs=1e-9)
        assert row["bin accuracy, validation (%)"] == pytest.approx(20 + column)
        assert table.bars is not None
        assert table.bars[column] == pytest.approx((low, picked[column] / asked[column], high), abs=1e-9)
        assert f"{picked[column]}/{asked[column]}" in table.text()["k/n"].tolist()
    assert rows["times asked"].isna()["grey"]


def test_in_protocol_single_the_photographs_have_a_row(engine: Engine) -> None:
    study(engine, "single")
    answer_all(engine, "cats", wrong={"real"})
    with read_session(engine) as session:
        table = tables(results_view.exhibits(session, chosen(engine)))["results"]
        questions = session.scalars(
            select(Question).join(Vote).where(Question.phase == "main", Question.kind == "real")
        ).all()
    row = table.frame.set_index("model").loc["the photographs"]
    assert row["times asked"] == len(questions) > 0
    assert row["times picked"] == 0


def test_figures_mark_the_share_at_which_nobody_can_tell(engine: Engine) -> None:
    """One half stands for that in pairs only; where pictures come one by one it is the photographs' own share."""
    study(engine, "single")
    simulate(engine, "cats", 6, Observer(), seed=0)
    what = chosen(engine, simulated=True)
    assert what.answers is not None
    mark = what.answers.mark
    assert mark not in (None, 0.5)
    with read_session(engine) as session:
        shown = prediction_view.exhibits(session, what.answers)
    drawn_marks = [
        values[0]["mark"]
        for figure in figures(shown)
        for values in figure.chart.to_dict()["datasets"].values()
        if list(values[0]) == ["mark"]
    ]
    assert drawn_marks
    assert set(drawn_marks) == {mark}
    with read_session(engine) as session:
        assert tables(results_view.exhibits(session, what))["results"].mark == mark


def test_trials_are_called_by_their_planned_numbers_and_by_the_code_that_trained_them(engine: Engine) -> None:
    """Whatever became of those before them."""
    create_study(engine, "cats", arms=["regression=2", "classification=1"], question_count=5, practice_count=0)
    with read_session(engine) as session:
        shown = tables(results_view.exhibits(session, chosen(engine)))["shown-trials"].frame.set_index("model")
    assert shown.loc["regression", "shown"] == "#2"
    assert shown.loc["classification", "shown"] == "#1"
    assert set(shown["code"]) == {"test"}


def test_console_tables_fit_and_cut_no_name(engine: Engine) -> None:
    study(engine)
    answer_all(engine, "cats", wrong={"regression"})
    with read_session(engine) as session:
        found = tables(results_view.exhibits(session, chosen(engine)))
    for table in found.values():
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(table.for_console(), crop=False)
        printed = console.export_text()
        assert max(map(len, printed.splitlines())) <= 80
        assert "…" not in printed
        for name in table.frame["model"]:
            assert any(line.split("  ")[0].strip() == name for line in printed.splitlines())
        assert table.title in printed


def test_rank_correlations_are_scipys(engine: Engine) -> None:
    study(engine)
    for wrong in ({"regression"}, {"regression", "classification"}, {"regression"}):
        answer_all(engine, "cats", wrong=wrong)
    what = chosen(engine)
    assert what.answers is not None
    with read_session(engine) as session:
        found = prediction_view.exhibits(session, what.answers)
    assert [figure.name for figure in figures(found)] == ["votes-by-bin-accuracy"]  # the best predictor
    table = tables(found)["rank-correlations"].frame.set_index("score")
    assert table.index[0] == "bin accuracy (%)"
    strengths = table["Spearman's ρ"].abs().dropna()
    assert strengths.is_monotonic_decreasing
    picked, asked = (counts.sum(0) for counts in what.answers.picked_and_asked())
    expected = spearmanr([0.20, 0.21, 0.22], picked / asked).statistic
    assert table.loc["bin accuracy (%)", "Spearman's ρ"] == pytest.approx(expected)
    assert table.loc["AuC (%)", "models"] == 0  # never measured here


def test_checks_count_sentinels_sides_and_the_attentive(engine: Engine) -> None:
    study(engine)
    answer_all(engine, "cats", wrong={"sentinel"})
    answer_all(engine, "cats", wrong=set())
    what = chosen(engine)
    assert what.answers is not None
    assert what.study is not None
    shown = certainty_view.exhibits(what.answers, what, what.study)
    checks = tables(shown)["checks"].frame

    def counted(check: str) -> tuple[int, int]:
        row = checks[checks["check"] == check].iloc[0]
        return int(row["count"]), int(row["total"])

    assert counted("sentinels seen through") == (2, 4)
    assert counted("attentive participants") == (1, 2)
    with read_session(engine) as session:
        given = session.scalars(
            select(Vote.answer).join(Question, Question.id == Vote.question_id).where(Question.phase == "main")
        ).all()
    assert counted("answers that took the left picture") == (sum(answer == "left" for answer in given), len(given))
    curve = next(figure for figure in figures(shown) if figure.name == "right-answers-by-position").data
    assert curve["phase"].tolist()[:4] == ["practice"] * 3 + ["main"]
    assert curve[curve["phase"] == "main"]["total"].sum() == 2 * 10  # without sentinels
    assert (curve["count"] == curve["total"]).all()
    [times] = [line for line in shown if isinstance(line, str) and "Response times" in line]
    of_right, of_wrong = times.split(";")  # two sentinels were not seen through
    assert of_right.endswith(f"median of {len(given) - 2} right answers 0.7 s (quartiles 0.7–0.7 s)")
    assert of_wrong.startswith(" median of 2 wrong answers 0.7 s")
    attentive = chosen(engine, inclusion="attentive")
    both = tables(shown)["all-and-attentive"].frame
    assert {"all (2): asked", "attentive (1): asked"} < set(both.columns)
    assert "only these are counted" in describe_choice(attentive)[1]
    assert "1 of them attentive (answered every question, no sentinel wrong)" in describe_choice(attentive)[1]


@pytest.mark.parametrize(("protocol", "participants"), [("pair", 1), ("single", 2), ("pair", 6)])
def test_every_exhibit_can_be_drawn_read_and_taken_away(engine: Engine, protocol: Protocol, participants: int) -> None:
    study(engine, protocol)
    simulate(engine, "cats", participants, Observer(), seed=participants)
    shown = exhibits(engine, chosen(engine, simulated=True))
    assert [figure.name for figure in figures(shown)][::2] == ["votes-by-rebalancing", "right-answers-by-position"]
    for figure in figures(shown):
        assert figure.title.endswith("(simulated participants)")
        assert len(figure.alternative) > 20
        assert len(figure.data)
        drawing = svg(figure)
        assert re.search(r">[^<]*simulated", drawing)
        assert png(drawing).startswith(b"\x89PNG")
    for table in tables(shown).values():
        again = pd.read_csv(io.StringIO(table.csv()))
        numbers = table.frame.select_dtypes("number")
        assert np.allclose(again[numbers.columns].astype(float), numbers.astype(float), rtol=0, atol=0, equal_nan=True)
        rows = len(table.frame)
        assert table.latex().count(r"\\") == rows + 1
        assert not re.search(r"(?<!\\)[%&#_]", re.sub(r" & ", " ", table.latex()))
        assert table.html().count("<tr>") == rows + 1


def test_twelve_models_have_marks_of_their_own() -> None:
    """A colour may come again, but in another shape."""
    arms = [f"arm {number}" for number in range(12)]
    scale = arm_scale(arms, arms[6:])
    marks = [(scale["color"]["scale"]["range"][place], scale["shape"]["scale"]["range"][place]) for place in range(6)]
    whole = arm_scale(arms)
    every = list(zip(whole["color"]["scale"]["range"], whole["shape"]["scale"]["range"], strict=True))
    assert len(set(every)) == 12
    assert every[6:] == marks  # the same in every figure


def test_without_votes_the_views_say_so(engine: Engine) -> None:
    study(engine)
    what = chosen(engine)
    assert what.answers is not None
    assert what.study is not None
    assert "No votes yet" in str(certainty_view.exhibits(what.answers, what, what.study))
    with read_session(engine) as session:
        assert "No votes yet" in str(prediction_view.exhibits(session, what.answers))
        assert set(tables(list(results_view.exhibits(session, what)))["results"].text()["k/n"]) == {"–"}


def test_the_finding_stands_first_and_where_the_study_is_blinded_it_tells_nothing(engine: Engine) -> None:
    with read_session(engine) as session:
        experiment = experiment_progress(session, "cats")
    nobody = Chosen(engine, experiment, None, simulated=False)
    with read_session(engine) as session:
        assert results_view.headline(nobody, pictures_view.gallery_of(session, nobody)) == "Nobody has been asked yet."
    study(engine)
    answer_all(engine, "cats", wrong={"regression"})
    what = chosen(engine)
    with read_session(engine) as session:
        gallery = pictures_view.gallery_of(session, what)
        assert results_view.headline(what, gallery).startswith(
            "Of 10 answers by one person, **regression** was picked as real in "
        )
        blinded = replace(what, answers=None, hidden="The study is blinded.")
        assert results_view.headline(blinded, gallery) == "The study is blinded."
        # The strip under it is of a photograph that people were asked about.
        [row, *_] = pictures_view.sort_rows(session, gallery, pictures_view.TELLING)
        assert gallery.asked is not None
        assert gallery.asked[row].any()


def test_the_curve_over_lambda_has_the_arms_own_shares(engine: Engine) -> None:
    study(engine)
    simulate(engine, "cats", 12, Observer(), seed=0)
    what = chosen(engine, simulated=True)
    assert what.answers is not None
    shown = exhibits(engine, what)
    points = next(figure for figure in figures(shown) if figure.name == "votes-by-rebalancing").data.set_index("model")
    for contender, count in zip(what.answers.contenders, what.answers.picked_as_real(), strict=True):
        assert (points.loc[contender.arm, "count"], points.loc[contender.arm, "total"]) == (count.count, count.total)
    table = tables(shown)["best-of-rebalancings"].frame
    assert table["model"].tolist() == ["rebalanced 0.25", "classification"]
    assert table["best of these (%)"].sum() == pytest.approx(100)
    curve = points.loc["curve"].set_index("λ")
    for row in table.to_dict("records"):
        assert 100 * curve.loc[row["λ"], ["low", "share", "high"]].to_numpy() == pytest.approx(
            [row["95 % from"], row["by the curve (%)"], row["95 % to"]]
        )


def whole_page() -> None:
    from survey_app.dashboard.page import dashboard_page

    dashboard_page()


def test_an_empty_database_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_database(tmp_path / "empty.sqlite").dispose()
    monkeypatch.setenv("HUEJURY_DATABASE", str(tmp_path / "empty.sqlite"))
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    st.cache_resource.clear()
    app = AppTest.from_function(whole_page, default_timeout=60).run()
    assert not app.exception
    assert app.markdown[0].value.startswith("There is no sweep yet")
    assert app.code[0].value == "python -m platform.sweep tune_configs/quick.yaml"
    st.cache_resource.clear()
