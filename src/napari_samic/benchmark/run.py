"""A public data set, several ways, the same images and seeds: who is better, and how sure is that?

Each cell (seed, number of references, way) is written when it is done, and a run that was stopped
goes on where it was. Nothing is fetched: the set lies in a folder, as its authors publish it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from napari_samic.benchmark import costs, datasets, learners, report, summary, unet
from napari_samic.benchmark.datasets import DataSet, DatasetItem, Episode
from napari_samic.benchmark.methods import (
    ABLATIONS,
    UNETS,
    check_others,
    check_shots,
    expand,
    for_videos,
)
from napari_samic.benchmark.trial import Trial
from napari_samic.core.errors import InputError, OutputError, SettingsError
from napari_samic.core.settings import AdaptSettings, TrainSettings
from napari_samic.core.types import Job, JobProgress
from napari_samic.io import writers
from napari_samic.io.files import atomic_file
from napari_samic.io.text_files import read_json, sha256_of
from napari_samic.models.sam.segmenter import load_segmenter
from napari_samic.models.samic import pretrained
from napari_samic.pipeline import common
from napari_samic.pipeline.results.writer import read_failures

SETUP = "setup.json"
RULES = 4
"""Counted up when ways, targets or scores change their meaning: cells of before are of another. It
was not when items of other classes became `splits.MOST` at most and an object in parts one where a
set numbers its objects, because no cells of such sets are kept; nor when `paper` kept no reference
aside any more, a fine-tuned network was refused by less and its objects got the surest masks,
because the cells that this changed were removed."""


def benchmark(
    name: str,
    *,
    data: Path | str,
    out: Path | str,
    ways: Sequence[str] = ("paper+level", "default"),
    shots: Sequence[int] = (5,),
    seeds: Sequence[int] = (0,),
    targets: int = 0,
    without: Sequence[str] = (),
    elsewhere: Path | str | None = None,
    split: str | None = None,
    share: float = 0.2,
    baseline: str | None = None,
    model: str = "tiny",
    device: str = "auto",
    training: TrainSettings | None = None,
    adapt: AdaptSettings | None = None,
) -> Job[common.JobResult]:
    """Compare ways on a public data set.

    Parameters
    ----------
    name : str
        One of `datasets.names()`.
    data : Path
        The set's folder.
    out : Path
        Folder for `images.csv`; `summary` and `measures` as `.json` and `.md`; `costs.json`;
        `sheets/` of the worst and of the middle overlays; `cells/`; and `failures.csv` of what
        could not be read, which is left out of the cells. A folder that holds cells of the
        same set-up is completed, wherever the set lies now, and the tables tell of all sets that
        it has cells of.
    ways : sequence of str
        Of `benchmark.methods.names()`, or of its `GROUPS`, which stand for several.
    shots : sequence of int
        References; videos and sets that give one image have one.
    seeds : sequence of int
    targets : int
        At most this many images an episode, drawn by the seed, or the first frames of a video; 0:
        all.
    without : sequence of str
        Names of images that are never targets, as those by which settings were chosen; of `data`
        or of `elsewhere`.
    elsewhere : Path, optional
        Another folder of the same layout, as of another center: its images are targets, too, with
        references from `data`. Its results carry the folder's name. Ways that learn from the images
        to be segmented learn anew for it, all others once.
    split : str, optional
        Only this part of the set.
    share : float
        Part of the training images that references are drawn from, or, of sets whose references
        are of other classes, that is learned from.
    baseline : str, optional
        The way that others are compared with; default: the first.
    model : str
    device : str
    training : TrainSettings, optional
    adapt : AdaptSettings, optional

    Returns
    -------
    Job of JobResult
        `figures`: `table`, the IoU of each way in Markdown; `measures`, what else there is to say
        of each way (see `summary.MethodSummary`), and `measures_table`. `costs` has the
        `parameters` and `ms` of each way that has a learner (see `costs.measure`); with an ablation
        `cost_table` has them in Markdown.

    Raises
    ------
    InputError
        Unknown set, or a folder of another layout.
    SettingsError
        An unknown way, or a seed of the training beside `seeds`.
    OutputError
        `out` holds cells of another set-up.
    ModelError
        A U-Net is asked for, and segmentation-models-pytorch is not installed.
    """
    ways = expand(ways)
    if baseline is not None and baseline not in ways:
        raise InputError(f"baseline {baseline!r} is not compared. Take one of {', '.join(ways)}.")
    if not (ways and shots and seeds):
        raise InputError("no way, number of shots or seed. Give at least one of each.")
    if training is not None and training.seed:
        raise SettingsError(f"seed {training.seed}: a benchmark has seeds. Give --seeds instead.")
    if any(way in UNETS for way in ways):
        unet.package()
    data_set = datasets.open(name, data, split=split)
    is_video = data_set.protocol == "video"
    train_settings, adapt_settings = training or TrainSettings(), adapt or AdaptSettings()
    if data_set.protocol in ("first", "video"):
        shots = (1,)  # the first image, whatever is asked
    elif of_videos := for_videos(ways):
        raise InputError(f"{of_videos[0]} is for videos, and {name} is none. Leave it out.")
    base_class_items = {seed: base_classes_by_fold(data_set, seed, share) for seed in seeds}
    if not any(any(by_fold.values()) for by_fold in base_class_items.values()):
        check_shots(ways, shots)
    check_others(ways, shots)
    transfer_set = _transfer_set(name, data, elsewhere, data_set, split)
    own = {item.name for item in data_set.items}
    others = {item.name for item in transfer_set.items} if transfer_set is not None else set()
    if unknown := sorted(set(without) - own - others):
        raise InputError(f"{name} has no {unknown[0]} ({len(unknown)} unknown). Mend the list.")
    episodes = {
        (seed, count): _episodes(data_set, seed, count, share) for seed in seeds for count in shots
    }
    folder = common.make_folder(Path(out))
    yield JobProgress(0, 0, f"loading {model}")
    segmenter = load_segmenter(model, device=device, cache=common.default_cache())
    setup: dict[str, Any] = {
        "rules": RULES,
        "set": name,
        "data": Path(data).resolve().name,
        "images": _fingerprint(data_set),
        "split": split,
        "share": share,
        "targets": targets,
        "without": sorted(own & set(without)),
        "model": model,
        "weights": str(getattr(segmenter, "weights_sha256", "")),
        "first_weights": sha256_of(pretrained.PATH),
        "training": train_settings.to_dict(),
        "adapt": adapt_settings.to_dict(),
    }
    _check_setup(folder / SETUP, setup)
    if transfer_set is not None:
        transfer_setup = {**setup, "data": transfer_set.name, "images": _fingerprint(transfer_set)}
        transfer_setup["without"] = sorted(others & set(without))
        _check_setup(folder / f"setup-{transfer_set.name}.json", transfer_setup)
    total, done, skipped = len(seeds) * len(shots) * len(ways), 0, []
    failures = read_failures(folder)
    for seed in seeds:
        given = learners.TrialContext(segmenter, train_settings, adapt_settings, seed)
        for count in shots:
            trial = Trial(
                folder, name, count, given, episodes[seed, count], targets, frozenset(without),
                transfer_set, is_video=is_video, base_class_items=base_class_items[seed],
                failures=failures,
            )  # fmt: skip
            trial.check()
            for way in ways:
                if not trial.missing(way):
                    skipped.append(f"{name}-{count}-{seed}-{way}")
                else:
                    yield from trial.run(way, done, total)
                done += 1
    results = [
        r for path in sorted((folder / "cells").glob("*.csv")) for r in report.read_results(path)
    ]
    selected = [r for r in results if r.method in ways and r.seed in seeds and r.shots in shots]
    selected.sort(key=lambda r: (ways.index(r.method), r.shots, r.seed))
    videos = {item.name: item.group for item in data_set.items} if is_video else None
    compared = baseline or ways[0]
    cells = report.write_report(folder, selected, baseline=compared, units=videos, overwrite=True)
    spent = yield from costs.measure(ways, segmenter)
    summaries = summary.measures(selected, videos)
    page = summary.markdown(summaries)
    writers.write_json(folder / "measures.json", [asdict(m) for m in summaries], overwrite=True)
    with atomic_file(folder / "measures.md", overwrite=True) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    figures: dict[str, Any] = {"table": report.markdown(cells), "measures_table": page}
    figures |= {"measures": [asdict(m) for m in summaries], "costs": spent.ways}
    if spent.ways:
        writers.write_json(folder / "costs.json", asdict(spent), overwrite=True)
    if any(way in ABLATIONS for way in ways):
        figures["cost_table"] = costs.markdown(spent.ways)
    return common.JobResult(
        folder, tuple(dict.fromkeys(r.image for r in selected)), tuple(skipped), failures, figures
    )


def base_classes_by_fold(
    data_set: DataSet, seed: int, share: float
) -> dict[int | None, tuple[DatasetItem, ...]]:
    """What is learned from before the references of each fold, or of all, are shown."""
    folds = tuple(data_set.folds) or (None,)
    out = {f: datasets.base_class_items(data_set, f, seed=seed, share=share) for f in folds}
    for fold, items in out.items():
        counted = Counter(item.label for item in items)
        if any(out.values()) and max(counted.values(), default=0) < 2:
            where = data_set.name if fold is None else f"{data_set.name}, fold {fold}"
            msg = f"{where}: no class with two images among {len(items)} to learn from."
            raise InputError(f"{msg} Give a larger share.")
    return out


def _episodes(data_set: DataSet, seed: int, shots: int, share: float) -> tuple[Episode, ...]:
    drawn = datasets.episodes(data_set, shots=shots, seed=seed, share=share)
    return _by_sequence(drawn) if data_set.protocol == "video" else tuple(drawn)


def _transfer_set(
    name: str, data: Path | str, folder: Path | str | None, data_set: DataSet, split: str | None
) -> DataSet | None:
    """The images of another folder under that folder's name, with the labels of the set."""
    if folder is None:
        return None
    if data_set.protocol != "share":
        msg = f"elsewhere is for sets whose references serve all images, and {name} is not one."
        raise InputError(f"{msg} Leave it out.")
    place = Path(folder).resolve()
    if place == Path(data).resolve():
        raise InputError(f"{folder}: elsewhere is the set itself. Give another folder.")
    if place.name == name:
        raise InputError(f"{folder}: results of it would be called {name}, too. Rename it.")
    other = replace(datasets.open(name, folder, split=split), name=place.name)
    if not set(other.labels) & set(data_set.labels):
        msg = f"{folder}: shows {', '.join(other.labels)}, expected {', '.join(data_set.labels)}."
        raise InputError(f"{msg} Give a folder of the same classes.")
    return other


def _fingerprint(data_set: DataSet) -> str:
    """Of the names of all images, so that a folder of cells may be completed on another machine."""
    names = "\n".join(sorted(f"{item.name} {item.label}" for item in data_set.items))
    return hashlib.sha256(names.encode()).hexdigest()


def _check_setup(path: Path, setup: dict[str, Any]) -> None:
    if not path.exists():
        writers.write_json(path, setup)
        return
    before = read_json(path, "the set-up of a benchmark")
    other = sorted(k for k in setup if not isinstance(before, dict) or before.get(k) != setup[k])
    if other:
        msg = f"{path.parent}: holds a benchmark of another {', '.join(other)}. Give another --out."
        raise OutputError(msg)


def _by_sequence(episodes: Iterable[Episode]) -> tuple[Episode, ...]:
    """Frames of a sequence in their order, with the first one as reference."""
    first: dict[str, Episode] = {}
    frames: dict[str, list[DatasetItem]] = {}
    for episode in episodes:
        first.setdefault(episode.group, episode)
        frames.setdefault(episode.group, []).extend(episode.targets)
    return tuple(
        Episode(tuple(frames[g]), first[g].references[:1], first[g].label, group=g) for g in first
    )
