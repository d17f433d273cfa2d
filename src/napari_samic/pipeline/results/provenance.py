"""What made each label file: the run and its settings, the pixels, the prompts.

A result is right only for what it was made of. `provenance.json` beside the labels says what that
was, so that a file that is there is never taken for the file that is wanted. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_samic.core.errors import FormatError
from napari_samic.io.paths import some
from napari_samic.io.text_files import is_name, read_json
from napari_samic.io.writers import plain, write_json

NAME = "provenance.json"
FORMAT, VERSION = "napari-samic/provenance", 1
VERSION_KEY = "version"
Run = Mapping[str, Any]
"""Job, version, networks by their sha256, and every setting: plain values, in groups."""


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


def load_provenance(folder: Path) -> dict[str, Provenance]:
    """What is known of the images of a folder of results; nothing if the file is not there.

    Raises
    ------
    FormatError
        Damaged, or of another kind.
    """
    path = folder / NAME
    if not path.exists():
        return {}
    tree = read_json(path, "a provenance file of results")
    try:
        if (tree["format"], tree["version"]) != (FORMAT, VERSION):
            raise ValueError(f"{tree['format']} of version {tree['version']}")
        runs = [dict(run) for run in tree["runs"]]
        images = dict(tree["images"])
        return {k: Provenance.from_tree(v, runs[int(v["run"])]) for k, v in images.items()}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        msg = f"{path}: not what we wrote ({error}). Move it away, and make the results again."
        raise FormatError(msg) from error


def save_provenance(folder: Path, provenances: Mapping[str, Provenance]) -> None:
    """Write `provenance.json`.

    Raises
    ------
    OutputError
        The disk refuses.
    """
    runs: list[Run] = []
    images = {}
    for name, provenance in provenances.items():
        if provenance.run not in runs:
            runs.append(provenance.run)
        images[name] = {"run": runs.index(provenance.run), **provenance.to_tree()}
    content = {"format": FORMAT, "version": VERSION, "runs": runs, "images": images}
    write_json(folder / NAME, content, overwrite=True)


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
