"""How far a replay came that was killed or stopped, so that the same command goes on from there.

A hidden file beside the results names the replay, the steps that are done, and the files that they
left. It counts only while those files are untouched. Knows no job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_samic.errors import SamicError
from napari_samic.export import write_json
from napari_samic.recipes.plan import Planned
from napari_samic.textfiles import read_json

NAME = ".samic.run"


class Unfinished:
    """See the module.

    Parameters
    ----------
    folder : Path
        Where the file lies.
    plan : sequence of Planned
    overwrite : bool
    """

    def __init__(self, folder: Path, plan: Sequence[Planned], *, overwrite: bool) -> None:
        self._path, self._plan = folder / NAME, plan
        text = repr([overwrite, [(p.number, p.step, p.left_out) for p in plan]])
        self._key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def rows(self) -> dict[int, dict[str, Any]]:
        """What was told of the steps that are done, by their numbers; empty: begin anew."""
        try:
            tree = read_json(self._path, "a replay")
            if tree["key"] != self._key:
                return {}
            rows = {int(k): dict(v) for k, v in tree["rows"].items()}
            todo = [p for p in self._plan if not p.left_out and p.number not in rows]
            under_way = todo[0].out if todo else None
            done = [p.out for p in self._plan if p.out and p.number in rows and p.out != under_way]
            same = all(_stamp(out) == tree["outs"][str(out)] for out in done)
        except (SamicError, KeyError, TypeError, ValueError, AttributeError):
            return {}
        return rows if same else {}

    def note(self, rows: Mapping[int, Mapping[str, Any]]) -> None:
        """Write down which steps are done.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        outs = {str(p.out): _stamp(p.out) for p in self._plan if p.out and p.number in rows}
        content = {"key": self._key, "rows": {str(k): v for k, v in rows.items()}, "outs": outs}
        write_json(self._path, content, overwrite=True)

    def end(self) -> None:
        """All is done."""
        self._path.unlink(missing_ok=True)


def _stamp(place: Path) -> str:
    """Tells a file, or the files of a folder, from what they are after a change."""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    told = hashlib.sha256()
    for file in files:
        if file.name.startswith(".") or not file.is_file():
            continue
        stat = file.stat()
        told.update(f"{file.relative_to(place)} {stat.st_mtime_ns} {stat.st_size}\n".encode())
    return told.hexdigest()
