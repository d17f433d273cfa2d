"""What is wrong with the tree of a recipe.

All faults are found at once, each with the line and the number of its step. Knows no file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from napari_samic.recipes.fingerprint import CONTENTS, ENDS
from napari_samic.recipes.kinds import KINDS, LISTS, Kind, faults_of_settings

FORMAT = "napari-samic/recipe"
VERSION = 1
FILE_KEYS = ("format", "version", "steps")
MOST_THREADS = 1024
STEP_KEYS = (
    "do", "package", "threads", "inputs", "out", "model", "settings", "data", "results",
)  # fmt: skip
MODEL_KEYS = ("name", "sha256")
PRINT_KEYS = ("files", "sha256", "hashed")


def kind_fault(tree: Any) -> str:
    """Say why this is not a recipe of our version; "" if it is.

    Parameters
    ----------
    tree : object
        As the YAML was read.
    """
    found = tree if isinstance(tree, dict) else {}
    if found.get("format") != FORMAT:
        what = f"format is {found.get('format')!r:.40}, expected {FORMAT!r}."
        return f"{what} Pick a recipe that napari-samic recorded."
    version = found.get("version")
    if type(version) is not int or version != VERSION:
        what = f"version is {version!r:.40}, expected {VERSION}."
        return f"{what} Open it with the napari-samic that saved it, or update this one."
    return ""


def faults_of(tree: Mapping[str, Any], lines: Sequence[int] = ()) -> list[str]:
    """Find every fault of a recipe.

    Parameters
    ----------
    tree : dict
        As the YAML was read, of our kind and version.
    lines : sequence of int
        Where each step begins, from 1; () if it has no text.

    Returns
    -------
    list of str
        One for each fault: its place, what was found and what was expected. Empty if sound.
    """
    faults = list(_unknown(tree, FILE_KEYS))
    steps = tree.get("steps")
    if not isinstance(steps, list):
        return [*faults, f"steps is {_shown(steps)}, expected a list"]
    for i, step in enumerate(steps):
        line = f"line {lines[i]}, " if i < len(lines) else ""
        faults += [f"{line}{place_of(i + 1, step)}: {fault}" for fault in step_faults(step)]
    return faults


def place_of(number: int, step: Any) -> str:
    """Say which step it is, for people."""
    job = step.get("do") if isinstance(step, dict) else None
    return f"step {number} ({job})" if isinstance(job, str) and job in KINDS else f"step {number}"


def step_faults(step: Any) -> Iterator[str]:
    """Find every fault of one step."""
    if not isinstance(step, dict):
        yield f"is {_shown(step)}, expected a mapping of {', '.join(STEP_KEYS)}"
        return
    job = step.get("do")
    if not isinstance(job, str) or job not in KINDS:
        yield f"do is {_shown(job)}, expected one of {', '.join(KINDS)}"
        return
    kind = KINDS[job]
    yield from _unknown(step, STEP_KEYS)
    if not isinstance(step.get("package", ""), str):
        yield f"package is {_shown(step['package'])}, expected a text; put it in quotes"
    threads = step.get("threads", 1)
    if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        yield f"threads is {_shown(threads)}, expected a whole number from 1 to {MOST_THREADS}"
    yield from _path_faults(step, kind)
    yield from _mapping(step, "model", _model_faults if kind.has_model else _no_model)
    yield from _mapping(step, "settings", lambda found: faults_of_settings(job, found))
    yield from _mapping(step, "data", lambda found: _data_faults(found, kind))
    yield from _mapping(step, "results", lambda found: _print_faults(found, "results"))


def _unknown(found: Mapping[Any, Any], known: Sequence[str], where: str = "") -> Iterator[str]:
    unknown = sorted(str(key) for key in found if key not in known)
    if unknown:
        inside = f" in {where}" if where else ""
        yield f"unknown {', '.join(unknown)}{inside}. Known: {', '.join(known)}"


Check = Callable[[dict[str, Any]], Iterator[str]]


def _mapping(step: Mapping[str, Any], key: str, check: Check) -> Iterator[str]:
    found = step.get(key, {})
    if isinstance(found, dict):
        yield from check(found)
    else:
        yield f"{key} is {_shown(found)}, expected a mapping"


def _path_faults(step: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    inputs = step.get("inputs", {})
    if not isinstance(inputs, dict):
        yield f"inputs is {_shown(inputs)}, expected a mapping"
        inputs = {}
    yield from _unknown(inputs, kind.inputs, "inputs")
    given = {k: v for k, v in inputs.items() if k in kind.inputs}
    given |= {"out": step["out"]} if "out" in step else {}
    for key in kind.needed:
        if key not in given:
            yield f"{key} is missing, expected a path" + ("" if key == "out" else " in inputs")
    for key, value in given.items():
        many = value if isinstance(value, list) and value and key in LISTS else [value]
        if not all(isinstance(one, str) and one and "\0" not in one for one in many):
            or_list = ", or a list of paths" if key in LISTS else ""
            yield f"{key} is {_shown(value)}, expected a path (in quotes if need be){or_list}"


def _no_model(found: Mapping[str, Any]) -> Iterator[str]:
    if found:
        yield "unknown model. This job takes none"


def _model_faults(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown(found, MODEL_KEYS, "model")
    if found and not (isinstance(found.get("name"), str) and found["name"]):
        yield f"name of model is {_shown(found.get('name'))}, expected a text"
    if "sha256" in found and not _is_hash(found["sha256"]):
        yield f"sha256 of model is {_shown(found['sha256'])}, expected 64 digits 0-9a-f in quotes"


def _data_faults(found: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    yield from _unknown(found, kind.inputs, "data")
    for key, value in found.items():
        if key in kind.inputs and isinstance(value, dict):
            yield from _print_faults(value, f"data of {key}")
        elif key in kind.inputs:
            yield f"data of {key} is {_shown(value)}, expected a mapping of {', '.join(PRINT_KEYS)}"


def _print_faults(found: Mapping[str, Any], where: str) -> Iterator[str]:
    if not found and where == "results":
        return
    yield from _unknown(found, PRINT_KEYS, where)
    files = found.get("files")
    if type(files) is not int or files < 0:
        yield f"files of {where} is {_shown(files)}, expected a whole number from 0"
    if not _is_hash(found.get("sha256")):
        yield f"sha256 of {where} is {_shown(found.get('sha256'))}, expected 64 digits 0-9a-f"
    if found.get("hashed", CONTENTS) not in (CONTENTS, ENDS):
        yield f"hashed of {where} is {_shown(found['hashed'])}, expected {CONTENTS} or {ENDS}"


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
