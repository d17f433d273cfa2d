"""How far a replay came that was killed or stopped, so that the same command goes on from there.

A hidden file beside the results names the replay, the steps that are done, what they were made of
and the files that they left. It counts only while all those files are untouched. Knows no job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_samic.core.errors import SamicError
from napari_samic.io.files import remove
from napari_samic.io.text_files import read_json, text_sha256
from napari_samic.io.writers import write_json
from napari_samic.recipes.hashing import files_of
from napari_samic.recipes.plan import PlannedStep

NAME = ".samic.run"


class ReplayState:
    """See the module.

    Parameters
    ----------
    folder : Path
        Where the file lies.
    plan : sequence of PlannedStep
    overwrite : bool
    """

    def __init__(self, folder: Path, plan: Sequence[PlannedStep], *, overwrite: bool) -> None:
        self._path, self._plan = folder / NAME, plan
        text = repr([overwrite, [(p.number, p.step, p.left_out) for p in plan]])
        self._key = text_sha256(text)

    def rows(self) -> dict[int, dict[str, Any]]:
        """What was told of the steps that are done, by their numbers; empty: begin anew."""
        try:
            tree = read_json(self._path, "a replay")
            if tree["key"] != self._key:
                return {}
            rows = {int(k): dict(v) for k, v in tree["rows"].items()}
            todo = [p for p in self._plan if not p.left_out and p.number not in rows]
            under_way = todo[0].out if todo else None
            done = [p for p in self._plan if p.number in rows]
            outs = [p.out for p in done if p.out and p.out != under_way]
            same = all(_stamp(out) == tree["outs"][str(out)] for out in outs)
            same &= all(_inputs(p) == tree["inputs"][str(p.number)] for p in done)
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
        content = {
            "key": self._key,
            "rows": {str(k): v for k, v in rows.items()},
            "outs": outs,
            "inputs": {str(p.number): _inputs(p) for p in self._plan if p.number in rows},
        }
        write_json(self._path, content, overwrite=True)

    def end(self) -> None:
        """All is done."""
        remove(self._path)


def _inputs(planned: PlannedStep) -> str:
    """Tells a step's inputs, but those that an earlier step made, from what they are changed."""
    lines = []
    for key, value in planned.step.inputs.items():
        if key in planned.made_by:
            continue
        for source in (value,) if isinstance(value, str) else value:
            lines += [f"{name} {_stamp(path)}" for name, path in files_of(source)]
    return text_sha256("\n".join(lines))


def _stamp(place: Path) -> str:
    """Tells a file, or the files of a folder, from what they are after a change."""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    lines = []
    for file in files:
        if not file.name.startswith(".") and file.is_file():
            stat = file.stat()
            lines.append(f"{file.relative_to(place)} {stat.st_mtime_ns} {stat.st_size}")
    return text_sha256("\n".join(lines))
