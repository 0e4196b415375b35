"""HTML report of a comparison."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

import numpy as np

from ...errors import RequestError
from ...evaluation.significance import cliques
from ...reporting.html_page import SORTABLE, build_page, data_uri, table
from ...reporting.svg import colour, dot_chart, line_chart, rank_chart
from .comparison import Comparison, same_images
from .curves import LEAST_RATE, agreement, class_scores, learning_curves, roc_curves
from .disputed_images import Disputed, SplitImages
from .groups import Group
from .tables import tables

MAX_CHARTED = 10  # groups, as many as there are colours
MAX_CLASSES = 30
NUM_DISPUTED = 3  # groups of which each two are shown where they disagree
STYLE = """
td.cell { padding: 0.4em 0.9em; text-align: center; }
i.key { display: inline-block; width: 0.75em; height: 0.75em; border-radius: 50%; margin-right: 0.5em; }
.legend span { margin: 0 0.6em; white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 1.5em; }
svg { width: 100%; max-width: 760px; display: block; margin: 0.7em 0; }
.charts svg { max-width: 500px; }
.cards { display: flex; flex-wrap: wrap; gap: 14px; margin: 0.7em 0; }
.cards img { width: 84px; display: block; }
.cards img.tiny { image-rendering: pixelated; }
figure { margin: 0; font-size: 12px; line-height: 1.35; width: 100px; overflow-wrap: anywhere; }
li { margin: 0.2em 0; }
"""


def render_page(comparison: Comparison, overrides: Mapping[str, str]) -> str:
    """All that was found; images are read from the runs' data, with keys of the data changed."""
    groups = comparison.groups
    title = f"{comparison.metric} of {len(groups)} configurations"
    said = "".join(
        f"<li>{html.escape(f'{pair.first.name} - {pair.second.name}: {pair.verdict}')}</li>"
        for pair in comparison.pairs[: len(groups) - 1]
    )
    warned = "".join(f"<li>{html.escape(remark)}</li>" for remark in comparison.remarks)
    parts = [f"<h1>{html.escape(title)}</h1><ul>{said}</ul>"]
    parts += [f"<h2>To be kept in mind</h2><ul>{warned}</ul>"] if warned else []
    for each in tables(comparison):
        is_metric = each.title == comparison.metric
        heading = html.escape(each.title if is_metric else each.title[0].upper() + each.title[1:])
        parts.append(f"<h2>{heading}</h2>{table(each.head, each.rows, each.words)}")
    for heading, caption, body in _charts(comparison):
        parts.append(f"<h2>{heading}</h2><p>{caption}</p>{body}")
    for heading, caption, body in _pictures(comparison, overrides):
        parts.append(f"<h2>{heading}</h2><p>{caption}</p>{body}")
    return build_page(title, "\n".join(parts), STYLE, SORTABLE)


def _charts(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    """Heading, caption and body of what there is to draw."""
    groups, metric = comparison.groups, comparison.metric.partition("/")[2]
    shown = groups[:MAX_CHARTED]
    legend = _legend(shown) + (f"The first {MAX_CHARTED} groups." if len(groups) > MAX_CHARTED else "")
    if len(groups) > 2:
        means = [summary.mean for summary in comparison.summaries]
        joined = cliques(comparison.different())
        caption = (
            f"Mean {html.escape(comparison.metric)}; a bar joins groups of which no two are told apart, over "
            "seeds and images at once, or over images where one has a single seed (Holm, 0.05)."
        )
        yield "Critical differences", caption, rank_chart([group.name for group in groups], means, joined)
    panels = [
        line_chart(curves, "epoch", name)
        for name in dict.fromkeys(("train/loss", "val/loss", f"val/{metric}"))
        if (curves := learning_curves(shown, name))
    ]
    if panels:
        caption = f"Mean over seeds, and their range. {legend}"
        yield "Learning curves", caption, f'<div class="charts">{"".join(panels)}</div>'
    if curves := roc_curves(shown):
        chart = line_chart(curves, "false positive rate", "true positive rate", x_log=True)
        caption = (
            f"One class against the rest, averaged; mean over seeds, and their range; false positives from "
            f"{LEAST_RATE:g} on a logarithm, as that is where good networks differ. {legend}"
        )
        yield "ROC", caption, f'<div class="charts">{chart}</div>'
    if len(groups) > 1 and len({group.members[0].class_names for group in shown}) == 1:
        yield "Classes", f"F1 of each, mean over seeds. {legend}", _classes(shown)
        caption = (
            "Of the images that a row errs on, the share that a column errs on as well. By chance it would "
            "be the column's error rate; on the diagonal it is two seeds of the same configuration."
        )
        yield "Mistakes in common", caption, _agreement(shown)


def _classes(groups: Sequence[Group]) -> str:
    """Returns the classes in which groups differ most, in the order of classes."""
    scores = class_scores(groups)  # (C, M)
    chosen = np.sort(np.argsort(-np.ptp(scores, axis=1), kind="stable")[:MAX_CLASSES])
    names = groups[0].members[0].class_names
    some = len(chosen) < len(names)
    note = f"<p>The {MAX_CLASSES} of {len(names)} in which groups differ most.</p>" if some else ""
    rows = [names[place] for place in chosen]
    return note + dot_chart(rows, [group.name for group in groups], scores[chosen], "F1")


def _agreement(groups: Sequence[Group]) -> str:
    def cell(share: float) -> str:
        if not np.isfinite(share):
            return '<td class="cell">-</td>'
        return f'<td class="cell" style="background: rgb(63 144 218 / {0.8 * share:.2f})">{share:.2f}</td>'

    heads = "".join(f"<th>{group.name}</th>" for group in groups)
    rows = []
    for group, shares in zip(groups, agreement(groups), strict=True):
        error = 1 - float(group.right.mean())
        rows.append(f"<tr><td>{group.name}</td>{''.join(map(cell, shares))}<td>{error:.4f}</td></tr>")
    head = f"<tr><th></th>{heads}<th>error rate</th></tr>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _pictures(comparison: Comparison, overrides: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Images that one group is right about and another is not, of the first few groups."""
    groups = comparison.groups[:NUM_DISPUTED]
    if len(groups) < 2:
        return
    try:
        images = SplitImages(groups[0], comparison.split, overrides)
    except RequestError as error:
        yield "Images", f"Left out: the data is not available here ({html.escape(str(error))}).", ""
        return
    for right, wrong in permutations(groups, 2):
        if not same_images(right, wrong):
            continue
        disputed = images.disputed(right, wrong)
        if disputed:
            cards = "".join(map(_card, disputed))
            heading = f"{right.name} right, {wrong.name} wrong"
            caption = f"By most seeds; the class that is true, and what {wrong.name} takes it for."
            yield heading, caption, f'<div class="cards">{cards}</div>'


def _card(image: Disputed) -> str:
    tiny = " class=tiny" if max(image.pixels.shape[1:]) < 84 else ""
    name = html.escape(image.id)
    source = data_uri(image.pixels.numpy())
    words = f"{html.escape(image.truth)}, not {html.escape(image.wrong)}<br>{name}"
    picture = f'<img{tiny} src="{source}" title="{name}" alt="{name}">'
    return f"<figure>{picture}<figcaption>{words}</figcaption></figure>"


def _legend(groups: Sequence[Group]) -> str:
    shown = "".join(
        f'<span><i class="key" style="background: {colour(place)}"></i>{html.escape(group.name)}</span>'
        for place, group in enumerate(groups)
    )
    return f'<span class="legend">{shown}</span>'
