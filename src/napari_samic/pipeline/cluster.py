"""Images answered by the workers of a Dask cluster, on this machine or on many.

A task is a function of a module and its arguments: paths, settings, and what is of one plane; never
pixels or a network. A worker loads the network once and keeps it, and reads the image from where
this process reads it. What it reads must be the same, by its hash. Results are written here, in
their order, as without a cluster. A worker that is lost has its tasks done by others; after a
scheduler that is lost, another at the same address is waited for.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from napari_samic import __version__
from napari_samic.core.errors import InputError, ModelError, SamicError, SettingsError
from napari_samic.core.types import Image, ImagePlane, Job, JobProgress, LazyImage, run_job
from napari_samic.io.images import open_images
from napari_samic.io.normalize import Normalization, open_rgb
from napari_samic.io.paths import folded
from napari_samic.io.text_files import pixels_sha256
from napari_samic.pipeline import common

AHEAD = 2
"""Tasks for each thread of a worker: one at work, one waiting."""
PATIENCE_S = 600.0
"""How long another scheduler, or a first worker, is waited for."""
CONNECT_S = 10.0
"""How long a scheduler may take to answer."""
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": 1,
    "MALLOC_MMAP_THRESHOLD_": 2**25,
    "MALLOC_TRIM_THRESHOLD_": 2**26,
}
"""As glibc comes to by itself. By Dask's own, memory is given back and taken again for every layer
of a network, which doubles the time of an image."""
Opener: TypeAlias = Callable[..., list[ImagePlane]]
_STEP_S, _COUNT_S = 0.5, 5.0
_lock = threading.Lock()
_kept: tuple[bytes, Any] | None = None


def answer(version: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module; in a worker.

    Errors of ours are results: to try again would not help.
    """
    try:
        if version != __version__:
            msg = f"a Dask worker has napari-samic {__version__}, this is {version}."
            raise ModelError(f"{msg} Install the same on both.")
        return function(*arguments)
    except SamicError as error:
        return error


@contextmanager
def kept(make: bytes) -> Iterator[Any]:
    """What a pickled callable makes; in a worker, which keeps the last one.

    Networks are loaded once, and many can't be shared by threads: one at a time has it.
    """
    global _kept
    with _lock:
        if _kept is None or _kept[0] != make:
            _kept = None  # two networks would not fit where one does
            _kept = make, pickle.loads(make)()
        yield _kept[1]


def load(make: bytes) -> None:
    """Load what answers; in a worker. What is wrong with it is told before the first image."""
    with kept(make):
        pass


def plane_at(path: str, label: str, open_file: Opener, *how: Any) -> ImagePlane:
    """One plane of a file that a function of a module opens; in a worker."""
    stat = Path(path).stat() if Path(path).is_file() else None
    stamp = None if stat is None else (stat.st_mtime_ns, stat.st_size)
    planes = _opened(path, open_file, how, stamp)
    if folded(label) not in planes:
        raise InputError(f"{path}: a Dask worker finds no {label} there.")
    return common.with_recorded_name(planes[folded(label)], {folded(label): label})


@lru_cache(maxsize=2)
def _opened(
    path: str, open_file: Opener, how: tuple[Any, ...], _stamp: Any
) -> dict[str, ImagePlane]:
    return {folded(plane.label): plane for plane in open_file(path, *how)}


def _open_image(path: str, axes: str | None, series: int | None) -> list[ImagePlane]:
    return open_images(path, axes=axes, series=series)


@dataclass(frozen=True)
class PlaneTask:
    """What a worker needs to answer one plane.

    Attributes
    ----------
    make : bytes
        Pickled callable that makes what answers.
    path : str
        Of the image, as every worker finds it.
    label : str
        Of the plane in the file.
    sha256 : str
        Of its pixels as they were read here; "" if they were not.
    arguments : tuple
        What else is given to what answers.
    """

    make: bytes
    path: str
    label: str
    sha256: str
    normalization: Normalization
    axes: str | None
    series: int | None
    is_own: bool
    arguments: tuple[Any, ...] = ()


def answer_plane(task: PlaneTask) -> Any:
    """Answer a plane; in a worker."""
    plane = plane_at(task.path, task.label, _open_image, task.axes, task.series)
    image = open_rgb(plane, task.normalization, is_strict=True, is_own=task.is_own)
    if task.sha256 and pixels_sha256(image) != task.sha256:
        raise InputError(f"{task.path}: a Dask worker reads other pixels there.")
    with kept(task.make) as work:
        result = work(plane, image, *task.arguments)
        return run_job(result) if isinstance(result, Generator) else result


@dataclass(frozen=True, eq=False)
class RemoteWork:
    """A `Work` that lets a cluster answer; a task is sent when it is called.

    Attributes
    ----------
    cluster : Cluster
    make : bytes
        Pickled callable that makes what answers in a worker; pickled by reference, so a function of
        a module or a partial. What it makes is called with plane, image and `arguments` of the
        plane.
    normalization : Normalization
    axes, series
        As of `open_images`.
    is_own : bool
        As of `BatchRunner`.
    arguments : callable
        What a plane's task carries beside: little, and only of this plane.
    """

    cluster: Cluster
    make: bytes
    normalization: Normalization
    axes: str | None = None
    series: int | None = None
    is_own: bool = False
    arguments: Callable[[ImagePlane], tuple[Any, ...]] = lambda _: ()

    def __call__(self, plane: ImagePlane, image: Image | LazyImage) -> Job[Any]:
        """See `Work`."""
        return self.ask(plane, pixels_sha256(image))

    def ask(self, plane: ImagePlane, sha256: str = "") -> Job[Any]:
        """The same; whether the worker reads these pixels is not looked at without their hash."""
        task = PlaneTask(
            self.make, path_of(plane), plane.label, sha256, self.normalization,
            self.axes, self.series, self.is_own, self.arguments(plane),
        )  # fmt: skip
        return self.cluster.run(answer_plane, task)


def path_of(plane: ImagePlane) -> str:
    """Where workers find a plane's file; raises an InputError if it has none."""
    if plane.path is None:
        raise InputError(f"{plane.label}: a Dask worker can only read files. Save it first.")
    return str(plane.path.absolute())


class Cluster:
    """The client of a Dask scheduler.

    Parameters
    ----------
    address : str
        "local" or "local:N" for N processes of this machine (default: one for each core); else the
        address of a scheduler.

    Raises
    ------
    SettingsError
        Dask's `distributed` is not installed, or nothing answers at the address.
    """

    def __init__(self, address: str) -> None:
        self.address, self._local = address, None
        kind, _, count = address.partition(":")
        if kind == "local" and (count or "1").isdecimal() and int(count or 1) > 0:
            self._local = _local_cluster(int(count) if count else None)
            self.address = self._local.scheduler_address
        self._client = _client(self.address)
        self._threads, self._counted = 0, -_COUNT_S

    def ahead(self) -> int:
        """How many tasks keep all workers busy, as far as was known some seconds ago."""
        if time.monotonic() - self._counted > _COUNT_S:
            self._counted = time.monotonic()
            with suppress(Exception):  # a scheduler that is lost is missed elsewhere
                self._threads = sum(self._client.nthreads().values())
        return AHEAD * max(1, self._threads)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Job[Any]:
        """Let a worker call a function of a module; begins at once, the job waits for the result.

        Raises
        ------
        SamicError
            What the function raises, and as `wait` and `reconnect`.
        """
        task = (__version__, function, *arguments)
        return self._result(task, self._submit(task))

    def _result(self, task: tuple[Any, ...], future: Any) -> Job[Any]:
        try:
            while True:
                try:
                    result = yield from self.wait(future)
                    break
                except CancelledError:  # with the scheduler, tasks are lost
                    yield from self.reconnect()
                    future = self._submit(task)
        finally:
            with suppress(Exception):  # of a client that is closed
                future.release()
        if isinstance(result, SamicError):
            raise result
        return result

    def _submit(self, task: tuple[Any, ...]) -> Any:
        """Begin a task; its Dask future, None if the scheduler is lost."""
        try:
            return self._client.submit(answer, *task, pure=False, retries=0)
        except Exception:
            if self._client.status == "running":
                raise
            return None

    def wait(self, future: Any) -> Job[Any]:
        """The result of a task, with a step every half second.

        Raises
        ------
        CancelledError
            The scheduler that knew of it is lost.
        InputError
            Every worker that tried it has died.
        SettingsError
            There is no worker.
        """
        from distributed import KilledWorker

        if future is None or future.client is not self._client:
            raise CancelledError  # of an earlier scheduler
        last = time.monotonic()
        while True:
            try:
                return future.result(timeout=_STEP_S)
            except KilledWorker as error:
                msg = "each Dask worker that looked at it has died. Have they enough memory?"
                raise InputError(msg) from error
            except TimeoutError:
                if self._client.status != "running":
                    raise CancelledError from None
                try:
                    has_workers = bool(self._client.nthreads())
                except OSError:
                    raise CancelledError from None
                last = time.monotonic() if has_workers else last
                if time.monotonic() - last > PATIENCE_S:
                    raise SettingsError(f"{self.address}: has no Dask worker.") from None
                yield JobProgress(0, 0, "" if has_workers else "waiting for a Dask worker")

    def reconnect(self) -> Job[None]:
        """Wait for a scheduler at the same address.

        Raises
        ------
        SettingsError
            None came.
        """
        begun = time.monotonic()
        if self._client.status == "running":
            return  # it came back, or another task has waited for it
        with suppress(Exception):  # what is left of it is no matter
            self._client.close(timeout=1)
        while True:
            yield JobProgress(0, 0, "waiting for the Dask scheduler")
            try:
                self._client = _client(self.address)
            except SettingsError:
                if time.monotonic() - begun > PATIENCE_S:
                    raise
                time.sleep(_STEP_S)
            else:
                return

    def close(self) -> None:
        """Let go of it; workers that were begun here end."""
        for part in (self._client, self._local):
            if part is not None:
                with suppress(Exception):  # nothing depends on how it ends
                    part.close(timeout=10)


@contextmanager
def opened(address: str | None) -> Iterator[Cluster | None]:
    """A cluster for as long as the block lasts; None without an address."""
    cluster = None if address is None else Cluster(address)
    try:
        yield cluster
    finally:
        if cluster is not None:
            cluster.close()


def _client(address: str) -> Any:
    distributed = _distributed()
    # with a scheduler that is lost it prints a traceback, where we wait for another
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        return distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        msg = f"no Dask scheduler answers at {address!r} ({type(error).__name__})."
        raise SettingsError(f"{msg} Give its address, as tcp://HOST:8786, or local:N.") from error


def _local_cluster(count: int | None) -> Any:
    """Processes of this machine, one thread each."""
    distributed = _distributed()
    import dask

    with dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}):
        return distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        )


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        msg = "Dask's distributed is not installed. Do: pip install 'napari-samic[cluster]'"
        raise SettingsError(msg) from error
    return distributed
