"""The ledger of a folder of results: what made each label file, what failed, what is not done yet.

One SQLite file, so that a run that is killed loses nothing: an image is noted before its label file
takes its place, and the note counts once that very file is there: an image has both or neither. At
the end of a run the tables are made of its notes. A result is right only for what it was made of:
the ledger keeps the run with its settings, and hashes of the pixels, the prompts and the label
file, so that a file that is there is never taken for the file that is wanted. Knows no table.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from napari_samic.core.errors import FormatError, InputError, OutputError, SamicError
from napari_samic.io.files import claimed, output_error, remove
from napari_samic.io.paths import some
from napari_samic.io.text_files import is_name, sha256_of, writable
from napari_samic.io.writers import plain

NAME = "ledger.sqlite"
APPLICATION, VERSION = 0x53414D43, 1  # "SAMC"
VERSION_KEY = "version"
PART_SUFFIX = ".samic.part"
MAX_NAME_BYTES = 200
"""Bytes of a name that leave room for what is added to it."""
Run = Mapping[str, Any]
"""Job, version, networks by their sha256, and every setting: plain values, in groups."""

_SCHEMA = f"""
BEGIN;
CREATE TABLE runs (  -- a row for each different run; `head` while it is under way
    id INTEGER PRIMARY KEY, run TEXT UNIQUE NOT NULL,
    head TEXT, host TEXT, started TEXT, ended TEXT
);
CREATE TABLE images (  -- `state` in the last run; from `run` on: the label file that is there
    label TEXT PRIMARY KEY, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT, seconds REAL, score REAL, objects INTEGER,
    run INTEGER REFERENCES runs, file TEXT, labels TEXT, stamp TEXT, inputs TEXT, heatmaps INTEGER
);
CREATE TABLE notes (  -- what the tables do not tell yet; without `stamp`: of an unfinished stack
    label TEXT PRIMARY KEY, file TEXT NOT NULL, stamp TEXT, entry TEXT NOT NULL
);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""
_TABLES = {("table", "runs"), ("table", "images"), ("table", "notes")}
_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}
_DAMAGES = (
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_CONSTRAINT,
)  # fmt: skip


@dataclass(frozen=True)
class Provenance:
    """What made the labels of one image.

    Attributes
    ----------
    run : dict
    file : str
        Name of the label file.
    labels : str
        Its sha256.
    inputs : dict of str to str
        sha256 of the `pixels` that the model saw, and of its `prompts` or `mask`, if any.
    heatmaps : bool
        Whether heat maps were asked for.
    """

    run: Run
    file: str
    labels: str
    inputs: Mapping[str, str]
    heatmaps: bool = False

    @property
    def is_linked(self) -> bool:
        """Whether a number is one object in all planes of a stack."""
        memory = self.run.get("memory")
        ways = (memory.get("follow"), memory.get("link")) if isinstance(memory, Mapping) else ()
        return any(way in ("stacks", "always") for way in ways)

    def to_tree(self) -> dict[str, Any]:
        """Plain values, without the run."""
        inputs = dict(self.inputs)
        return {
            "file": self.file, "labels": self.labels, "inputs": inputs, "heatmaps": self.heatmaps
        }  # fmt: skip

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], run: Run) -> Provenance:
        """Build from what `to_tree` gave; KeyError, TypeError or ValueError if it did not."""
        inputs = {str(k): str(v) for k, v in dict(tree["inputs"]).items()}
        file = str(tree["file"])
        if not is_name(file):
            raise ValueError(f"{file!r} is no name of a label file")
        return cls(run, file, str(tree["labels"]), inputs, bool(tree["heatmaps"]))


@dataclass(frozen=True, eq=False)
class UnfinishedResults:
    """What a run that did not end has left.

    Attributes
    ----------
    head : dict
        What `Ledger.begin` was given.
    entries : dict of str to dict
        By image: what `Ledger.note` was given, of label files that are there.
    """

    head: dict[str, Any]
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)


def stamp_of(path: Path) -> list[int] | None:
    """Tells a file from others of its name, mostly also after it was renamed; None: not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_ino, stat.st_mtime_ns, stat.st_size]


def is_in_place(folder: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the label file that an entry was noted of is there.

    Some file systems number a file anew when it is renamed, or later; then its contents tell.
    """
    path = folder / str(entry["file"])
    stamp, noted = stamp_of(path), entry["stamp"]
    if stamp is None or not isinstance(noted, list) or stamp[2:] != noted[2:]:
        return False
    return stamp == noted or sha256_of(path) == entry.get("labels")


def part_of(folder: Path, file: str) -> Path:
    """Where the unfinished label file of a stack is kept; a long name is made short."""
    name = Path(file).name
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return folder / f".{name}{PART_SUFFIX}"


# --- reading, also while a run goes on


def load_provenance(folder: Path) -> dict[str, Provenance]:
    """What is known of the label files of a folder of results; nothing without a ledger.

    Raises
    ------
    FormatError, InputError
        Damaged, of another program or a later version, or it can't be read.
    """
    what = "label, run, file, labels, inputs, heatmaps"
    provenances = {}
    with _sound(folder / NAME):
        runs = {number: json.loads(run) for number, run in rows(folder, "SELECT id, run FROM runs")}
        for label, run, *values in rows(folder, f"SELECT {what} FROM images WHERE file NOT NULL"):
            tree = dict(zip(("file", "labels", "inputs", "heatmaps"), values, strict=True))
            tree["inputs"] = json.loads(tree["inputs"])
            provenances[label] = Provenance.from_tree(tree, runs[run])
    return provenances


def read_unfinished(folder: Path) -> UnfinishedResults | None:
    """What a run in this folder has left unfinished; None if there is no such run.

    Raises
    ------
    FormatError, InputError
        As `load_provenance`.
    """
    heads = rows(folder, "SELECT head FROM runs WHERE head IS NOT NULL")
    if not heads:
        return None
    with _sound(folder / NAME):
        unfinished = UnfinishedResults(dict(json.loads(heads[0][0])))
        dict(unfinished.head["run"])
        in_place: dict[str, bool] = {}  # a stack has many entries of one file
        for label, text in rows(folder, "SELECT label, entry FROM notes WHERE stamp IS NOT NULL"):
            entry = json.loads(text)
            if not is_name(entry["file"]):
                raise ValueError(f"{entry['file']!r} is no name of a label file")
            key = f"{entry['file']} {entry['stamp']}"
            if key not in in_place:
                in_place[key] = is_in_place(folder, entry)
            if in_place[key]:
                unfinished.entries[label] = entry
    return unfinished


def stopped_job_error(folder: Path, unfinished: UnfinishedResults) -> OutputError:
    """Another job was stopped in the folder, and may not be lost."""
    job = unfinished.head["run"].get("job")
    msg = f"{folder}: holds a `{job}` that was stopped. Go on with it, or choose another."
    return OutputError(msg)


def rows(folder: Path, query: str) -> list[Any]:
    """What a query gives of a ledger; nothing if it is not there.

    Raises
    ------
    FormatError, InputError
        As `load_provenance`.
    """
    path = folder / NAME
    try:
        if not path.stat().st_size:  # killed before anything was noted
            return []
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    with _sound(path):
        try:
            return _fetched(path, "mode=ro", query)
        except sqlite3.OperationalError as error:
            if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_ERROR):
                raise
        # A run that was killed may have left what only a writer can take back. Else all is in the
        # file, where nobody may write or no file can be locked.
        beside = any(path.with_name(NAME + ending).exists() for ending in ("-wal", "-journal"))
        return _fetched(path, "mode=rw" if beside else "immutable=1", query)


def _fetched(path: Path, mode: str, query: str) -> list[Any]:
    with closing(_connected(path, mode)) as db:
        return db.execute(query).fetchall()


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    """Connection to a ledger of ours."""
    if path.is_symlink():
        raise FormatError(f"{path}: a link, through which nothing is written. Put a file there.")
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None,
        check_same_thread=False, timeout=10,
    )  # fmt: skip
    try:
        db.execute("PRAGMA trusted_schema = OFF")
        if mode.startswith("mode=rwc") and not db.execute("PRAGMA schema_version").fetchone()[0]:
            db.executescript(_SCHEMA)
        kind, version = (
            db.execute(f"PRAGMA {k}").fetchone()[0] for k in ("application_id", "user_version")
        )
        holds = "SELECT type, name FROM sqlite_master WHERE type != 'index'"
        if kind != APPLICATION or (version == VERSION and set(db.execute(holds)) != _TABLES):
            raise FormatError(f"{path}: a database of another program. Move it away.")
        if version != VERSION:
            msg = f"{path}: a ledger of version {version}, expected {VERSION}. Use the napari-samic"
            raise FormatError(f"{msg} that wrote it, or choose another folder.")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Say what is wrong with a ledger that is read."""
    try:
        yield
    except SamicError:
        raise
    except sqlite3.Error as error:
        if _code(error) not in _DAMAGES:
            raise InputError(f"{path}: can't be read ({error}).") from error
        raise _damaged(path, error) from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> FormatError:
    msg = f"{path}: not what we wrote ({error}). Move it away, and make the results again."
    return FormatError(msg)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


# --- writing, by one run at a time: see `io.files.claimed`


class Ledger:
    """Writes; what is noted is on its way to the disk when the call returns.

    Raises
    ------
    OutputError
        The disk refuses, or the folder is gone.
    FormatError
        A file of that name is damaged, or not ours.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME

    @cached_property
    def _db(self) -> sqlite3.Connection:
        try:
            db = _connected(self.path, "mode=rwc")
        except sqlite3.OperationalError as error:
            if _code(error) not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL):
                raise
            db = _connected(self.path, "mode=rwc&nolock=1")  # a drive that knows no locks
        with suppress(sqlite3.OperationalError):  # a network drive: it stays without
            db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    def check(self) -> None:
        """Raise OutputError if the file, and so what was noted, is there no more."""
        if "_db" in self.__dict__ and not self.path.exists():
            raise OutputError(f"{self.path}: is gone. Bring its folder back, or begin anew.")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written in the block, or nothing."""
        self.check()
        try:
            with self._db as db:
                db.execute("BEGIN IMMEDIATE")
                yield db
        except sqlite3.Error as error:
            if _code(error) in _DAMAGES:
                raise _damaged(self.path, error) from error
            number = _ERRNO.get(_code(error))
            cause = OSError(number, str(error)) if number else OSError(str(error))
            raise output_error(self.path, cause) from error

    def begin(self, head: Mapping[str, Any], *, resumes: bool = False) -> None:
        """A run begins, or goes on with its unfinished stacks."""
        with self._transaction() as db:
            db.execute("UPDATE runs SET head = NULL")
            db.execute(
                "UPDATE runs SET head = ?, host = ?, started = ?, ended = NULL WHERE id = ?",
                (_json(head), socket.gethostname(), _now(), _run_id(db, head["run"])),
            )
            for (file,) in db.execute("SELECT DISTINCT file FROM notes").fetchall():
                if not (resumes and part_of(self.folder, file).exists()):
                    db.execute("DELETE FROM notes WHERE file = ?", (file,))

    def plan(self, labels: Iterable[str]) -> None:
        """The images that this run is to do; what is left of others is no longer expected."""
        with self._transaction() as db:
            db.execute("UPDATE images SET error = NULL, state = ''")
            db.execute("UPDATE images SET state = 'done' WHERE file IS NOT NULL")
            db.executemany(
                "INSERT INTO images (label, state) VALUES (?, 'open') "
                "ON CONFLICT (label) DO UPDATE SET state = 'open'",
                ((writable(label),) for label in labels),
            )
            db.execute("DELETE FROM images WHERE state = ''")

    def note(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Note images whose label file is about to take its place, or planes of a stack."""
        with self._transaction() as db:
            for entry in entries:
                label, stamp = writable(entry["image"]), entry["stamp"]
                row = (label, writable(entry["file"]), stamp and _json(stamp), _json(entry))
                db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", row)
                if stamp is not None and entry["made"] is not None:
                    (prompts,), rows = entry["prompts"]["images"], entry["rows"]
                    objects = sum(bool(r["object"]) for r in rows)
                    db.execute(
                        "INSERT INTO images (label, state, attempts, seconds, score, objects) "
                        "VALUES (?, 'done', 1, ?, ?, ?) ON CONFLICT (label) DO UPDATE SET "
                        "state = 'done', error = NULL, attempts = attempts + 1, "
                        "seconds = excluded.seconds, score = excluded.score, "
                        "objects = excluded.objects",
                        (label, prompts["seconds"], rows[0]["image_score"], objects),
                    )

    def fail(self, label: str, reason: str) -> None:
        """Note an image that could not be done; what it had stays."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO images (label, state, attempts, error) VALUES (?, 'failed', 1, ?) "
                "ON CONFLICT (label) DO UPDATE SET "
                "state = 'failed', attempts = attempts + 1, error = excluded.error",
                (writable(label), writable(reason)),
            )

    def part(self, label: str) -> dict[str, Any] | None:
        """What was noted of a plane of an unfinished stack."""
        query = "SELECT entry FROM notes WHERE stamp IS NULL AND label = ?"
        with _sound(self.path):
            row = self._db.execute(query, (writable(label),)).fetchone()
            return None if row is None else json.loads(row[0])

    @property
    def has_parts(self) -> bool:
        """Whether planes of an unfinished stack are noted."""
        return bool(self._db.execute("SELECT 1 FROM notes WHERE stamp IS NULL LIMIT 1").fetchone())

    def store(self, provenances: Mapping[str, Provenance]) -> None:
        """These are the label files that there are; the tables tell of all that was noted."""
        with self._transaction() as db:
            ids: dict[int, int] = {}  # many are of one run
            db.execute("UPDATE images SET file = NULL")
            for label, made in provenances.items():
                if id(made.run) not in ids:
                    ids[id(made.run)] = _run_id(db, made.run)
                values = made.file, made.labels, _json(made.inputs), made.heatmaps
                db.execute(
                    "INSERT INTO images (label, state, run, file, labels, inputs, heatmaps) "
                    "VALUES (?, 'done', ?, ?, ?, ?, ?) ON CONFLICT (label) DO UPDATE SET "
                    "run = excluded.run, file = excluded.file, labels = excluded.labels, "
                    "inputs = excluded.inputs, heatmaps = excluded.heatmaps",
                    (writable(label), ids[id(made.run)], *values),
                )
            db.execute(
                "UPDATE images SET stamp = (SELECT stamp FROM notes WHERE label = images.label) "
                "WHERE label IN (SELECT label FROM notes WHERE stamp IS NOT NULL)"
            )
            db.execute("DELETE FROM notes WHERE stamp IS NOT NULL")
            db.execute("DELETE FROM images WHERE file IS NULL AND state = 'done'")

    def end(self) -> None:
        """Nothing is unfinished any more; of a job without label files no ledger is left.

        What is last is the change of one file, so that no job has ended and seems to go on.
        """
        self._settle()
        if self._db.execute("SELECT 1 FROM images LIMIT 1").fetchone() is None:
            self.close()
            remove(self.path)
        else:
            with self._transaction() as db:
                db.execute("DELETE FROM notes")
                db.execute("UPDATE runs SET head = NULL, ended = ? WHERE head NOT NULL", (_now(),))
        for leftover in self.folder.glob(f".*{PART_SUFFIX}"):
            remove(leftover)

    def close(self) -> None:
        """Leave one file, that may be copied and be read where nobody may write."""
        if "_db" in self.__dict__:
            self._settle()
            self.__dict__.pop("_db").close()

    def _settle(self) -> None:
        """Put all into the one file; not if it is being read: the next run does."""
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA journal_mode = DELETE")


def settle(folder: Path) -> None:
    """Put all that a killed run has noted into the one file, so that it may be moved."""
    if (folder / NAME).exists():
        with _sound(folder / NAME), closing(_connected(folder / NAME, "mode=rw")) as db:
            db.execute("PRAGMA journal_mode = DELETE")


def _run_id(db: sqlite3.Connection, run: Run) -> int:
    text = _json(run)
    db.execute("INSERT OR IGNORE INTO runs (run) VALUES (?)", (text,))
    return int(db.execute("SELECT id FROM runs WHERE run = ?", (text,)).fetchone()[0])


def _json(tree: Any) -> str:
    return json.dumps(plain(tree), ensure_ascii=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, eq=False)
class CompleteResults:
    """A job that is begun anew where it was stopped.

    Attributes
    ----------
    resumes : bool
        The same job was stopped here: it may replace what it has left.
    """

    ledger: Ledger
    run: dict[str, Any]
    resumes: bool

    def begin(self) -> None:
        """From now on, what is in the folder under the job's names is its own.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        self.ledger.begin({"run": self.run})


@contextmanager
def complete_results(folder: Path, run: Mapping[str, Any]) -> Iterator[CompleteResults]:
    """Claim a folder for a job that is done as a whole: it is over when the block ends well.

    Parameters
    ----------
    folder : Path
    run : dict
        What the job is, and of what.

    Raises
    ------
    OutputError
        Another run writes there, or was stopped there.
    """
    with claimed(folder):
        unfinished, plain_run, ledger = read_unfinished(folder), plain(run), Ledger(folder)
        if unfinished is not None and unfinished.head["run"].get("job") != run["job"]:
            raise stopped_job_error(folder, unfinished)
        resumes = unfinished is not None and unfinished.head["run"] == plain_run
        with closing(ledger):
            yield CompleteResults(ledger, plain_run, resumes)
            ledger.end()


# --- comparing


def same_run(earlier: Run, now: Run) -> bool:
    """Whether two runs make the same; the package's version alone says nothing of that."""
    return {**earlier, VERSION_KEY: ""} == {**now, VERSION_KEY: ""}


def difference(earlier: Run, now: Run) -> str:
    """In what two runs differ, for people; "" if in nothing.

    >>> difference({"method": "samic", "settings": {"a": 1}}, {"method": "auto", "settings": {}})
    'method samic (now auto), settings.a 1 (now not set)'
    >>> difference({"prompter": "0" * 64}, {"prompter": "1" * 64})
    'another prompter'
    """
    before, after = dict(_flat(plain(earlier))), dict(_flat(plain(now)))
    keys = [k for k in {**after, **before} if before.get(k) != after.get(k) and k != VERSION_KEY]
    return some([_difference_text(k, before.get(k), after.get(k)) for k in keys], 3)


def _difference_text(key: str, before: Any, after: Any) -> str:
    if any(isinstance(v, str) and len(v) == 64 for v in (before, after)):  # sha256
        return f"another {key.removesuffix('_sha256')}"
    earlier, now = ("not set" if v is None else v for v in (before, after))
    return f"{key} {earlier} (now {now})"


def _flat(tree: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{key}.")
        else:
            yield f"{head}{key}", value
