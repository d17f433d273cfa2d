"""The next planes, answered in threads while the one at hand is written.

A small network does not fill two cores with one image, and what comes after it runs on one. Only
for work whose answers do not hang on those before. Knows no file.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

from napari_samic.core.types import Image, ImagePlane, Job, JobProgress, LazyImage

A = TypeVar("A")
T = TypeVar("T")
LARGEST_PX = 2**22
"""Larger images are answered one by one: several would fill the memory."""
MOST = 4
"""Images at once: each takes some hundred MB."""


@dataclass(eq=False)
class Begun(Generic[A]):
    """A plane that was read, and the job that answers it; or why it can't be.

    Attributes
    ----------
    remarks : list of str
        What was told while it was read.
    seconds : float
        That reading and answering took.
    """

    plane: ImagePlane
    image: Image | LazyImage | None = None
    remarks: list[str] = field(default_factory=list)
    answer: A | None = None
    job: Job[A] | None = None
    error: Exception | None = None
    seconds: float = 0.0
    steps: SimpleQueue[JobProgress | None] = field(default_factory=SimpleQueue)
    future: Future[A | None] | None = None


class Lookahead(Generic[A]):
    """Answers planes in their order, and begins the next ones.

    Parameters
    ----------
    planes : iterable of ImagePlane
        In the order in which they are asked for.
    begin : callable
        Reads a plane; called in the caller's thread. What it raises comes in the plane's turn.
    workers : int
        Threads; below 2 nothing is done ahead, unless others do it.
    elsewhere : callable, optional
        How many planes may be begun and not answered, where what begins them lets others answer.
    """

    def __init__(
        self,
        planes: Iterable[ImagePlane],
        begin: Callable[[ImagePlane], Begun[A]],
        workers: int,
        elsewhere: Callable[[], int] | None = None,
    ) -> None:
        self._planes: Iterator[ImagePlane] = iter(planes)
        self._begin, self._workers = begin, 1 if elsewhere else min(workers, MOST)
        self._depth = elsewhere or (lambda: self._workers)
        self._begun: deque[Begun[A]] = deque()
        self._stop = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        if self._workers > 1:
            self._pool, self._threads = _shared_threads(self._workers)

    def answer(self, plane: ImagePlane) -> Job[Begun[A]]:
        """The answer to a plane; raises what reading or answering it raised."""
        self._fill()
        begun = self._begun.popleft() if self._is_next(plane) else self._start(plane)
        self._fill()
        if begun.error is not None:
            raise begun.error
        if begun.future is not None:
            while (step := begun.steps.get()) is not None:
                yield step
            begun.answer = begun.future.result()
        elif begun.job is not None:
            begun.answer = yield from _timed(begun.job, begun)
        return begun

    def _start(self, plane: ImagePlane) -> Begun[A]:
        try:
            return self._begin(plane)
        except Exception as error:  # raised where the plane's turn comes
            return Begun(plane, error=error)

    def _is_next(self, plane: ImagePlane) -> bool:
        return bool(self._begun) and self._begun[0].plane is plane

    def _fill(self) -> None:
        while len(self._begun) < self._depth() > 1:
            if self._pool is not None and any(_is_large(begun) for begun in self._begun):
                return
            if (plane := next(self._planes, None)) is None:
                return
            begun = self._start(plane)
            if self._pool is not None and begun.job is not None and not _is_large(begun):
                begun.future = self._pool.submit(_run, begun.job, begun, self._stop)
                begun.future.add_done_callback(partial(_ended, begun.steps))
            self._begun.append(begun)

    def close(self) -> None:
        """End what is under way."""
        self._stop.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            _torch_threads(self._threads)  # what a worker sets holds for threads to come
        for begun in self._begun:
            if begun.job is not None and (begun.future is None or begun.future.cancelled()):
                begun.job.close()


def in_order(
    answer: Callable[[int, T], A], items: Sequence[T], workers: int
) -> Generator[A, None, None]:
    """Answers to items, by their places, in their order; the next ones in threads.

    Parameters
    ----------
    answer : callable
        Takes the number of an item, from 0, and the item.
    items : sequence
    workers : int
        Threads; below 2 nothing is done ahead.
    """
    if workers < 2:
        yield from (answer(i, item) for i, item in enumerate(items))
        return
    workers = min(workers, MOST)
    pool, threads = _shared_threads(workers)
    begun: deque[Future[A]] = deque()
    try:
        for i, item in enumerate(items):
            begun.append(pool.submit(answer, i, item))
            if len(begun) > workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        _torch_threads(threads)


def _shared_threads(workers: int) -> tuple[ThreadPoolExecutor, int]:
    """Workers that share torch's threads, and how many these are: to be set again at the end."""
    threads = _torch_threads()
    share = partial(_torch_threads, max(1, threads // workers))
    return ThreadPoolExecutor(workers, initializer=share), threads


def counted(done: int, total: int, step: JobProgress) -> JobProgress:
    """A step of a plane's job as that of the run."""
    return JobProgress(done, total, step.message)


def _is_large(begun: Begun[A]) -> bool:
    return begun.image is not None and begun.image.shape[0] * begun.image.shape[1] > LARGEST_PX


def _timed(job: Job[A], begun: Begun[A]) -> Job[A]:
    start = time.monotonic()
    answer = yield from job
    begun.seconds += time.monotonic() - start
    return answer


def _run(job: Job[A], begun: Begun[A], stop: threading.Event) -> A | None:
    """Run a job to its end, or until all is to stop; in a worker."""
    timed = _timed(job, begun)
    try:
        while not stop.is_set():
            begun.steps.put(next(timed))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        timed.close()
    return None


def _ended(steps: SimpleQueue[JobProgress | None], _future: Future[A | None]) -> None:
    steps.put(None)


def _torch_threads(count: int = 0) -> int:
    """Threads that torch takes in the calling thread; `count` of them from now on, if given."""
    import torch

    if count:
        torch.set_num_threads(count)
    return int(torch.get_num_threads())
