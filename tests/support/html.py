"""A page as a test reads it."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest


class Page(HTMLParser):
    """Collects a page's pictures and whatever it would fetch; notes tags that are not closed."""

    VOID: tuple[str, ...] = ("meta", "img", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.pictures: list[dict[str, str]] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "img":
            self.pictures.append(values)
        self.fetched += [values[key] for key in ("src", "href") if key in values]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def shown_in_a_browser(page: Path, profile: Path) -> str:
    """The document as a browser has it once its scripts have run; the test fails on any error they tell."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        [browser, *options, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "WebGL" not in line]
    assert not told, told  # but what the browser itself says of a machine without a GPU
    assert "</html>" in done.stdout
    return done.stdout
