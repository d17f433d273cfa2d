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
from napari_samic.io.normalize import open_rgb
from napari_samic.io.paths import folded, some
from napari_samic.io.text_files import sha256_of
from napari_samic.pipeline.common import input_hashes, reason
from napari_samic.pipeline.results.ledger import Provenance, difference, same_run
from napari_samic.pipeline.results.writer import ResultsWriter

MAX_NAMES = 3
"""Names that a line tells."""


class ResultValidity:
    """What is to become of each label file that is there; parameters as of `BatchRunner`.

    Attributes
    ----------
    valid : set of Path
        Label files to be left as they are: done before.
    failed : dict of Path to str
        Those that may not be replaced, or whose image can't be read, and why.
    """

    def __init__(
        self,
        writer: ResultsWriter,
        inputs: Callable[[ImagePlane], Mapping[str, str]],
        heatmaps: bool,
    ) -> None:
        self.writer, self.inputs, self.heatmaps = writer, inputs, heatmaps
        self.valid: set[Path] = set()
        self.failed: dict[Path, str] = {}
        self._redo_reasons: dict[str, list[str]] = defaultdict(list)
        self._refused: dict[str, list[str]] = defaultdict(list)

    @property
    def notices(self) -> tuple[str, ...]:
        """What is done again, and why; a line a reason."""
        return tuple(
            f"done again, as {why}: {some(k, MAX_NAMES)}." for why, k in self._redo_reasons.items()
        )

    def refuse(self) -> None:
        """Raise StaleError if results of other settings or images are in the way."""
        for why, names in self._refused.items():
            raise StaleError(self.writer.out, f"results that were {why}: {some(names, MAX_NAMES)}")

    def all_or_none(self, files: Mapping[Path, Sequence[ImagePlane]]) -> None:
        """Where each image hangs on the one before: begin anew unless all that can be are there."""
        present = self.valid & set(files)
        lacking = [members for target, members in files.items() if target not in present]
        if present and any(self._can_be_read(plane) for members in lacking for plane in members):
            self.valid -= present
            why = "each image hangs on the one before"
            self._redo_reasons[why] += sorted(path.stem for path in present)

    def _can_be_read(self, plane: ImagePlane) -> bool:
        with suppress(SamicError):
            open_rgb(plane, self.writer.normalization)
            return True
        return False

    def check(self, members: Sequence[ImagePlane], target: Path) -> Iterator[str]:
        """Look at one label file and its planes; yields what it looks at."""
        writer, name = self.writer, members[0].name
        for plane in members:
            recorded_name = writer.recorded_spelling(plane.label)
            recorded = writer.provenance_of(recorded_name)
            if recorded_name and (
                recorded_name != plane.label
                or (recorded and folded(recorded.file) != folded(target.name))
            ):
                what = recorded.file if recorded is not None else recorded_name
                self._refused[f"made of another image of that name ({what})"].append(name)
                return
        if not target.exists() or (writer.overwrite and not writer.resumes):
            return
        yield name
        provenances = {
            p.label: m for p in members if (m := writer.provenance_of(p.label)) is not None
        }
        others = [m.run for m in provenances.values() if not same_run(m.run, writer.run)]
        if not provenances and writer.replaces and writer.resumes:
            pass  # of the kind that is replaced
        elif not provenances and writer.labels_in(target.name) and self._is_ours(target):
            self._redo_reasons["the image has another number of planes"].append(name)
        elif not provenances:
            self._keep(target, "labels are there, and no record of what made them")
        elif others and not writer.overwrite:
            self._refused[f"made with {difference(others[0], writer.run)}"].append(name)
        elif not others and self._is_intact(members, target, provenances):
            yield from self._compare(members, target, provenances)

    def _is_ours(self, target: Path) -> bool:
        """Whether a label file is as it was made, of other planes."""
        sha256 = sha256_of(target)
        return all(
            (m := self.writer.provenance_of(k)) is not None and m.labels == sha256
            for k in self.writer.labels_in(target.name)
        )

    def _keep(self, target: Path, why: str) -> None:
        """Leave a file that somebody else made or changed, unless he asked to overwrite it."""
        if not self.writer.overwrite_requested:
            self.failed[target] = (
                f"{target.stem}: {why}. Move them away to keep them, or overwrite them "
                "(--overwrite)."
            )

    def _is_intact(
        self, members: Sequence[ImagePlane], target: Path, provenances: Mapping[str, Provenance]
    ) -> bool:
        sha256 = sha256_of(target)
        if all(provenance.labels == sha256 for provenance in provenances.values()):
            return True
        try:
            for plane in members:
                read_mask(plane, target)
        except SamicError:
            self._redo_reasons["the labels were damaged"].append(members[0].name)
        else:
            self._keep(target, "the labels were edited since they were made")
        return False

    def _compare(
        self, members: Sequence[ImagePlane], target: Path, provenances: Mapping[str, Provenance]
    ) -> Iterator[str]:
        """Whether what the labels were made of is what is there now; yields planes of a stack."""
        name = members[0].name
        if _planes_in(target) != len(members):
            self._redo_reasons["the image has another number of planes"].append(name)
            return
        for plane in members:
            if (provenance := provenances.get(plane.label)) is None:
                continue  # failed before
            if len(members) > 1:
                yield plane.label
            if not self.writer.has_scores(plane.label):
                self._redo_reasons["the scores are gone"].append(name)
                return
            try:
                hashes = input_hashes(plane, self.writer.normalization, self.inputs)
            except SamicError as error:
                self.failed[target] = reason(plane, error)
                return
            changed = [
                key
                for key in {**hashes, **provenance.inputs}
                if hashes.get(key) != provenance.inputs.get(key)
            ]
            if "pixels" in changed and (other := self._other(plane)):
                self._refused[f"made of another image of that name ({other})"].append(name)
                return
            if changed or (self.heatmaps and not provenance.heatmaps):
                why = f"the {changed[0]} changed" if changed else "heat maps are asked for"
                self._redo_reasons[why].append(name)
                return
        self.valid.add(target)

    def _other(self, plane: ImagePlane) -> str:
        """File of the image that the labels are of, if that is another one."""
        before = self.writer.file_of(plane.label)
        if not before or plane.path is None or Path(before).resolve() == plane.path.resolve():
            return ""
        return before


def _planes_in(target: Path) -> int:
    """How many planes a label file has."""
    return len(planes_of_file(target, palette_indices=True))
