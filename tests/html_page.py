"""A page as a test reads it."""

from __future__ import annotations

from html.parser import HTMLParser


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
