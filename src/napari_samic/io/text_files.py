"""Reads a text or JSON file of ours whole, or says why it can't; what text a file can hold; hashes.

A file may not be larger than any of ours, nor hold far more brackets and commas for its size: each
takes some 60 bytes of memory, so that a few million would fill it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from napari_samic.core.errors import FormatError, InputError

LARGEST = 500_000_000
"""Bytes of a file; the prompts of half a million objects take 200 million."""
MOST_TREE = 400_000_000
"""Bytes of a tree's lists and mappings, whatever the file's size."""
MOST_TIMES = 6
"""Above that: times the file's size. Ours have 4.5."""
NAME = r"(?![A-Za-z]:)[^/\\\x00]+"
"""Of a file, as a pattern: no folder, no drive of Windows."""
MOST_FAULTS = 50
"""That are told of one file."""
_COSTS = {"{": 250, "[": 60, ",": 60}


def is_name(value: Any) -> bool:
    """Whether a value is the name of a file in a folder, on any system, and leads nowhere else.

    >>> [is_name(one) for one in ("a[3].tif", "../a", "a/b", "C:a", "..", "", 3)]
    [True, False, False, False, False, False, False]
    """
    fits = isinstance(value, str) and re.fullmatch(NAME, value) is not None
    return fits and value not in (".", "..")


def writable(text: str) -> str:
    r"""Text that UTF-8 can hold: bytes of a file's name that are none are spelled out.

    >>> print(writable("z\udce4hlung"))
    z\xe4hlung
    """
    try:
        stored = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, which no name has
        stored = text.encode("utf-8", "backslashreplace")
    return stored.decode("utf-8", "backslashreplace")


def read_text(path: Path, what: str) -> str:
    """Text of a UTF-8 file.

    Parameters
    ----------
    path : Path
    what : str
        What to pick instead, for the error.

    Raises
    ------
    InputError
        No such file, or no permission to read it.
    FormatError
        Not a text, or larger than `LARGEST`.
    """
    try:
        if (size := path.stat().st_size) > LARGEST:
            msg = f"{path}: {size} bytes, expected at most {LARGEST}. Pick {what}."
            raise FormatError(msg)
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        msg = f"{path}: can't be read ({error.strerror}). Check its name and permissions."
        raise InputError(msg) from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not a text ({error.reason}). Pick {what}.") from error


def read_json(path: Path, what: str, *, dense: bool = False) -> Any:
    """Tree of a JSON file; parameters and errors as `read_text`, and FormatError if not JSON.

    With `dense` it may be of little else than brackets and commas, as outlines of a data set are.
    """
    text = read_text(path, what)
    cost = sum(text.count(sign) * size for sign, size in _COSTS.items())
    if not dense and cost > max(MOST_TREE, MOST_TIMES * len(text)):
        msg = f"{path}: far more brackets and commas than values. Pick {what}."
        raise FormatError(msg)
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        msg = f"{path}: not JSON ({error}). Pick {what}, or a copy that is whole."
        raise FormatError(msg) from error


def sha256_of(path: Path) -> str:
    """Of a file's contents, lower-case hex.

    Raises
    ------
    InputError
        It can't be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error


def text_sha256(text: str) -> str:
    """Of a text, in which names that are no UTF-8 may stand."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def pixels_sha256(image: Any) -> str:
    """Of the values of an array, whatever its layout; a `LazyImage` is read for it once."""
    if hasattr(image, "parts"):
        return str(image.sha256)
    return hashlib.sha256(image if image.flags.c_contiguous else image.tobytes()).hexdigest()


def first_of(faults: Iterable[str], sign: str = "; ") -> str:
    """The first faults of a file in one line, which a file of millions of them fits, too.

    >>> first_of(["a is 1", "b is 2"]), first_of([]), first_of(map(str, range(10**9)))[-18:]
    ('a is 1; b is 2', '', '48; 49; and others')
    """
    first = list(islice(faults, MOST_FAULTS + 1))
    others = [] if len(first) <= MOST_FAULTS else ["and others"]
    return sign.join([*first[:MOST_FAULTS], *others])


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")
