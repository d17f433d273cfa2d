"""The baseline that everyone asks for: a U-Net trained on the references' masks, and no SAM.

The usual recipe of segmentation-models-pytorch's examples: whole images resized to a square, Dice
and cross-entropy, Adam with a cosine, the mean of an image and its mirror image cut at a half, each
piece an object. Only its epochs are stretched, so that few references get enough steps. Encoder and
looks at the references are those of our own network, so that the recipe alone is compared. Must not
know the benchmark's other ways.

Source: Ronneberger et al., MICCAI 2015; Iakubovskii, Segmentation Models PyTorch, 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import Normalize

from napari_samic.core.errors import ModelError, TrainingError
from napari_samic.core.types import Image, Job, JobProgress, PromptProposal, Reference, Segmenter
from napari_samic.models.encoders.pyramid_encoder import bfloat16_autocast
from napari_samic.models.features import timm_weights
from napari_samic.models.features.reference_masks import InstanceMasks, classes_of, mask_of
from napari_samic.models.finetune import dataset
from napari_samic.models.finetune.dataset import ReferenceDataset, ReferenceSample
from napari_samic.models.prompters.random_forest import proposal

EPOCHS = 40
"""Each reference is looked at this often."""
LEAST, MOST = 400, 2000
"""Steps, whatever the epochs come to."""
BATCH = 8
RATE = 3e-4
"""Highest, of all weights."""


def package() -> Any:
    """segmentation_models_pytorch, which nobody else needs.

    Raises
    ------
    ModelError
        It is not installed.
    """
    try:
        return import_module("segmentation_models_pytorch")
    except ImportError as error:
        msg = f"unet: needs segmentation-models-pytorch, which can't be imported ({error})."
        raise ModelError(f"{msg} Run: pip install segmentation-models-pytorch") from error


def steps_for(references: int) -> int:
    """How many batches.

    >>> [steps_for(n) for n in (1, 20, 176, 1000)]
    [400, 400, 880, 2000]
    """
    return min(max(EPOCHS * references // BATCH, LEAST), MOST)


class Unet:
    """A trained U-Net that answers for whole images.

    Parameters
    ----------
    net : nn.Module
        (B, 3, h, w) in [0, 255] to logits (B, C, h, w).
    labels : sequence of int
        Class of each map.
    """

    name = "unet"

    def __init__(self, net: nn.Module, labels: Sequence[int]) -> None:
        self.net = net
        self.labels = tuple(labels)

    def propose(self, references: Sequence[Reference], image: Image) -> PromptProposal:  # noqa: ARG002
        """An object for each piece of a class.

        Parameters
        ----------
        references : sequence of Reference
            Not looked at: it has learned from its own.
        image : (H, W, 3) uint8

        Returns
        -------
        PromptProposal
            With the pieces as its answer (see `models.prompters.random_forest.pieces`). The map is
            the highest probability of the classes.
        """
        device = next(self.net.parameters()).device
        small = torch.from_numpy(_square(image, PIL.Image.Resampling.BILINEAR))
        x = small.permute(2, 0, 1)[None].float().to(device)  # (1, 3, 256, 256)
        with torch.inference_mode():
            plain, mirrored = torch.sigmoid(_logits(self.net, torch.cat([x, x.flip(-1)]))).chunk(2)
            mean = (plain + mirrored.flip(-1)) / 2  # (1, C, 256, 256)
            full = F.interpolate(mean, image.shape[:2], mode="bilinear", align_corners=False)
        return proposal(dict(zip(self.labels, full[0].cpu().numpy(), strict=True)))


def learn(
    references: Sequence[Reference],
    *,
    device: torch.device,
    segmenter: Segmenter | None = None,
    pretrained: bool = True,
    seed: int = 0,
    steps: int | None = None,
) -> Job[Unet]:
    """Train one; a JobProgress a batch.

    Parameters
    ----------
    references : sequence of Reference
    device : torch.device
    segmenter : Segmenter, optional
        For references without masks.
    pretrained : bool
        Whether its encoder starts with the packaged weights; all others are random.
    seed : int
        Same seed, same machine, same result.
    steps : int, optional
        Default: `steps_for` so many references.

    Returns
    -------
    Job of Unet

    Raises
    ------
    ModelError
        segmentation-models-pytorch is not installed.
    PromptError
        No reference shows an object.
    TrainingError
        The loss is not finite.
    """
    smp = package()
    masks = [mask_of(r, segmenter) for r in references]
    labels = classes_of(masks)
    samples = [_sample(r, s) for r, s in zip(references, masks, strict=True)]
    training_set = ReferenceDataset(samples, labels, dataset.WINDOW_PX, np.random.default_rng(seed))
    net = _fresh(smp, len(labels), pretrained=pretrained, seed=seed)
    net.train().to(device).to(memory_format=torch.channels_last)
    steps = steps_for(len(references)) if steps is None else steps
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    dice = smp.losses.DiceLoss("multilabel")
    for done in range(1, steps + 1):
        loss = _step(net, training_set, dice, optimizer)
        schedule.step()
        yield JobProgress(done, steps, f"U-Net: {done} of {steps}", {"phase": "unet", "loss": loss})
    return Unet(net.eval(), labels)


def _fresh(smp: Any, classes: int, *, pretrained: bool, seed: int) -> nn.Module:
    """A U-Net around a network of the packaged encoder's kind; takes colors in [0, 255]."""
    backbone, _ = timm_weights.load(timm_weights.SEGMENTER)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = smp.Unet(f"tu-{backbone.name}", encoder_weights=None, classes=classes)
    if pretrained:
        net.encoder.model.load_state_dict(backbone.network.state_dict())
    return nn.Sequential(Normalize(backbone.mean, backbone.deviation), net)


@torch.inference_mode(False)  # whatever mode the consumer of the job is in
@torch.enable_grad()
def _step(
    net: nn.Module,
    training_set: ReferenceDataset,
    dice: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
) -> float:
    """Learn from one batch; returns the loss."""
    device = next(net.parameters()).device
    x, truth, _ = (t.to(device) for t in training_set.sample_batch(BATCH))
    truth = truth.chunk(2, 1)[0]  # (B, C, 256, 256), without depth
    logits = _logits(net, x)
    loss = dice(logits, truth) + F.binary_cross_entropy_with_logits(logits, truth)
    if not bool(torch.isfinite(loss)):
        raise TrainingError("unet: the loss is not finite any more. Take another seed.")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def _logits(net: nn.Module, x: Tensor) -> Tensor:
    """Logits in float32."""
    with bfloat16_autocast(x.device):
        return torch.as_tensor(net(x)).float()


def _sample(reference: Reference, masks: InstanceMasks) -> ReferenceSample:
    numbers = _square(masks.numbers, PIL.Image.Resampling.NEAREST)
    image = _square(reference.image, PIL.Image.Resampling.BILINEAR)
    return ReferenceSample(reference.name, image, InstanceMasks(numbers, masks.classes))


def _square(pixels: NDArray[Any], resampling: PIL.Image.Resampling) -> NDArray[Any]:
    """All of an image or of its mask, as large as a look."""
    picture = PIL.Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(picture.resize((dataset.WINDOW_PX, dataset.WINDOW_PX), resampling))
