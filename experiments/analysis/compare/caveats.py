"""Warnings about a comparison's validity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...evaluation.clustered import unrecorded_groups
from ...tracking.record_version import repairs_since, version_label
from .comparison import GroupSummary, same_images
from .groups import Group

FEW_SEEDS = 5


def remarks(summaries: Sequence[GroupSummary], split: str, metric: str) -> Iterator[str]:
    """A sentence on each thing that weakens what the tables say."""
    groups = [summary.group for summary in summaries]
    yield from _too_few(groups)
    yield from _other_images(groups, split)
    yield from _image_groups(summaries)
    ties = [group.name for group in groups if len(group.members) > 1 and len(set(group.values)) == 1]
    if ties:
        yield (
            f"the seeds of {_listed(ties)} have the same value: how much others would vary is not known, and "
            "there is no interval over seeds"
        )
    if any(summary.over_images is None for summary in summaries):
        yield f"{metric} does not follow from predictions alone: no interval over images, and no paired test"
    for group in groups:
        known = {member.code for member in group.members} - {"-"}
        if len(known) > 1:
            yield f"{group.name}'s runs were made by {len(known)} states of the code"
    yield from _versions(groups)


def _too_few(groups: Sequence[Group]) -> Iterator[str]:
    single = [group.name for group in groups if len(group.members) == 1]
    few = [group.name for group in groups if 1 < len(group.members) < FEW_SEEDS and group.folds is None]
    if single:
        yield f"a single seed of {_listed(single)}: how much seeds vary is not known"
    if few:
        yield f"fewer than {FEW_SEEDS} seeds of {_listed(few)}: intervals over seeds are wide, tests weak"


def _image_groups(summaries: Sequence[GroupSummary]) -> Iterator[str]:
    """What was drawn independently, where it is not images; once for groups that judged the same ones."""
    told = [summary.image_groups.told() for summary in summaries if summary.image_groups is not None]
    yield from dict.fromkeys(told)
    outcomes = [member.outcome for summary in summaries for member in summary.group.members]
    caveat = unrecorded_groups(outcomes)
    if caveat is not None:
        yield caveat


def _other_images(groups: Sequence[Group], split: str) -> Iterator[str]:
    first = groups[0]
    others = [group.name for group in groups[1:] if not same_images(first, group)]
    if others:
        yield (
            f"{_listed(others)} judged other {split} images than {first.name}: "
            "their values are not comparable one by one, and no paired test is made"
        )
    part = "test" if split == "test" else "train"  # validation is a part of train
    pixels = [
        group.name
        for group in groups[1:]
        if group.name not in others and _fingerprint(group, part) != _fingerprint(first, part)
    ]
    if pixels:
        yield (
            f"{_listed(pixels)} saw the same {split} images as {first.name} by id and label, "
            "but with another fingerprint: other pixels, or another size"
        )


def _versions(groups: Sequence[Group]) -> Iterator[str]:
    labels = sorted({version_label(member.run.tags) for group in groups for member in group.members})
    if len(labels) < 2:
        return
    runs = [member.run for group in groups for member in group.members]
    oldest = min(runs, key=lambda run: version_label(run.tags))
    repairs = "; ".join(repair.what for repair in repairs_since(oldest.tags, oldest.params))
    yield f"runs of record versions {' and '.join(labels)}; repairs between them change numbers: {repairs}"


def _fingerprint(group: Group, part: str) -> str:
    known = group.members[0].fingerprints
    return known.get(part) or str(sorted(known.items()))


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> _listed(["A"]), _listed(["A", "B", "C"])
    ('A', 'A, B and C')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
