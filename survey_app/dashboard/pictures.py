"""View."""

from survey_app.dashboard.chosen import Chosen


def show(chosen: Chosen) -> None:
    """Draw."""
