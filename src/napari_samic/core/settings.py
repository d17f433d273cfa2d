"""Every option once: default, unit, bounds, help.

From one dataclass here come the options of the shell, the form in the window and the keys of a
recipe. `docs/settings.md` tells where a value comes from. Knows nothing of who uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from functools import partial
from itertools import pairwise
from typing import Any, Self, get_type_hints

from napari_samic.core.errors import SettingsError


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    ge: float | None = None,
    le: float | None = None,
    choices: tuple[Any, ...] | None = None,
    is_internal: bool = False,
) -> Any:
    """One setting: its default, its help in one line, and what it may be."""
    meta = {"help": help, "unit": unit, "ge": ge, "le": le, "choices": choices}
    return field(default=default, metadata={**meta, "internal": is_internal})


internal = partial(option, is_internal=True)
"""What only the paper or a comparison has otherwise: for scripts and recipes, shown nowhere."""


def public_fields(kind: type[Settings]) -> tuple[Field[Any], ...]:
    """The settings of a dataclass that people see, in its order.

    >>> [spec.name for spec in public_fields(HeatMapSettings)]
    ['sigma_frac']
    """
    return tuple(spec for spec in fields(kind) if not spec.metadata["internal"])


@dataclass(frozen=True)
class Settings:
    """Parent: checks types, bounds and choices, and names all faults at once."""

    def __post_init__(self) -> None:
        hints = hints_of(type(self))
        faults = [
            f for spec in fields(self) if (f := _fault(spec, hints, getattr(self, spec.name)))
        ]
        if faults:
            raise SettingsError(f"{type(self).__name__}: " + "; ".join(faults))

    @classmethod
    def validate_field(cls, name: str, value: Any) -> str:
        """What is wrong with one value by itself, whatever the others are; "" if nothing is."""
        spec = next(spec for spec in fields(cls) if spec.name == name)
        return _fault(spec, hints_of(cls), value)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from plain values; unknown keys are refused with the list of known ones."""
        names = {spec.name for spec in fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            msg = (
                f"{cls.__name__}: unknown {', '.join(unknown)}. Known: {', '.join(sorted(names))}."
            )
            raise SettingsError(msg)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def hints_of(kind: type) -> dict[str, Any]:
    """Types of a class's fields; slow to find, and asked for at each key stroke in a form."""
    if kind not in _hints:
        _hints[kind] = get_type_hints(kind)
    return _hints[kind]


_hints: dict[type, dict[str, Any]] = {}


def _fault(spec: Any, hints: dict[str, Any], value: Any) -> str:
    kind = hints[spec.name]
    if kind in (int, float, bool, str):
        accepted = (int, float) if kind is float else (kind,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            return f"{spec.name} is {value!r:.60}, expected {kind.__name__}"
    ge, le, choices = (spec.metadata.get(k) for k in ("ge", "le", "choices"))
    if choices is not None and value not in choices:
        return f"{spec.name} is {value!r:.60}, expected one of {', '.join(map(str, choices))}"
    if ge is not None and not value >= ge:
        return f"{spec.name} is {value!r:.60}, expected at least {ge}"
    if le is not None and not value <= le:
        return f"{spec.name} is {value!r:.60}, expected at most {le}"
    return ""


@dataclass(frozen=True)
class HeatMapSettings(Settings):
    """Prompts to heat map. `HeatMapSettings.paper()` is the literal paper."""

    sigma_frac: float = option(
        0.02, "Width of the Gaussian at each click.", unit="fraction of the side", ge=0.001, le=0.5
    )
    combine: str = internal("max", "How Gaussians join.", choices=("sum", "max"))

    @classmethod
    def paper(cls) -> Self:
        """Section 3.2 to the letter."""
        return cls(combine="sum")


@dataclass(frozen=True)
class PeakSettings(Settings):
    """Heat map to points. `PeakSettings.paper()` is the literal paper."""

    threshold: float = option(0.3, "Where the references' map is cut into objects.", ge=0.0, le=1.0)
    normalise: bool = internal(True, "Divide the map by its maximum before the cut.")
    subtract_background: bool = internal(True, "Subtract the map's median first.")
    split_peaks: bool = internal(True, "Part what falls apart at a higher cut.")
    snap_to_peak: bool = internal(True, "Move a centroid that falls outside to the maximum.")
    min_area_frac: float = option(
        0.25, "Smaller components are noise.", unit="fraction of a click's disc", ge=0.0
    )

    @classmethod
    def paper(cls) -> Self:
        """Section 3.4 to the letter."""
        return cls(
            threshold=0.5,
            normalise=False,
            subtract_background=False,
            split_peaks=False,
            snap_to_peak=False,
            min_area_frac=0.0,
        )


@dataclass(frozen=True)
class PrompterSettings(Settings):
    """What the prompter looks at. `PrompterSettings.paper()` is the literal paper.

    A shot is one reference that serves an image.
    """

    encoder: str = option(
        "segmenter", "Network that looks: segmenter, one of timm's, or path:FILE."
    )
    mask_mode: str = internal(
        "weighted", "How the heat map weighs the reference.", choices=("faithful", "weighted")
    )
    centre: bool = internal(True, "Subtract the references' mean feature first.")
    shots: int = option(5, "References averaged for each image.", ge=1, le=64)
    kept: int = option(0, "References kept in the prompter; 0: as many as shots.", ge=0, le=64)
    serve: str = option(
        "all", "Which of the kept references serve an image.", choices=("all", "nearest")
    )
    weigh: str = internal(
        "even", "How the references' maps count in the mean.", choices=("even", "agreement")
    )
    layers: int = internal(3, "4-D convolutions in each block of the learner.", ge=1, le=4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.kept < self.shots:
            msg = f"kept is {self.kept}, expected at least shots, {self.shots}, or 0 for as many"
            raise SettingsError(f"{type(self).__name__}: {msg}")

    @property
    def keeps(self) -> int:
        """How many references a prompter keeps."""
        return self.kept or self.shots

    @classmethod
    def paper(cls) -> Self:
        """ResNet-50, hard discs, not centered."""
        return cls(encoder="resnet50", mask_mode="faithful", centre=False)


@dataclass(frozen=True)
class TrainSettings(Settings):
    """How the prompter learns."""

    epochs: int = option(
        300, "At most so many; 0: the first weights as they are.", ge=0, le=100_000
    )
    learning_rate: float = option(3e-4, "Of Adam; 1e-3 suits other encoders.", ge=1e-8, le=1.0)
    kld_weight: float = internal(1.0, "Weight of the Kullback-Leibler divergence.", ge=0.0)
    cc_weight: float = internal(1.0, "Weight of the correlation.", ge=0.0)
    nss_weight: float = internal(1.0, "Weight of the scan-path saliency.", ge=0.0)
    views: int = internal(2, "Flipped copies of each reference.", choices=(1, 2, 4))
    shift_frac: float = internal(0.25, "How far targets are moved while learning.", ge=0.0, le=0.5)
    holdout_frac: float = internal(
        0.15, "Share of the references that judge the training.", ge=0.0, le=0.5
    )
    minutes: float = option(
        0.0, "Longest time to learn; 0: as long as it takes.", unit="min", ge=0.0
    )
    seed: int = option(0, "Same seed, same machine, same result.", ge=0)

    @classmethod
    def paper(cls) -> Self:
        """Section 3.5 for random first weights; every reference is learned from, as it is."""
        return cls(learning_rate=1e-3, views=1, shift_frac=0.0, holdout_frac=0.0)


MASK_STRENGTH = 10.0
"""Largest logit of a map as mask prompt."""
LEAST_STEPS = 20
"""Batches below which a network whose training was stopped is not used."""
ADAPT_STEPS = ((2, 100), (5, 180), (20, 400), (176, 900))
"""Batches for so many references; between them in proportion, beyond them no more."""
OTHERS = 256
"""Images without annotation that a network learns from, at most."""
OTHERS_FROM = 10
"""References that this takes: 20 gained by it, 5 lost; what lies between was not measured."""


def steps_for(references: int) -> int:
    """How many batches so many references are worth.

    >>> [steps_for(n) for n in (1, 5, 20, 176, 1000)]
    [100, 180, 400, 900, 900]
    """
    for (low, least), (high, most) in pairwise(ADAPT_STEPS):
        if references <= high:
            share = max(0, references - low) / (high - low)
            return round(least + share * (most - least))
    return ADAPT_STEPS[-1][1]


def judged_after(references: int) -> int:
    """Batches after which those kept aside judge the network, if so many are done."""
    return 2 * steps_for(references) // 3


@dataclass(frozen=True)
class AdaptSettings(Settings):
    """How the encoder is fine-tuned. Not in the paper."""

    adapt: bool = option(True, "Fine-tune a copy of the encoder to the references.")
    adapt_steps: int = option(0, "Its batches; 0: by the number of references.", ge=0, le=100_000)
    adapt_others: bool = option(False, "Learn from images without annotation, too.")
    decoder_steps: int = option(
        0, "Batches that tune SAM's mask decoder; 0: it stays.", ge=0, le=100_000
    )

    @classmethod
    def paper(cls) -> Self:
        """Nothing grows."""
        return cls(adapt=False)


@dataclass(frozen=True)
class AnnotateSettings(Settings):
    """The simulated annotator."""

    max_clicks: int = option(8, "Clicks an object at most.", ge=1, le=100)
    target_iou: float = option(0.95, "Stop when the mask is so good.", ge=0.0, le=1.0)
    min_object_px: int = option(16, "Smaller objects are left out.", unit="px", ge=1)


LEAST_TILE_PX = 64
"""Side of a tile in which there is something to see."""


@dataclass(frozen=True)
class SegmentSettings(Settings):
    """How predicted points become masks."""

    instances: bool = option(True, "Number every object; off: one value a class.")
    mask_choice: str = internal(
        "score", "Which of the segmenter's masks is taken.", choices=("score", "single")
    )
    min_score: float = option(0.0, "Objects of lower confidence are dropped.", ge=0.0, le=1.0)
    map_cut: float = option(
        0.4, "Where the map of a fine-tuned network is cut into objects.", ge=0.0, le=1.0
    )
    map_core: float = option(0.95, "An object of that map has a pixel this sure.", ge=0.0, le=1.0)
    tile_px: int = option(
        0, "Side of tiles; 0: the references', if an image is large.", unit="px", ge=0
    )
    duplicate_iou: float = internal(
        0.8, "Of two masks that overlap more, the surer one stays.", ge=0.0, le=1.0
    )
    drop_covered: bool = internal(True, "Drop a predicted point in the mask of a surer one.")
    tell_apart: bool = internal(True, "Ask again where a mask takes in another object's point.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.tile_px < LEAST_TILE_PX:
            msg = f"tile_px is {self.tile_px}, expected 0 or at least {LEAST_TILE_PX}"
            raise SettingsError(f"{type(self).__name__}: {msg}")

    @classmethod
    def paper(cls) -> Self:
        """The segmenter's one answer to each point."""
        return cls(mask_choice="single", tell_apart=False, drop_covered=False)


@dataclass(frozen=True)
class StrategySettings(Settings):
    """How a predicted map becomes questions to the segmenter. The defaults are SAMIC's."""

    strategy: str = option(
        "auto",
        "What the segmenter is asked for each object.",
        choices=("auto", "peaks", "centroids", "box", "wide_box", "mask", "distance", "kmedoids",
                 "rays", "negatives", "curriculum"),
    )  # fmt: skip
    choice: str = option(
        "score",
        "Take its surest mask, the one most like the map, or both.",
        choices=("score", "agreement", "both"),
    )


@dataclass(frozen=True)
class RefineSettings(Settings):
    """What is done to the segmenter's masks before they are joined. All is off by default."""

    split: bool = option(False, "Cut a mask with two objects' points at its neck.")
    clicks: int = option(0, "Rounds of clicks where mask and map differ most.", ge=0, le=20)
    smooth_px: int = option(0, "Radius of opening and closing.", unit="px", ge=0, le=64)
    fill_px: int = option(0, "Holes up to this size are filled.", unit="px", ge=0)
    limits: bool = option(False, "Drop sizes and shapes that the references lack.")
    min_stability: float = option(0.0, "Least IoU of a mask cut lower and higher.", ge=0.0, le=1.0)
    min_consistency: float = internal(
        0.0, "How well a mask must find the reference back.", ge=0.0, le=1.0
    )
    min_quality: float = option(0.0, "Least IoU of what shaken prompts give.", ge=0.0, le=1.0)


@dataclass(frozen=True)
class MemorySettings(Settings):
    """What is remembered from one frame of a stack or a video to the next."""

    follow: str = option(
        "never", "Which images follow each other.", choices=("never", "stacks", "always")
    )
    link: str = option(
        "never",
        "Whose objects keep their numbers from image to image.",
        choices=("never", "stacks", "always"),
    )
    memory_frames: int = internal(3, "Frames that serve as further references.", ge=0, le=64)


@dataclass(frozen=True)
class ExportSettings(Settings):
    """Which files are written from results, and how."""

    tiff: bool = option(True, "Label TIFFs.")
    png: bool = option(False, "Label PNGs, one for each plane.")
    ome_zarr: bool = option(False, "OME-Zarr 0.5 label images.")
    coco: bool = option(False, "One COCO file of all objects, coco.json.")
    geojson: bool = option(False, "GeoJSON outlines with holes.")
    roi: bool = option(False, "ImageJ ROIs with holes, a zip for each image or stack.")
    table: bool = option(False, "measurements.csv: size, shape and intensity of each object.")
    prompt_file: bool = option(False, "prompts.json: points and boxes of each object.")
    coco_masks: str = option(
        "rle", "How COCO holds masks; polygons lose holes.", choices=("rle", "polygons")
    )
    pixel_height: float = option(1.0, "Distance of two rows.", unit="the unit", ge=1e-12)
    pixel_width: float = option(1.0, "Distance of two columns.", unit="the unit", ge=1e-12)
    unit: str = option("", "Of the pixel's size, as micrometer; empty: the image's own, or px.")

    @property
    def has_pixel_size(self) -> bool:
        """Whether the size of a pixel is given, rather than that of each image."""
        return bool(self.unit) or (self.pixel_height, self.pixel_width) != (1.0, 1.0)


@dataclass(frozen=True)
class Preset:
    """Settings of `segment` for one kind of image; what it does not name is as usual.

    Attributes
    ----------
    name : str
        On the shell and in recipes.
    help : str
        What it sets, in one line.
    values : dict of str to object
        Settings of any group, and `method`, by their names.
    """

    name: str
    help: str
    values: Mapping[str, Any]

    @property
    def title(self) -> str:
        """For people."""
        return self.name.replace("-", " ").capitalize()

    def of(self, kind: type[Settings]) -> dict[str, Any]:
        """The values that belong to one group of settings."""
        return {
            spec.name: self.values[spec.name] for spec in fields(kind) if spec.name in self.values
        }


PRESETS = (
    Preset("default", "Nothing but the defaults.", {}),
    Preset(
        "touching-cells",
        "Takes the masks most like the map, and cuts those of two objects at their neck.",
        {"choice": "agreement", "split": True},
    ),
    Preset(
        "one-large-object",
        "Takes only what is surest, smooths it and fills its holes.",
        {"map_core": 0.99, "smooth_px": 4, "fill_px": 5000},
    ),
    Preset(
        "thin-structures",
        "Takes the masks most like the map, as the surest fill what lies between lines.",
        {"choice": "agreement"},
    ),
    Preset(
        "stack-that-goes-on",
        "Looks in each frame for the objects of the one before, by the references' map: for one or "
        "a few that move; many in a volume are found better by the preset volume.",
        {"follow": "stacks"},
    ),
    Preset(
        "volume",
        "Looks at each plane by itself, and gives an object a single number through its planes.",
        {"link": "stacks"},
    ),
    Preset(
        "literal-paper",
        "Looks at the references' map alone, with every setting as the paper has it.",
        {"method": "samic", **SegmentSettings.paper().to_dict(), **PeakSettings.paper().to_dict()},
    ),
)


def preset(name: str) -> Preset:
    """Find a preset by its name.

    Raises
    ------
    SettingsError
        There is none.

    Examples
    --------
    >>> preset("stack-that-goes-on").of(MemorySettings)
    {'follow': 'stacks'}
    """
    if name not in (names := [preset.name for preset in PRESETS]):
        raise SettingsError(f"preset is {name!r:.60}, expected one of {', '.join(names)}.")
    return PRESETS[names.index(name)]


OF_MAPS = ("auto", "samic")
"""Methods that make maps: what strategy, refinement and follow need."""


def check_together(
    method: str,
    memory: MemorySettings | None,
    strategy: StrategySettings | None,
    refine: RefineSettings | None,
) -> None:
    """Raise SettingsError for settings of `segment` that would have no effect beside others."""
    changed = [
        group for group in (strategy, refine) if group is not None and group != type(group)()
    ]
    follows = memory is not None and memory.follow != "never"
    if method not in OF_MAPS and (changed or follows):
        msg = f"method {method} has none of them: leave strategy, refinement and follow out."
        raise SettingsError(msg)
    if follows and changed:
        raise SettingsError("follow asks its own way: leave strategy and refinement out.")
    if follows and memory is not None and memory.link != "never":
        raise SettingsError("follow keeps the numbers of objects itself: leave link out.")
