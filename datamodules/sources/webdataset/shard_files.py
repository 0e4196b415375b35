"""Where tar shards are: on a disk, or behind URLs, of which only so many are copied as there is room for."""

from __future__ import annotations

import hashlib
import importlib
import os
from glob import has_magic
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from ...images.readers import file_stamp


class ShardFiles:
    """Shards by their names below a root. Those behind URLs are taken never to change.

    Args:
        root: A folder; the beginning of a URL; or a command, pipe:..., with {} where the name belongs.
        folder: For local copies of what is behind URLs; shared by all processes.
        room_bytes: Most that the copies may take, those on their way apart; the least recently read go first.
    """

    def __init__(self, root: str, folder: Path, room_bytes: int) -> None:
        self.root = root.removeprefix("file://")
        self.folder = folder
        self.room_bytes = room_bytes

    @property
    def is_remote(self) -> bool:
        return "://" in self.root or self.root.startswith("pipe:")

    def find(self, pattern: str) -> list[str]:
        """Names that a pattern with {000..123} and, in folders, * stands for; sorted.

        Raises:
            FileNotFoundError: There are none.
            ValueError: The pattern has a * although what is behind URLs can't be listed.
        """
        names: list[str] = importlib.import_module("webdataset.shardlists").expand_urls(pattern)
        if self.is_remote:
            if any(has_magic(name) for name in names):
                raise ValueError(
                    f"shards behind a URL can't be searched for {pattern}; name them all, as in "
                    "train-{000..123}.tar"
                )
            return sorted(names)
        folder = Path(self.root).expanduser()
        paths = [
            path for name in names for path in (folder.glob(name) if has_magic(name) else [folder / name])
        ]
        missing = [str(path) for path in paths if not path.is_file()]
        if missing or not paths:
            raise FileNotFoundError(
                f"no shard lies at {missing[0] if missing else folder.absolute() / pattern}: expected "
                "WebDataset's tar files below data.root, by the names in data.train, data.val and data.test"
            )
        return sorted(path.relative_to(folder).as_posix() for path in paths)

    def address(self, name: str) -> str:
        """Path, URL or command of a shard."""
        if not self.is_remote:
            return str(Path(self.root).expanduser().absolute() / name)
        if "{}" in self.root:
            return self.root.replace("{}", name)
        return f"{self.root.rstrip('/')}/{name}"

    def stamp(self, name: str) -> str:
        """What changes whenever a shard may have."""
        if self.is_remote:
            return self.address(name)
        return file_stamp(Path(self.address(name)))

    def open(self, name: str) -> BinaryIO:
        """A shard, copied first where it is behind a URL and no copy is left.

        Raises:
            ValueError: It can't be had. No OSError, which would be held against the images in it.
        """
        if not self.is_remote:
            return Path(self.address(name)).open("rb")
        copy = self.folder / hashlib.blake2b(self.address(name).encode(), digest_size=12).hexdigest()
        while True:
            try:
                os.utime(copy)  # read just now
                return copy.open("rb")
            except FileNotFoundError:  # not yet here, or another process has made room meanwhile
                self._fetch(self.address(name), copy)

    def _fetch(self, address: str, copy: Path) -> None:
        webdataset = importlib.import_module("webdataset.cache")
        locks, arriving = (self.folder.with_name(name) for name in ("locks", "arriving"))
        for folder in (locks, arriving, self.folder):
            folder.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / copy.name):  # several threads and processes come to a new shard together
            if copy.exists():
                return
            for left in arriving.glob(f"{copy.name}*"):  # by a process that was killed
                left.unlink()
            try:
                webdataset.download(address, str(arriving / copy.name))
            except (OSError, ValueError) as error:
                raise ValueError(f"the shard at {address} can't be fetched ({error})") from error
            # Copied elsewhere, then moved: making room would take away what is only half here.
            with FileLock(locks / "room"):
                (arriving / copy.name).replace(copy)
                webdataset.LRUCleanup(str(self.folder), self.room_bytes, interval=None).cleanup()
