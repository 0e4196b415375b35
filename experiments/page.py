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
"""


def build_page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page of a body of HTML; what the style adds comes after ours."""
    script = f"<script>{script}</script>\n" if script else ""
    return FRAME.format(title=html.escape(title), style=STYLE + style, script=script, body=body)
