"""Readers of encoded images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image


class Originals(Protocol):
    """Images in an order, read one at a time, from several threads at once.

    Attributes:
        ids: A unique name for each, such as its path below the root.
        origin: What tells these images from others with the same ids, such as that root.
    """

    ids: Sequence[str]
    origin: str

    def stamps(self) -> Sequence[str]:
        """For each image, what changes whenever its content may have; cheap to ask for.

        It may also change where the content did not: such images are read again and known by their hash.
        """

    def read(self, place: int) -> bytes | Image.Image:
        """The image, encoded or decoded.

        Raises:
            OSError: It cannot be read.
        """


class FileOriginals:
    """Encoded image files.

    Args:
        paths: Of the files.
        ids: A unique name for each; the paths themselves where None.
    """

    def __init__(self, paths: Sequence[Path], ids: Sequence[str] | None = None) -> None:
        self.paths = list(paths)
        self.ids: Sequence[str] = [str(path) for path in paths] if ids is None else list(ids)
        first = str(self.paths[0].absolute()) if self.paths else ""
        self.origin = first.removesuffix(self.ids[0]) if self.paths else ""
        if len(self.ids) != len(self.paths):
            raise ValueError(f"each file needs one id: got {len(self.paths)} files and {len(self.ids)} ids")

    def stamps(self) -> Sequence[str]:
        return [file_stamp(path) for path in self.paths]

    def read(self, place: int) -> bytes:
        # In as few calls as can be: after each the threads that decode compete for Python's lock.
        descriptor = os.open(self.paths[place], os.O_RDONLY | os.O_NONBLOCK)  # a pipe is not waited for
        try:
            size = os.fstat(descriptor).st_size
            data = os.read(descriptor, size)
            while len(data) < size and (more := os.read(descriptor, size - len(data))):
                data += more  # some file systems give it in parts
            return data
        finally:
            os.close(descriptor)


def file_stamp(path: Path) -> str:
    """What changes whenever a file's content may have.

    Size and modification time alone can be kept by those that put other content in place (cp -p, rsync -t,
    touch -r); the inode and the time of its last change cannot.
    """
    try:
        status = path.stat()
    except OSError:
        return f"{path.absolute()} unreadable"  # reading it gives the reason, in the list of bad images
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{path.absolute()} {status.st_size} {times} {status.st_ino}"
