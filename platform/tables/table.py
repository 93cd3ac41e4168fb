"""A table that is made once and shows itself on a console, as HTML, LaTeX and CSV."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import rich.table
from rich.console import Group
from rich.markup import escape
from rich.text import Text

# Words of headings that a console has no room for.
SHORT = {
    "accuracy": "acc.",
    "accuracy,": "acc.,",
    "validation": "val.",
    "class-balanced": "bal.",
    "rebalanced": "rebal.",
}
SHORT |= {"information,": "info.,", "(photographs": "(photos"}
GAP = 2  # between a console's columns

CSS = """
.huejury-table { overflow: auto; max-height: 42rem; }
.huejury-table table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.huejury-table th, .huejury-table td { padding: .35rem .7rem; text-align: right; vertical-align: middle;
  border-bottom: 1px solid color-mix(in srgb, currentColor 18%, transparent); white-space: nowrap; }
.huejury-table th { font-weight: 600; vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
.huejury-table tbody th { white-space: nowrap; }
.huejury-table th:first-child, .huejury-table td:first-child { text-align: left; }
.huejury-table .interval { display: block; position: relative; width: 9rem; height: 1rem;
  background: color-mix(in srgb, currentColor 8%, transparent); }
.huejury-table .interval * { position: absolute; }
.huejury-table .interval s { height: 1rem; width: 1px; background: #8a8a8a; }
.huejury-table .interval i { top: .4rem; height: .2rem; background: #0072B2; }
.huejury-table .interval b { top: .1rem; height: .8rem; width: .25rem; margin-left: -.125rem; background: #D55E00; }
"""


@dataclass(frozen=True)
class Table:
    name: str  # of its file
    title: str
    frame: pd.DataFrame  # numbers as numbers, column names as headings with units
    formats: dict[str, str] = field(default_factory=dict)  # of columns, as for format(), by heading
    note: str = ""  # stands below it
    shown: pd.DataFrame | None = None  # as it is read, where that is not the frame's columns one by one: texts
    # Drawn as a last column: the ends of an interval and the estimate in it for each row, all in [0, 1], or None.
    bars: Sequence[tuple[float, float, float] | None] | None = None
    mark: float | None = None  # of the bars, in [0, 1]

    def text(self) -> pd.DataFrame:
        """The table as it is read: text in every cell, "–" where there is no number."""
        if self.shown is not None:
            return self.shown
        rows = pd.DataFrame(index=self.frame.index)
        for heading in self.frame.columns:
            form = self.formats.get(heading, "")
            rows[heading] = ["–" if pd.isna(value) else format(value, form) for value in self.frame[heading]]
        return rows

    def for_console(self, width: int = 80) -> Group:
        """Without the columns that say nothing yet. No name, number or word is cut: what does not fit is wider."""
        rows = self.text()
        rows = rows[[heading for number, heading in enumerate(rows) if number == 0 or (rows[heading] != "–").any()]]
        table = rich.table.Table(box=None, header_style="bold", padding=(0, GAP, 0, 0), pad_edge=False)
        least = -GAP
        for number, (heading, cells) in enumerate(rows.items()):
            short = " ".join(SHORT.get(word, word) for word in str(heading).split(" "))
            words = [word for cell in (short, *cells) for word in ([cell] if number == 0 else cell.split(" "))]
            least += max(map(len, words)) + GAP
            left = number == 0 or any(any(map(str.isalpha, cell)) for cell in cells)
            table.add_column(
                escape(short), justify="left" if left else "right", no_wrap=number == 0, min_width=max(map(len, words))
            )
        if least > width:
            table.width = least  # else Rich would cut what does not fit
        for row in rows.to_numpy():
            table.add_row(*map(escape, row))
        return Group(Text(f"\n{self.title}", style="italic"), table)

    def csv(self) -> str:
        """Numbers with all their digits."""
        return self.frame.to_csv(index=False)

    def latex(self) -> str:
        """The table as it is read, for LaTeX with the package booktabs, in an engine that reads UTF-8 (λ, Δ)."""
        return str(self.text().to_latex(index=False, escape=True))

    def html(self) -> str:
        """The table as it is read; CSS gives it its looks."""
        rows = self.text()
        body = []
        for number, (first, *cells) in enumerate(rows.to_numpy().tolist()):
            row = f'<th scope="row">{html.escape(first)}</th>' + "".join(f"<td>{html.escape(c)}</td>" for c in cells)
            body.append(f"<tr>{row}{'' if self.bars is None else f'<td>{self._bar(self.bars[number])}</td>'}</tr>")
        headings = [*rows.columns, *([] if self.bars is None else ["0 to 100 %"])]
        head = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in headings)
        return (
            f'<div class="huejury-table" tabindex="0" role="region" aria-label="{html.escape(self.title)}">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        )

    def _bar(self, interval: tuple[float, float, float] | None) -> str:
        """An interval with its estimate on a bar from 0 to 1. The numbers stand beside it as text."""
        if interval is None:
            return ""
        low, estimate, high = (100 * share for share in interval)
        mark = "" if self.mark is None else f'<s style="left:{100 * self.mark:.2f}%"></s>'
        return (
            f'<span class="interval" aria-hidden="true">{mark}<i style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
            f'<b style="left:{estimate:.2f}%"></b></span>'
        )


def shorten(value: object) -> str:
    """A setting as it is read, a float with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
