"""Images encoded before anybody waits for them, into the cache that window and jobs share.

What is encoded is what `segment` (with a prompter) or `annotate` and the window (without one) will
ask for: the same pixels, by the same normalization, in the same tiles.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.core.errors import (
    InputError,
    ModelError,
    OutputError,
    SamicError,
    SettingsError,
)
from napari_samic.core.types import Image, ImagePlane, Job, JobProgress, LazyImage, map_progress
from napari_samic.io.cache import SUFFIX, ArrayCache
from napari_samic.io.normalize import open_rgb
from napari_samic.models.features import backbones
from napari_samic.models.sam.segmenter import SamSegmenter, load_segmenter
from napari_samic.pipeline import cluster, common, tiling
from napari_samic.pipeline.lookahead import Begun, Lookahead, counted
from napari_samic.pipeline.results.writer import recorded_prompts
from napari_samic.pipeline.segment import PrompterHeader, open_predictor


def precompute(
    images: Any,
    *,
    prompter: Path | str | None = None,
    prompts: Path | str | None = None,
    model: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    channels: Sequence[int] | None = None,
    axes: str | None = None,
    series: int | None = None,
    dask: str | None = None,
) -> Job[common.JobResult]:
    """Encode images into the cache, so that nobody waits for that later.

    Parameters
    ----------
    images : path, glob, folder, list of those, or array
    prompter : Path, optional
        File of `train` with which they are to be segmented. Without it, they are to be annotated.
    prompts : Path, optional
        Prompt file, as of a project of the window, whose range of pixels is taken; without it, it
        is fitted to the images.
    model : str, optional
        The segmenter: default the prompter's, or "tiny".
    encoder : str, optional
        Another network whose features are to be kept, too; with a prompter, where its own is now.
    device : str
    channels : sequence of int, optional
        As of `annotate`; with a prompter they are those of its training.
    axes : str, optional
        As of `images.open_images`, instead of the files' own.
    series : int, optional
        The one image to take of each file.
    dask : str, optional
        Let the workers of a Dask cluster encode, as of `segment`. They must share this process's
        folder of the cache.

    Returns
    -------
    Job of JobResult
        `out` is the folder of the cache, `done` what was encoded and `skipped` what it had.
        `figures`: `bytes` that all of it takes, `most_bytes` that the cache may, and `left_out`
        images, for which it has no room.

    Raises
    ------
    InputError
        Nothing to read, or channels or prompts with a prompter.
    ModelError
        A segmenter of another package, which keeps nothing in the cache.
    OutputError
        The disk refuses, or workers have a cache elsewhere.
    SettingsError
        No cluster where `dask` says.
    """
    if prompter is not None and (channels is not None or prompts is not None):
        msg = "range and channels are those of the prompter's training. Leave others out."
        raise InputError(msg)
    notices: list[str] = []
    planes = common.open_planes(images, axes=axes, series=series, tell=notices.append)
    header = PrompterHeader.of(prompter) if prompter is not None else None
    name = common.full_name(model or (header.model if header is not None else "tiny"))
    file = None if prompter is None else Path(prompter).resolve()
    yield JobProgress(0, len(planes), "looking at the images")
    if header is not None:
        normalization = header.normalization
    else:
        stored = recorded_prompts(prompts) if prompts is not None else None
        normalization = common.normalization_of(planes, stored, channels)
    make = partial(_Encoder, name, file, encoder, device)
    yield JobProgress(0, len(planes), f"loading {name}")
    with cluster.opened(dask) as remote:
        if remote is None:
            encode = make()
        else:
            pickled = pickle.dumps(make)
            yield from remote.run(cluster.load, pickled)
            work = cluster.RemoteWork(
                remote, pickled, normalization, axes, series, is_own=header is None
            )

        def begin(plane: ImagePlane) -> Begun[_Kept]:
            if remote is not None:
                return Begun(plane, job=work.ask(plane))
            image = open_rgb(plane, normalization, is_strict=True, is_own=header is None)
            return Begun(plane, answer=encode(plane, image))

        ahead = Lookahead(planes, begin, 1, None if remote is None else remote.ahead)
        with closing(ahead):
            tally = yield from _encode_all(planes, ahead)
    if tally.left_out:
        notices.append(
            f"{tally.left_out} of {len(planes)} images left out: the cache holds "
            f"{tally.cache.max_bytes / 2**30:.1f} GiB, and each more would push another one out."
        )
    if header is not None and header.has_finder:
        notices.append(
            "the network that was fine-tuned to the references looks at each image anew: what is "
            "kept is what the segmenter sees."
        )
    figures = {
        "bytes": tally.bytes,
        "most_bytes": tally.cache.max_bytes,
        "left_out": tally.left_out,
    }
    return common.JobResult(
        tally.cache.folder, tuple(tally.encoded), tuple(tally.known), tally.failures, figures,
        notices=tuple(notices),
    )  # fmt: skip


@dataclass(frozen=True)
class _Kept:
    """What the cache has of an image.

    Attributes
    ----------
    files : tuple of str
        Names in its folder.
    is_new : bool
        Whether some were not there.
    problem : str
        Why one could not be written.
    """

    files: tuple[str, ...]
    is_new: bool
    problem: str


class _Tally:
    """What became of the images."""

    def __init__(self) -> None:
        self.cache = common.default_cache()
        self.bytes = 0
        self.encoded: list[str] = []
        self.known: list[str] = []
        self.failures: dict[str, str] = {}
        self.left_out = 0
        self._files: set[str] = set()
        self._largest = 0

    @property
    def is_full(self) -> bool:
        """Whether one more image would push out one of these."""
        return self.bytes + self._largest > self.cache.max_bytes

    def take(self, plane: ImagePlane, kept: _Kept) -> None:
        """Note an image; raises an OutputError if the cache has not got it."""
        if kept.problem:
            raise OutputError(f"{self.cache.folder}: {kept.problem}")
        try:
            sizes = {name: (self.cache.folder / name).stat().st_size for name in kept.files}
        except FileNotFoundError as error:
            msg = f"{self.cache.folder}: a Dask worker has its cache elsewhere."
            raise OutputError(f"{msg} Set NAPARI_SAMIC_HOME to one folder for all.") from error
        self.bytes += sum(sizes[name] for name in sizes.keys() - self._files)
        self._files |= sizes.keys()
        self._largest = max(self._largest, sum(sizes.values()))
        (self.encoded if kept.is_new else self.known).append(plane.label)


def _encode_all(planes: Sequence[ImagePlane], ahead: Lookahead[_Kept]) -> Job[_Tally]:
    """Until the cache is full."""
    tally = _Tally()
    for i, plane in enumerate(planes):
        if tally.is_full:
            tally.left_out = len(planes) - i
            break
        count = partial(counted, i, len(planes))
        try:
            begun = yield from map_progress(ahead.answer(plane), count)
            assert begun.answer is not None
            tally.take(plane, begun.answer)
            message = plane.label
        except (OutputError, SettingsError):  # the next image would meet the same
            raise
        except SamicError as error:
            tally.failures[plane.label] = message = common.reason(plane, error)
        yield JobProgress(i + 1, len(planes), message)
    return tally


class _NotedCache(ArrayCache):
    """The cache, which notes what it is asked for."""

    def __init__(self) -> None:
        usual = common.default_cache()
        super().__init__(usual.folder, usual.max_bytes)
        self.files: list[str] = []
        self.is_new, self.problem = False, ""

    def get(self, key: str) -> dict[str, Any] | None:
        arrays = super().get(key)
        if arrays is not None:
            self.files.append(f"{key}{SUFFIX}")
        return arrays

    def put(self, key: str, arrays: Any) -> None:
        super().put(key, arrays)
        self.files.append(f"{key}{SUFFIX}")
        self.is_new, self.problem = True, self.problem or self.last_problem

    def noted(self) -> _Kept:
        """What it was asked for since this was called last."""
        kept = _Kept(tuple(self.files), self.is_new, self.problem)
        self.files, self.is_new, self.problem = [], False, ""
        return kept


class _Encoder:
    """Encodes image after image."""

    def __init__(self, model: str, prompter: Path | None, encoder: str | None, device: str) -> None:
        self._cache = _NotedCache()
        self._predictor = None
        if prompter is None:
            segmenter: Any = load_segmenter(model, device=device, cache=self._cache)
        else:
            self._predictor = open_predictor(
                prompter, model=model, encoder=encoder, device=device, cache=self._cache
            )
            segmenter = self._predictor.segmenter
        if not isinstance(segmenter, SamSegmenter):
            msg = f"{model}: of another package, keeps nothing in the cache. Nothing to precompute."
            raise ModelError(msg)
        self._encoders: list[Callable[[Image], Any]] = [segmenter.precompute]
        if self._predictor is not None and self._predictor.finder is None:
            self._encoders.append(self._predictor.prompter.backbone.features)
        elif self._predictor is None and encoder is not None:
            kind = common.full_name(encoder)
            backbone = backbones.build(kind, segmenter, device=device, cache=self._cache)
            self._encoders.append(backbone.features)

    def __call__(self, plane: ImagePlane, image: Image | LazyImage) -> _Kept:  # noqa: ARG002
        """Of one image, or of each tile that it is cut into."""
        side_px = self._predictor.tile_side(image.shape) if self._predictor is not None else None
        self._cache.noted()  # of loading
        if side_px is None:
            self._encode(np.asarray(image))
        else:
            for window in tiling.windows(image.shape, side_px):
                self._encode(image[window])
        return self._cache.noted()

    def _encode(self, image: Image) -> None:
        for encode in self._encoders:
            encode(image)
