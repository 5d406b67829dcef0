"""The file of a SQLite store: its schema, its lock, and how it is opened without damage to files that are not ours.

Comes before `stores.sqlite.writer` and the readers in `stores.sqlite.store`, which get their connections here. A file
is made under another name and renamed when it is complete, so a crash leaves no file or a good one. A file that is
foreign, newer, damaged or of another log is refused before a byte of it changes: `StoreForeign`, `SchemaNewer`,
`StoreCorrupt`, `StoreMismatch`; a second writer, in this process or another, meets `StoreLocked`.
"""

import fcntl
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import msgspec

from holdfast.errors import SchemaNewer, StoreCorrupt, StoreError, StoreFailed, StoreForeign, StoreLocked, StoreMismatch

__all__ = ["Connection", "FileLock", "connect_reader", "connect_writer", "create", "peek", "store_error", "sync_folder"]

Connection = Any
"""An `apsw.Connection`, whose types are not known in full where Python has no type for buffers."""

APPLICATION_ID = int.from_bytes(b"hold")
SCHEMA_VERSION = 1
SQLITE_VERSION_MIN = 3_051_003
"""Before 3.51.3 two connections that write or checkpoint at one moment could damage a WAL file."""

SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};

-- The log: every row a record, in commit order, never changed and never deleted.
CREATE TABLE log (
    position    INTEGER PRIMARY KEY,    -- 1, 2, ... without gaps but those a leap recorded in incarnations
    kind        TEXT NOT NULL,          -- event, command, answer, saga, effect, repair
    destination TEXT NOT NULL,          -- the service it is for; '' when it stays at home
    stream      TEXT NOT NULL,          -- Type/key of the aggregate or saga; '' for none
    version     INTEGER,                -- 1, 2, ... in the stream; NULL when it does not count (a rejection)
    type        TEXT NOT NULL,
    data        TEXT NOT NULL,          -- the payload, JSON
    tx          TEXT NOT NULL,
    correlation TEXT NOT NULL,
    cause       TEXT NOT NULL,
    at          INTEGER NOT NULL,       -- microseconds since 1970 UTC
    headers     TEXT NOT NULL           -- JSON; fields with their defaults are left out
);
-- Loads and lists streams, and keeps two records from being one version. NULLs differ: rejections have their place too.
CREATE UNIQUE INDEX log_stream ON log (stream, version) WHERE stream <> '';
-- Serves exchange when it catches up; live frames come from memory.
CREATE INDEX log_destination ON log (destination, position) WHERE destination <> '';
-- Serve the trail.
CREATE INDEX log_tx ON log (tx);
CREATE INDEX log_correlation ON log (correlation) WHERE correlation <> '';

-- Each opening for writing, oldest first: its id, the first position it could give, and how far a repair bridged.
CREATE TABLE incarnations (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, first INTEGER NOT NULL, bridged INTEGER NOT NULL, at INTEGER NOT NULL
);

-- How far this service has come in others' logs, and its views and reactions in any.
CREATE TABLE cursors (
    name TEXT PRIMARY KEY, incarnation TEXT NOT NULL, position INTEGER NOT NULL
) WITHOUT ROWID;

-- The small tables in one: request, waiting, timer, snapshot, view, service. Data is text if it is UTF-8, else a blob.
CREATE TABLE rows (
    kind TEXT NOT NULL, key TEXT NOT NULL, data NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;

-- log: whose log this is. failures: commits that could not be made durable; see SqliteWriter.recover.
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

PRAGMAS = """
PRAGMA synchronous = FULL;              -- fsync in every commit (G8)
PRAGMA fullfsync = ON;                  -- on macOS a plain fsync stops at the drive's cache
PRAGMA checkpoint_fullfsync = ON;
PRAGMA wal_autocheckpoint = 4000;       -- pages: every 16 MB the writer stops for 8 ms to bring the file up to date
PRAGMA journal_size_limit = 67108864;   -- a WAL that a long read made grow shrinks again
PRAGMA cache_size = -8000;              -- kB
PRAGMA foreign_keys = ON;               -- of tables of the team's own, which handlers change
"""
BUSY_MS = 5000
"""How long a connection waits for the lock of another tool that opened the file."""


class FileLock:
    """The right to write to a store: an advisory lock on a file beside it, which the kernel frees when the process
    dies."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._file: int | None = None

    def acquire(self, at: int) -> None:
        """Take the lock, and write its holder and the time into the file. Raises StoreLocked, which names the
        holder."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _Holder()
            with suppress(msgspec.MsgspecError):
                holder = msgspec.json.decode(os.pread(file, 1000, 0), type=_Holder)
            os.close(file)
            who = f"process {holder.pid} on {holder.host} since {holder.since}" if holder.pid else "another process"
            name = self._path.name.removesuffix(".lock")
            raise StoreLocked(f"{who} writes to {name}; stop it first, or use another path") from None
        since = datetime.fromtimestamp(at / 1_000_000, UTC).isoformat(timespec="seconds")
        os.ftruncate(file, 0)
        os.pwrite(file, msgspec.json.encode(_Holder(os.getpid(), socket.gethostname(), since)), 0)
        self._file = file

    def release(self) -> None:
        """Give the lock back. The file stays: without it, two processes could hold locks of one name."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


class _Holder(msgspec.Struct):
    pid: int = 0
    host: str = ""
    since: str = ""


def store_error(path: Path, error: Exception) -> StoreError:
    """The StoreError for an error of the engine."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return StoreCorrupt(f"{path.name} is damaged ({error}); restore it from a backup")
    return StoreFailed(f"{path.name}: {type(error).__name__}: {error}")


def peek(path: Path) -> bool:
    """Whether there is a store, judged by the first bytes alone; raises StoreForeign, StoreCorrupt or SchemaNewer."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreForeign(f"{path.name} cannot be read as a store: {error.strerror}; give another path") from error
    if not header:
        return False
    if not header.startswith(b"SQLite format 3\0"):
        raise StoreForeign(f"{path.name} is not a SQLite file and so not a holdfast store; give another path")
    if len(header) < 100:
        raise StoreCorrupt(f"{path.name} is cut off inside its header; restore it from a backup")
    _check_ids(path, int.from_bytes(header[68:72]), int.from_bytes(header[60:64]))
    return True


def _check_ids(path: Path, application_id: int, version: int) -> None:
    if application_id != APPLICATION_ID:
        raise StoreForeign(f"{path.name} is a SQLite file of another application; give another path")
    if version > SCHEMA_VERSION:
        raise SchemaNewer(
            f"{path.name} has schema {version}, written by a later release; this release knows up to {SCHEMA_VERSION}"
        )


def create(path: Path, log: str) -> None:
    """Make an empty store: under another name first, renamed when every byte of it is on the disk."""
    new = path.with_name(path.name + ".new")
    for leftover in (new, new.with_name(new.name + "-journal")):
        leftover.unlink(missing_ok=True)
    connection: Connection = apsw.Connection(str(new))
    try:
        connection.execute("PRAGMA synchronous = FULL; BEGIN;" + SCHEMA)
        connection.execute("INSERT INTO meta VALUES ('log', ?), ('failures', '0')", (log,))
        connection.execute("COMMIT; PRAGMA journal_mode = WAL;")
    finally:
        connection.close()
    with new.open("rb+") as file:
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def connect_writer(path: Path, log: str, vfs: str) -> Connection:
    """The one connection that writes, after all checks; the file is not changed if a check fails."""
    if apsw.SQLITE_VERSION_NUMBER < SQLITE_VERSION_MIN:
        raise StoreError(
            f"SQLite {apsw.sqlite_lib_version()} can damage files in WAL mode; install apsw 3.51.3 or later"
        )
    connection: Connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs or None)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.set_busy_timeout(BUSY_MS)
        _check_ids(path, connection.pragma("application_id"), connection.pragma("user_version"))
        found = connection.execute("SELECT value FROM meta WHERE name = 'log'").get
        if found != log:
            raise StoreMismatch(f"{path.name} holds the log of {found!r}, not of {log!r}; give another path")
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        connection.execute("PRAGMA journal_mode = WAL;" + PRAGMAS).fetchall()
    except (apsw.Error, StoreError) as error:
        connection.close()
        raise store_error(path, error) from error
    return connection


def connect_reader(path: Path, vfs: str) -> Connection:
    """A connection that can only read, and in WAL mode never waits for the writer nor makes it wait."""
    connection: Connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs or None)
    connection.set_busy_timeout(BUSY_MS)
    return connection
