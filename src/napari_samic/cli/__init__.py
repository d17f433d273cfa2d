"""The shell: `napari-samic demo|annotate|train|precompute|segment|evaluate|run|models`.

Wiring only: options come from the settings dataclasses, work from the pipeline's jobs.
Exit codes: 0 done; 1 done, but some images failed; 2 bad input or usage; 3 something of the machine
is missing or refuses (weights, network, disk); 130 Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

from napari_samic.cli.commands import app
from napari_samic.core.errors import SamicError

__all__ = ["app", "main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the shell; an error of ours is one line, a bug is a traceback."""
    # Read when torch is first imported: waiting threads sleep instead of spinning, without which
    # two jobs on one machine slow each other down many times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # of names that are not UTF-8
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # a bad file is told once, by us
    with warnings.catch_warnings():
        warnings.showwarning = _one_line
        warnings.filterwarnings("ignore", message="Detected pickle protocol")  # torch, of bad files
        sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    if fault := _empty_name(sys.argv[1:] if arguments is None else arguments):
        return _say(f"error: {fault} See `napari-samic --help`.", 2)
    try:
        code = app(arguments, prog_name="napari-samic", standalone_mode=False)
    except KeyboardInterrupt:
        return _say("cancelled; what was done is kept", 130)
    except SamicError as error:
        return _say(f"error: {error}", error.exit_code)
    except MemoryError:
        return _say("error: the memory is full. Take a smaller model, or smaller images.", 3)
    except OSError as error:  # a path that the system itself refuses, as one with a long name
        if error.filename is None:
            raise
        message = f"{error.filename!s:.200}: {error.strerror}"
        return _say(f"error: {message}. Check its name and permissions.", 3)
    except Exception as error:
        return _usage(error)
    if code == 130:  # typer's answer to Ctrl-C
        return _say("cancelled; what was done is kept", 130)
    return code if isinstance(code, int) else 0


def _empty_name(words: list[str]) -> str:
    """Say which option is given as "", as of a variable that is not set; "" if none is.

    A path would be the folder one is in, and any other text is not there either.
    """
    for before, word in zip(["", *words], words, strict=False):
        option, sign, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        if sign and not value.strip():
            what = f"'{option}'" if option.startswith("-") else "an argument"
            return f"{what}: an empty name. Leave it out, or name something: '.' is this folder."
    return ""


def _say(line: str, code: int) -> int:
    print(" ".join(line.split()), file=sys.stderr)
    return code


def _usage(error: Exception) -> int:
    """Say typer's own errors in one line; any other exception is a bug and goes on."""
    message, show = (getattr(error, name, None) for name in ("format_message", "show"))
    if message is None or show is None:
        raise error
    if "NoArgs" in type(error).__name__:
        show()  # the help
        return 2
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "napari-samic")
    return _say(f"error: {message().rstrip('.')}. See `{path} --help`.", 2)


def _one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {' '.join(str(message).split())[:300]}", file=sys.stderr)
