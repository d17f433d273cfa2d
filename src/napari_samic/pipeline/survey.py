"""Which results of a folder are still right: of this run, of these pixels, and untouched.

A file that is there is not yet the result that is wanted. What is stale is done again and told;
what somebody has edited or made by hand is left as it is and told; what is of other settings or of
another image stops the run before it begins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from napari_samic.contracts import Plane
from napari_samic.errors import SamicError, StaleError
from napari_samic.listing import folded
from napari_samic.masks import read_mask
from napari_samic.normalise import read_rgb
from napari_samic.pipeline.common import pixels_sha256, reason
from napari_samic.pipeline.provenance import Made, difference
from napari_samic.pipeline.records import Records
from napari_samic.reviews import sha256_of

SHOWN = 3
"""Names that a line tells."""


class Survey:
    """What is to become of each label file that is there; parameters as of `Loop`.

    Attributes
    ----------
    valid : set of Path
        Label files to be left as they are: done before.
    failed : dict of Path to str
        Those that may not be replaced, and why.
    """

    def __init__(
        self,
        records: Records,
        inputs: Callable[[Plane], Mapping[str, str]],
        heatmaps: bool,
    ) -> None:
        self.records, self.inputs, self.heatmaps = records, inputs, heatmaps
        self.valid: set[Path] = set()
        self.failed: dict[Path, str] = {}
        self._again: dict[str, list[str]] = defaultdict(list)
        self._refused: dict[str, list[str]] = defaultdict(list)

    @property
    def notices(self) -> tuple[str, ...]:
        """What is done again, and why; a line a reason."""
        return tuple(f"done again, as {why}: {_named(k)}." for why, k in self._again.items())

    def refuse(self) -> None:
        """Raise StaleError if results of other settings or images are in the way."""
        for why, names in self._refused.items():
            raise StaleError(self.records.out, f"results that were {why}: {_named(names)}")

    def all_or_none(self, targets: Sequence[Path]) -> None:
        """Where each image hangs on the one before: begin anew unless all are there."""
        there = self.valid & set(targets)
        if len(there) < len(targets):
            self.valid -= there
            why = "each image hangs on the one before"
            self._again[why] += sorted(path.stem for path in there)

    def look(self, members: Sequence[Plane], target: Path) -> bool:
        """Look at one label file and its planes; returns whether there was something to see."""
        records, name = self.records, members[0].name
        for plane in members:
            other = records.made(plane.label)
            if other is not None and folded(other.file) != folded(target.name):
                self._refused[f"made of another image of that name ({other.file})"].append(name)
                return True
        if not target.exists() or (records.overwrite and not records.resumes):
            return False
        made = {p.label: m for p in members if (m := records.made(p.label)) is not None}
        others = [m.run for m in made.values() if m.run != records.run]
        if not made:
            self._keep(target, "labels are there, and no record of what made them")
        elif others and not records.overwrite:
            self._refused[f"made with {difference(others[0], records.run)}"].append(name)
        elif not others and self._is_intact(members, target, made):
            self._compare(members, target, made)
        return True

    def _keep(self, target: Path, why: str) -> None:
        """Leave a file that somebody else made or changed, unless he asked to overwrite it."""
        if not self.records.asked:
            self.failed[target] = (
                f"{target.stem}: {why}. Move them away to keep them, or overwrite them "
                "(--overwrite)."
            )

    def _is_intact(self, members: Sequence[Plane], target: Path, made: Mapping[str, Made]) -> bool:
        sha256 = sha256_of(target)
        if all(one.labels == sha256 for one in made.values()):
            return True
        try:
            for plane in members:
                read_mask(plane, target)
        except SamicError:
            self._again["the labels were damaged"].append(members[0].name)
        else:
            self._keep(target, "the labels were edited since they were made")
        return False

    def _compare(self, members: Sequence[Plane], target: Path, made: Mapping[str, Made]) -> None:
        """Whether what the labels were made of is what is there now."""
        name = members[0].name
        for plane in members:
            if (one := made.get(plane.label)) is None:
                continue  # failed before
            try:
                image = read_rgb(plane, self.records.normalisation)
                now = {"pixels": pixels_sha256(image), **self.inputs(plane)}
            except SamicError as error:
                self.failed[target] = reason(plane, error)
                return
            changed = [key for key in {**now, **one.inputs} if now.get(key) != one.inputs.get(key)]
            if "pixels" in changed and (other := self._other(plane)):
                self._refused[f"made of another image of that name ({other})"].append(name)
                return
            if changed or (self.heatmaps and not one.heatmaps):
                what = f"the {changed[0]} changed" if changed else "heat maps are asked for"
                self._again[what].append(name)
                return
        self.valid.add(target)

    def _other(self, plane: Plane) -> str:
        """File of the image that the labels are of, if that is another one."""
        before = self.records.file_of(plane.label)
        if not before or plane.path is None or Path(before).resolve() == plane.path.resolve():
            return ""
        return before


def _named(names: Sequence[str]) -> str:
    """Some names, and how many there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
