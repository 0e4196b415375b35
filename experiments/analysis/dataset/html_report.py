"""The page of an experiment's data: one HTML file with what was found and the images it was found in."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from darkroom.datamodules.base import ImageDataModule

from ...reporting.html_page import SORTABLE, build_page, data_uri, table
from ...reporting.svg import histogram
from .findings import DatasetFindings, Duplicates, Sample
from .inspection import SPLITS, sample_at

MAX_CLASSES = 50  # with samples of their own
MAX_SHOWN = 60  # pairs, outliers or doubtful labels with pictures
PER_CLASS = 10
NUM_AUGMENTED = 17
COLOURS = dict(zip(SPLITS, ("var(--blue)", "var(--orange)", "var(--purple)"), strict=True))
LOGARITHMIC = ("size", "aspect ratio")
UNITS = {"size": "size in pixels", "aspect ratio": "width / height"}
STYLE = """
.row, .cards { display: flex; flex-wrap: wrap; gap: 6px; margin: 0.7em 0; align-items: flex-start; }
.cards { gap: 18px 22px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 2em;
  margin: 1em 0; }
.charts svg { width: 100%; }
.class { display: grid; grid-template-columns: 8em 1fr; align-items: center; }
.class .row { margin: 3px 0; }
.class span { overflow-wrap: anywhere; padding-right: 1em; }
img { width: 72px; display: block; }
img.tiny { image-rendering: pixelated; }
img.framed { outline: 3px solid var(--red); }
figure { margin: 0; font-size: 12px; line-height: 1.35; width: 224px; overflow-wrap: anywhere; }
figure.single { width: 110px; }
figure img { width: 110px; }
figure .row { gap: 4px; margin: 0 0 4px; flex-wrap: nowrap; }
figure small { font-size: 12px; color: var(--grey); }
.key { display: inline-block; width: 1.4em; height: 3px; vertical-align: middle; margin: 0 0.4em 0 1em; }
"""
Show = Callable[[Sample], str]


def render_page(findings: DatasetFindings, data: ImageDataModule) -> str:
    """All that was found, with the images, which are read from `data`."""

    def show(sample: Sample) -> str:
        pixels = data.splits[sample.split].images[torch.tensor([sample.place])][0]
        return picture(pixels, f"{sample.id} ({sample.split}, {sample.label})")

    remarks = "".join(
        f"<li{' class=bad' if serious else ''}>{html.escape(text)}</li>"
        for text, serious in findings.remarks()
    )
    title = f"Data of {findings.name}"
    parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape(findings.headline)}</p><ul>{remarks}</ul>"]
    for heading, caption, body in _sections(findings, data, show):
        parts.append(f"<h2>{heading}</h2><p>{caption}</p>{body}")
    return build_page(title, "\n".join(parts), STYLE, SORTABLE)


def _sections(findings: DatasetFindings, data: ImageDataModule, show: Show) -> Iterator[tuple[str, str, str]]:
    """Heading, caption and body of what there is to show."""
    kind = "label" if findings.task == "multilabel" else "class"
    splits = list(findings.num_images)
    yield "Counts", f"Images of each {kind} and split.", _counts(findings)
    yield "Channels", "Mean ± standard deviation, of pixels in [0, 1].", _channels(findings)
    keys = "".join(f'<i class="key" style="background: {COLOURS[split]}"></i>{split}' for split in splits)
    yield "Distributions", f"Shares of each split's images:{keys}", _distributions(findings)
    first = [show(sample_at(data, "train", place)) for place in range(min(9, findings.num_images["train"]))]
    yield "First images", "The first nine of train.", _row(first)
    names, known = findings.class_names[:MAX_CLASSES], len(findings.class_names)
    shown = f"the first {MAX_CLASSES} of {known:,}" if known > MAX_CLASSES else "each"
    yield "Samples", f"The first of {shown} {kind}, in train.", _samples(data, names, show)
    yield "Augmented", "The first image, framed, and what training makes of it.", _augmented(data)
    for heading, pairs in (
        ("Duplicates across splits", findings.leaks),
        ("Duplicates whose labels differ", findings.conflicts),
        ("Duplicates within a split", findings.repeats),
    ):
        if pairs.total:
            yield heading, _count(pairs.total, "pair", "the most alike first"), _pairs(pairs, show)
    if findings.straddlers:
        rows = [
            [each.group, *(each.images.get(split, 0) for split in splits)] for each in findings.straddlers
        ]
        yield "Groups across splits", "Images of each such group.", table(["group", *splits], rows)
    if findings.outliers:
        caption = _count(
            findings.num_outliers, "image", "the furthest off first, in robust standard deviations"
        )
        cards = [
            (each.sample, f"{each.measure} {each.value:.3g} ({each.score:+.1f})")
            for each in findings.outliers
        ]
        yield "Outliers", caption, _cards(cards, show)
    if findings.label_issues:
        caption = _count(len(findings.label_issues), "image", "the most doubtful first")
        cards = [(each.sample, each.summary) for each in findings.label_issues]
        yield "Likely label errors", caption, _cards(cards, show)
    if findings.skipped:
        listed = table(["image", "reason"], findings.skipped, words=(0, 1))
        yield "Left out", "Images that can't be read.", listed


def picture(pixels: Tensor, title: str, framed: bool = False) -> str:
    """An image, uint8 (C, H, W), whose title shows when it is pointed at."""
    classes = " ".join(["tiny"] * (max(pixels.shape[1:]) < 72) + ["framed"] * framed)
    title = html.escape(title)
    return f'<img class="{classes}" src="{data_uri(pixels.numpy())}" title="{title}" alt="{title}">'


def _counts(findings: DatasetFindings) -> str:
    splits = findings.num_images
    columns = [findings.class_counts[split] for split in splits]
    rows = [[name, *counts] for name, *counts in zip(findings.class_names, *columns, strict=True)]
    return table(["", *splits], rows, sums=["images", *splits.values()])


def _channels(findings: DatasetFindings) -> str:
    names = {1: ["grey"], 3: ["red", "green", "blue"]}.get(findings.image_shape[0])
    names = names or [str(channel) for channel in range(findings.image_shape[0])]
    columns = [
        [
            f"{mean:.4f} ± {std:.4f}"
            for mean, std in zip(findings.channel_means[split], findings.channel_stds[split], strict=True)
        ]
        for split in findings.num_images
    ]
    return table(["", *findings.num_images], zip(names, *columns, strict=True))


def _distributions(findings: DatasetFindings) -> str:
    charts = [
        f"<div>{UNITS.get(name, name)}{histogram(by_split, COLOURS, log=name in LOGARITHMIC)}</div>"
        for name, by_split in findings.values.items()
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def _samples(data: ImageDataModule, names: Sequence[str], show: Show) -> str:
    targets = data.splits["train"].targets
    rows = []
    for label, name in enumerate(names):
        members = targets[:, label] > 0 if targets.ndim == 2 else targets == label  # (N,)
        places = members.nonzero().flatten()[:PER_CLASS].tolist()
        pictures = _row([show(sample_at(data, "train", place)) for place in places])
        rows.append(f'<div class="class"><span>{html.escape(name)}</span>{pictures}</div>')
    return "".join(rows)


def _augmented(data: ImageDataModule) -> str:
    (original,) = data.splits["train"].images[torch.tensor([0])]
    pixels = data.augmented(0, NUM_AUGMENTED).mul(255).round().clamp(0, 255).byte()
    return _row(
        [picture(original, "original", framed=True), *(picture(each, "augmented") for each in pixels)]
    )


def _pairs(pairs: Duplicates, show: Show) -> str:
    cards = []
    for pair in pairs.listed[:MAX_SHOWN]:
        differing = pair.first.label != pair.second.label
        words = pair.kind if pair.kind == "equal" else f"{pair.kind}, {pair.difference:.1f} grey levels apart"
        words += ' <b class="bad">labels differ</b>' if differing else ""
        pictures = _row(map(show, (pair.first, pair.second)))
        captions = f"{_told(pair.first)}<br>{_told(pair.second)}<br>{words}"
        cards.append(f"<figure>{pictures}<figcaption>{captions}</figcaption></figure>")
    return f'<div class="cards">{"".join(cards)}</div>'


def _cards(cards: Sequence[tuple[Sample, str]], show: Show) -> str:
    figures = [
        f'<figure class="single">{show(sample)}'
        f"<figcaption>{_told(sample)}<br>{html.escape(words)}</figcaption></figure>"
        for sample, words in cards[:MAX_SHOWN]
    ]
    return f'<div class="cards">{"".join(figures)}</div>'


def _told(sample: Sample) -> str:
    return f"{html.escape(sample.id)} <small>{sample.split}, {html.escape(sample.label)}</small>"


def _row(pictures: Iterable[str]) -> str:
    return f'<div class="row">{"".join(pictures)}</div>'


def _count(total: int, noun: str, order: str) -> str:
    """How many there are, and which of them are shown.

    >>> _count(1, "pair", "the most alike first"), _count(90, "pair", "the most alike first")
    ('1 pair.', '90 pairs, the most alike first; 60 are shown.')
    """
    if total == 1:
        return f"1 {noun}."
    return f"{total:,} {noun}s, {order}{f'; {MAX_SHOWN} are shown' if total > MAX_SHOWN else ''}."
