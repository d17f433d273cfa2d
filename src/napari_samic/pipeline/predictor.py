"""One image: where its objects are, and their masks.

With a finder the proposals come from its maps, and the segmenter's mask is the one that is most
like them; without one they are the peaks of the references' mean map, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
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
    Prompter,
    PromptProposal,
    Prompts,
    Reference,
    Segmentation,
)
from napari_samic.io.normalize import Normalization
from napari_samic.models.features.reference_masks import mask_of
from napari_samic.models.finetune.network import ForegroundPrediction, ForegroundPredictor
from napari_samic.models.samic.episodes import labels_of
from napari_samic.models.samic.prompter import SamicPrompter
from napari_samic.models.video.optical_flow import resized
from napari_samic.ops.label_fusion import rejoined
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
    """

    prompter: SamicPrompter
    segmenter: Any
    settings: SegmentSettings
    finder: ForegroundPredictor | None = None
    other: Prompter | None = None
    strategy: StrategySettings = field(default_factory=StrategySettings)
    refine: RefineSettings = field(default_factory=RefineSettings)

    @property
    def normalization(self) -> Normalization:
        """Of the pixels that the prompter was trained on."""
        return Normalization.from_dict(self.prompter.normalization or {})

    def __call__(self, plane: ImagePlane, image: Image) -> PlaneResult:  # noqa: ARG002
        """Result of one plane, for `BatchRunner`."""
        return to_plane_result(self.segment(image), self.settings)

    def segment(self, image: Image) -> Segmentation:
        """Segment one image, (H, W, 3) uint8."""
        return self.predict_masks(image, self.extract_features(image))

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
        """
        chosen = settings or self.settings
        if features.proposal is None and (features.foreground or not self._is_plain):
            return self._by_strategy(image, features, chosen, peaks)
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
    ) -> Segmentation:
        maps = self._maps(features, image.shape, peaks)
        heat = np.max(list(maps.values()), axis=0)
        proposals = self._proposals(features, maps, settings, peaks)
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
    result: Segmentation, settings: SegmentSettings, identities: Sequence[int] = ()
) -> PlaneResult:
    """A result for `BatchRunner`; `identities`: lasting numbers of its objects, if they last."""
    agreements = {label: round(value, 4) for label, value in result.agreement.items()}
    extra: dict[int, dict[str, Any]] = {id(p): {} for p in result.objects}
    for p, number in zip(result.objects, identities, strict=bool(identities)):
        extra[id(p)]["identity"] = number
    for p in result.objects:
        if p.label in agreements:
            extra[id(p)]["agreement"] = agreements[p.label]
    count = len(result.scores)
    caption = f"{count} object{'s' if count != 1 else ''}, score {result.score:.2f}"
    return PlaneResult(result, caption, extra=extra, numbered=settings.instances)
