"""What a run has done so far, a line an image, so that a run that is killed loses nothing.

A line is written before its label file takes its place, and counts once that very file is there:
an image has both or neither. The tables of the folder are made of it at the end, and whoever reads
a folder before reads both. Knows no table.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_samic.core.errors import InputError, OutputError
from napari_samic.io.files import atomic_file, claimed, output_error, remove
from napari_samic.io.text_files import sha256_of
from napari_samic.io.writers import plain

NAME = ".samic.journal"
PART_SUFFIX = ".samic.part"
MAX_NAME_BYTES = 200
"""Bytes of a name that leave room for what is added to it."""
Stamp = list[int]


def stamp_of(path: Path) -> Stamp | None:
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


@dataclass(frozen=True, eq=False)
class UnfinishedResults:
    """What a run that did not end has left.

    Attributes
    ----------
    head : dict
        What `Journal.begin` was given.
    entries : dict of str to dict
        By image: what `Journal.add` was given, of label files that are there.
    parts : dict of str to dict
        The same of the planes of an unfinished stack.
    """

    head: dict[str, Any]
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_journal(folder: Path) -> UnfinishedResults | None:
    """What a run in this folder has left unfinished; None if there is no such run.

    Raises
    ------
    InputError
        It can't be read.
    """
    path = folder / NAME
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    trees = []
    for line in lines:
        with suppress(ValueError, RecursionError):  # the last one may be cut off
            trees.append(json.loads(line))
    if not trees or not isinstance(trees[0], dict) or not isinstance(trees[0].get("run"), dict):
        return None
    unfinished = UnfinishedResults(trees[0])
    in_place: dict[str, bool] = {}  # a stack has many lines of one file
    for tree in trees[1:]:
        if not isinstance(tree, dict) or not {"image", "file", "stamp"} <= tree.keys():
            continue
        name, file = str(tree["image"]), str(tree["file"])
        if tree["stamp"] is None and part_of(folder, file).exists():
            unfinished.parts[name] = tree
        elif tree["stamp"] is not None:
            key = f"{file} {tree['stamp']}"
            if key not in in_place:
                in_place[key] = is_in_place(folder, tree)
            if in_place[key]:
                unfinished.entries[name] = tree
    return unfinished


def stopped_job_error(folder: Path, unfinished: UnfinishedResults) -> OutputError:
    """Another job was stopped in the folder, and may not be lost."""
    job = unfinished.head["run"].get("job")
    msg = f"{folder}: holds a `{job}` that was stopped. Go on with it, or choose another."
    return OutputError(msg)


def part_of(folder: Path, file: str) -> Path:
    """Where the unfinished label file of a stack is kept; a long name is made short."""
    name = Path(file).name
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return folder / f".{name}{PART_SUFFIX}"


class Journal:
    """Adds lines; each is on its way to the disk when the call returns.

    Raises
    ------
    OutputError
        The disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def begin(self, head: Mapping[str, Any], entries: Iterable[Mapping[str, Any]] = ()) -> None:
        """Start anew, with what the run is and what it has done of stacks."""
        with atomic_file(self.path, overwrite=True) as temporary:
            temporary.write_text("".join(map(_line, (head, *entries))), encoding="ascii")

    def add(self, entry: Mapping[str, Any]) -> None:
        """Note one image."""
        try:
            with self.path.open("a", encoding="ascii") as file:
                file.write(_line(entry))
        except OSError as error:
            raise output_error(self.path, error) from error

    def end(self) -> None:
        """Nothing is unfinished any more."""
        for leftover in (self.path, *self.path.parent.glob(f".*{PART_SUFFIX}")):
            remove(leftover)


def _line(tree: Mapping[str, Any]) -> str:
    return json.dumps(plain(tree), ensure_ascii=True) + "\n"


@dataclass(frozen=True, eq=False)
class CompleteResults:
    """A job that is begun anew where it was stopped.

    Attributes
    ----------
    resumes : bool
        The same job was stopped here: it may replace what it has left.
    """

    journal: Journal
    run: dict[str, Any]
    resumes: bool

    def begin(self) -> None:
        """From now on, what is in the folder under the job's names is its own.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        self.journal.begin({"run": self.run})


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
        unfinished, plain_run, journal = read_journal(folder), plain(run), Journal(folder)
        if unfinished is not None and unfinished.head["run"].get("job") != run["job"]:
            raise stopped_job_error(folder, unfinished)
        resumes = unfinished is not None and unfinished.head["run"] == plain_run
        yield CompleteResults(journal, plain_run, resumes)
        journal.end()
