"""Gives the memory that a job has freed back to the system.

glibc keeps it, apart for each worker: after a training 300 MB that nobody used. Must not know jobs.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def trim() -> None:
    """Give back what is free; takes 5 ms. Does nothing where the C library is another."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
