"""One generator job in one napari worker: progress, cancel, errors.

A job's steps and result arrive in the main thread. Errors of ours become one short notification,
bugs keep their traceback. Must not know what a job does.

napari's worker (0.9) leaves work to us, measured: it never closes the generator it quits, reports
an error twice, and drops a RuntimeError (all of torch's are) with neither an error nor an end. So
the relay below catches everything itself, and closes the job where it ran: what a job tidies up,
such as tables of 500 images, would else hold the window up.

torch is imported in a worker, as that takes seconds, and without triton: where OpenGL is Mesa's
software (remote desktops, virtual screens), its LLVM is in the process once a window is open, and
loading triton's LLVM beside it ends the process (measured: torch 2.15, triton 3.9, on Debian).
torchvision pulls triton in, which only torch.compile needs.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Protocol

from psygnal import EmitLoopError

from napari_samic.core.errors import SamicError
from napari_samic.core.types import Job, JobProgress

TRIM_S = 1.0
"""A long job gives back so often what it has freed."""


class Handle(Protocol):
    """A job under way."""

    def cancel(self) -> None:
        """Close the job at its next step; none of its callbacks but `on_end` comes any more."""
        ...


@dataclass(frozen=True)
class Calls:
    """What is called in the main thread.

    Attributes
    ----------
    on_step, on_done : callable
        With each JobProgress; with the result.
    on_error : callable
        With an error; by default it is shown. Shown also if this returns False.
    on_end : callable
        Once, whatever happened, also after a cancel.
    """

    on_step: Callable[[JobProgress], None] | None = None
    on_done: Callable[[Any], None] | None = None
    on_error: Callable[[Exception], bool] | None = None
    on_end: Callable[[], None] | None = None


class Runner(Protocol):
    """Who runs jobs: workers here, the caller's own thread in tests."""

    def start(self, job: Job[Any], calls: Calls | None = None, *, title: str = "") -> Handle:
        """Begin a job; with a title it shows in napari's activity dock."""
        ...

    def close(self) -> None:
        """Cancel everything; nothing is called back after this."""
        ...


@dataclass(frozen=True)
class _Failed:
    error: Exception
    closing: bool = False


class Jobs:
    """Runs each job in a napari worker of its own."""

    def __init__(self) -> None:
        self._running: set[_Running] = set()

    def start(self, job: Job[Any], calls: Calls | None = None, *, title: str = "") -> Handle:
        """See `Runner`."""
        running = _Running(job, calls or Calls(), self._running, title)
        _make_room(len(self._running) + 1)
        running.worker.start()
        return running

    def close(self) -> None:
        """See `Runner`."""
        for running in list(self._running):
            running.calls = Calls()
            running.cancel()

    @property
    def count(self) -> int:
        """Jobs that have not ended."""
        return len(self._running)


class _Running:
    """A job, its worker and its bar."""

    def __init__(self, job: Job[Any], calls: Calls, group: set[_Running], title: str) -> None:
        from napari.qt.threading import create_worker

        self.job, self.calls, self.group, self.title = job, calls, group, title
        self.cancelled = False
        self.worker = create_worker(
            self._relay, _start_thread=False, _progress={"desc": title} if title else None
        )
        self._turns: deque[Callable[[], None]] = deque()
        self._is_busy = False
        self.worker.yielded.connect(lambda step: self._in_turn(partial(self._stepped, step)))
        self.worker.returned.connect(lambda result: self._in_turn(partial(self._returned, result)))
        self.worker.finished.connect(lambda: self._in_turn(self._finished))
        group.add(self)

    def _in_turn(self, act: Callable[[], None]) -> None:
        """One after the other, also when napari's bar lets Qt bring the next one meanwhile.

        It handles events while it draws. Steps that came faster than they were drawn were called
        inside one another until the stack was full and the process aborted.
        """
        self._turns.append(act)
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._turns:
                try:
                    self._turns.popleft()()
                except Exception as error:  # the turns behind it must come all the same
                    show(error)
        finally:
            self._is_busy = False

    def cancel(self) -> None:
        self.cancelled = True

    def _relay(self) -> Generator[JobProgress, None, Any]:
        """In the worker: the job's steps, until its end or until it is cancelled."""
        started = time.monotonic()
        try:
            return (yield from self._steps())
        finally:
            if self.title and time.monotonic() - started > TRIM_S:
                malloc_trim()

    def _steps(self) -> Generator[JobProgress, None, Any]:
        trimmed = time.monotonic()
        try:
            if not self.cancelled:
                load_torch()
            while not self.cancelled:
                step = next(self.job)
                if self.title and time.monotonic() - trimmed > TRIM_S:
                    malloc_trim()
                    trimmed = time.monotonic()
                yield step
        except StopIteration as stop:
            return stop.value
        except Exception as error:  # a RuntimeError would be lost in the worker
            return _Failed(error)
        try:
            self.job.close()
        except Exception as error:
            return _Failed(error, closing=True)
        return None

    def _stepped(self, step: JobProgress) -> None:
        if self.cancelled:
            return
        bar = getattr(self.worker, "pbar", None)
        if bar is not None:
            update_bar(bar, step, self.title)
            _hold_spinner_still()  # now: napari starts it once the worker has begun
        if self.calls.on_step is not None:
            self.calls.on_step(step)

    def _returned(self, result: Any) -> None:
        if isinstance(result, _Failed) and result.closing:
            show(result.error)
        if self.cancelled:
            return
        if isinstance(result, _Failed):
            taken = self.calls.on_error is not None and self.calls.on_error(result.error)
            if not taken:
                show(result.error)
        elif self.calls.on_done is not None:
            try:
                self.calls.on_done(result)
            except (SamicError, EmitLoopError) as error:
                show(error)

    def _finished(self) -> None:
        self.job.close()
        self.group.discard(self)
        if self.calls.on_end is not None:
            self.calls.on_end()


def _hold_spinner_still() -> None:
    """Stop napari's moving picture of work: 33 times a second it has the whole window drawn anew.

    Where OpenGL is software that took 97 % of the main thread while a run was under way. The
    picture stays to be seen, and the bars move.
    """
    from napari import current_viewer

    with suppress(AttributeError, RuntimeError):  # not for plugins, so it may look otherwise
        window = current_viewer().window._qt_window
        window._activity_dialog._toggleButton._inProgressIndicator.movie().setPaused(True)


def _make_room(count: int) -> None:
    """Let so many jobs run: Qt allows one a core, so a click would wait for a training to end."""
    from qtpy.QtCore import QThreadPool

    pool = QThreadPool.globalInstance()
    if pool is not None and pool.maxThreadCount() < count:
        pool.setMaxThreadCount(count)


def update_bar(bar: Any, step: JobProgress, title: str) -> None:
    """Let napari's bar show a step of a job; it begins anew with each part of the job."""
    with suppress(RuntimeError):  # its widget may be gone with the window
        if step.done < bar.n:  # another part of the job has begun
            bar.reset(step.total)
        if step.total and bar.total != step.total:
            bar.total = step.total
        bar.set_description(f"{title}: {step.message}" if step.message else title)
        bar.update(max(0, step.done - bar.n))


def show(error: Exception) -> None:
    """Tell the user: ours in one line, a bug with its traceback."""
    from napari.utils import notifications

    if isinstance(error, EmitLoopError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # of a slot
    if isinstance(error, SamicError):
        notifications.show_error(str(error))
    else:
        notifications.notification_manager.receive_error(type(error), error, error.__traceback__)


def notify_errors(act: Callable[..., object]) -> Callable[..., None]:
    """A button's act, with errors of ours turned into a notification."""

    @wraps(act)
    def guarded(*args: Any) -> None:
        try:
            act(*args)
        except (SamicError, EmitLoopError) as error:
            show(error)

    return guarded


def malloc_trim() -> None:
    """Give the memory that a job has freed back to the system; takes 5 ms.

    glibc keeps it, apart for each worker: after a training 300 MB that nobody used. Does nothing
    where the C library is another.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


# --- torch

_torch_lock = threading.Lock()


def load_torch() -> None:
    """Import torch and torchvision, and leave the window a core. To be called in each worker.

    torch counts threads for each thread that calls it; a new one takes what was set last.
    """
    with _torch_lock:
        with hidden_module("triton"):
            import torch
            import torchvision.ops  # noqa: F401
        torch.set_num_threads(torch_threads(torch.get_num_threads()))


def torch_threads(wanted: int, cores: int | None = None) -> int:
    """Threads for torch: at most `wanted`, and one core fewer than there are.

    >>> torch_threads(8, cores=4), torch_threads(2, cores=4), torch_threads(1, cores=1)
    (3, 2, 1)
    """
    return min(wanted, max(1, (cores or os.cpu_count() or 1) - 1))


@contextmanager
def hidden_module(module: str) -> Iterator[None]:
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
