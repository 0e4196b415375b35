"""One table type, rendered as terminal, Markdown, LaTeX, HTML or CSV."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..evaluation.significance import Interval

LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


@dataclass(frozen=True)
class Sheet:
    """A table as text.

    Attributes:
        title: What it shows.
        head: Names of its columns.
        rows: Cells, as many in each row.
        words: How many columns, from the left and, where there is a last one of words, the right, are text.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)


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
