"""Random forest on the encoder's cells: the references' masks learned, and no decoder.

Every block of the backbone and the mean color are the features of a cell; as many cells of the
objects as of the background are learned. The map is the probability of a class, the answer is where
it is above a half, each piece an object. Needs no segmenter where the references have masks.

Source: Breiman, Random Forests, 2001, on pixel features as in ilastik (Berg et al., 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_samic.core.types import (
    BoolArray,
    FloatArray,
    HeatMap,
    Image,
    PromptProposal,
    Prompts,
    Reference,
    Segmentation,
    Segmenter,
)
from napari_samic.models.features.backbones import Backbone
from napari_samic.models.features.patches import PatchFeatures
from napari_samic.models.features.reference_masks import (
    FewShotCache,
    ReferenceMaskCache,
    classes_of,
)
from napari_samic.ops.shape import box_of
from napari_samic.ops.simulated_annotator import inner_maximum

CELLS = 300
"""Of each class of a reference that the forest learns from, at most."""
BUDGET = 12_000
"""Cells that it learns from in all, at most."""
CUT = 0.5
"""Probability above which a pixel is of a class."""
_EIGHT = np.ones((3, 3))


@dataclass(frozen=True, eq=False)
class FittedForest:
    """A fitted classifier and the classes of objects it knows."""

    model: Any
    classes: tuple[int, ...]


class Forest:
    """See the module.

    Parameters
    ----------
    segmenter : Segmenter or None
        For references without masks.
    references : sequence of Reference
        Used when `propose` is called without any.
    backbone : Backbone
    trees : int
    seed : int
    """

    name = "forest"

    def __init__(
        self,
        segmenter: Segmenter | None,
        references: Sequence[Reference] = (),
        *,
        backbone: Backbone,
        trees: int = 100,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.trees = trees
        self.seed = seed
        self.masks = ReferenceMaskCache(segmenter)
        self.shots = FewShotCache(self._fit, references)

    def propose(self, references: Sequence[Reference], image: Image) -> PromptProposal:
        """An object for each piece of a class; as `core.types.Prompter.propose`.

        With the pieces as its answer; an object's score is its mean probability, its prompts a
        point inside and its box. The map is the highest probability of the classes.
        """
        forest = self.shots.of(references)
        features = PatchFeatures(self.backbone, image)
        probabilities = forest.model.predict_proba(
            features.feature_matrix(color=True)
        )  # (cells, all classes)
        maps = {}
        for label in forest.classes:
            column = np.flatnonzero(forest.model.classes_ == label)
            grid = probabilities[:, column].sum(1).reshape(features.valid[0])
            maps[label] = np.clip(features.to_image(torch.from_numpy(grid)), 0, 1)
        return proposal(maps)

    def _fit(self, references: tuple[Reference, ...]) -> FittedForest:
        from sklearn.ensemble import RandomForestClassifier  # two seconds nobody else needs

        masks = [self.masks.of(r) for r in references]
        labels = tuple(classes_of(masks))
        patch_features = (
            PatchFeatures(self.backbone, r.image, s.by_class)
            for r, s in zip(references, masks, strict=True)
        )
        rng = np.random.default_rng(self.seed)
        inputs, answers = sample_cells(
            patch_features, labels, rng, most=per_class(len(references), labels)
        )
        model = RandomForestClassifier(self.trees, random_state=self.seed)
        return FittedForest(model.fit(inputs, answers), labels)


def per_class(count: int, labels: Sequence[int]) -> int:
    """Cells of each class of each of `count` references that fit into the budget."""
    return max(1, min(CELLS, BUDGET // ((1 + len(labels)) * count)))


def sample_cells(
    patch_features: Any,
    labels: Sequence[int],
    rng: np.random.Generator,
    *,
    most: int,
    color: bool = True,
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Cells of references to learn from: as many of each class as of the rest, if there are.

    Parameters
    ----------
    patch_features : iterable of PatchFeatures
        With the class of each pixel; used one after the other.
    labels : sequence of int
        Classes of the objects.
    most : int
        Cells of each class of each reference.
    color : bool
        Also the mean color of a cell.

    Returns
    -------
    inputs : (N, F) float32
    answers : (N,) int64
        Class, 0 is background.
    """
    inputs, answers = [], []
    for features in patch_features:
        flat = features.feature_matrix(color=color)
        owner = np.zeros(len(flat), np.int64)
        for label in labels:
            owner[features.inside(label).numpy().ravel()] = label
        for label in (0, *labels):
            chosen = rng.permutation(np.flatnonzero(owner == label))[:most]
            inputs.append(flat[chosen])
            answers.append(np.full(len(chosen), label))
    return np.concatenate(inputs), np.concatenate(answers)


def proposal(maps: dict[int, FloatArray]) -> PromptProposal:
    """The `components_of` of maps as an answer, under the highest of the maps.

    Parameters
    ----------
    maps : dict of int to (H, W) float32
        Probability of each class.
    """
    heat_map = HeatMap(np.max(list(maps.values()), axis=0))
    answer = components_of(maps, heat_map)
    return PromptProposal(answer.objects, heat_map, answer=answer)


def components_of(maps: dict[int, FloatArray], heat_map: HeatMap) -> Segmentation:
    """Where a map is above the cut, every 8-connected piece an object.

    Parameters
    ----------
    maps : dict of int to (H, W) float32
        Probability of each class; a pixel above the cut of two belongs to the higher.
    heat_map : HeatMap
        Passed on.
    """
    labels = np.zeros(heat_map.values.shape, np.int32)
    objects: list[Prompts] = []
    scores: list[float] = []
    for label, values in maps.items():
        others = [v for k, v in maps.items() if k != label]
        first = np.all([values > v for v in others], axis=0) if others else True
        numbers, count = ndimage.label((values > CUT) & first, structure=_EIGHT)
        for k in range(1, count + 1):
            mask = numbers == k
            objects.append(_prompts(mask, label))
            scores.append(float(values[mask].mean()))
            labels[mask] = len(objects)
    return Segmentation(labels, np.array(scores, np.float32), tuple(objects), heat_map)


def _prompts(mask: BoolArray, label: int) -> Prompts:
    return Prompts(inner_maximum(mask)[None], np.array([True]), box_of(mask), label)
