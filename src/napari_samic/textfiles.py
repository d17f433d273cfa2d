"""Reads a text or JSON file of ours whole, or says why it can't; and what text a file can hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_samic.errors import FormatError, InputError


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
        Not a text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        msg = f"{path}: can't be read ({error.strerror}). Check its name and permissions."
        raise InputError(msg) from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not a text ({error.reason}). Pick {what}.") from error


def read_json(path: Path, what: str) -> Any:
    """Tree of a JSON file; parameters and errors as `read_text`, and FormatError if not JSON."""
    text = read_text(path, what)
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        msg = f"{path}: not JSON ({error}). Pick {what}, or a copy that is whole."
        raise FormatError(msg) from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")
