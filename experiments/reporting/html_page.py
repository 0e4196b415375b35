"""Self-contained HTML pages and inline thumbnails."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_SIDE = 128  # pixels
LOSSLESS_SIDE = 64  # up to which PNG is no larger than a photograph's JPEG
FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
{script}</head><body>
{body}
</body></html>
"""
STYLE = """
:root { color-scheme: light dark; --ink: #222; --grey: #707070; --pale: #e4e4e4; --paper: #fff;
  --blue: #3f90da; --orange: #ffa90e; --purple: #832db6; --red: #bd1f01; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --grey: #a0a0a0; --pale: #3a3a3a; --paper: #181818;
    --purple: #c08ae0; --red: #ff7a5c; }
}
body { font: 15px/1.5 sans-serif; color: var(--ink); background: var(--paper); max-width: 1000px;
  margin: 2em auto; padding: 0 1em; }
h2 { margin: 1.5em 0 0; }
p { color: var(--grey); margin: 0.2em 0; }
.bad { color: var(--red); font-weight: bold; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.7em 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2em 1.2em 0.2em 0; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--pale); }
th { font-weight: normal; color: var(--grey); }
th.word, td.word { text-align: left; }
td.word { white-space: normal; min-width: 13em; }
td.word:first-child { white-space: nowrap; min-width: 0; }
table.sortable th { cursor: pointer; }
"""


def build_page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page of a body of HTML; what the style adds comes after ours."""
    script = f"<script>{script}</script>\n" if script else ""
    return FRAME.format(title=html.escape(title), style=STYLE + style, script=script, body=body)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    words: Sequence[int] = (0,),
    sums: Sequence[object] = (),
) -> str:
    """Texts and whole numbers, of which 0 stands out; a click on a head sorts.

    Args:
        head: Names of the columns.
        rows: Cells, as many in each row.
        words: Which columns are text.
        sums: Cells that stay below whatever the rows are sorted by.
    """

    def line(cells: Sequence[object], tag: str) -> str:
        return f"<tr>{''.join(cell(value, place, tag) for place, value in enumerate(cells))}</tr>"

    def cell(value: object, place: int, tag: str) -> str:
        classes = " ".join(["word"] * (place in words) + ["bad"] * (value == 0))
        shown = f"{value:,}" if isinstance(value, int) else html.escape(str(value))
        return f'<{tag} class="{classes}">{shown}</{tag}>' if classes else f"<{tag}>{shown}</{tag}>"

    body = "".join(line(row, "td") for row in rows)
    foot = f"<tfoot>{line(sums, 'td')}</tfoot>" if sums else ""
    inner = f"<thead>{line(head, 'th')}</thead><tbody>{body}</tbody>{foot}"
    return f'<div class="scroll"><table class="sortable">{inner}</table></div>'


# Tables of the class "sortable" are sorted by a column whose head is clicked, once more the other way round.
SORTABLE = """
document.addEventListener("click", event => {
  const head = event.target.closest("table.sortable th");
  if (!head) return;
  const body = head.closest("table").tBodies[0], place = head.cellIndex;
  const sign = head.dataset.sign = head.dataset.sign === "1" ? -1 : 1;
  const key = row => {
    const text = row.cells[place].textContent, number = parseFloat(text.replace(/[,<[]/g, ""));
    return [number, text];
  };
  const order = (one, other) => {
    const [a, words] = key(one), [b, others] = key(other);
    return sign * (isNaN(a) || isNaN(b) ? words.localeCompare(others) : a - b);
  };
  body.append(...[...body.rows].sort(order));
});
"""


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """An image (C, H, W) as the source of an HTML image: of one channel grey, of others the first three."""
    shown = pixels[0] if len(pixels) < 3 else np.moveaxis(pixels[:3], 0, 2)
    image = Image.fromarray(np.ascontiguousarray(shown))
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    lossless = max(image.size) <= LOSSLESS_SIDE
    buffer = io.BytesIO()
    image.save(buffer, *(["PNG"] if lossless else ["JPEG"]), optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{'png' if lossless else 'jpeg'};base64,{text}"
