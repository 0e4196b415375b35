"""One table type, rendered as terminal, Markdown, LaTeX, HTML or CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.significance import Interval

LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text.

    Attributes:
        title: What it shows.
        head: Names of its columns.
        rows: Cells, as many in each row.
        words: Places of the columns that are text, and aligned left; the others hold numbers.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)

    def markdown(self) -> str:
        """The table alone, without its title.

        >>> print(TextTable("", ("name", "n"), (("a|b", "1"),)).markdown())
        | name | n |
        | --- | ---: |
        | a\\|b | 1 |
        """
        rule = ["---" if place in self.words else "---:" for place in range(len(self.head))]
        return "\n".join(map(markdown_row, (self.head, rule, *self.rows)))

    def latex(self) -> str:
        """A `table` environment with its title as the caption, for \\usepackage{booktabs}."""
        columns = "".join("l" if place in self.words else "r" for place in range(len(self.head)))
        body = "\n".join(f"    {' & '.join(map(escape_latex, row))} \\\\" for row in self.rows)
        return (
            "\\begin{table}\n  \\centering\n"
            f"  \\caption{{{escape_latex(self.title)}}}\n  \\begin{{tabular}}{{{columns}}}\n    \\toprule\n"
            f"    {' & '.join(map(escape_latex, self.head))} \\\\\n    \\midrule\n{body}\n"
            "    \\bottomrule\n  \\end{tabular}\n\\end{table}"
        )


def markdown_row(cells: Sequence[str]) -> str:
    """One line of a Markdown table; a bar within a cell is escaped."""
    escaped = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def number(value: float, signed: bool = False) -> str:
    """With four decimals, as metrics are written everywhere.

    >>> number(0.98765), number(math.nan), number(0.01, signed=True)
    ('0.9877', '-', '+0.0100')
    """
    return "-" if not math.isfinite(value) else f"{value:+.4f}" if signed else f"{value:.4f}"


def interval(ends: Interval | None, signed: bool = False) -> str:
    """Both ends, or a dash where nothing is known.

    >>> interval(Interval(0.9, 0.95)), interval(Interval(-math.inf, math.inf))
    ('[0.9000, 0.9500]', '-')
    """
    if ends is None or not math.isfinite(ends.low):
        return "-"
    return f"[{number(ends.low, signed)}, {number(ends.high, signed)}]"


def p_value(value: float) -> str:
    """
    >>> p_value(0.0314), p_value(0.00001), p_value(math.nan)
    ('0.031', '<0.001', '-')
    """
    return "-" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float) -> str:
    """
    >>> duration(0.61), duration(59.4), duration(150), duration(9000)
    ('0.6 s', '59 s', '2.5 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it; a bracket at its beginning would pass for an argument of the line before.

    >>> escape_latex("95 % of f1_macro"), escape_latex("[0, 1]")
    ('95 \\\\% of f1\\\\_macro', '{[0, 1]}')
    """
    escaped = re.sub(r"[\\~^&%$#_{}]", lambda match: LATEX[match[0]], text)
    escaped = escaped.replace("<", "$<$").replace(">", "$>$")
    return f"{{{escaped}}}" if escaped.startswith("[") else escaped
