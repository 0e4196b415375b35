"""A sweep is seen as it stands: one table on a terminal, whole lines in a file, nothing broken after it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace

import pytest
from rich.console import Console, ConsoleDimensions

from darkroom.experiments.sweep.report import live_display
from darkroom.experiments.sweep.report.live_display import (
    Display,
    Progress,
    RunningTrial,
    describe_progress,
    table_lines,
)

SAID = "trial 7  val/accuracy 0.9812 after 6 epochs, pruned  (lr=0.01 dropout=0.2)"


def running_trial(number: int, described: str = "lr=0.0123 dropout=0.25") -> RunningTrial:
    return RunningTrial(number, described, 3, 10, 0.9712, started_at=time.time() - 14)


PROGRESS = Progress(
    study="digits/searched",
    metric="val/accuracy",
    trials=24,
    complete=9,
    pruned=2,
    failed=1,
    running=[running_trial(12), replace(running_trial(13), epoch=0, value=None)],
    best=(7, 0.98894, "lr=0.003 dropout=0.1"),
    seconds_per_trial=13.0,
)


def play(output: str) -> list[str]:
    """The lines that a terminal of unlimited size shows after this output, without empty ones at the end."""
    screen, row, column = [""], 0, 0
    pieces = re.findall(r"\x1b\[[?0-9;]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", output)
    assert "".join(pieces) == output, "the output holds something that this terminal does not know"
    for piece in pieces:
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row, column = row + 1, 0
            screen += [""] * (row + 1 - len(screen))
        elif piece == "\x1b[2K":
            screen[row] = ""
        elif moved := re.fullmatch(r"\x1b\[(\d+)A", piece):
            row -= int(moved[1])
            assert row >= 0, "the cursor was moved above the first line"
        elif not piece.startswith("\x1b"):
            line = screen[row].ljust(column)
            screen[row] = line[:column] + piece + line[column + len(piece) :]
            column += len(piece)
        else:
            assert piece[-1] in "mhl", f"this terminal does not know {piece!r}"
    while screen and not screen[-1]:
        screen.pop()
    return screen


@pytest.fixture
def terminal(monkeypatch) -> Console:
    monkeypatch.setattr(live_display, "PAINT_SECONDS", 0)
    monkeypatch.setenv("TERM", "xterm")
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=20)


@pytest.fixture
def log() -> Console:
    return Console(file=io.StringIO(), width=80)


def shown(console: Console) -> list[str]:
    return play(console.file.getvalue())


def test_the_table_shows_counts_times_the_best_trial_and_each_running_one():
    running = [replace(trial, started_at=100.0) for trial in PROGRESS.running]
    facts = describe_progress(PROGRESS, elapsed=133.7, remaining=150.0)
    lines = table_lines(replace(PROGRESS, running=running), facts, 114.5, ConsoleDimensions(100, 20))
    assert [line.plain for line in lines] == [
        "digits/searched  12 of 24 trials  9 complete  2 pruned  1 failed  2 running",
        "2:13 elapsed, about 3 min left",
        "trial  epoch  val/accuracy  time  values",
        "    7   best        0.9889        lr=0.003 dropout=0.1",
        "   12   3/10        0.9712  0:14  lr=0.0123 dropout=0.25",
        "   13   0/10             -  0:14  lr=0.0123 dropout=0.25",
    ]


def test_lines_that_are_said_stay_in_order_above_one_table(terminal):
    with Display(terminal) as display:
        display.update(PROGRESS)
        for number in range(4):
            display.say(f"trial {number} [16, 32]")
            display.update(replace(PROGRESS, complete=10 + number))
        print("printed by somebody else")
        lines = shown(terminal)
        assert lines[:5] == [f"trial {number} [16, 32]" for number in range(4)] + ["printed by somebody else"]
        assert "13 complete" in lines[5]
        assert "elapsed" in lines[6]
        assert [line.split()[0] for line in lines[7:]] == ["trial", "7", "12", "13"]
    assert shown(terminal) == lines[:5]


def test_a_note_stands_at_the_foot_until_it_is_taken_away(terminal):
    with Display(terminal) as display:
        display.note("opening the study")
        assert shown(terminal) == ["opening the study"]
        display.update(PROGRESS)
        display.note("Ctrl-C: stopping after this epoch;\nagain stops at once")
        assert shown(terminal)[-1] == "Ctrl-C: stopping after this epoch; again stops at once"
        display.note("")
        assert shown(terminal)[-1].split()[0] == "13"


@pytest.mark.parametrize("width", [100, 60, 40, 20, 3])
def test_no_line_of_the_table_is_wider_than_the_terminal_less_the_echo_of_ctrl_c(terminal, width):
    terminal.width = width
    with Display(terminal) as display:
        display.update(PROGRESS)
        display.note("MLflow's server is away for 12 s, waiting")
        assert max(map(len, shown(terminal))) <= width - 2


def test_a_narrow_table_drops_whole_values_and_says_so(terminal):
    terminal.width = 60
    with Display(terminal) as display:
        display.update(replace(PROGRESS, running=[running_trial(12, "lr=0.0123 dropout=0.25 depth=18")]))
        lines = shown(terminal)
    assert lines[0].endswith("2 pruned")
    assert lines[-1].endswith("  lr=0.0123 ...")


def test_more_running_trials_than_lines_are_counted(terminal):
    terminal.height = 12
    with Display(terminal) as display:
        display.update(replace(PROGRESS, running=[running_trial(number) for number in range(30, 0, -1)]))
        display.note("MLflow's server is away")
        lines = shown(terminal)
    assert len(lines) == terminal.height
    assert [int(line.split()[0]) for line in lines[4:-2]] == list(range(1, 7))
    assert lines[-2:] == ["and 24 more running", "MLflow's server is away"]


def test_a_thousand_updates_cost_a_few_paintings(terminal, monkeypatch):
    monkeypatch.setattr(live_display, "PAINT_SECONDS", 0.2)
    with Display(terminal) as display:
        began_at = time.monotonic()
        for complete in range(1000):
            display.update(replace(PROGRESS, complete=complete))
        paintings = terminal.file.getvalue().count("val/accuracy")
        assert 1 <= paintings <= 1 + (time.monotonic() - began_at) / 0.2


def test_a_table_that_has_not_changed_is_not_painted_again(terminal):
    with Display(terminal) as display:
        display.update(replace(PROGRESS, running=[]))
        for _ in range(20):
            display.update(replace(PROGRESS, running=[]))
        # Each painting names the metric; the clock may have turned once.
        assert terminal.file.getvalue().count("val/accuracy") <= 2


def test_a_painting_reaches_the_terminal_in_one_piece_and_so_does_not_flicker(terminal, monkeypatch):
    with Display(terminal) as display:
        display.update(PROGRESS)
        written: list[str] = []
        monkeypatch.setattr(terminal.file, "write", written.append)
        display.update(replace(PROGRESS, complete=10))
    assert "\x1b[2K" in written[0]
    assert "13 of 24" in written[0]
    assert "lr=0.0123" in written[0]


@pytest.mark.parametrize(
    ("progress", "since_last_end", "expected"),
    [
        (PROGRESS, 0, 12 * 13),
        (PROGRESS, 6, 12 * 13 - 6),
        (PROGRESS, 1000, None),
        (replace(PROGRESS, complete=1, pruned=0, failed=0), 0, None),
        (replace(PROGRESS, complete=1, pruned=1, failed=0), 0, 22 * 13),
        (replace(PROGRESS, seconds_per_trial=None), 0, None),
        (replace(PROGRESS, trials=12), 0, None),
    ],
)
def test_the_remaining_time_follows_the_rate_and_is_not_claimed_without_one(
    progress, since_last_end, expected
):
    assert progress.remaining_seconds(since_last_end) == expected


def test_the_remaining_time_counts_down_from_the_last_trials_end(terminal):
    fast = replace(PROGRESS, trials=13, seconds_per_trial=1.0, running=[])
    with Display(terminal) as display:
        display.update(fast)
        assert "about 10 s left" in shown(terminal)[0] + shown(terminal)[1]
        time.sleep(1.1)
        display.update(fast)
        assert "left" not in "".join(shown(terminal))


def test_a_file_gets_whole_lines_and_no_table(log):
    with Display(log) as display:
        display.update(PROGRESS)
        display.say(f"{SAID} {SAID}")
    assert log.file.getvalue() == f"{SAID} {SAID}\n"


def test_a_file_gets_a_summary_each_minute_in_which_something_happened(log, monkeypatch):
    monkeypatch.setattr(live_display, "SUMMARY_SECONDS", 0.2)
    with Display(log) as display:
        display.update(PROGRESS)
        assert log.file.getvalue() == ""
        for progress in (PROGRESS, PROGRESS, replace(PROGRESS, complete=10)):
            time.sleep(0.25)
            display.update(progress)
            display.update(progress)
        display.update(replace(PROGRESS, complete=11))
    first, second = log.file.getvalue().splitlines()
    assert re.sub(r"\d:\d\d", "0:00", first) == (
        "digits/searched  12 of 24 trials  9 complete  2 pruned  1 failed  2 running  0:00 elapsed"
        ", about 3 min left  best val/accuracy 0.9889 of trial 7"
    )
    assert second.startswith("digits/searched  13 of 24 trials")


def test_a_file_gets_each_note_once_until_it_is_taken_away(log):
    with Display(log) as display:
        for second in range(12):
            display.note(f"MLflow's server is away for {second} s, waiting")
            display.note("Ctrl-C: stopping after this epoch")
        display.note("")
        display.note("MLflow's server is away for 3 s, waiting")
    assert log.file.getvalue().splitlines() == [
        "MLflow's server is away for 0 s, waiting",
        "Ctrl-C: stopping after this epoch",
        "MLflow's server is away for 3 s, waiting",
    ]


@pytest.mark.parametrize(("name", "value"), [("FORCE_COLOR", "1"), ("TERM", "dumb")])
def test_no_cursor_is_moved_in_a_captured_output(capsys, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with Display() as display:
        display.update(PROGRESS)
        display.say(SAID)
    assert capsys.readouterr().out == f"{SAID}\n"


def test_an_exception_leaves_the_cursor_and_the_streams_as_they_were(terminal):
    streams = sys.stdout, sys.stderr
    with contextlib.suppress(KeyboardInterrupt), Display(terminal) as display:
        display.update(PROGRESS)
        assert terminal.file.getvalue().startswith("\x1b[?25l")  # the cursor is hidden
        raise KeyboardInterrupt
    assert (sys.stdout, sys.stderr) == streams
    assert terminal.file.getvalue().rindex("\x1b[?25h") > terminal.file.getvalue().rindex("\x1b[?25l")
    assert shown(terminal) == []


# A real terminal ----------------------------------------------------------------------------------

CONDUCTOR = """
import fcntl, signal, termios, threading, time
from darkroom.experiments.sweep.report.live_display import Display, Progress, RunningTrial

fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C comes to this process
interrupted = threading.Event()
signal.signal(signal.SIGINT, lambda *_: interrupted.set())
with Display() as display:
    for turn in range(10_000):
        running = [RunningTrial(3, "lr=0.01 dropout=0.2 widths=[16, 32, 64]", turn, 10_000, 0.5, time.time())]
        display.update(Progress("digits/searched", "val/accuracy", 24, 3, 0, 0, running, None, 2.0))
        if turn == 3:
            display.say("trial 2  val/accuracy 0.9812")
        if interrupted.is_set():
            display.note("Ctrl-C: stopping after this epoch")
            display.update(Progress("digits/searched", "val/accuracy", 24, 3, 0, 0, [], None, 2.0))
            display.say("interrupted")
            raise RuntimeError("the controller broke")
        interrupted.wait(0.05)
"""


def test_ctrl_c_on_a_real_terminal_reaches_the_controller_and_the_terminal_is_left_whole():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", CONDUCTOR],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**environment, "TERM": "xterm"},
    )
    os.close(theirs)
    output, seen = "", ""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.5)[0]:
                continue
            try:
                output += os.read(ours, 65536).decode()
            except OSError:  # the other end is closed
                break
            if not seen and "trial 2" in output and "lr=0.01" in output.rpartition("trial 2")[2]:
                seen = output
                os.write(ours, b"\x03")
        assert process.wait(10) == 1
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    lines = play(seen.replace("\r\n", "\n"))
    assert lines[0] == "trial 2  val/accuracy 0.9812"
    assert lines[1] == "digits/searched  3 of 24 trials  3 complete  0 pruned"
    assert max(map(len, lines)) <= 58
    assert "Ctrl-C: stopping after this epoch" in output
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")
    left = play(output.replace("\r\n", "\n"))
    assert left[:3] == ["trial 2  val/accuracy 0.9812", "interrupted", "Traceback (most recent call last):"]
    assert left[-1] == "RuntimeError: the controller broke"
