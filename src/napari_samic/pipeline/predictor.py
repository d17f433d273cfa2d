"""One image: where its objects are, and their masks.

With a finder the proposals come from its maps, and the segmenter's mask is the one that is most
like them; without one they are the peaks of the references' mean map, as in the paper.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.core.settings import (
    PeakSettings,
    RefineSettings,
    SegmentSettings,
    StrategySettings,
)
from napari_samic.core.types import (
    BoolArray,
    FloatArray,
    HeatMap,
    Image,
    ImagePlane,
    Job,
    JobProgress,
    LazyImage,
    Prompter,
    PromptProposal,
    Prompts,
    Reference,
    Segmentation,
    run_job,
)
from napari_samic.io.normalize import Normalization
from napari_samic.models.features.reference_masks import mask_of
from napari_samic.models.finetune.network import ForegroundPrediction, ForegroundPredictor
from napari_samic.models.samic.episodes import labels_of
from napari_samic.models.samic.prompter import SamicPrompter
from napari_samic.models.video.optical_flow import resized
from napari_samic.ops.label_fusion import rejoined
from napari_samic.pipeline import tiling
from napari_samic.pipeline.lookahead import in_order
from napari_samic.pipeline.runner import PlaneResult
from napari_samic.refine import prompting, refinement, regions, strategies
from napari_samic.refine.point_sampling import interior_point
from napari_samic.refine.regions import RegionProposal, ThresholdParams
from napari_samic.refine.shape_prior import ShapePrior

CELL_PX = 4
"""Of the finder's maps, in pixels of its input: objects below one cell are specks."""


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """All that takes long about an image, whatever the settings are.

    Attributes
    ----------
    maps : dict of int to (h, w) float32
        Mean map of the references, by class; only without a finder.
    agreement : dict of int to float
    foreground : dict of int to ForegroundPrediction
        By the finder.
    proposal : PromptProposal or None
        By another method.
    """

    maps: Mapping[int, FloatArray] = field(default_factory=dict)
    agreement: Mapping[int, float] = field(default_factory=dict)
    foreground: Mapping[int, ForegroundPrediction] = field(default_factory=dict)
    proposal: PromptProposal | None = None


@dataclass(frozen=True, eq=False)
class ImagePredictor:
    """Segments image after image with one prompter; a `Work` of `BatchRunner`.

    Attributes
    ----------
    prompter : SamicPrompter
    segmenter : Segmenter
    settings : SegmentSettings
    finder : ForegroundPredictor or None
        Says where objects are, in place of the references' map.
    other : Prompter or None
        Asked with the prompter's references, in place of both.
    strategy : StrategySettings
    refine : RefineSettings
    has_heat_map : bool
        Whether results for `BatchRunner` have a map, and those of tiles are put together.
    scratch : Path or None
        Folder for a file that holds the labels of an image that is read part by part, which may not
        fit into the memory; None: they are held there.
    """

    prompter: SamicPrompter
    segmenter: Any
    settings: SegmentSettings
    finder: ForegroundPredictor | None = None
    other: Prompter | None = None
    strategy: StrategySettings = field(default_factory=StrategySettings)
    refine: RefineSettings = field(default_factory=RefineSettings)
    has_heat_map: bool = True
    scratch: Path | None = None

    @property
    def normalization(self) -> Normalization:
        """Of the pixels that the prompter was trained on."""
        return Normalization.from_dict(self.prompter.normalization or {})

    @property
    def workers(self) -> int:
        """Threads that may use it at once: one with another method, or where masks are refined."""
        import torch

        may = self.other is None and self.refine == RefineSettings()
        return torch.get_num_threads() if may else 1

    def __call__(
        self,
        plane: ImagePlane,  # noqa: ARG002
        image: Image | LazyImage,
    ) -> Job[PlaneResult]:
        """Result of one plane, for `BatchRunner`."""
        result = yield from self.segment_job(image)
        if not self.has_heat_map:
            result = replace(result, heat_map=None)
        remarks = tuple(line for line in [self.size_remark(image.shape)] if line)
        return replace(to_plane_result(result, self.settings), remarks=remarks)

    def segment(self, image: Image) -> Segmentation:
        """Segment one image, (H, W, 3) uint8, in tiles if it is large."""
        return run_job(self.segment_job(image))

    def segment_job(
        self, image: Image | LazyImage, peaks: PeakSettings | None = None
    ) -> Job[Segmentation]:
        """As `segment`, with a step for each tile; `peaks` in place of the prompter's."""
        side_px = self.tile_side(image.shape)
        if side_px is None:
            return self.segment_whole(np.asarray(image), peaks)
        windows, workers = tiling.windows(image.shape, side_px), self.workers
        maps: list[ImageFeatures] = []
        reading = threading.Lock()

        def read(window: tiling.Window) -> Image:
            with reading:
                return image[window]

        if self.finder is None and self.other is None:
            look = lambda _, window: self.extract_features(read(window))  # noqa: E731
            with closing(in_order(look, windows, workers)) as features:
                for i in range(len(windows)):
                    yield JobProgress(i, len(windows), f"looking at tile {i + 1} of {len(windows)}")
                    maps.append(next(features))
            chosen = peaks or self.prompter.peaks
            maps = _leveled(maps, chosen)
            peaks = replace(chosen, normalise=False, subtract_background=False)
        settings = replace(self.settings, instances=True)

        def predict(i: int, window: tiling.Window) -> Segmentation:
            tile = read(window)
            features = maps[i] if maps else self.extract_features(tile)
            return self.predict_masks(tile, features, settings, peaks, is_tile=True)

        return (
            yield from tiling.segment_tiles(
                predict, image.shape, windows,
                instances=self.settings.instances, has_heat_map=self.has_heat_map,
                scratch=self.scratch if isinstance(image, LazyImage) else None, workers=workers,
            )
        )  # fmt: skip

    def segment_whole(self, image: Image, peaks: PeakSettings | None = None) -> Segmentation:
        """Segment one image, (H, W, 3) uint8, that the network sees as a whole."""
        return self.predict_masks(image, self.extract_features(image), peaks=peaks)

    def tile_side(self, shape: tuple[int, ...]) -> int | None:
        """Side of the tiles, in pixels, that an image of a shape is cut into; None if it is not."""
        if self.other is not None and not self.settings.tile_px:
            return None  # most of these answer with an object, whatever is in a tile
        return tiling.tile_side(shape, self._reference_px, self.settings.tile_px)

    def size_remark(self, shape: tuple[int, ...]) -> str:
        """What there is to say of an image's size beside that of the references; "" if nothing."""
        side_px, reference_px = self.tile_side(shape), self._reference_px
        if side_px is not None:
            return f"larger than the references ({reference_px} px), cut into tiles of {side_px} px"
        ratio = max(shape[:2]) / reference_px
        if ratio > tiling.RATIO:
            return (
                f"over {tiling.RATIO:g} times as large as the references, and seen as a whole: if "
                f"objects are of the same size, use --tile-px {reference_px}"
            )
        if ratio < 1 / tiling.RATIO:
            return (
                f"less than half as large as the references ({reference_px} px): if objects are of "
                "the same size, they will look too large"
            )
        return ""

    @property
    def _reference_px(self) -> int:
        sides = [side for r in self.prompter.references for side in r.image.shape[:2]]
        return int(max(sides))

    def extract_features(self, image: Image, references: Sequence[Reference] = ()) -> ImageFeatures:
        """The part that takes long, but for the masks; `references` in place of the prompter's."""
        if self.other is not None:
            support = tuple(references) or self.prompter.references
            return ImageFeatures(proposal=self.other.propose(support, image))
        if self.finder is not None:
            return ImageFeatures(foreground=self.finder.predict(image))
        return ImageFeatures(*self.prompter.maps_and_agreement(references, image))

    def heat_map(self, features: ImageFeatures, shape: tuple[int, ...]) -> HeatMap | None:
        """What says where the objects are, at the size of the image."""
        if features.proposal is not None:
            return features.proposal.heat_map
        if features.foreground:
            return HeatMap(
                np.max(
                    [prediction.foreground_prob for prediction in features.foreground.values()],
                    axis=0,
                )
            )
        return self.prompter.heat_map(features.maps, shape)

    def predict_masks(
        self,
        image: Image,
        features: ImageFeatures,
        settings: SegmentSettings | None = None,
        peaks: PeakSettings | None = None,
        *,
        is_tile: bool = False,
    ) -> Segmentation:
        """Masks, joined.

        Parameters
        ----------
        image : (H, W, 3) uint8
        features : ImageFeatures
            Of this image.
        settings : SegmentSettings, optional
            Default: the predictor's.
        peaks : PeakSettings, optional
            Default: the prompter's; not looked at with a finder.
        is_tile : bool
            Nothing may be in it; an image shows one object at least.
        """
        chosen = settings or self.settings
        if features.proposal is None and (features.foreground or not self._is_plain):
            return self._by_strategy(image, features, chosen, peaks, is_tile=is_tile)
        proposal = features.proposal or replace(
            self.prompter.proposal(features.maps, image.shape, peaks), agreement=features.agreement
        )
        if proposal.answer is not None:
            min_score, numbered = chosen.min_score, chosen.instances
            return rejoined(proposal.answer, instances=numbered, min_score=min_score)
        result: Segmentation = self.segmenter.segment(image, proposal.objects, settings=chosen)
        return replace(result, heat_map=proposal.heat_map, agreement=proposal.agreement)

    @property
    def _is_plain(self) -> bool:
        usual = self.strategy.strategy in ("auto", "peaks") and self.strategy.choice == "score"
        return usual and self.refine == RefineSettings()

    def _by_strategy(
        self,
        image: Image,
        features: ImageFeatures,
        settings: SegmentSettings,
        peaks: PeakSettings | None,
        *,
        is_tile: bool,
    ) -> Segmentation:
        maps = self._maps(features, image.shape, peaks)
        heat = np.max(list(maps.values()), axis=0)
        proposals = self._proposals(features, maps, settings, peaks, is_tile=is_tile)
        selected = prompting.query_segmenter(
            self.segmenter, image, proposals, heat, self.strategy, joining=settings
        )
        if self.refine != RefineSettings():
            selected = refinement.refine_masks(
                self.segmenter, image, selected, heat, self.refine, limits=self._shape_prior,
                back=lambda mask: self._cycle_consistency(image, mask),
            )  # fmt: skip
        return replace(prompting.joined(selected, heat, settings), agreement=features.agreement)

    def _maps(
        self, features: ImageFeatures, shape: tuple[int, ...], peaks: PeakSettings | None
    ) -> dict[int, FloatArray]:
        """Of each class at the size of the image, as strategies take them."""
        if features.foreground:
            return {
                label: prediction.foreground_prob
                for label, prediction in features.foreground.items()
            }
        peak_settings = peaks or self.prompter.peaks
        return {
            label: regions.normalized(resized(values, (shape[0], shape[1])), peak_settings)
            for label, values in features.maps.items()
        }

    def _speck_px(self, shape: tuple[int, ...]) -> float:
        side = self.finder.side_px if self.finder is not None else max(shape)
        return float(max(1.0, CELL_PX * max(shape) / side) ** 2)

    def _proposals(
        self,
        features: ImageFeatures,
        maps: Mapping[int, FloatArray],
        settings: SegmentSettings,
        peaks: PeakSettings | None,
        *,
        is_tile: bool,
    ) -> list[RegionProposal]:
        shape = next(iter(maps.values())).shape
        map_cut, min_area_px = settings.map_cut, self._speck_px(shape)
        if features.foreground and self.strategy.strategy == "auto":
            return [
                proposal
                for label, prediction in features.foreground.items()
                for proposal in regions.propose_regions(
                    prediction.foreground_prob,
                    prediction.distance_map,
                    label=label,
                    cut=map_cut,
                    core=settings.map_core,
                    min_area_px=min_area_px,
                    keep_surest=not is_tile,
                )
            ]
        if features.foreground:
            return strategies.propose(
                maps, self.strategy, ThresholdParams(map_cut, split=False, min_area_px=min_area_px)
            )
        sigma_frac = self.prompter.heat.sigma_frac
        cut = ThresholdParams.of(peaks or self.prompter.peaks, (shape[0], shape[1]), sigma_frac)
        return strategies.propose(maps, self.strategy, cut)

    @cached_property
    def _shape_prior(self) -> ShapePrior:
        instance_masks = (mask_of(r, self.segmenter) for r in self.prompter.references)
        return ShapePrior.of([masks.numbers for masks in instance_masks])

    def _cycle_consistency(self, image: Image, mask: BoolArray) -> float:
        """How bright the references' clicks of a class are in the maps that this object gives."""
        if not mask.any():
            return 0.0
        clicked = Prompts(interior_point(mask), np.array([True]))
        query = Reference("here", image, (clicked,))
        brightness = []
        for reference in self.prompter.references:
            (class_map,) = self.prompter.maps((query,), reference.image).values()
            shape = (reference.image.shape[0], reference.image.shape[1])
            map_ = regions.normalized(resized(class_map, shape), self.prompter.peaks)
            brightness.append(
                max(_mean_at_clicks(map_, reference, k) for k in labels_of(reference))
            )
        return float(np.mean(brightness)) if brightness else 0.0


def _leveled(seen: Sequence[ImageFeatures], settings: PeakSettings) -> list[ImageFeatures]:
    """Features of tiles, with maps as `peaks` levels those of a single image."""
    out = [dict(features.maps) for features in seen]
    for label in seen[0].maps:
        values = np.concatenate([maps[label].ravel() for maps in out])
        ground = float(np.median(values)) if settings.subtract_background else 0.0
        top = float(values.max()) - ground if settings.normalise else 1.0
        for maps in out:
            maps[label] = np.clip((maps[label] - ground) / max(top, 1e-12), 0, 1)
    return [replace(features, maps=maps) for features, maps in zip(seen, out, strict=True)]


def with_finetuned_decoder(segmenter: Any, prompter: SamicPrompter) -> Any:
    """The segmenter with the mask decoder that was tuned to the prompter's references, if any."""
    return segmenter if prompter.decoder is None else segmenter.with_decoder(prompter.decoder)


def _mean_at_clicks(class_map: FloatArray, reference: Reference, label: int) -> float:
    """Mean of a map at the positive points of a reference's objects of one class."""
    clicks = [p.points_rc[p.is_foreground] for p in reference.objects if p.label == label]
    pixels_rc = np.clip(
        np.rint(np.concatenate(clicks)).astype(int), 0, np.array(class_map.shape) - 1
    )
    return float(class_map[tuple(pixels_rc.T)].mean()) if len(pixels_rc) else 0.0


def to_plane_result(
    result: Segmentation, settings: SegmentSettings, numbers: tuple[int, ...] = ()
) -> PlaneResult:
    """A result for `BatchRunner`; `numbers`: lasting ones of its objects, if they last."""
    agreements = {label: round(value, 4) for label, value in result.agreement.items()}
    extra = tuple(
        {"agreement": agreements[p.label]} if p.label in agreements else {} for p in result.objects
    )
    count = len(result.scores)
    caption = f"{count} object{'s' if count != 1 else ''}, score {result.score:.2f}"
    return PlaneResult(result, caption, extra=extra, numbered=settings.instances, numbers=numbers)
