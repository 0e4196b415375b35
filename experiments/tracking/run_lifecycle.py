"""Context managers that set a run's final status and clean up."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from darkroom.datamodules.images.decoding import BadImageError
from darkroom.lightning_modules.classifier import NonFiniteError

from ..errors import Interrupted, RankError, RunError, Terminated
from ..runtime import signals
from ..runtime.out_of_memory import is_out_of_memory, out_of_memory
from .errors import StoreError
from .run import RunRecord


@contextlib.contextmanager
def working_folder(record: RunRecord | None, keep: bool = False) -> Iterator[Path]:
    """Where checkpoints lie while the run lasts; gone once it has finished, unless another ends it."""
    if record is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    record.checkpoint_folder.mkdir(parents=True, exist_ok=True)
    yield record.checkpoint_folder
    if not keep:
        shutil.rmtree(record.checkpoint_folder)


@contextlib.contextmanager
def recording(record: RunRecord | None, to_continue: str | None = None) -> Iterator[None]:
    """Gives the run the status it deserves, however the work ends, unless it was given one already.

    Args:
        record: The run; None where nothing is recorded.
        to_continue: The command that goes on with the work; `darkroom train --resume` where not given.
    """
    if to_continue is None and record is not None:
        to_continue = f"darkroom train --resume {record.run_id}"
    hint = f" Continue with: {to_continue}" if to_continue else ""
    with raising_on_signals():
        try:
            yield
        except Interrupted as stop:
            signals.ignore()  # schedulers tell more than once
            _end(record, "KILLED")
            raise type(stop)(f"{stop.reason}; everything so far is kept.{hint}") from None
        except StoreError as error:
            if record is not None and not record.is_remote:  # a server that is away would be waited for again
                _end(record, "FAILED", error)
            raise
        except BaseException as error:
            _end(record, "FAILED", error)
            told = _paragraph(error, hint)
            if told is None:
                raise
            raise told from error
        if record is not None and record.status == "RUNNING":
            record.end("FINISHED")


def _paragraph(error: BaseException, hint: str) -> RunError | None:
    """What a user is told of an error that ended a run; None of one that only a traceback explains.

    Args:
        error: What was raised.
        hint: How to continue, to be appended where that can help.
    """
    if isinstance(error, NonFiniteError):
        return RunError(str(error))
    if isinstance(error, RankError):
        return RankError(f"{error}.{hint}")
    if isinstance(error, BadImageError):
        return RunError(f"{error}.{hint}")
    if isinstance(error, OSError):
        return RunError(
            f"writing failed: {error.strerror or error} ({error.filename or 'a checkpoint'}). "
            f"Free some space or allow writing there.{hint}"
        )
    if is_out_of_memory(error):
        return RunError(out_of_memory(error))
    if _is_of_compiler(error):
        said = str(error).partition("\n")[0]
        return RunError(
            f"torch.compile could not compile the network: {said}. Without it "
            "(trainer.compile=false) training is the same, and slower on a GPU"
        )
    return None


def _is_of_compiler(error: BaseException) -> bool:
    from torch._dynamo.exc import TorchDynamoException  # slow to import, and by now it mostly has been

    return isinstance(error, TorchDynamoException)


def _end(record: RunRecord | None, status: str, error: BaseException | None = None) -> None:
    if record is None:
        return
    try:
        record.end("KILLED" if status == "KILLED" else "FAILED")
        if error is not None:
            with record.artifacts() as folder:
                text = "".join(traceback.format_exception(error))
                (folder / "traceback.txt").write_text(text)
    except (RunError, OSError):
        # The store or the disk is what failed. The first error is the one to report; the run stays
        # RUNNING in the store, and can be resumed like a killed one.
        return


@contextlib.contextmanager
def raising_on_signals() -> Iterator[None]:
    """Turns SIGINT into `Interrupted`, which passes through Lightning untouched; SIGTERM into `Terminated`.

    While training lasts, `LastCheckpoint` answers the latter.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    with signals.answering({signal.SIGINT: interrupt, **dict.fromkeys(signals.heeded(), terminate)}):
        yield
