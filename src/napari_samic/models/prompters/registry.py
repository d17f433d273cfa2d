"""Training-free prompters by name: they find objects like the references' without a training.

Trained SAMIC is made by `models.samic`; these need no training of a network, only references. A
module is imported when its prompter is made. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, cast

from napari_samic.core.errors import PluginError, SettingsError
from napari_samic.core.types import Prompter, Reference, Segmenter
from napari_samic.models.hub.plugins import plugins

TRAINED = "samic"


@dataclass(frozen=True)
class PrompterSpec:
    """How a training-free prompter is made.

    Attributes
    ----------
    name : str
    made_by : str
        `module:Class` beside this one, called as (segmenter, references, backbone=...).
    help : str
        One line.
    features : {"embedding", "any", "backbone", "none"}
        What it compares: the segmenter's embedding, as PerSAM is defined; a backbone's levels, else
        the embedding; only a backbone's; or pixels.
    draws : bool
        Whether it draws at random, so that it takes a seed.
    """

    name: str
    made_by: str
    help: str
    features: str
    draws: bool = False


_ALL = (
    PrompterSpec(
        "persam",
        "persam:Persam",
        "PerSAM: the most alike place, three decodes; one object a class",
        "embedding",
    ),
    PrompterSpec(
        "persam-f",
        "persam_f:PersamF",
        "PerSAM-F: the same, and how much of part, object and group it is, learned once",
        "embedding",
    ),
    PrompterSpec(
        "matcher",
        "matcher:Matcher",
        "Matcher: cells matched there and back, many decodes, the best joined; one object a class",
        "any",
        draws=True,
    ),
    PrompterSpec(
        "prototypes",
        "prototypes:Prototypes",
        "nearest neighbours of object and background; every peak an object",
        "any",
    ),
    PrompterSpec(
        "forest",
        "random_forest:Forest",
        "random forest on the encoder's cells and colours; no decoder, every piece an object",
        "backbone",
        draws=True,
    ),
    PrompterSpec(
        "instant",
        "instant:Instant",
        "a small head on the encoder's frozen features, learned in a second; every piece an object",
        "embedding",
        draws=True,
    ),
    PrompterSpec(
        "registration",
        "registration:Registration",
        "the most alike reference bent onto the image; for neighbouring slices",
        "none",
    ),
)
METHODS: Mapping[str, PrompterSpec] = MappingProxyType({m.name: m for m in _ALL})


def names() -> tuple[str, ...]:
    """Ours, then other packages' prompters; without the trained one."""
    return (*METHODS, *(n for n in plugins("prompters") if n not in METHODS))


def make(
    name: str,
    segmenter: Segmenter | None,
    backbone: Any = None,
    references: Sequence[Reference] = (),
    *,
    seed: int = 0,
    **options: Any,
) -> Prompter:
    """Make a prompter.

    Parameters
    ----------
    name : str
        One of `names()`.
    segmenter : Segmenter or None
        Answers the questions, and references without masks.
    backbone : Backbone, optional
        Whose features are compared, where the method's `features` say so.
    references : sequence of Reference
        Used when `propose` is called without any.
    seed : int
        For a method that draws at random.
    **options
        Of the method's class, as `peaks`.

    Returns
    -------
    Prompter
        Another package's class is called bare: it gets its references in `propose`.

    Raises
    ------
    SettingsError
        An unknown name, or no backbone for a method that needs one.
    PluginError
        Another package's class that can't be imported or made, or lacks methods.
    """
    method = METHODS.get(name)
    if method is None:
        return _foreign(name)
    module, _, kind = method.made_by.partition(":")
    if method.features == "backbone" and backbone is None:
        raise SettingsError(f"{name}: no backbone. Give one, or the segmenter's own features.")
    if method.features in ("any", "backbone"):
        options["backbone"] = backbone
    if method.draws:
        options["seed"] = seed
    make_it = getattr(import_module(f"napari_samic.models.prompters.{module}"), kind)
    return cast(Prompter, make_it(segmenter, references, **options))


def _foreign(name: str) -> Prompter:
    others = plugins("prompters")
    if name not in others:
        hint = " It is trained: make it with `train`." if name == TRAINED else ""
        raise SettingsError(f"unknown method {name!r}.{hint} Known: {', '.join(names())}.")
    plugin_class = others[name]
    try:
        return cast(Prompter, plugin_class())
    except Exception as error:  # a stranger's class may raise anything
        raise PluginError(f"plugin {name}: can't be made ({error}).") from error
