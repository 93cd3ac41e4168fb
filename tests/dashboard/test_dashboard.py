"""The dashboard: what its views say of a study's votes. tests/survey_app/test_report.py tries its queries on both
engines.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from db.surveys.study import create_study, find_study, plan_for
from db.sweeps.trials import find_experiment
from platform.tables.table import Table
from survey_app.analysis.inference import planning
from survey_app.dashboard import certainty_view, pictures_view, prediction_view, results_view
from survey_app.dashboard.choice import Choice, describe_choice
from survey_app.dashboard.exhibits import Figure, arm_scale, file_stem, ways_to_save
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


def choice_of(engine: Engine, *, simulated: bool = False, inclusion: Inclusion = "all") -> Choice:
    with read_session(engine) as session:
        study = find_study(session, "cats")
        answers = load_answers(session, study, simulated=simulated)
        experiment = find_experiment(session, "cats")
    return Choice(engine, experiment, study, simulated, inclusion, answers)


def exhibits(engine: Engine, choice: Choice) -> dict[str, Any]:
    """All of a study's views, by name; a sentence by itself."""
    assert choice.answers is not None
    assert choice.counted is not None
    assert choice.study is not None
    with read_session(engine) as session:
        found = results_view.exhibits(session, choice)
        found += prediction_view.exhibits(session, choice.counted)
    found += certainty_view.exhibits(choice.answers, choice, choice.study)
    return {exhibit if isinstance(exhibit, str) else exhibit.name: exhibit for exhibit in found}


def test_the_results_table_has_votes_and_scores(engine: Engine) -> None:
    study(engine)
    answer_all(engine, "cats", wrong={"regression"})
    answer_all(engine, "cats", wrong={"regression", "classification"})
    choice = choice_of(engine)
    table = exhibits(engine, choice)["results"]
    assert choice.answers is not None
    picked, asked = (counts.sum(0) for counts in choice.answers.picked_and_asked())
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


def test_in_protocol_single_the_photographs_have_a_row_and_their_share_is_what_nobody_can_tell(engine: Engine) -> None:
    study(engine, "single")
    simulate(engine, "cats", 6, Observer(), seed=0)
    choice = choice_of(engine, simulated=True)
    found = exhibits(engine, choice)
    with read_session(engine) as session:
        photographs = select(Vote.correct).join(Question).where(Question.phase == "main", Question.kind == "real")
        correct = session.scalars(photographs).all()
    row = found["results"].frame.set_index("model").loc["the photographs"]
    assert (row["times picked"], row["times asked"]) == (sum(correct), len(correct))
    share = sum(correct) / len(correct)
    assert share != 0.5
    assert found["results"].mark == share
    for name in ("votes-by-bin-accuracy", "votes-by-rebalancing"):
        drawn = [values[0] for values in found[name].chart.to_dict()["datasets"].values()]
        assert [values["mark"] for values in drawn if list(values) == ["mark"]] == [share]


def test_trials_are_called_by_their_planned_numbers_and_by_the_code_that_trained_them(engine: Engine) -> None:
    """Whatever became of those before them."""
    create_study(engine, "cats", arms=["regression=2", "classification=1"], question_count=5, practice_count=0)
    found = exhibits(engine, choice_of(engine))
    shown = found["shown-trials"].frame.set_index("model")
    assert shown.loc["regression", "shown"] == "#2"
    assert shown.loc["classification", "shown"] == "#1"
    assert set(shown["code"]) == {"test"}


def test_console_tables_fit_and_cut_no_name(engine: Engine) -> None:
    study(engine)
    answer_all(engine, "cats", wrong={"regression"})
    with read_session(engine) as session:
        found = results_view.exhibits(session, choice_of(engine))
    for table in found:
        if not isinstance(table, Table):
            continue
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
    choice = choice_of(engine)
    found = exhibits(engine, choice)
    assert "votes-by-bin-accuracy" in found  # the best predictor
    table = found["rank-correlations"].frame.set_index("score")
    assert table.index[0] == "bin accuracy (%)"
    assert table["Spearman's ρ"].abs().dropna().is_monotonic_decreasing
    assert choice.answers is not None
    picked, asked = (counts.sum(0) for counts in choice.answers.picked_and_asked())
    expected = spearmanr([0.20, 0.21, 0.22], picked / asked).statistic
    assert table.loc["bin accuracy (%)", "Spearman's ρ"] == pytest.approx(expected)
    assert "AuC (%)" not in table.index  # never measured here


def test_checks_count_sentinels_sides_and_the_attentive(engine: Engine) -> None:
    study(engine)
    answer_all(engine, "cats", wrong={"sentinel"})
    answer_all(engine, "cats", wrong=set())
    found = exhibits(engine, choice_of(engine))
    counts = found["checks"].frame.set_index("check")[["count", "total"]].T.to_dict("list")
    assert counts["sentinels seen through"] == [2, 4]
    assert counts["attentive participants"] == [1, 2]
    with read_session(engine) as session:
        given = session.scalars(
            select(Vote.answer).join(Question, Question.id == Vote.question_id).where(Question.phase == "main")
        ).all()
    assert counts["answers that took the left picture"] == [sum(answer == "left" for answer in given), len(given)]
    assert found["checks"].note.endswith("took between 0.7 and 0.7 s, the median 0.7 s.")
    assert {"all (2): asked", "attentive (1): asked"} < set(found["all-and-attentive"].frame.columns)
    described = describe_choice(choice_of(engine, inclusion="attentive"))[1]
    assert "only these are counted" in described
    assert "1 of them attentive (answered every question, no sentinel wrong)" in described


def test_a_plan_is_for_one_contrast_and_for_each_of_all(engine: Engine) -> None:
    study(engine)
    simulate(engine, "cats", 12, Observer(), seed=0)
    choice = choice_of(engine, simulated=True)
    assert choice.answers is not None
    assert choice.study is not None
    for row in exhibits(engine, choice)["planning"].frame.to_dict("records"):
        for heading, alpha in (("needed, one contrast", 0.05), ("needed, all contrasts", 0.05 / 3)):
            plan = planning(
                *choice.answers.picked_and_asked(),
                difference=row["difference (points)"] / 100,
                questions_per_arm=plan_for(choice.study, arms=3).questions_per_arm,
                alpha=alpha,
            )
            assert row[heading] == plan.participants_needed
        assert plan.participants == 12


@pytest.mark.parametrize(("protocol", "participants"), [("pair", 1), ("single", 2), ("pair", 6)])
def test_every_exhibit_can_be_drawn_read_and_taken_away(engine: Engine, protocol: Protocol, participants: int) -> None:
    study(engine, protocol)
    simulate(engine, "cats", participants, Observer(), seed=participants)
    found = exhibits(engine, choice_of(engine, simulated=True)).values()
    figures = [exhibit for exhibit in found if isinstance(exhibit, Figure)]
    assert [figure.name.startswith("votes-by-") for figure in figures] == [True, True]
    for figure in figures:
        assert figure.title.endswith("(simulated participants)")
        assert file_stem(figure) == f"{figure.name}-simulated"
        files = {ending: write() for _, ending, write in ways_to_save(figure)}
        assert re.search(r">[^<]*simulated", str(files[".svg"]))
        assert str(files[".png"])[2:].startswith(r"\x89PNG")
        assert len(pd.read_csv(io.StringIO(str(files[".csv"])))) == len(figure.data) > 0
    for table in found:
        if isinstance(table, Table):
            again = pd.read_csv(io.StringIO(table.csv()))
            numbers = table.frame.select_dtypes("number")
            same = np.allclose(again[numbers.columns].astype(float), numbers.astype(float), 0, 0, equal_nan=True)
            assert same
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
    found = exhibits(engine, choice_of(engine))
    assert sum(name.startswith("No votes yet") for name in found) == 1
    assert not {"checks", "rank-correlations"} & found.keys()
    assert set(found["results"].text()["k/n"][:4]) == {"–"}


def test_the_finding_stands_first_and_where_the_study_is_blinded_it_tells_nothing(engine: Engine) -> None:
    with read_session(engine) as session:
        nobody = Choice(engine, find_experiment(session, "cats"), None, simulated=False)
        assert results_view.headline(nobody, pictures_view.gallery_of(session, nobody)) == "Nobody has been asked yet."
    study(engine)
    answer_all(engine, "cats", wrong={"regression"})
    choice = choice_of(engine)
    with read_session(engine) as session:
        gallery = pictures_view.gallery_of(session, choice)
        assert results_view.headline(choice, gallery).startswith(
            "Of 10 answers by one person, **regression** was picked as real in "
        )
        blinded = replace(choice, answers=None, hidden="The study is blinded.")
        assert results_view.headline(blinded, gallery) == "The study is blinded."
        # The strip under it is of a photograph that people were asked about.
        assert gallery.asked[pictures_view.sort_rows(gallery)[0]].any()


def test_the_curve_over_lambda_has_the_arms_own_shares(engine: Engine) -> None:
    study(engine)
    simulate(engine, "cats", 12, Observer(), seed=0)
    choice = choice_of(engine, simulated=True)
    assert choice.answers is not None
    found = exhibits(engine, choice)
    points = found["votes-by-rebalancing"].data.set_index("model")
    for trial, count in zip(choice.answers.contenders, choice.answers.picked_as_real(), strict=True):
        assert (points.loc[trial.arm.name, "count"], points.loc[trial.arm.name, "total"]) == (count.count, count.total)
    table = found["best-of-rebalancings"].frame
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
