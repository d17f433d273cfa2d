"""Every option once: default, unit, bounds, help.

From one dataclass here come the options of the shell, the form in the window and the keys of a
recipe. Where the paper is silent or a better value was measured, the help says which.
Knows nothing of who uses it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self, get_type_hints

from napari_samic.errors import SettingsError


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    ge: float | None = None,
    le: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """One setting: its default, its help, and what it may be."""
    meta = {"help": help, "unit": unit, "ge": ge, "le": le, "choices": choices}
    return field(default=default, metadata=meta)


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
    def fault(cls, name: str, value: Any) -> str:
        """What is wrong with one value by itself, whatever the others are; "" if nothing is."""
        spec = next(spec for spec in fields(cls) if spec.name == name)
        return _fault(spec, hints_of(cls), value)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from plain values; unknown keys are refused with the list of known ones."""
        known = {spec.name for spec in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            msg = (
                f"{cls.__name__}: unknown {', '.join(unknown)}. Known: {', '.join(sorted(known))}."
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
        0.02,
        "Width of the Gaussian at each click (paper: 0.02).",
        unit="fraction of the side",
        ge=0.001,
        le=0.5,
    )
    combine: str = option(
        "max",
        "How Gaussians join: max, or sum (paper), where a lone click beside a cluster of clicks "
        "comes out weaker than the threshold.",
        choices=("sum", "max"),
    )

    @classmethod
    def paper(cls) -> Self:
        """Section 3.2 to the letter."""
        return cls(combine="sum")


@dataclass(frozen=True)
class PeakSettings(Settings):
    """Heat map to points. `PeakSettings.paper()` is the literal paper."""

    threshold: float = option(
        0.3,
        "Where the map is cut into components. The paper has 0.5; on the packaged cells 0.5 found "
        "66 % of the objects and 0.35 found 73 %, at 87 and 83 % precision.",
        ge=0.0,
        le=1.0,
    )
    normalise: bool = option(
        True,
        "Divide the map by its maximum before the cut. Not in the paper: its "
        "losses leave the level of the map open, and a raw cut found 3 of 52 "
        "objects where this found 45.",
    )
    subtract_background: bool = option(
        True,
        "Subtract the map's median first. Not in the paper: with its loss weights the background "
        "stayed at 0.49 of 0.93 after 14 epochs, and the cut took in the whole image.",
    )
    floor: float = option(
        0.0,
        "A map whose maximum is below this has no object; only used with normalise. The losses "
        "leave the level of a map open, so no level fits all: 0.03 silenced 14 of 40 polyps.",
        ge=0.0,
        le=1.0,
    )
    split_peaks: bool = option(
        True,
        "A component that falls apart at a higher cut gives a point for each part, so that "
        "neighbours which touch stay two. Not in the paper.",
    )
    snap_to_peak: bool = option(
        True,
        "Move a centroid that falls outside its component to the "
        "component's maximum. Not in the paper.",
    )
    min_area_frac: float = option(
        0.25, "Components smaller than this share of a click's disc (pi sigma^2) are noise.", ge=0.0
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
    """What the prompter looks at. `PrompterSettings.paper()` is the literal paper."""

    encoder: str = option(
        "segmenter",
        "Network whose features are compared, and which is grown to the references: segmenter, its "
        "own (one pass serves both) and the packaged one; or one of timm's by name, as resnet50 "
        "(paper) or convnext_tiny, an imported one, or path:FILE in timm's format.",
    )
    mask_mode: str = option(
        "weighted",
        "How the heat map weighs the reference: faithful multiplies the features and then "
        "normalises, which makes nearly a hard disc of a fifth of the side (paper's code), so that "
        "a click on a small object shows mostly ground; weighted keeps the weights.",
        choices=("faithful", "weighted"),
    )
    centre: bool = option(
        True,
        "Subtract the references' mean feature first. Not in the paper; without it all "
        "similarities of a self-trained encoder are near 1.",
    )
    shots: int = option(
        5, "References averaged for each image, or where `kept` is more, by `serve`.", ge=1, le=64
    )
    kept: int = option(
        0,
        "References kept in the prompter, at least `shots` and one of each class. 0: no more.",
        ge=0,
        le=64,
    )
    serve: str = option(
        "all",
        "Which of the kept references serve an image: all (paper), however many; nearest, of each "
        "class the `shots` whose pictures look most like it.",
        choices=("all", "nearest"),
    )
    weigh: str = option(
        "even",
        "How their maps count in the mean: even (paper); agreement, each by its correlation with "
        "the mean of the others.",
        choices=("even", "agreement"),
    )
    layers: int = option(
        3,
        "4-D convolutions in each block of the learner (paper: 3). First weights are for 3 only.",
        ge=1,
        le=4,
    )

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
        """ResNet-50, hard discs, not centred."""
        return cls(encoder="resnet50", mask_mode="faithful", centre=False)


@dataclass(frozen=True)
class TrainSettings(Settings):
    """How the prompter learns."""

    epochs: int = option(
        300,
        "At most this many (paper: 300). 0: no training; the packaged first weights look for the "
        "references as they are, and one reference is enough.",
        ge=0,
        le=100_000,
    )
    patience: int = option(
        10, "Stop after this many epochs without a better loss (paper: 10).", ge=1
    )
    min_delta: float = option(1e-4, "What counts as better.", ge=0.0)
    batch_size: int = option(4, "Pairs a step (paper: 4).", ge=1, le=256)
    learning_rate: float = option(
        3e-4,
        "Of Adam (paper: 1e-3, from random weights, which is right for other networks than the "
        "packaged one: its learner starts trained, and 1e-3 made it forget).",
        ge=1e-8,
        le=1.0,
    )
    kld_weight: float = option(1.0, "Weight of the Kullback-Leibler divergence (paper: 1).", ge=0.0)
    cc_weight: float = option(
        1.0,
        "Weight of the correlation (paper: 1; 0.5 left less background plateau in our trials).",
        ge=0.0,
    )
    nss_weight: float = option(
        1.0,
        "Weight of the scan-path saliency (paper: 1; it dominates, 0.2 "
        "left less background plateau in our trials). Its part of the loss is a few units for a "
        "perfect map, too: 0 is a map of the clicked cores alone.",
        ge=0.0,
    )
    views: int = option(
        2,
        "Flipped copies of each reference that are used too (1: none, 2: left-right, "
        "4: up-down as well). Features are cached once for each.",
        choices=(1, 2, 4),
    )
    shift_frac: float = option(
        0.25,
        "Targets are moved by up to this share of the side while learning (paper: 0), so that the "
        "usual place of an object in the picture is not learned instead of its look.",
        ge=0.0,
        le=0.5,
    )
    holdout_frac: float = option(
        0.15,
        "Share of the references kept aside to judge whether training "
        "helped; none below 4 references.",
        ge=0.0,
        le=0.5,
    )
    minutes: float = option(
        0.0,
        "The training ends after so many minutes with what it has learned. 0: as long as it takes.",
        unit="min",
        ge=0.0,
    )
    seed: int = option(0, "Same seed, same machine, same result.", ge=0)

    @classmethod
    def paper(cls) -> Self:
        """Section 3.5 for random first weights; every reference is learned from, as it is."""
        return cls(learning_rate=1e-3, views=1, shift_frac=0.0, holdout_frac=0.0)


LEAST_STEPS = 20
"""Batches below which a network whose training was stopped is not used."""
OTHERS = 256
"""Images without annotation that a network learns from, at most."""
OTHERS_FROM = 10
"""References that this takes: 20 gained by it, 5 lost; what lies between was not measured."""


@dataclass(frozen=True)
class AdaptSettings(Settings):
    """How the encoder grows. Not in the paper."""

    adapt: bool = option(
        True,
        "Also teach a copy of the encoder what the references show, and let it say where "
        "objects are. It is kept inside the prompter file.",
    )
    adapt_steps: int = option(
        0,
        "Batches. 0: by the number of references, 180 for 5 and 900 for 176 or more.",
        ge=0,
        le=100_000,
    )
    adapt_batch: int = option(
        8, "Looks at references a batch, and as many at images without annotation.", ge=2, le=256
    )
    adapt_others: bool = option(
        False,
        "Also learn from images without annotation what it is sure of in them: those beside the "
        "annotated ones, 256 at most. For images of another instrument or centre than the "
        "references; takes ten references and about twice as long.",
    )
    adapt_rate: float = option(1e-3, "Highest learning rate, of AdamW.", ge=1e-8, le=1.0)
    decoder_steps: int = option(
        0,
        "Batches in which the segmenter's mask decoder is tuned after that, if references are kept "
        "aside that can judge it; 200 are a start. 0: it stays as it is. The packaged one gained "
        "nothing by it.",
        ge=0,
        le=100_000,
    )
    decoder_rate: float = option(1e-4, "Its highest learning rate.", ge=1e-8, le=1.0)

    @classmethod
    def paper(cls) -> Self:
        """Nothing grows."""
        return cls(adapt=False)


@dataclass(frozen=True)
class AnnotateSettings(Settings):
    """The simulated annotator, and how clicks are answered."""

    max_clicks: int = option(8, "Clicks an object at most.", ge=1, le=100)
    saturation: float = option(
        0.01, "Stop when two clicks in a row change the confidence by less than this.", ge=0.0
    )
    target_iou: float = option(
        0.95, "Stop when the mask is this good against the truth.", ge=0.0, le=1.0
    )
    min_object_px: int = option(
        16, "Objects of the truth smaller than this are left out.", unit="px", ge=1
    )


@dataclass(frozen=True)
class SegmentSettings(Settings):
    """How predicted points become masks."""

    instances: bool = option(True, "Number every object; off: one value a class (semantic union).")
    mask_choice: str = option(
        "score",
        "Which of the segmenter's masks is taken: single, its one answer; score, the surest of its "
        "three answers to an ambiguous click. The packaged model's one answer is its surest.",
        choices=("score", "single"),
    )
    min_score: float = option(0.0, "Objects of lower confidence are dropped.", ge=0.0, le=1.0)
    map_cut: float = option(
        0.4,
        "Where the map of a network grown to the references, a probability, is cut into objects. "
        "The references' map has `threshold` instead.",
        ge=0.0,
        le=1.0,
    )
    map_core: float = option(
        0.95,
        "An object of that map has a pixel this sure; the surest of each class always stays.",
        ge=0.0,
        le=1.0,
    )
    duplicate_iou: float = option(
        0.8, "Of two masks that overlap more than this, the surer one stays.", ge=0.0, le=1.0
    )
    drop_covered: bool = option(
        True,
        "Drop a predicted point that lies in the mask of a surer one: the map often has two peaks "
        "on one object. What you clicked yourself is never dropped.",
    )
    tell_apart: bool = option(
        True,
        "Where a mask takes in the predicted point of another object, ask again with that point as "
        "a negative one, whatever its class; kept if the answer is no less sure. Touching cells "
        "come apart. Only with instances.",
    )
    batch_size: int = option(
        0,
        "Prompts decoded at once. 0: 2 on a processor, where more takes memory and is hardly "
        "faster; else 8.",
        ge=0,
        le=256,
    )

    @classmethod
    def paper(cls) -> Self:
        """The segmenter's one answer to each point."""
        return cls(mask_choice="single", tell_apart=False, drop_covered=False)


@dataclass(frozen=True)
class StrategySettings(Settings):
    """How a predicted map becomes questions to the segmenter. The defaults are SAMIC's."""

    strategy: str = option(
        "auto",
        "What is asked for each component of the map: points by centroids (paper), peaks (moved "
        "into it), distance, kmedoids or rays; its box, or wide_box; mask, the map itself; "
        "negatives: peaks, and where not; curriculum: box, then points, then both. auto: peaks, or "
        "with a network grown to the references a box, a point and the map, of each object.",
        choices=("auto", "peaks", "centroids", "box", "wide_box", "mask", "distance", "kmedoids",
                 "rays", "negatives", "curriculum"),
    )  # fmt: skip
    choice: str = option(
        "score",
        "Which of the segmenter's masks is taken: the surest (score), the one most like the map "
        "(agreement), or by the product of the two (both).",
        choices=("score", "agreement", "both"),
    )
    points: int = option(3, "Points an object of kmedoids, rays and curriculum.", ge=1, le=32)
    margin_frac: float = option(
        0.2, "Of wide_box, at each side.", unit="fraction of the box", ge=0.0, le=2.0
    )
    negatives: int = option(
        0, "Negative points an object at most, for any strategy; negatives has 2.", ge=0, le=16
    )
    mask_strength: float = option(10.0, "Largest logit of a map as mask prompt.", ge=0.1, le=32.0)


@dataclass(frozen=True)
class RefineSettings(Settings):
    """What is done to the segmenter's masks before they are joined. All is off by default."""

    split: bool = option(False, "Cut a mask that took in two objects' points at its neck.")
    clicks: int = option(
        0, "Rounds of a click where mask and map differ most; kept if they agree more.", ge=0, le=20
    )
    smooth_px: int = option(0, "Radius of opening and closing.", unit="px", ge=0, le=64)
    fill_px: int = option(0, "Holes up to this size are filled.", unit="px", ge=0)
    limits: bool = option(False, "Drop sizes and shapes that the references do not have.")
    min_stability: float = option(0.0, "IoU of the mask cut at logits -1 and +1.", ge=0.0, le=1.0)
    min_consistency: float = option(
        0.0, "How well a mask must find the reference's object back.", ge=0.0, le=1.0
    )
    members: int = option(
        0, "Shaken prompts that vote on an object; 0: none. With min_quality only.", ge=0, le=64
    )
    jitter_frac: float = option(
        0.05, "How far prompts are shaken.", unit="fraction of the object", ge=0.0, le=1.0
    )
    min_quality: float = option(
        0.0, "Mean IoU of the votes, below which an object is dropped. With members only.",
        ge=0.0, le=1.0,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.members) != bool(self.min_quality):
            msg = f"members is {self.members}, with min_quality {self.min_quality:g} votes change "
            raise SettingsError(f"{type(self).__name__}: {msg}nothing. Set both, or neither")


@dataclass(frozen=True)
class MemorySettings(Settings):
    """What is remembered from one frame of a stack or a video to the next."""

    follow: str = option(
        "never",
        "Which images follow each other: never, each is looked at alone; stacks, the planes of a "
        "stack; always, the files of a folder as well, by their names. Looks for objects by the "
        "references' map, also where a network was grown.",
        choices=("never", "stacks", "always"),
    )
    memory_frames: int = option(
        3, "Accepted frames that serve as further references. 0: none.", ge=0, le=64
    )
    memory_decay: float = option(
        0.7, "Weight of such a frame against the one after it; your own count 1.", ge=0.0, le=1.0
    )
    memory_score: float = option(
        0.5, "Frames of lower confidence are not remembered.", ge=0.0, le=1.0
    )
    memory_agreement: float = option(
        0.6,
        "Frames that overlap less (IoU) with what was carried over from the frame before are not "
        "remembered.",
        ge=0.0,
        le=1.0,
    )
    memory_floor: float = option(
        0.25,
        "What is left of the map where no object was expected, so that new ones can be found. "
        "Where it is below the cut of the peaks (0.3), a new object must be surer than the known.",
        ge=0.0,
        le=1.0,
    )


@dataclass(frozen=True)
class ExportSettings(Settings):
    """Which files are written from results, and how."""

    tiff: bool = option(True, "Label TIFFs: one number for each object, 0 is background.")
    png: bool = option(
        False, "Label PNGs: indexed colours up to 254 objects, 16 bits above; one for each plane."
    )
    ome_zarr: bool = option(False, "OME-Zarr 0.5 label images.")
    coco: bool = option(False, "One COCO file, coco.json, of all objects.")
    geojson: bool = option(False, "GeoJSON: outlines with holes, one file for each plane.")
    table: bool = option(
        False, "measurements.csv: class, confidence, place, size and shape of each object."
    )
    prompt_file: bool = option(False, "prompts.json: the points and boxes of each object.")
    coco_masks: str = option(
        "rle",
        "How COCO holds masks: rle is exact; polygons are what some tools want, and lose holes.",
        choices=("rle", "polygons"),
    )
    pixel_height: float = option(
        1.0, "For the table and OME-Zarr; the distance of two rows.", unit="the unit", ge=1e-12
    )
    pixel_width: float = option(1.0, "The distance of two columns.", unit="the unit", ge=1e-12)
    unit: str = option("", "Of the pixel's size, as micrometer; without one, lengths are pixels.")
