"""Runs a plan's trials concurrently on this machine.

Nothing it knows is needed to go on: whatever dies, and when, the next controller finds in the study and
in MLflow what is left to do.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path

from optuna.trial import TrialState

from ...errors import RunError
from ...tracking.errors import StoreError
from ...tracking.run import CHECKPOINTS
from ..report.live_display import Display, Progress
from ..study.storage import STORAGE_ERRORS, Leases, Sightings
from ..study.study import ClaimedTrial, TrialPlan, claim, is_done, lease_name
from ..study.trials import best_trial, counted_trials, describe
from .messages import Decision, EpochReport, FoldReport, StoreCall, TrialRequest, TrialResult
from .resources import Slot
from .running_trial import Running
from .stop_requests import StopRequests
from .trial_records import Sweep, check_first_failures, close, open_record
from .worker import Worker

# Of a trial's process, without an epoch between them, before the trial is given up: by its own doing, and by
# somebody's who kills it, which says little about the trial.
MAX_DEATHS, MAX_KILLS = 3, 10
TICK_SECONDS = 0.5
SHOW_SECONDS = 0.25
PATIENCE_SECONDS = 600  # how long a storage or server that went away is waited for


class Controller:
    """Claims trials, gives each a process, answers what the processes say, and tells the study.

    Args:
        sweep: What the trials share.
        plan: Which trials there are to be.
        leases: Which of them are whose.
        slots: How many to run at once, and on what.
        display: Where to show how it goes.
        on_trial_end: Called after each trial that has ended.
    """

    def __init__(
        self,
        sweep: Sweep,
        plan: TrialPlan,
        leases: Leases,
        slots: Sequence[Slot],
        display: Display,
        on_trial_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._sweep = sweep
        self._plan = plan
        self._leases = leases
        self._free = list(slots)
        self._display = display
        self._on_trial_end = on_trial_end
        self._running: dict[int, Running] = {}
        self._sightings = Sightings(leases.adoption_delay)
        self._stop = StopRequests()
        self._told_trials = False  # to leave, as the controller was
        self._claim_at = 0.0
        self._shown_at = 0.0
        self._started_at = time.monotonic()
        self._num_ended = 0  # here, since the start

    def run(self) -> None:
        """Returns when every trial of the plan has ended, here or elsewhere.

        Raises:
            Interrupted: Ctrl-C. Once: at the end of each trial's epoch; twice: at once. Or the process was
                told to leave: once each trial has saved where it stands.
            RunError: The first trials all failed in the same way, or a store stayed away.
        """
        with self._stop.noted():
            try:
                while True:
                    try:
                        self._fill()
                        if not self._running and (self._stop or is_done(self._plan)):
                            break
                        self._listen()
                        self._leases.check()
                    except (*STORAGE_ERRORS, StoreError) as error:
                        self._withdraw()
                        self._wait_for_stores(error)
            except BaseException:
                records = [running.record for running in self._running.values() if running.record]
                self._withdraw()
                for record in records:
                    with contextlib.suppress(StoreError):  # the first error is the one to report
                        record.end("KILLED")
                raise
        if self._stop:
            raise self._stop.error()

    # Starting -----------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Starts trials while there is room for them."""
        while self._free and not self._stop and time.monotonic() >= self._claim_at:
            claimed = claim(self._plan, self._leases, self._running, self._sightings)
            if claimed is None:
                self._claim_at = time.monotonic() + TICK_SECONDS
                return
            self._start(claimed, self._free.pop(0))

    def _start(self, claimed: ClaimedTrial, slot: Slot) -> None:
        trial, lease = claimed.trial, claimed.lease
        frozen = self._plan.study.get_trials(deepcopy=False)[trial.number]
        described = describe(trial.params)
        settings = self._sweep.settings
        values = self._plan.overrides(frozen)
        record = open_record(self._sweep, self._plan, trial, described, values["seed"], claimed.adopted)
        task = TrialRequest(
            sources=self._sweep.sources,
            overrides={**self._sweep.overrides, **values},
            metric=settings.metric,
            folds=settings.folds,
            objectives=settings.objectives,
            described=described,
            record=record.through(None) if record else None,
            threads=slot.threads,
            gpus=slot.gpus,
        )
        worker = Worker(task, lease, self._log(trial.number))
        self._running[trial.number] = Running(trial, record, lease, slot, task, worker)

    def _log(self, number: int) -> Path:
        folder = CHECKPOINTS / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self._plan.study.study_name.replace('/', '-')}-{number}.log"

    # Answering ----------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Answers what the processes have to say, or waits a moment for it."""
        if self._stop.to_leave and not self._told_trials:
            self._told_trials = True
            self._display.note("told to leave: each trial saves where it stands")
            for running in self._running.values():
                running.worker.tell_to_leave()
        elif self._stop.by_ctrl_c:
            self._display.note("Ctrl-C: stopping after the present epochs; again stops at once")
        self._show()
        speaking = wait([each.worker.connection for each in self._running.values()], TICK_SECONDS)
        for running in [each for each in self._running.values() if each.worker.connection in speaking]:
            try:
                message = running.worker.connection.recv()
            except (EOFError, OSError):
                self._bury(running)
                continue
            self._answer(running, message)

    def _answer(self, running: Running, message: object) -> None:
        reply: object
        if isinstance(message, TrialResult):
            self._finish(running, message)
            return
        if isinstance(message, EpochReport | FoldReport):
            reply = self._judge(running, message)
        else:
            assert isinstance(message, StoreCall)
            assert self._sweep.store is not None  # the trial has a run
            reply = self._sweep.store.call(message.method, *message.arguments, **message.options)
        with contextlib.suppress(OSError):  # it died meanwhile, which is noticed next
            running.worker.connection.send(reply)

    def _judge(self, running: Running, report: EpochReport | FoldReport) -> Decision:
        running.heed(report)
        if isinstance(report, FoldReport):
            step = report.fold + 1
        else:
            step = report.epoch if report.fold is None else 0  # trials are compared after whole folds
        # What comes after the last step can't be saved any more.
        if step and self._plan.report(running.trial, step, report.value) and step < self._sweep.steps:
            return "prune"
        return "stop" if self._stop else "go on"

    def _bury(self, running: Running) -> None:
        """Starts a trial again whose process died, in place, unless it does nothing but die."""
        words = running.worker.last_words()
        most = MAX_KILLS if running.worker.was_killed() else MAX_DEATHS
        running.worker.kill()
        if self._stop:
            self._finish(running, TrialResult(stopped=True))
            return
        running.deaths += 1
        if running.deaths < most:
            self._display.say(f"trial {running.trial.number}  {words}; it goes on from its last checkpoint")
            running.worker = Worker(running.task, running.lease, self._log(running.trial.number))
        else:
            log = running.worker.log.read_text(errors="replace")
            error = f"{words}, {running.deaths} times without an epoch between"
            self._finish(running, TrialResult(failure="death", error=error, traceback=log or error))

    def _finish(self, running: Running, outcome: TrialResult) -> None:
        """Writes down how a trial ended, and makes room for the next."""
        running.worker.end()
        close(self._plan, running.trial, running.record, outcome)
        self._leases.release(lease_name(running.trial.number))
        del self._running[running.trial.number]
        self._free.append(running.slot)
        self._claim_at = 0.0
        self._num_ended += 1
        self._display.say(running.told(outcome))
        if outcome.stopped:
            return
        if outcome.error is not None:
            check_first_failures(self._plan, outcome)
        self._on_trial_end()

    # Stopping -----------------------------------------------------------------------------------

    def _withdraw(self) -> None:
        """Ends all processes at once, before anybody else takes up their trials."""
        for running in self._running.values():
            running.worker.kill()
            self._free.append(running.slot)
            with contextlib.suppress(*STORAGE_ERRORS, KeyError):
                self._leases.release(lease_name(running.trial.number))
        self._running.clear()

    def _wait_for_stores(self, error: Exception) -> None:
        """Waits until study and MLflow answer again.

        Raises:
            RunError: They did not, for ten minutes.
        """
        started_at = time.monotonic()
        while (waited := time.monotonic() - started_at) < PATIENCE_SECONDS:
            if self._stop:
                raise self._stop.error()
            which = "MLflow" if isinstance(error, StoreError) else "the study's storage"
            self._display.note(f"{which} is away, waiting for it ({waited:.0f} s)")
            time.sleep(TICK_SECONDS)
            try:
                self._leases.renew()
                self._plan.study.get_trials(deepcopy=False)
                if self._sweep.store is not None and self._sweep.parent is not None:
                    self._sweep.store.run(self._sweep.parent.run_id)
            except (*STORAGE_ERRORS, StoreError) as again:
                error = again
            else:
                self._display.note("")
                return
        raise RunError(f"a store stayed away: {' '.join(str(error).split())[:300]}")

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._shown_at < SHOW_SECONDS:
            return
        self._shown_at = now
        trials = counted_trials(self._plan.study)
        number_in = Counter(trial.state for trial in trials)
        best = best_trial(self._plan.study, self._sweep.settings)
        progress = Progress(
            study=self._plan.study.study_name,
            metric=self._sweep.settings.metric,
            trials=self._plan.total,
            complete=number_in[TrialState.COMPLETE],
            pruned=number_in[TrialState.PRUNED],
            failed=number_in[TrialState.FAIL],
            running=[each.shown(self._sweep.max_epochs) for each in self._running.values()],
            best=(best.number, best.values[0], describe(best.params)) if best else None,
            seconds_per_trial=(now - self._started_at) / self._num_ended if self._num_ended else None,
        )
        self._display.update(progress)
