"""One network on one device: runs it, remembers encoded images, survives a full memory.

When memory runs out the batch is halved for good; at one prompt, or while encoding, all work moves
to the CPU. Each says so once, as a warning. Must not know what prompts mean.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from napari_samic.core.types import BoolArray, Image
from napari_samic.io.cache import ArrayCache
from napari_samic.models.hub import devices
from napari_samic.models.sam import decoding, encoding
from napari_samic.models.sam.decoding import PromptQuery
from napari_samic.models.sam.encoding import ImageEmbedding

IN_MEMORY = 4
"""Encoded images that are kept in memory."""
T = TypeVar("T")
Answer = tuple[Tensor, Tensor]
"""Of one object: low-resolution logits (M, h, w) and scores (M,), on the CPU."""


class Engine:
    """See the module.

    Threads may share it: `encode_image` looks after itself, for all else hold `lock`.

    Parameters
    ----------
    network : Sam
        Moved to `device`, set to eval mode.
    name : str
        For warnings.
    weights_sha256 : str
    device : str or torch.device
    cache : ArrayCache or None
    batch_size : int
        What its owner asks for unless told otherwise; 0: what suits the device.

    Attributes
    ----------
    quick : bool
        Whether SAM's encoders compute in 16 bits where the device is made for that; what they
        answer is 0.8 % off then.
    """

    def __init__(
        self,
        network: Any,
        name: str,
        weights_sha256: str,
        device: str | torch.device,
        cache: ArrayCache | None,
        batch_size: int,
    ) -> None:
        self.network = network.eval()
        self.device = devices.pick(device)
        self.batch_size = batch_size or (2 if self.device.type == "cpu" else 8)
        self._limit: int | None = None  # set when memory ran out
        self._name = name
        self._weights_sha256 = weights_sha256
        self._cache = cache
        self._keys = cache or ArrayCache()
        self._recent: OrderedDict[str, ImageEmbedding] = OrderedDict()
        self.quick = True
        self._look: Callable[[Tensor], encoding.Look] | None = None
        self.lock, self._encoding = threading.Lock(), threading.Lock()
        if device == devices.OPENVINO:
            self._look = encoding.OpenVinoEncoder(self.network.image_encoder).look
        self._run_with_oom_fallback(lambda: self.network.to(self.device))

    def with_network(self, network: Any) -> Engine:
        """The same with another decoder; with what is encoded already, where nothing can move."""
        if not self._is_at_last_resort:
            network_copy = copy.deepcopy(network)
            return Engine(network_copy, self._name, self._weights_sha256, self.device, self._cache,
                          self.batch_size)  # fmt: skip
        other = copy.copy(self)
        other.network = network
        return other

    def encode_image(self, image: Image) -> ImageEmbedding:
        """From memory, else from disk, else by a pass of the encoder; not to be called with `lock`.

        A pass takes seconds with a large network. On the CPU, prompts on known images are answered
        meanwhile; another device may run out of memory, and then everything moves.

        Raises
        ------
        InputError
            Not (H, W, 3) uint8.
        """
        encoding.check_image(image)
        key = self._keys.key(image, self._weights_sha256, encoding.VERSION)
        if (cached := self._recall(key)) is not None:
            return cached
        with self._encoding:
            if (cached := self._recall(key)) is not None:  # another thread wanted it as well
                return cached
            with nullcontext() if self._is_at_last_resort else self.lock:
                embedding = self._from_disk(image, key) or self._fresh(image, key)
            with self.lock:
                self._recent[key] = embedding
                while len(self._recent) > IN_MEMORY:
                    self._recent.popitem(last=False)
            return embedding

    def _recall(self, key: str) -> ImageEmbedding | None:
        with self.lock:
            if key in self._recent:
                self._recent.move_to_end(key)
            return self._recent.get(key)

    def _from_disk(self, image: Image, key: str) -> ImageEmbedding | None:
        arrays = self._cache.get(key) if self._cache is not None else None
        if arrays is None or "embedding" not in arrays:
            return None
        image_hw = (image.shape[0], image.shape[1])
        input_hw = encoding.input_size(image_hw, int(self.network.image_encoder.img_size))
        return self._run_with_oom_fallback(
            lambda: encoding.unpack(arrays, input_hw, image_hw, self.device)
        )

    def _fresh(self, image: Image, key: str) -> ImageEmbedding:
        new = self._run_with_oom_fallback(
            lambda: encoding.encode(
                image, self.network, self.device, look=self._look, quick=self.quick
            )
        )
        if self._cache is None:
            return new
        arrays = encoding.pack(new)
        self._cache.put(key, arrays)
        return encoding.unpack(arrays, new.input_hw, new.image_hw, self.device)

    def decode_prompts(
        self,
        encoded: ImageEmbedding,
        queries: Sequence[PromptQuery],
        *,
        multimask: bool,
        batch_size: int = 0,
    ) -> list[Answer]:
        """Decode all questions, like with like, `batch_size` at once unless another is given.

        Returns
        -------
        list of Answer
            In the order of the questions' places; scores in [0, 1].
        """
        by_place: dict[int, Answer] = {}
        for batch in decoding.group_by_prompt_shape(queries, batch_size or self.batch_size):
            logits, scores = self._decoded(encoded, batch, multimask)
            for query, *answer in zip(batch, logits, scores, strict=True):
                by_place[query.place] = (answer[0], answer[1])
        return [by_place[place] for place in sorted(by_place)]

    def _decoded(
        self, encoded: ImageEmbedding, batch: list[PromptQuery], multimask: bool
    ) -> Answer:
        """(B, M, h, w) logits and (B, M) scores; in halves if memory runs out."""

        def ask() -> Answer:
            here = encoded.to(self.device)
            logits, scores = decoding.decode(self.network, here, batch, multimask=multimask)
            return logits.cpu(), scores.clamp(0, 1).cpu()

        if len(batch) == 1:
            return self._run_with_oom_fallback(ask)
        if self._limit is not None and len(batch) > self._limit:
            parts = decoding.group_by_prompt_shape(batch, self._limit)
            logits, scores = zip(
                *(self._decoded(encoded, p, multimask) for p in parts), strict=True
            )
            return torch.cat(logits), torch.cat(scores)
        try:
            with torch.inference_mode():
                return ask()
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
        self._limit = len(batch) // 2
        self._warn(f"is out of memory; prompts are decoded {self._limit} at a time from now on")
        return self._decoded(encoded, batch, multimask)

    def to_image(self, logits: Tensor, encoded: ImageEmbedding) -> BoolArray:
        """(M, h, w) logits of one object to (M, H, W) bool at the size of the image."""
        return self._run_with_oom_fallback(
            lambda: decoding.to_image(logits.to(self.device), self.network, encoded)
        )

    @property
    def _is_at_last_resort(self) -> bool:
        return self.device == torch.device("cpu")

    def _run_with_oom_fallback(self, work: Callable[[], T]) -> T:
        """Run without gradients; if the device's memory is full, once more on the CPU."""
        try:
            with torch.inference_mode():
                return work()
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error) or self._is_at_last_resort:
                raise
        self._warn("is out of memory; continuing on the CPU, which is slower")
        full, last = self.device, torch.device("cpu")
        self.network.to(last)
        self._recent = OrderedDict((k, e.to(last)) for k, e in self._recent.items())
        self.device = last  # only now: who looks at it must find all there
        devices.release(full)
        with torch.inference_mode():
            return work()

    def _warn(self, what: str) -> None:
        warnings.warn(f"{self._name}: {self.device} {what}.", RuntimeWarning, stacklevel=2)
        devices.release(self.device)


def with_mask_decoder(network: Any, decoder: nn.Module) -> Any:
    """The network with another mask decoder; all else is the very same."""
    other = copy.copy(network)
    other._modules = {**network._modules, "mask_decoder": decoder}
    return other
