"""Loads torch for the window: in a worker, once, with a core to spare, and without triton.

Importing torch takes seconds, so never do it in the main thread. Where OpenGL is Mesa's software
(remote desktops, virtual screens), its LLVM is in the process once a window is open, and loading
triton's LLVM beside it ends the process (measured: torch 2.15, triton 3.9, on Debian). torchvision
pulls triton in, which only torch.compile needs; so it is hidden while the two are imported.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()


def load() -> None:
    """Import torch and torchvision, and leave the window a core. To be called in each worker.

    torch counts threads for each thread that calls it; a new one takes what was set last.
    """
    with _lock:
        with _without("triton"):
            import torch
            import torchvision.ops  # noqa: F401
        torch.set_num_threads(threads(torch.get_num_threads()))


def threads(wanted: int, cores: int | None = None) -> int:
    """Threads for torch: at most `wanted`, and one core fewer than there are.

    >>> threads(8, cores=4), threads(2, cores=4), threads(1, cores=1)
    (3, 2, 1)
    """
    return min(wanted, max(1, (cores or os.cpu_count() or 1) - 1))


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let `import module` fail, unless it was imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.modules.get(module) is None:
            sys.modules.pop(module, None)
