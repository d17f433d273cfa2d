"""What the benchmark compares: ways from references to masks, by name.

`paper` has every setting of SAMIC's, on the segmenter's own features and with the references that
the benchmark draws (the paper has five, of one click an object). `default` is what `train` and
`segment` do without options; with one reference, as `train --epochs 0`, it is `samic-first`, or
`samic` where a set has other classes to learn from. The steps between them are added one at a time.
The first divides the map by its maximum: the paper's losses leave its level open, so that it is
chance whether anything of it is above 0.5. Ablations are `paper+level` with one thing changed. The
others compare without training a network, but for the U-Nets, which know no SAM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from types import MappingProxyType
from typing import Literal

from napari_samic.core.errors import SettingsError
from napari_samic.core.settings import OTHERS_FROM, PeakSettings, PrompterSettings, SegmentSettings
from napari_samic.models.losses import SALIENCY_LOSSES
from napari_samic.models.prompters import registry

DEFAULT = "default"
LEVEL = "paper+level"
LOSSES = tuple(SALIENCY_LOSSES)


@dataclass(frozen=True)
class MethodConfig:
    """One way of SAMIC.

    Attributes
    ----------
    help : str
    paper : bool
        Every setting but the encoder as the paper has it, first weights at random.
    trained : bool
        Whether the learner is trained.
    adapted : bool
        Whether the packaged encoder is fine-tuned to the references.
    others : bool
        Whether it learns from the images to be segmented then, too; never from their masks.
    frames : {"", "memory", "previous"}
        Where images are frames that follow the first reference: whether `VideoPredictor` remembers
        them, or the answer to the frame before is the reference of the next.
    layers : int
        4-D convolutions in each block of the learner, where `paper`.
    losses : tuple of str
        Of `LOSSES`, what is learned from, where `paper`; the others weigh nothing.
    settings : SegmentSettings
    peaks : PeakSettings
    prompter : PrompterSettings or None
        Other than the defaults; not looked at with `paper`.
    """

    help: str
    paper: bool = False
    trained: bool = True
    adapted: bool = False
    others: bool = False
    frames: Literal["", "memory", "previous"] = ""
    layers: int = 3
    losses: tuple[str, ...] = LOSSES
    settings: SegmentSettings = field(default_factory=SegmentSettings)
    peaks: PeakSettings = field(default_factory=PeakSettings)
    prompter: PrompterSettings | None = None


_NEAREST = PrompterSettings(kept=64, serve="nearest")
_AGREED = PrompterSettings(weigh="agreement")
_PLAIN = SegmentSettings.paper()
_PAPER = MethodConfig(
    "the paper's settings", paper=True, settings=_PLAIN, peaks=PeakSettings.paper()
)
_LEVELLED = replace(
    _PAPER,
    help="and the map divided by its maximum",
    peaks=replace(PeakSettings.paper(), normalise=True),
)
_DEPTHS = {LEVEL if n == _LEVELLED.layers else f"layers-{n}": n for n in (1, 2, 3, 4)}
_SUMS = {"+".join(some): some for n in (1, 2) for some in combinations(LOSSES, n)}
ABLATIONS = MappingProxyType(
    {
        name: replace(_LEVELLED, help=f"{LEVEL} with layers = {n}", layers=n)
        for name, n in _DEPTHS.items()
        if name != LEVEL
    }
    | {
        name: replace(_LEVELLED, help=f"{LEVEL} with the loss {name}", losses=some)
        for name, some in _SUMS.items()
    }
)
WAYS = MappingProxyType(
    {
        "paper": _PAPER,
        LEVEL: _LEVELLED,
        "paper+peaks": MethodConfig("and our peaks", paper=True, settings=_PLAIN),
        "paper+peaks+join": MethodConfig("and our choice of masks", paper=True),
        "samic": MethodConfig("and the packaged first weights and our settings"),
        "samic-nearest": MethodConfig(
            "samic, served by the references likest the image", prompter=_NEAREST
        ),
        "samic-agreed": MethodConfig("samic, maps weighed by their agreement", prompter=_AGREED),
        "samic-first": MethodConfig("those without training", trained=False),
        "samic-previous": MethodConfig(
            "samic-first, shown its answer to the frame before", trained=False, frames="previous"
        ),
        "follow": MethodConfig(
            "samic-first, and what was found in a frame", trained=False, frames="memory"
        ),
        DEFAULT: MethodConfig("samic, and the encoder grown to the references", adapted=True),
        "default-others": MethodConfig(
            "and to the images to be segmented, without their masks", adapted=True, others=True
        ),
        **ABLATIONS,
    }
)
GROUPS = MappingProxyType({"ablate-layers": tuple(_DEPTHS), "ablate-losses": (*_SUMS, LEVEL)})
"""Names that stand for several ways."""
UNETS = MappingProxyType({"unet": True, "unet-scratch": False})
"""Baselines without SAM, and whether their encoder starts with the packaged weights."""


def names() -> tuple[str, ...]:
    """All that can be compared."""
    return (*WAYS, *UNETS, *registry.names())


def expand(wanted: Sequence[str]) -> tuple[str, ...]:
    """Put the ways of a group in its place, each way once, in the order given.

    Raises
    ------
    SettingsError
        A name that is not known.

    Examples
    --------
    >>> expand(["paper+level", "ablate-layers"])
    ('paper+level', 'layers-1', 'layers-2', 'layers-4')
    """
    choices = (*names(), *GROUPS)
    unknown = [name for name in wanted if name not in choices]
    if unknown:
        raise SettingsError(f"unknown {', '.join(unknown)}. Known: {', '.join(choices)}.")
    return tuple(dict.fromkeys(way for name in wanted for way in GROUPS.get(name, (name,))))


def for_videos(ways: Sequence[str]) -> tuple[str, ...]:
    """Those that need frames that follow each other."""
    return tuple(name for name in ways if name in WAYS and WAYS[name].frames)


def sees_targets(name: str) -> bool:
    """Whether a way learns from the images to be segmented."""
    return name in WAYS and WAYS[name].others


def is_taught(name: str) -> bool:
    """Whether a way learns from base classes, where there are some."""
    return name in WAYS and WAYS[name].trained


def check_others(ways: Sequence[str], shots: Sequence[int]) -> None:
    """Raise SettingsError for a way that would see the images to be segmented, but can't yet."""
    unfit = [name for name in ways if sees_targets(name)]
    if unfit and min(shots) < OTHERS_FROM:
        msg = f"{', '.join(unfit)}: learns from other images with {OTHERS_FROM} references or more."
        raise SettingsError(f"{msg} Leave fewer shots out, or this way.")


def check_shots(ways: Sequence[str], shots: Sequence[int]) -> None:
    """Raise SettingsError for a way that can't do with one reference, before hours are spent.

    Of a set without other classes to learn from.
    """
    unfit = [name for name in ways if name in WAYS and WAYS[name].paper]
    if unfit and min(shots) < 2:
        msg = f"{', '.join(unfit)}: trained from random weights, which takes two references."
        raise SettingsError(f"{msg} Leave 1 shot out, or these ways where a set gives one.")
