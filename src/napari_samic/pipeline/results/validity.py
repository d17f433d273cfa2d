"""Which results of a folder are still right: of this run, of these pixels, and untouched.

A file that is there is not yet the result that is wanted. What is stale is done again and told;
what somebody has edited or made by hand is left as it is and told; what is of other settings or of
another image stops the run before it begins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from napari_samic.core.errors import SamicError, StaleError
from napari_samic.core.types import ImagePlane
from napari_samic.io.images import planes_of_file
from napari_samic.io.masks import read_mask
from napari_samic.io.normalize import read_rgb
from napari_samic.io.paths import folded, some
from napari_samic.io.text_files import sha256_of
from napari_samic.pipeline.common import made_of, reason
from napari_samic.pipeline.results.provenance import Provenance, difference, same_run
from napari_samic.pipeline.results.writer import ResultsWriter

SHOWN = 3
"""Names that a line tells."""


class ResultValidity:
    """What is to become of each label file that is there; parameters as of `Loop`.

    Attributes
    ----------
    valid : set of Path
        Label files to be left as they are: done before.
    failed : dict of Path to str
        Those that may not be replaced, or whose image can't be read, and why.
    """

    def __init__(
        self,
        records: ResultsWriter,
        inputs: Callable[[ImagePlane], Mapping[str, str]],
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
        return tuple(f"done again, as {why}: {some(k, SHOWN)}." for why, k in self._again.items())

    def refuse(self) -> None:
        """Raise StaleError if results of other settings or images are in the way."""
        for why, names in self._refused.items():
            raise StaleError(self.records.out, f"results that were {why}: {some(names, SHOWN)}")

    def all_or_none(self, files: Mapping[Path, Sequence[ImagePlane]]) -> None:
        """Where each image hangs on the one before: begin anew unless all that can be are there."""
        there = self.valid & set(files)
        lacking = [members for target, members in files.items() if target not in there]
        if there and any(self._can_be_read(plane) for members in lacking for plane in members):
            self.valid -= there
            why = "each image hangs on the one before"
            self._again[why] += sorted(path.stem for path in there)

    def _can_be_read(self, plane: ImagePlane) -> bool:
        with suppress(SamicError):
            read_rgb(plane, self.records.normalisation)
            return True
        return False

    def look(self, members: Sequence[ImagePlane], target: Path) -> Iterator[str]:
        """Look at one label file and its planes; yields what it looks at."""
        records, name = self.records, members[0].name
        for plane in members:
            known = records.spelled(plane.label)
            other = records.made(known)
            if known and (
                known != plane.label or (other and folded(other.file) != folded(target.name))
            ):
                what = other.file if other is not None else known
                self._refused[f"made of another image of that name ({what})"].append(name)
                return
        if not target.exists() or (records.overwrite and not records.resumes):
            return
        yield name
        made = {p.label: m for p in members if (m := records.made(p.label)) is not None}
        others = [m.run for m in made.values() if not same_run(m.run, records.run)]
        if not made and records.replaces and records.resumes:
            pass  # of the kind that is replaced
        elif not made and records.labels_in(target.name) and self._is_ours(target):
            self._again["the image has another number of planes"].append(name)
        elif not made:
            self._keep(target, "labels are there, and no record of what made them")
        elif others and not records.overwrite:
            self._refused[f"made with {difference(others[0], records.run)}"].append(name)
        elif not others and self._is_intact(members, target, made):
            yield from self._compare(members, target, made)

    def _is_ours(self, target: Path) -> bool:
        """Whether a label file is as it was made, of other planes."""
        sha256 = sha256_of(target)
        return all(
            (m := self.records.made(k)) is not None and m.labels == sha256
            for k in self.records.labels_in(target.name)
        )

    def _keep(self, target: Path, why: str) -> None:
        """Leave a file that somebody else made or changed, unless he asked to overwrite it."""
        if not self.records.asked:
            self.failed[target] = (
                f"{target.stem}: {why}. Move them away to keep them, or overwrite them "
                "(--overwrite)."
            )

    def _is_intact(
        self, members: Sequence[ImagePlane], target: Path, made: Mapping[str, Provenance]
    ) -> bool:
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

    def _compare(
        self, members: Sequence[ImagePlane], target: Path, made: Mapping[str, Provenance]
    ) -> Iterator[str]:
        """Whether what the labels were made of is what is there now; yields planes of a stack."""
        name = members[0].name
        if _planes_in(target) != len(members):
            self._again["the image has another number of planes"].append(name)
            return
        for plane in members:
            if (one := made.get(plane.label)) is None:
                continue  # failed before
            if len(members) > 1:
                yield plane.label
            if not self.records.has_scores(plane.label):
                self._again["the scores are gone"].append(name)
                return
            try:
                now = made_of(plane, self.records.normalisation, self.inputs)
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

    def _other(self, plane: ImagePlane) -> str:
        """File of the image that the labels are of, if that is another one."""
        before = self.records.file_of(plane.label)
        if not before or plane.path is None or Path(before).resolve() == plane.path.resolve():
            return ""
        return before


def _planes_in(target: Path) -> int:
    """How many planes a label file has."""
    return len(planes_of_file(target, palette_indices=True))
