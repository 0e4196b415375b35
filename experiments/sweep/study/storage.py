"""Optuna storage and trial leases.

Optuna's heartbeat decides by the clock who is dead, and loses or doubles trials under kills. A lease
here is a lock that the operating system or the database frees at the moment its holder dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError

from ...errors import RequestError
from ...runtime.extras import require

DEFAULT_STORAGE = "sqlite:///optuna.db"
LOCK_SECONDS = 60  # how long SQLite waits for another writer
PEER_SECONDS = 2.0  # how long a peer's trial must be seen without an owner before it is adopted
# The second is what a connection that was lost says from then on.
STORAGE_ERRORS = (DBAPIError, InvalidRequestError, optuna.exceptions.StorageInternalError)


def open_storage(url: str) -> RDBStorage:
    """Optuna's database, created where it is not there yet.

    Raises:
        RequestError: It does not answer, or is neither SQLite nor PostgreSQL.
    """
    url = complete_url(url)
    is_sqlite = url.startswith("sqlite")
    if is_sqlite and not _sqlite_path(url).parent.is_dir():
        raise RequestError(f"the study's storage {url} can't be opened: there is no such folder")
    options: dict[str, Any] = (
        {"connect_args": {"timeout": LOCK_SECONDS}} if is_sqlite else {"pool_pre_ping": True}
    )
    try:
        with _creating_alone(url):
            storage = RDBStorage(url, engine_kwargs=options)
    except Exception as error:  # whatever a database driver may raise
        reason = " ".join(str(error).split())[:300]
        raise RequestError(f"the study's storage {_hide_password(url)} can't be opened: {reason}") from error
    if is_sqlite:
        _let_writers_queue(storage.engine)
    return storage


@contextlib.contextmanager
def _creating_alone(url: str) -> Iterator[None]:
    """Processes that create one database's tables together crash each other."""
    if url.startswith("sqlite"):
        with FileLock(f"{_sqlite_path(url)}.lock"):
            yield
        return
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as session:
        session.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": _key("tables")})
        yield


def complete_url(url: str) -> str:
    """The URL with PostgreSQL's driver named, as SQLAlchemy's default one is no longer developed.

    Raises:
        RequestError: It is no URL of SQLite or PostgreSQL, or PostgreSQL's driver is not installed.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise RequestError(
            f"--storage must be a URL such as sqlite:///optuna.db or postgresql://host/database, got {url!r}"
        ) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise RequestError(f"--storage must be SQLite or PostgreSQL, got {parsed.get_backend_name()}")
    if parsed.drivername == "postgresql":
        require("psycopg", "--storage=postgresql://...")
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)


class Leases(Protocol):
    """Locks that die with their holder."""

    adoption_delay: float  # seconds for which a trial must have been nobody's before it may be adopted

    def claiming(self) -> contextlib.AbstractContextManager[None]:
        """Held while one looks for a trial and takes it; by one process of the study at a time."""

    def take(self, name: str) -> int | None:
        """Takes the lease of this name; None where it is another's.

        Returns what keeps it: a file descriptor that a child may hold too, or -1 where there is none.
        """

    def release(self, name: str) -> None: ...

    def check(self) -> None:
        """Raises one of STORAGE_ERRORS where all leases were lost."""

    def renew(self) -> None:
        """Makes it possible to take leases again after that."""


class FileLeases:
    """Locked files beside an SQLite storage."""

    adoption_delay = 0.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def claiming(self) -> Iterator[None]:
        with FileLock(self._folder / "claim.lock"):
            yield

    def take(self, name: str) -> int | None:
        descriptor = os.open(self._folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        self._held[name] = descriptor
        return descriptor

    def release(self, name: str) -> None:
        os.close(self._held.pop(name))

    def check(self) -> None:
        return  # the system keeps them

    def renew(self) -> None:
        return


class AdvisoryLeases:
    """PostgreSQL's advisory locks on a session of their own, which must not go through a transaction pool."""

    adoption_delay = PEER_SECONDS

    def __init__(self, engine: sqlalchemy.Engine, study_name: str) -> None:
        self._study_name = study_name
        self._engine = engine
        self._connect()

    def _connect(self) -> None:
        self._session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        # A machine that lost its power sends no farewell: the server is to notice within half a minute.
        for setting, seconds in (("idle", 10), ("interval", 5), ("count", 3)):
            self._ask(f"SET tcp_keepalives_{setting} = {seconds}")

    @contextlib.contextmanager
    def claiming(self) -> Iterator[None]:
        self._ask("SELECT pg_advisory_lock(:key)", "claim")
        try:
            yield
        finally:
            self._ask("SELECT pg_advisory_unlock(:key)", "claim")

    def take(self, name: str) -> int | None:
        return -1 if self._ask("SELECT pg_try_advisory_lock(:key)", name) else None

    def release(self, name: str) -> None:
        self._ask("SELECT pg_advisory_unlock(:key)", name)

    def check(self) -> None:
        self._ask("SELECT 1")

    def renew(self) -> None:
        with contextlib.suppress(*STORAGE_ERRORS):  # it is closed where the last attempt failed
            self._session.invalidate()
            self._session.close()
        self._connect()

    def _ask(self, statement: str, name: str | None = None) -> Any:
        values = {} if name is None else {"key": _key(f"{self._study_name}/{name}")}
        result = self._session.execute(sqlalchemy.text(statement), values)
        return result.scalar() if result.returns_rows else None


def open_leases(storage: RDBStorage, study_name: str) -> Leases:
    """Leases that all processes with this storage share."""
    if storage.engine.dialect.name == "postgresql":
        return AdvisoryLeases(storage.engine, study_name)
    path = _sqlite_path(storage.url)
    return FileLeases(path.with_name(f"{path.name}.leases") / study_name.replace("/", "-"))


class Sightings:
    """Since when a trial has been seen without an owner.

    Its controller may only have lost its connection, and must be given time to end its processes.
    """

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._since: dict[int, float] = {}

    def ripe(self, number: int) -> bool:
        now = time.monotonic()
        return now - self._since.setdefault(number, now) >= self._delay

    def forget(self, number: int) -> None:
        self._since.pop(number, None)


def _let_writers_queue(engine: sqlalchemy.Engine) -> None:
    # SQLite's default starts a transaction as a reader, and fails when two of them then want to write.
    @sqlalchemy.event.listens_for(engine, "connect")
    def _configure(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections made before know nothing of it


def _key(name: str) -> int:
    """An advisory lock's 64-bit key."""
    digest = hashlib.blake2b(f"darkroom/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _sqlite_path(url: str) -> Path:
    return Path(make_url(url).database or "optuna.db")


def _hide_password(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)
