"""The review file: what the user thinks of each result, as versioned JSON.

An edited result names the label file that takes its place, and that file's hash, so that accepting
again gives the same or says why not. Knows no results and no window.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_samic.core.errors import FormatError
from napari_samic.core.label_objects import ObjectRecord
from napari_samic.io.text_files import first_of, is_name, read_json
from napari_samic.io.writers import write_json

FORMAT, VERSION = "napari-samic/review", 1
ACCEPTED, EDITED, REJECTED = "accepted", "edited", "rejected"
VERDICTS = (ACCEPTED, EDITED, REJECTED)
_KEYS = ("verdict", "reason", "of", "file", "sha256", "objects")


@dataclass(frozen=True)
class Verdict:
    """The review of one result: what becomes of it.

    Attributes
    ----------
    verdict : str
        "accepted", "edited" or "rejected".
    reason : str
        In the user's words, or ours; may be empty.
    file, sha256 : str
        Of an edited one: its label file, by its name in the folder of edits, and that file's hash.
    objects : dict of int to ObjectRecord
        Of an edited one: class and confidence of each value in its label file.
    of : str
        Hash of the label file that was judged; "" if that is not known.
    """

    verdict: str
    reason: str = ""
    file: str = ""
    sha256: str = ""
    objects: Mapping[int, ObjectRecord] = field(default_factory=dict)
    of: str = ""

    @property
    def keeps(self) -> bool:
        """Whether there will be labels of it."""
        return self.verdict != REJECTED

    def to_tree(self) -> dict[str, Any]:
        """As it stands in the file."""
        tree: dict[str, Any] = {"verdict": self.verdict, "reason": self.reason}
        tree |= {"of": self.of} if self.of else {}
        if self.verdict == EDITED:
            objects = {
                str(value): {"class": about.label, "score": about.score}
                for value, about in sorted(self.objects.items())
            }
            tree |= {"file": self.file, "sha256": self.sha256, "objects": objects}
        return tree

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Verdict:
        """From what `faults` found to be sound."""
        objects = {
            int(value): ObjectRecord(about["class"], about["score"])
            for value, about in tree.get("objects", {}).items()
        }
        reason, file, sha256, of = (tree.get(k, "") for k in ("reason", "file", "sha256", "of"))
        return cls(tree["verdict"], reason, file, sha256, objects, of)


def save_review(
    path: str | Path, verdicts: Mapping[str, Verdict], *, overwrite: bool = False
) -> None:
    """Write a review file: verdicts by the name of the image (`ImagePlane.label`).

    Raises
    ------
    OutputError
        A file in the way, or the disk refuses.
    """
    images = {name: verdict.to_tree() for name, verdict in sorted(verdicts.items())}
    content = {"format": FORMAT, "version": VERSION, "images": images}
    write_json(path, content, overwrite=overwrite)


def load_review(path: str | Path) -> dict[str, Verdict]:
    """Read a review file, or say all that is wrong with it.

    Raises
    ------
    InputError
        No such file.
    FormatError
        Not JSON, another kind or version of file, or faulty; every fault is named.
    """
    source = Path(path)
    tree = read_json(source, "a review file")
    content = tree if isinstance(tree, dict) else {}
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        what = f"{content.get('format')!r:.40}, version {content.get('version')!r:.40}"
        msg = f"{source.name}: is {what}, expected {FORMAT!r}, version {VERSION}."
        raise FormatError(f"{msg} Pick a review file that this napari-samic wrote.")
    if wrong := first_of(faults(content.get("images"))):
        raise FormatError(f"{source.name}: {wrong}. Mend these places.")
    return {name: Verdict.from_tree(entry) for name, entry in content["images"].items()}


def faults(images: Any) -> Iterator[str]:
    """Find every fault of the verdicts as they stand in a file."""
    if not isinstance(images, dict):
        yield f"images is {images!r:.40}, expected a mapping of names to verdicts"
        return
    for name, entry in images.items():
        if not is_name(name):
            yield f"{name!r:.40} has a folder, expected the name of an image"
        if not isinstance(entry, dict):
            yield f"{name} is {entry!r:.40}, expected a mapping of {', '.join(_KEYS)}"
            continue
        yield from (f"{name}: {fault}" for fault in _faults_of(entry))


def _faults_of(entry: Mapping[str, Any]) -> Iterator[str]:
    if unknown := sorted(set(entry) - set(_KEYS)):
        yield f"unknown {first_of(unknown, ', ')}. Known: {', '.join(_KEYS)}"
    verdict = entry.get("verdict")
    if verdict not in VERDICTS:
        yield f"verdict is {verdict!r:.40}, expected one of {', '.join(VERDICTS)}"
    if not isinstance(entry.get("reason", ""), str):
        yield f"reason is {entry['reason']!r:.40}, expected a text"
    if not re.fullmatch("([0-9a-f]{64})?", str(entry.get("of", ""))):
        yield f"of is {entry['of']!r:.40}, expected 64 digits 0-9a-f"
    if verdict == EDITED:
        file = entry.get("file")
        if not is_name(file):
            yield f"file is {file!r:.40}, expected the name of a label file"
        if not re.fullmatch("[0-9a-f]{64}", str(entry.get("sha256"))):
            yield f"sha256 is {entry.get('sha256')!r:.40}, expected 64 digits 0-9a-f"
    yield from _object_faults(entry.get("objects", {}))


def _object_faults(objects: Any) -> Iterator[str]:
    if not isinstance(objects, dict):
        yield f"objects is {objects!r:.40}, expected a mapping"
        return
    for value, about in objects.items():
        record = about if isinstance(about, dict) else {}
        score = record.get("score")
        is_score = score is None or (isinstance(score, int | float) and type(score) is not bool)
        label = record.get("class")
        is_label = type(label) is int and label > 0 and "score" in record
        if not (value.isdecimal() and int(value) > 0 and is_label and is_score):
            yield f"object {value} is {about!r:.40}, expected a class from 1 and a score or null"
