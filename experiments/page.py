"""The frame of our HTML pages: each is one file that needs no network, in light and dark."""

from __future__ import annotations

import html

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
table.sortable th { cursor: pointer; }
"""


def build_page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page of a body of HTML; what the style adds comes after ours."""
    script = f"<script>{script}</script>\n" if script else ""
    return FRAME.format(title=html.escape(title), style=STYLE + style, script=script, body=body)


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
