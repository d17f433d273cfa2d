"""The SAMIC prompter: where are the objects of these references in that image?

Frozen features, hypercorrelation with each reference under its heat map, the learner's map, the
mean over the references, peaks. Learning is in `trainer`, the file in `serialization`.

Source: SAMIC, sections 3.2 to 3.4.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_samic.core.errors import PromptError
from napari_samic.core.settings import (
    HeatMapSettings,
    PeakSettings,
    PrompterSettings,
    TrainSettings,
)
from napari_samic.core.types import (
    FloatArray,
    HeatMap,
    Image,
    Job,
    PromptProposal,
    Prompts,
    Reference,
)
from napari_samic.models.features.backbones import Backbone, Levels
from napari_samic.models.finetune.checkpointing import TrainingControl
from napari_samic.models.finetune.encoder import FinetuneReport
from napari_samic.models.finetune.network import ForegroundPredictor
from napari_samic.models.hub import devices
from napari_samic.models.samic import aggregation, trainer
from napari_samic.models.samic.episodes import labels_of
from napari_samic.models.samic.fit_report import FitReport
from napari_samic.models.samic.hsnet import HyperCorrelationLearner
from napari_samic.models.samic.hypercorrelation import (
    NormalizedFeatures,
    correlate,
    prepare_reference,
    prepare_target,
)
from napari_samic.ops import heatmaps
from napari_samic.ops.peaks import peaks


class SamicPrompter:
    """Proposes prompts by comparing an image with annotated references.

    Parameters
    ----------
    backbone : Backbone
    settings : PrompterSettings, optional
    heat : HeatMapSettings, optional
    peaks : PeakSettings, optional
    seed : int
        Of the learner's first weights.

    Attributes
    ----------
    learner : HyperCorrelationLearner
    center : list of list of (1, C, 1, 1) Tensor, or None
        Mean feature of each block, subtracted before features are compared.
    references : tuple of Reference
        Used when `propose` is called without any.
    normalization : dict or None
        How raw pixels of this data set became 8-bit RGB.
    report : FitReport or None
    finder : ForegroundPredictor or None
        The encoder fine-tuned to the references, if that helped; then it says where objects
        are, and the map of the references is a second opinion.
    growth : FinetuneReport or None
        How that went.
    decoder : dict of str to Tensor or None
        Weights of the segmenter's mask decoder, tuned to the references, if that helped.
    tuning : FinetuneReport or None
        How that went.
    batch_size : int
        References that an image is compared with at once; 0: one on the CPU, where more is slower,
        else 8. Halved for good when memory runs out.
    """

    name = "samic"

    def __init__(
        self,
        backbone: Backbone,
        *,
        settings: PrompterSettings | None = None,
        heat: HeatMapSettings | None = None,
        peaks: PeakSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.settings = settings or PrompterSettings()
        self.heat = heat or HeatMapSettings()
        self.peaks = peaks or PeakSettings()
        blank = backbone.features(np.zeros((64, 64, 3), np.uint8))
        inch = (len(blank[2]), len(blank[1]), len(blank[0]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            learner = HyperCorrelationLearner(inch, self.settings.layers)
        self.learner = learner.to(backbone.device).eval()
        self.center: Levels | None = None
        self.references: tuple[Reference, ...] = ()
        self.normalization: dict[str, Any] | None = None
        self.report: FitReport | None = None
        self.finder: ForegroundPredictor | None = None
        self.growth: FinetuneReport | None = None
        self.decoder: dict[str, Tensor] | None = None
        self.tuning: FinetuneReport | None = None
        self.batch_size = 0
        self._prepared: OrderedDict[tuple[int, int], tuple[Reference, NormalizedFeatures]] = (
            OrderedDict()
        )
        self._embedded: WeakKeyDictionary[Reference, Tensor] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def fit(
        self,
        references: Sequence[Reference],
        settings: TrainSettings | None = None,
        control: TrainingControl | None = None,
    ) -> Job[FitReport]:
        """Learn from the references; a job. Keeps the old weights if the new ones are worse."""
        return trainer.fit(self, references, settings or TrainSettings(), control)

    def clear_caches(self) -> None:
        """Drop what was computed for references: after `center` changed."""
        self._prepared.clear()
        self._embedded.clear()

    def copy(self) -> SamicPrompter:
        """The same weights and references, with a cache of its own for what it computes of them."""
        other = copy.copy(self)
        other._prepared, other._embedded = OrderedDict(), WeakKeyDictionary()
        other._lock = threading.Lock()
        return other

    def map_of(self, objects: Sequence[Prompts], shape: tuple[int, ...]) -> Tensor:
        """Heat map of prompts in the network's frame, (1, S, S) float32."""
        drawn = heatmaps.from_prompts(
            objects, self.backbone.frame(shape), self.backbone.map_px, self.heat
        )
        return torch.from_numpy(np.array(drawn.values))[None].to(self.backbone.device)

    def prepare_target(self, image: Image) -> NormalizedFeatures:
        """Features of an image, normalized once for all its references."""
        return prepare_target(self.backbone.features(image), self.center)

    def prepare_reference(self, reference: Reference, label: int) -> NormalizedFeatures:
        """Features of a reference under the heat map of one class; the last few are kept."""
        key = (id(reference), label)
        with self._lock:
            if key not in self._prepared:
                objects = [p for p in reference.objects if p.label == label]
                mode = self.settings.mask_mode
                features = prepare_reference(
                    self.backbone.features(reference.image),
                    self.map_of(objects, reference.image.shape),
                    self.center,
                    mask_mode="weighted" if mode == "weighted" else "faithful",
                )
                self._prepared[key] = (reference, features)  # holding it keeps its id its own
                while len(self._prepared) > 4 * max(self.settings.keeps, len(self.references)):
                    self._prepared.popitem(last=False)
            self._prepared.move_to_end(key)
            return self._prepared[key][1]

    def network_map(self, references: Sequence[Reference], image: Image, label: int = 1) -> Tensor:
        """Mean map of the references for one class in the network's frame, (S, S) in [0, 1]."""
        chosen = aggregation.references_of_class(references, label)
        singles = self._single_maps(chosen, self.prepare_target(image), label)
        return aggregation.weighted_mean(singles, self.settings.weigh)

    def propose(
        self,
        references: Sequence[Reference],
        image: Image,
        weights: Sequence[float] | None = None,
    ) -> PromptProposal:
        """Prompts for an image: one object for each peak.

        Parameters
        ----------
        references : sequence of Reference
            As in `maps_and_agreement`.
        image : (H, W, 3) uint8
        weights : sequence of float, optional
            As in `maps_and_agreement`.

        Returns
        -------
        PromptProposal
            Objects in pixels of `image`; the heat map is the highest over the classes.

        Raises
        ------
        PromptError
            No reference at all.
        InputError
            Weights that don't fit.
        """
        maps, agreement = self.maps_and_agreement(references, image, weights)
        return replace(self.proposal(maps, image.shape), agreement=agreement)

    def maps(self, references: Sequence[Reference], image: Image) -> dict[int, FloatArray]:
        """The part of `propose` that takes long: a map of each class.

        Returns
        -------
        dict of int to (h, w) float32
            By class; the part of the network's frame that shows the image.

        Raises
        ------
        PromptError
            No reference at all.
        """
        return self.maps_and_agreement(references, image)[0]

    def maps_and_agreement(
        self,
        references: Sequence[Reference],
        image: Image,
        weights: Sequence[float] | None = None,
    ) -> tuple[dict[int, FloatArray], dict[int, float]]:
        """The `maps`, and how alike the references' own maps are, of each class with several.

        Parameters
        ----------
        references : sequence of Reference
            Empty: those of the training. Where `settings.serve` is nearest it chooses among those
            of the training; others that are given, as frames of a memory, always serve.
        image : (H, W, 3) uint8
        weights : sequence of float, optional
            How much each reference counts in the mean, from 0: as if it were not given. Default:
            all the same. Multiplied with what `settings.weigh` says.

        Raises
        ------
        PromptError
            No reference at all, or none with a weight above 0.
        InputError
            Another number of weights than references, or one that is negative or not finite.
        """
        references = tuple(references) or self.references
        shares = None if weights is None else aggregation.checked(weights, references)
        if shares is not None:
            references = tuple(r for r in references if shares[id(r)] > 0)
        labels = sorted({label for r in references for label in labels_of(r)})
        if not labels:
            raise PromptError("no reference with a prompt. Annotate an image, or train first.")
        device = self.backbone.device
        try:
            return self._class_maps(references, image, labels, shares)
        except RuntimeError:
            if self.backbone.device == device:
                raise
        return self._class_maps(references, image, labels, shares)  # it has moved in between

    def _class_maps(
        self,
        references: Sequence[Reference],
        image: Image,
        labels: Sequence[int],
        shares: Mapping[int, float] | None,
    ) -> tuple[dict[int, FloatArray], dict[int, float]]:
        """As `maps_and_agreement`, of these classes."""
        self._follow_backbone()
        levels = self.backbone.features(image)
        target = prepare_target(levels, self.center)
        rows, columns = self._frame_part(image.shape)
        maps, agreement = {}, {}
        for label in labels:
            chosen = self._references_for(
                aggregation.references_of_class(references, label), levels, image.shape
            )
            singles = self._single_maps(chosen, target, label)[:, :rows, :columns]
            each = None if shares is None else [shares[id(r)] for r in chosen]
            maps[label] = (
                aggregation.weighted_mean(singles, self.settings.weigh, each).cpu().numpy()
            )
            if len(singles) > 1:
                agreement[label] = heatmaps.agreement(singles.cpu().numpy())
        return maps, agreement

    def proposal(
        self,
        maps: Mapping[int, FloatArray],
        shape: tuple[int, ...],
        settings: PeakSettings | None = None,
    ) -> PromptProposal:
        """Prompts out of the `maps` of an image of `shape`: the part of `propose` that is quick.

        Parameters
        ----------
        maps : dict of int to (h, w) float32
        shape : tuple of int
            (H, W, ...) of the image.
        settings : PeakSettings, optional
            Default: `peaks`.
        """
        chosen = settings or self.peaks
        objects = [
            prompts
            for label, values in maps.items()
            for prompts in self._peaks(values, shape, label, chosen)
        ]
        return PromptProposal(tuple(objects), self.heat_map(maps, shape))

    def heat_map(self, maps: Mapping[int, FloatArray], shape: tuple[int, ...]) -> HeatMap:
        """The highest of the `maps` at the size of an image of `shape`."""
        highest = torch.from_numpy(np.max(list(maps.values()), axis=0))[None, None]
        full = F.interpolate(highest, size=(shape[0], shape[1]), mode="bilinear")[0, 0]
        return HeatMap(full.numpy())

    def _references_for(
        self, references: Sequence[Reference], levels: Levels, shape: tuple[int, ...]
    ) -> list[Reference]:
        """Those of one class that serve a target with these features."""
        own = [i for i, r in enumerate(references) if r in self.references]
        if self.settings.serve != "nearest" or len(own) <= self.settings.shots:
            return list(references)
        embeddings = [self._embedding_of(references[i]) for i in own]
        chosen = aggregation.nearest(
            embeddings, self._embedding(levels, shape), self.settings.shots
        )
        left_out = set(own) - {own[k] for k in chosen}
        return [r for i, r in enumerate(references) if i not in left_out]

    def _embedding_of(self, reference: Reference) -> Tensor:
        with self._lock:
            if reference not in self._embedded:
                levels = self.backbone.features(reference.image)
                self._embedded[reference] = self._embedding(levels, reference.image.shape)
            return self._embedded[reference]

    def _embedding(self, levels: Levels, shape: tuple[int, ...]) -> Tensor:
        center = None if self.center is None else self.center[-1]
        return aggregation.embedding(levels[-1], center, shape, self.backbone.frame(shape))

    def _single_maps(
        self, references: Sequence[Reference], target: NormalizedFeatures, label: int
    ) -> Tensor:
        """Map of each of these references of a class, (K, S, S)."""
        count = self.batch_size or (1 if self.backbone.device.type == "cpu" else 8)
        size = (self.backbone.map_px, self.backbone.map_px)
        prepared = [self.prepare_reference(r, label) for r in references]
        batches = [
            NormalizedFeatures.join(prepared[i : i + count]) for i in range(0, len(prepared), count)
        ]
        try:
            with torch.inference_mode():
                maps = [self.learner.predict(correlate(target, b), size) for b in batches]
            return torch.cat(maps)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error) or count == 1:
                raise
        devices.release(self.backbone.device)
        self.batch_size = count // 2
        return self._single_maps(references, target, label)

    def _follow_backbone(self) -> None:
        """To the device that it is on; a segmenter goes to the CPU when its memory is full."""
        device = self.backbone.device  # "cuda" is "cuda:0" to what lies there
        if next(self.learner.parameters()).device.type == device.type:
            return
        self.learner.to(device)
        if self.center is not None:
            self.center = [[mean.to(device) for mean in level] for level in self.center]
        self.clear_caches()

    def _frame_part(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of the map that show the image, not padding."""
        frame, side = self.backbone.frame(shape), self.backbone.map_px
        rows, columns = (max(1, round(side * n / f)) for n, f in zip(shape[:2], frame, strict=True))
        return rows, columns

    def _peaks(
        self, values: Any, shape: tuple[int, ...], label: int, settings: PeakSettings
    ) -> list[Prompts]:
        size, side = (shape[0], shape[1]), self.backbone.map_px
        sigma_frac = self.heat.sigma_frac * side / values.size**0.5  # of the part without padding
        points = peaks(HeatMap(values), size, settings, sigma_frac)
        limit = np.array(shape[:2]) - 1
        return [Prompts(np.clip(p, 0, limit)[None], np.array([True]), label=label) for p in points]
