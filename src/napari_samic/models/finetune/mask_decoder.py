"""Fine-tuning of the segmenter's mask decoder to a few references, its encoder frozen.

It is prompted for the references' objects as it will be later: by a box, an inner point and a map,
all three from an outline that was perturbed at random, or by less. Whether that helped is for the
caller to judge. Works with any network of segment-anything's kind.

Source: loss of Kirillov et al., Segment Anything, ICCV 2023 (20 focal + Dice, error of the score);
tuning the decoder alone as in MedSAM (Ma et al., Nature Communications 2024); perturbed outlines as
in CascadePSP (Cheng et al., CVPR 2020).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from napari_samic.core.settings import MASK_STRENGTH, AdaptSettings
from napari_samic.core.types import BoolArray, FloatArray, Job, JobProgress, Prompts
from napari_samic.models import losses
from napari_samic.models.finetune.dataset import ReferenceSample
from napari_samic.models.finetune.encoder import EMA, WARMUP, FinetuneReport
from napari_samic.models.finetune.trainer import Trainer
from napari_samic.models.sam import decoding, engine
from napari_samic.models.sam.decoding import PromptQuery
from napari_samic.models.sam.encoding import ImageEmbedding
from napari_samic.ops.shape import window_of

State = dict[str, Tensor]
"""Weights of a mask decoder."""
SAMPLES = 64
"""References that are learned from, drawn by the seed: their embeddings stay in memory."""
PER_SAMPLE = 32
"""Objects of a reference that are learned from, drawn by the seed."""
OBJECTS = 4
"""Of one image, in a batch."""
RATE = 1e-4
"""Highest learning rate, of AdamW."""
WITH_MAP = ((0.6, "box point map"), (0.15, "point"), (0.15, "box"), (0.1, "point map"))
BY_POINT = ((0.7, "point"), (0.15, "box"), (0.15, "box point map"))
"""How often it is prompted how, where there is a map of the objects' size, and where not."""


@dataclass(frozen=True, eq=False)
class CachedSample:
    """An image's embedding, and its objects on the grid of the decoder's logits, (rows, columns).

    `scale` is pixels of the image a cell.
    """

    encoded: ImageEmbedding
    objects: list[BoolArray]
    scale: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Of an object's mask on the grid."""
        rows, columns = self.objects[0].shape
        return rows, columns


def finetune_mask_decoder(
    segmenter: Any,
    samples: Sequence[ReferenceSample],
    settings: AdaptSettings,
    *,
    seed: int = 0,
    has_map: bool = True,
    held_out: Sequence[ReferenceSample] = (),
    judge: Callable[[State | None], float] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Job[tuple[State | None, FinetuneReport | None]]:
    """Fine-tune the mask decoder; progress each batch.

    Parameters
    ----------
    segmenter : SamSegmenter
        Stays as it is.
    samples : sequence of ReferenceSample
    settings : AdaptSettings
        `decoder_steps` is looked at.
    seed : int
        Same seed, same machine, same result.
    has_map : bool
        Whether it will be prompted with a map of the objects' size.
    held_out : sequence of ReferenceSample
        Not learned from.
    judge : callable, optional
        How good the masks of those are, with such a decoder or with the one it has.
    stop : callable
        Asked before each batch; True ends it, and nothing was learned.

    Returns
    -------
    Job of (dict of str to Tensor or None, FinetuneReport or None)
        Weights of the decoder; none where nobody can judge, or where it was found no better.

    Raises
    ------
    TrainingError
        A loss that is not finite.
    """
    if judge is None or not held_out or not settings.decoder_steps:
        return None, None
    started, rng = time.monotonic(), np.random.default_rng(seed)
    order = rng.permutation(len(samples))[:SAMPLES]
    cached = []
    for i, place in enumerate(order):
        if stop():
            break
        cached_sample = _cache_sample(segmenter, samples[int(place)], rng)
        cached += [cached_sample] if cached_sample is not None else []
        yield JobProgress(
            i + 1, len(order), f"embedding of {samples[int(place)].name}", {"phase": "tune"}
        )
    if not cached:
        return None, None
    trainer = _trainer(segmenter.engine.network)
    prompt_mix = WITH_MAP if has_map else BY_POINT
    while trainer.step < settings.decoder_steps and not stop():
        cached_sample = cached[int(rng.integers(len(cached)))]
        loss = _step(trainer, segmenter, cached_sample, _drawn(prompt_mix, rng), rng)
        message = f"tuning the mask decoder: {trainer.step} of {settings.decoder_steps}"
        data = {"phase": "tune", "loss": loss}
        yield JobProgress(trainer.step, settings.decoder_steps, message, data)
    state, before, after = None, None, None
    if trainer.step == settings.decoder_steps:
        yield JobProgress(trainer.step, trainer.step, "judging the mask decoder", {"phase": "tune"})
        tuned = {k: v.cpu() for k, v in trainer.ema_model.state_dict().items()}
        before, after = judge(None), judge(tuned)
        state = tuned if after > before else None
    seconds, names = time.monotonic() - started, tuple(sample.name for sample in held_out)
    accepted, what = state is not None, "mask decoder tuned"
    return state, FinetuneReport(trainer.step, before, after, accepted, names, seconds, what)


def _drawn(prompt_mix: Sequence[tuple[float, str]], rng: np.random.Generator) -> str:
    return prompt_mix[int(rng.choice(len(prompt_mix), p=[share for share, _ in prompt_mix]))][1]


def _cache_sample(
    segmenter: Any, sample: ReferenceSample, rng: np.random.Generator
) -> CachedSample | None:
    """Some of its objects; None if none is a cell large."""
    encoded = segmenter.engine.encode_image(sample.image)
    network = segmenter.engine.network
    side = int(network.image_encoder.img_size)
    grid = tuple(network.prompt_encoder.mask_input_size)
    rows, columns = (
        max(1, round(cells * pixels / side))
        for cells, pixels in zip(grid, encoded.input_hw, strict=True)
    )
    height, width = sample.image.shape[:2]
    scale = (height / rows, width / columns)
    at = [
        ((np.arange(n) + 0.5) * f).astype(int) for n, f in zip((rows, columns), scale, strict=True)
    ]
    coarse = sample.instances.numbers[
        np.ix_(*at)
    ]  # (rows, columns): the object at each cell's middle
    numbers = np.setdiff1d(coarse, [0])
    objects = [coarse == k for k in rng.permutation(numbers)[:PER_SAMPLE]]
    if not objects:
        return None
    slim = replace(encoded, embedding=encoded.embedding.half(), levels=[])
    return CachedSample(slim, objects, scale)


def _trainer(network: Any) -> Trainer[nn.Module]:
    """Of a copy of the mask decoder."""
    with torch.inference_mode(False):
        decoder = copy.deepcopy(network.mask_decoder).train().requires_grad_(True)
        optimizer = torch.optim.AdamW(decoder.parameters(), RATE, weight_decay=0.01)
        return Trainer(decoder, optimizer, ema_decay=EMA, warmup=WARMUP, max_norm=1.0)


@torch.inference_mode(False)  # whatever mode the consumer of the job is in
@torch.enable_grad()
def _step(
    trainer: Trainer[nn.Module],
    segmenter: Any,
    sample: CachedSample,
    prompt_kind: str,
    rng: np.random.Generator,
) -> float:
    """Learn from one batch of prompts on an image; returns its loss."""
    network = engine.with_mask_decoder(segmenter.engine.network, trainer.net)
    grid = tuple(network.prompt_encoder.mask_input_size)
    chosen = rng.permutation(len(sample.objects))[:OBJECTS]
    masks = [sample.objects[int(i)] for i in chosen]
    queries = [
        sample_prompt(i, m, prompt_kind, sample.scale, grid, rng) for i, m in enumerate(masks)
    ]
    embedding = sample.encoded.embedding.to(segmenter.device).float().clone()
    encoded = replace(sample.encoded, embedding=embedding)
    logits, scores = decoding.decode(network, encoded, queries, multimask=True)
    rows, columns = sample.shape
    target = torch.from_numpy(np.stack(masks)[:, None]).to(logits)
    return trainer.training_step(loss_of(logits[..., :rows, :columns], scores, target))


def loss_of(logits: Tensor, scores: Tensor, target: Tensor) -> Tensor:
    """Of the best mask and of the surest one, and how wrong the scores are.

    Parameters
    ----------
    logits : (B, M, h, w)
    scores : (B, M)
    target : (B, 1, h, w)
        0 or 1.
    """
    wanted = target.expand_as(logits)
    each = 20 * losses.focal_loss(logits, wanted)
    each = each + losses.dice_loss(torch.sigmoid(logits), wanted)  # (B, M)
    surest = each.gather(1, scores.detach().argmax(1, keepdim=True))[:, 0]
    return (each.amin(1) + surest).mean() / 2 + F.mse_loss(scores, _iou(logits, wanted))


@torch.no_grad()
def _iou(logits: Tensor, wanted: Tensor) -> Tensor:
    mask, truth = logits > 0, wanted > 0.5
    both = (mask & truth).sum((-2, -1)).float()
    return both / (mask | truth).sum((-2, -1)).clamp(min=1)


def sample_prompt(
    place: int,
    mask: BoolArray,
    prompt_kind: str,
    scale: tuple[float, float],
    grid: tuple[int, ...],
    rng: np.random.Generator,
) -> PromptQuery:
    """A prompt for an object, from a perturbed outline of it.

    Parameters
    ----------
    place : int
    mask : (rows, columns) bool
        The object on the grid, without padding; not empty.
    prompt_kind : str
        Which of "box", "point", "map", in one string.
    scale : (float, float)
        Pixels of the image a cell.
    grid : (int, int)
        Of the decoder's logits, with padding.
    rng : numpy Generator
    """
    soft = perturb_mask(mask, rng)
    region = soft > 0.5 if (soft > 0.5).any() else mask
    points: NDArray[np.float64] = np.zeros((0, 2))
    box: NDArray[np.float64] | None = None
    if "point" in prompt_kind:
        depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
        near = depth * rng.uniform(0.7, 1, depth.shape)  # near the middle, not in it
        cell = np.array(np.unravel_index(int(near.argmax()), near.shape))
        points = np.asarray((cell + 0.5) * scale - 0.5, np.float64)[None]
    if "box" in prompt_kind:
        rows, columns = window_of(region)
        corners = np.array([[rows.start, columns.start], [rows.stop, columns.stop]])
        box = (corners * scale - 0.5).reshape(4)
    logits = np.full(grid, -MASK_STRENGTH, np.float32)
    logits[: mask.shape[0], : mask.shape[1]] = MASK_STRENGTH * (2 * soft - 1)
    signs = np.ones(len(points), bool)
    return PromptQuery(place, Prompts(points, signs, box), logits if "map" in prompt_kind else None)


def perturb_mask(mask: BoolArray, rng: np.random.Generator) -> FloatArray:
    """The object as a network may see it: outline moved in and out, edges soft; in [0, 1].

    Parameters
    ----------
    mask : (h, w) bool
        Not empty.
    rng : numpy Generator
    """
    size = float(np.sqrt(mask.sum()))
    away = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    waves = rng.normal(0, 1, rng.integers(3, 9, 2)).astype(np.float32)
    height, width = mask.shape
    field = PIL.Image.fromarray(waves).resize((width, height), PIL.Image.Resampling.BICUBIC)
    moved = np.array(field) * rng.uniform(0, 0.12) * size + rng.normal(0, 0.04) * size
    width_px = 0.5 + rng.uniform(0.02, 0.12) * size
    return np.asarray(1 / (1 + np.exp(-np.clip((away + moved) / width_px, -30, 30))), np.float32)
