"""Segmenters of SAM's kind: encode an image once, then answer prompt after prompt.

The packaged `tiny`, SAM ViT-B, L and H, MobileSAM, MedSAM and a user's own file; any network with
segment-anything's three parts will do. (row, column) becomes (x, y) in `decoding` and nowhere else.
Must not know files of images, napari, or how points were found.

Source: Kirillov et al., Segment Anything, ICCV 2023.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast
from weakref import WeakValueDictionary

import torch

from napari_samic.core.errors import FormatError, ModelError, PluginError
from napari_samic.core.settings import SegmentSettings
from napari_samic.core.types import (
    Candidates,
    FloatArray,
    HeatMap,
    Image,
    Prompts,
    Segmentation,
    Segmenter,
)
from napari_samic.io.cache import ArrayCache
from napari_samic.models.hub import devices, registry
from napari_samic.models.sam import decoding, encoding, engine
from napari_samic.models.sam.decoding import PromptQuery
from napari_samic.models.sam.encoding import ImageEmbedding, IntermediateFeatures
from napari_samic.models.sam.engine import Engine
from napari_samic.ops.label_fusion import add_rival_clicks, join

__all__ = ["IntermediateFeatures", "SamSegmenter", "build", "load_segmenter"]

_in_use: WeakValueDictionary[tuple[str, str], Any] = WeakValueDictionary()
_loading = threading.Lock()


class SamSegmenter:
    """Prompts to masks, by any network of segment-anything's kind.

    Threads may share it; prompts wait for each other.

    Parameters
    ----------
    sam : segment_anything.modeling.Sam
        Or alike: `image_encoder`, `prompt_encoder`, `mask_decoder`, `pixel_mean`, `pixel_std`,
        `mask_threshold`. Moved to `device` and set to eval mode. If the encoder has a method
        `encode(x) -> (embedding, three lists of taps)`, that is used; else blocks of a ViT are
        tapped on the way.
    name : str
    weights_sha256 : str
        Part of the cache key.
    device : str or torch.device
        "auto": CUDA, else MPS, else CPU.
    cache : ArrayCache, optional
        Where encoded images are kept, in half precision. With a cache, fresh ones are rounded too,
        so that an answer never depends on where its encoding came from.
    batch_size : int
        Prompts decoded at once unless the settings of `segment` say otherwise; 0: 2 on the CPU,
        where more is hardly faster and takes memory, else 8. Halved for good when memory runs out.

    Raises
    ------
    ModelError
        A device that this machine lacks.
    """

    def __init__(
        self,
        sam: Any,
        *,
        name: str,
        weights_sha256: str = "",
        device: str | torch.device = "auto",
        cache: ArrayCache | None = None,
        batch_size: int = 0,
    ) -> None:
        self.name = name
        self.weights_sha256 = weights_sha256
        self._engine = Engine(sam, name, weights_sha256, device, cache, batch_size)

    @property
    def device(self) -> torch.device:
        """Where it computes now; the CPU after the first device ran out of memory."""
        return self._engine.device

    @property
    def engine(self) -> Engine:
        """What runs the network, for ways of decoding that are not SAM's own."""
        return self._engine

    @property
    def side_px(self) -> int:
        """Side of the network's square input."""
        return int(self._engine.network.image_encoder.img_size)

    @property
    def single_is_first(self) -> bool:
        """Whether the network's one mask is the first of its three, from the same pass."""
        return bool(getattr(self._engine.network.mask_decoder, "single_is_first", False))

    def with_decoder(self, state: Mapping[str, torch.Tensor]) -> SamSegmenter:
        """The same segmenter with a fine-tuned mask decoder (see `finetune_mask_decoder`).

        On the CPU both share the encoder and what is encoded. Elsewhere each has its own network,
        because an engine moves it to the CPU when memory runs out.

        Raises
        ------
        FormatError
            Weights of another network.
        """
        network = self._engine.network
        decoder = copy.deepcopy(network.mask_decoder)
        try:
            decoder.load_state_dict(state)
        except (RuntimeError, AttributeError) as error:
            msg = f"the tuned mask decoder does not fit {self.name}. Train again."
            raise FormatError(msg) from error
        other = copy.copy(self)
        other._engine = self._engine.with_network(engine.with_mask_decoder(network, decoder))
        return other

    def precompute(self, image: Image) -> None:
        """Encode an image now, so that the first answer for it comes at once.

        Parameters
        ----------
        image : (H, W, 3) uint8

        Raises
        ------
        InputError
            Not such an image.
        """
        self._engine.encode_image(image)

    def taps(self, image: Image) -> IntermediateFeatures:
        """Features of three depths, from the same pass as the embedding.

        Parameters
        ----------
        image : (H, W, 3) uint8

        Returns
        -------
        IntermediateFeatures
            Fine to coarse, grids of 32, 16 and 8 over the padded square, on `device`.

        Raises
        ------
        InputError
            Not such an image.
        """
        encoded = self._engine.encode_image(image)
        levels = [[t.clone() for t in level] for level in encoded.levels]  # autograd takes clones
        rows, columns = encoded.input_hw
        return IntermediateFeatures(levels, (rows / self.side_px, columns / self.side_px))

    def embedding(self, image: Image) -> FloatArray:
        """What the encoder made of an image, (D, h, w) float32 without the padding."""
        return self._engine.encode_image(image).without_padding(self.side_px)

    def candidates(
        self,
        image: Image,
        objects: Sequence[Prompts],
        *,
        multimask: bool = True,
        logits: Sequence[FloatArray | None] | None = None,
    ) -> list[Candidates]:
        """Masks and confidences for each object.

        Parameters
        ----------
        image : (H, W, 3) uint8
        objects : sequence of Prompts
            Rows and columns in pixels of `image`.
        multimask : bool
            Three masks for each object (for an ambiguous prompt), or one.
        logits : sequence of (h, w) float32 or None, optional
            For each object, one of the `logits` of an earlier answer.

        Returns
        -------
        list of Candidates
            In the order of `objects`; masks at the size of `image`, scores in [0, 1].

        Raises
        ------
        InputError
            Not such an image.
        PromptError
            An empty prompt, one outside the image, or logits of another number or shape.
        """
        queries = self._queries(image, objects, logits)
        encoded = self._engine.encode_image(image)
        with self._engine.lock:
            answers = self._engine.decode_prompts(encoded, queries, multimask=multimask)
            return [
                Candidates(self._engine.to_image(low, encoded), scores.numpy(), low.numpy())
                for low, scores in answers
            ]

    def segment(
        self,
        image: Image,
        objects: Sequence[Prompts],
        *,
        settings: SegmentSettings | None = None,
        heat_map: HeatMap | None = None,
    ) -> Segmentation:
        """Best mask of each object, joined.

        Parameters
        ----------
        image : (H, W, 3) uint8
        objects : sequence of Prompts
            May be empty: then nothing is found.
        settings : SegmentSettings, optional
        heat_map : HeatMap, optional
            Passed on to the result.

        Returns
        -------
        Segmentation
            With the objects as they were given, without what `tell_apart` added.

        Raises
        ------
        InputError, PromptError
            As `candidates`.
        """
        chosen = settings or SegmentSettings()
        queries = self._queries(image, objects)
        masks: list[Any] = []
        scores: list[float] = []
        if objects:
            encoded = self._engine.encode_image(image)
            with self._engine.lock:
                masks, scores = self._best(encoded, queries, chosen)
        return join(
            masks,
            scores,
            objects,
            shape=(image.shape[0], image.shape[1]),
            instances=chosen.instances,
            min_score=chosen.min_score,
            duplicate_iou=chosen.duplicate_iou,
            drop_covered=chosen.drop_covered,
            heat_map=heat_map,
        )

    def _best(
        self, encoded: ImageEmbedding, queries: Sequence[PromptQuery], settings: SegmentSettings
    ) -> tuple[list[Any], list[float]]:
        masks, scores = self._highest_scored(encoded, queries, settings)
        apart = settings.tell_apart and settings.instances
        narrower = add_rival_clicks(masks, [q.prompts for q in queries]) if apart else {}
        if narrower:
            again = [PromptQuery(i, prompts) for i, prompts in narrower.items()]
            for query, mask, score in zip(
                again, *self._highest_scored(encoded, again, settings), strict=True
            ):
                if score >= scores[query.place]:
                    masks[query.place], scores[query.place] = mask, score
        return masks, scores

    def _highest_scored(
        self, encoded: ImageEmbedding, queries: Sequence[PromptQuery], settings: SegmentSettings
    ) -> tuple[list[Any], list[float]]:
        """Only the chosen masks are brought to the image's size: the others cost memory."""
        answers = self._engine.decode_prompts(
            encoded,
            queries,
            multimask=settings.mask_choice == "score",
        )
        best = [(low, scores, int(scores.argmax())) for low, scores in answers]
        masks = [self._engine.to_image(low[i : i + 1], encoded)[0] for low, _, i in best]
        return masks, [float(scores[i]) for _, scores, i in best]

    def _queries(
        self,
        image: Image,
        objects: Sequence[Prompts],
        logits: Sequence[FloatArray | None] | None = None,
    ) -> list[PromptQuery]:
        encoding.check_image(image)
        logits_hw = self._engine.network.prompt_encoder.mask_input_size
        return decoding.make_queries(objects, logits, image.shape[:2], tuple(logits_hw))


def build(
    name: str = "tiny", *, device: str | torch.device = "auto", cache: ArrayCache | None = None
) -> SamSegmenter:
    """Make the segmenter of a registered model or of a file.

    Parameters
    ----------
    name : str
        As in `registry.spec`: of the table, of an imported file, or `path:FILE`.
    device : str or torch.device
    cache : ArrayCache, optional

    Returns
    -------
    SamSegmenter

    Raises
    ------
    ModelError
        Unknown, not a segmenter, or a device that this machine lacks.
    WeightsError
        No weights, or others than the checksum says.
    FormatError
        A file that holds something else.
    """
    spec = registry.spec(name)
    if spec.role != "segmenter":
        raise ModelError(f"{name}: is an {spec.role}, not a segmenter.")
    sha256 = registry.weights_sha256(name)
    network = _network(name, sha256, devices.pick(device))
    return SamSegmenter(network, name=name, weights_sha256=sha256, device=device, cache=cache)


def _network(name: str, sha256: str, device: torch.device) -> Any:
    """A loaded network; on the CPU the same for all who ask while it is in use.

    Elsewhere each has its own, because an engine moves it to the CPU when memory runs out.
    """
    with _loading:
        network = _in_use.get((name, sha256)) if device.type == "cpu" else None
        if network is None:
            network = registry.builder(name)(registry.locate(name))
            if device.type == "cpu":
                _in_use[name, sha256] = network
        return network


def load_segmenter(
    name: str = "tiny", *, device: str | torch.device = "auto", cache: ArrayCache | None = None
) -> Segmenter:
    """Make a segmenter by name: ours as `build` does, else another package's class, called bare.

    Raises
    ------
    ModelError, WeightsError, FormatError
        As `build`.
    PluginError
        Another package's class that can't be imported or made, or lacks methods.
    """
    others = registry.plugins("segmenters")
    if name not in others or name in {s.name for s in registry.specs()}:
        return build(name, device=device, cache=cache)
    plugin_class = others[name]
    try:
        return cast(Segmenter, plugin_class())
    except Exception as error:  # a stranger's class may raise anything
        raise PluginError(f"plugin {name}: can't be made ({error}).") from error
