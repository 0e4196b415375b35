"""Live terminal table."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

PAINT_SECONDS = 0.2  # between two paintings of the table, at least
SUMMARY_SECONDS = 60.0  # between two summaries where there is no terminal, at least
MIN_FINISHED = 2  # trials before the remaining time is estimated
ECHO_WIDTH = 2  # columns for the ^C that a terminal writes at the cursor: wrapped, it would shift the table


@dataclass(frozen=True)
class RunningTrial:
    """A trial under way.

    Args:
        number: Its number in the study.
        described: The varied keys with their values, in short: `lr=0.01 dropout=0.2`.
        epoch: Epochs it has finished, of the present fold.
        max_epochs: Epochs it trains at most, in each fold.
        value: The study's metric after the last epoch; None before the first.
        started_at: When it began, in seconds as `time.time()` counts them.
        fold: The present one, from 0; None where it has none, or has not trained yet.
    """

    number: int
    described: str
    epoch: int
    max_epochs: int
    value: float | None
    started_at: float
    fold: int | None = None


@dataclass(frozen=True)
class Progress:
    """Where a sweep stands.

    Args:
        study: The study's name.
        metric: What it improves, such as val/accuracy.
        trials: How many there are to be in all.
        complete: Trials trained to their end.
        pruned: Trials stopped as hopeless.
        failed: Trials ended by an exception of their own.
        running: Trials under way, of this machine.
        best: Number, value and description of the best complete trial.
        seconds_per_trial: Wall-clock seconds from one trial's end to the next one's, on average over all
            workers (the reciprocal of the rate, not a trial's own duration); None while it is unknown.
    """

    study: str
    metric: str
    trials: int
    complete: int
    pruned: int
    failed: int
    running: Sequence[RunningTrial]
    best: tuple[int, float, str] | None
    seconds_per_trial: float | None

    @property
    def finished(self) -> int:
        return self.complete + self.pruned + self.failed

    def remaining_seconds(self, since_last_end: float) -> float | None:
        """Seconds until the last trial ends, if trials go on ending at the same rate.

        None where nothing can be claimed: before two have finished, or once the estimate is used up.

        Args:
            since_last_end: Seconds since a trial last finished.
        """
        if self.seconds_per_trial is None or self.finished < MIN_FINISHED:
            return None
        left = (self.trials - self.finished) * self.seconds_per_trial - since_last_end
        return left if left > 0 else None


class Display:
    """Shows a sweep while it goes on: a table that is painted over, below lines that stay.

    On no terminal nothing is painted over: lines are printed, and every minute at most one summary. The
    table draws only when called, without a thread, and leaves signals alone. Methods are to be called from
    one thread, and from no signal handler.

    Args:
        console: Where to write; None takes standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        if console is None:
            # FORCE_COLOR makes rich take a log file for a terminal, and cursor movements would fill it.
            console = Console(force_interactive=None if sys.stdout.isatty() else False)
        self.console = console
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._progress: Progress | None = None
        self._note = ""
        self._noted: set[str] = set()
        self._painted: tuple[list[Text], ConsoleDimensions] | None = None
        self._painted_at = -math.inf
        self._summarized: Progress | None = None
        self._began_at = self._summarized_at = self._finished_at = time.monotonic()

    def __enter__(self) -> Display:
        if self.console.is_interactive:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._live.is_started:
            return
        try:
            self._live.stop()
        finally:  # a second Ctrl-C may come in between
            self.console.show_cursor(True)

    def update(self, progress: Progress) -> None:
        """Shows where the sweep stands now; cheap enough for ten times a second."""
        now = time.monotonic()
        if self._progress is None or progress.finished != self._progress.finished:
            self._finished_at = now
        self._progress = progress
        if not self.console.is_interactive:
            self._summarize(progress, now)
        elif now - self._painted_at >= PAINT_SECONDS:
            self._paint()

    def say(self, line: str) -> None:
        """Prints a line that stays."""
        # On a terminal rich breaks between words; a file keeps lines whole.
        self.console.print(Text(line), soft_wrap=not self.console.is_interactive)

    def note(self, text: str) -> None:
        """Shows a line at the table's foot, until the next note; an empty one takes it away.

        On no terminal it is printed, once for each text however its numbers change ("away for 12 s"), and
        again only after an empty one.
        """
        text = " ".join(text.split())
        if self.console.is_interactive:
            if text != self._note:
                self._note = text
                self._paint()
            return
        key = re.sub(r"\d+", "", text)
        if not text:
            self._noted.clear()
        elif key not in self._noted:
            self._noted.add(key)
            self.say(text)

    def _paint(self) -> None:
        """Paints the table if it has changed."""
        size = self.console.size
        lines = []
        if self._progress is not None:
            facts = describe_progress(self._progress, *self._times(time.monotonic()))
            lines = table_lines(self._progress, facts, time.time(), size)
        if self._note:
            lines.append(Text(shorten(self._note, size.width - ECHO_WIDTH), style="yellow"))
        if (lines, size) != self._painted:
            self._live.update(Group(*lines), refresh=True)
            self._painted, self._painted_at = (lines, size), time.monotonic()

    def _summarize(self, progress: Progress, now: float) -> None:
        """Prints how far the sweep is, if a minute has passed and something happened in it."""
        if now - self._summarized_at < SUMMARY_SECONDS or progress == self._summarized:
            return
        facts = describe_progress(progress, *self._times(now))
        if progress.best is not None:
            number, value, _ = progress.best
            facts.append(f"best {progress.metric} {value:.4f} of trial {number}")
        self.say("  ".join(facts))
        self._summarized, self._summarized_at = progress, now

    def _times(self, now: float) -> tuple[float, float | None]:
        """Seconds since the display began, and seconds that remain."""
        assert self._progress is not None
        return now - self._began_at, self._progress.remaining_seconds(now - self._finished_at)


def describe_progress(progress: Progress, elapsed: float, remaining: float | None) -> list[str]:
    """The study, its counts, and its times (given in seconds), in short phrases."""
    left = "" if remaining is None else f", about {rough_duration(remaining)} left"
    return [
        progress.study,
        f"{progress.finished} of {progress.trials} trials",
        f"{progress.complete} complete",
        f"{progress.pruned} pruned",
        f"{progress.failed} failed",
        f"{len(progress.running)} running",
        f"{clock(elapsed)} elapsed{left}",
    ]


def table_lines(progress: Progress, facts: Sequence[str], now: float, size: ConsoleDimensions) -> list[Text]:
    """What has happened, the best trial, and each running one; no line is wider than the terminal.

    Args:
        facts: Of `describe_progress`.
        now: Seconds as `time.time()` counts them.
        size: The terminal's columns and lines; running trials that find no place are only counted.
    """
    width = size.width - ECHO_WIDTH
    head = [Text(line, style="bold") for line in pack(facts, width)]
    rows = [("trial", "epoch", progress.metric, "time", "values")]
    styles = ["dim"]
    if progress.best is not None:
        number, best_value, described = progress.best
        rows.append((str(number), "best", f"{best_value:.4f}", "", described))
        styles.append("green")
    space = max(1, size.height - len(head) - len(rows) - 2)  # less a note and the count of those left out
    running = sorted(progress.running, key=lambda trial: trial.number)
    for trial in running[:space]:
        value = "-" if trial.value is None else f"{trial.value:.4f}"
        fold = "" if trial.fold is None else f"fold {trial.fold}: "
        epochs = f"{fold}{trial.epoch}/{trial.max_epochs}"
        rows.append((str(trial.number), epochs, value, clock(now - trial.started_at), trial.described))
        styles.append("")
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row, style in zip(rows, styles, strict=True):
        numbers = "  ".join(cell.rjust(wide) for cell, wide in zip(row, widths, strict=False))
        lines.append(Text(f"{numbers}  {shorten(row[4], width - len(numbers) - 2)}".rstrip(), style=style))
    if len(running) > space:
        lines.append(Text(f"and {len(running) - space} more running", style="dim"))
    for line in (*head, *lines):
        line.truncate(max(1, width), overflow="crop")
    return [*head, *lines]


def pack(phrases: Sequence[str], width: int) -> list[str]:
    """Phrases joined into as few lines of at most `width` as keep each phrase whole.

    >>> pack(["12 of 24 trials", "9 complete", "2 pruned"], width=28)
    ['12 of 24 trials  9 complete', '2 pruned']
    """
    lines: list[str] = []
    for phrase in phrases:
        if lines and len(lines[-1]) + 2 + len(phrase) <= width:
            lines[-1] += f"  {phrase}"
        else:
            lines.append(phrase)
    return lines


def shorten(text: str, width: int) -> str:
    """As many whole words as find place; a number cut short would be another number.

    >>> shorten("lr=0.0123 dropout=0.25", width=18), shorten("lr=0.0123", width=9)
    ('lr=0.0123 ...', 'lr=0.0123')
    """
    if len(text) <= width:
        return text
    whole, space, _ = text[: max(0, width - 3)].rpartition(" ")
    return f"{whole}{space}..."[: max(0, width)]


def clock(seconds: float) -> str:
    """A duration as a clock shows it.

    >>> clock(133.7), clock(3725)
    ('2:13', '1:02:05')
    """
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def rough_duration(seconds: float) -> str:
    """A duration no more exact than an estimate is.

    >>> rough_duration(33), rough_duration(161), rough_duration(9000)
    ('40 s', '3 min', '2.5 h')
    """
    if seconds <= 90:
        return f"{math.ceil(seconds / 10) * 10} s"
    if seconds <= 90 * 60:
        return f"{math.ceil(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
