"""Shares with their intervals, for everything that shows votes; more of statistics is in
`survey_app.analysis.inference`.
"""

from dataclasses import dataclass

SIMULATED = "simulated participants"


@dataclass(frozen=True)
class Share:
    """count of total, its share, and the 95 % interval around it; None of none."""

    count: int
    total: int
    share: float | None
    low: float | None
    high: float | None

    @property
    def range(self) -> str:
        """The interval as it is read, in whole per cent."""
        return range_text(self.low, self.high)

    @property
    def bar(self) -> tuple[float, float, float] | None:
        """Low end, share and high end, to be drawn."""
        return (
            None if self.share is None or self.low is None or self.high is None else (self.low, self.share, self.high)
        )

    @property
    def percent(self) -> str:
        return "–" if self.share is None else f"{100 * self.share:.1f}\N{NO-BREAK SPACE}%"

    def __str__(self) -> str:
        return f"{self.percent} ({self.count}/{self.total})" if self.total else "–"


def wilson(count: int, total: int) -> Share:
    """The share of count in total with the Wilson score interval, which covers the true share of independent answers in
    95 % of studies."""
    from scipy.stats import binomtest  # takes a second to import, which most commands can do without

    if total == 0:
        return Share(0, 0, None, None, None)
    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return Share(count, total, count / total, float(interval.low), float(interval.high))


def range_text(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "–"
    return f"{100 * low:.0f}–{100 * high:.0f}\N{NO-BREAK SPACE}%"


def title_votes(text: str, *, simulated: bool) -> str:
    """A title of what votes are in: it says so where nobody voted."""
    return f"{text} ({SIMULATED})" if simulated else text
