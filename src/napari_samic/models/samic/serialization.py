"""A trained prompter as one file that opens alone on another machine.

It holds the learner's weights, all settings, the center, the references (picture at the network's
size and prompts), the normalization of the data set, the network that was fine-tuned to the
references, the mask decoder that was tuned to them, and the name and checksum of the frozen one,
which is not in it. Read with `weights_only=True`: a file can't run code.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PilImage
from torch import Tensor

from napari_samic.core.errors import FormatError, ModelError, SamicError
from napari_samic.core.settings import HeatMapSettings, PeakSettings, PrompterSettings
from napari_samic.core.types import Image, Prompts, Reference
from napari_samic.io.files import atomic_file
from napari_samic.io.text_files import pixels_sha256
from napari_samic.models.features.backbones import Backbone
from napari_samic.models.finetune.encoder import FinetuneReport
from napari_samic.models.finetune.network import ForegroundPredictor
from napari_samic.models.hub import checkpoints
from napari_samic.models.samic.fit_report import FitReport
from napari_samic.models.samic.prompter import SamicPrompter

KIND = "napari-samic/prompter"
VERSION = 1
PARTS = frozenset(
    ("backbone", "settings", "normalisation", "learner", "centre", "references", "report")
)

"""Parts of every file; `growth`, `finder`, `tuning`, `decoder` only with fine-tuning."""
REPORTS = ("report", "growth", "tuning")


def save(prompter: SamicPrompter, path: Path | str, *, overwrite: bool = False) -> None:
    """Write a prompter, atomically.

    Raises
    ------
    OutputError
        The file exists and `overwrite` is off, or the disk refuses.
    """
    content = pack(prompter)
    with atomic_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        torch.save(content, file)  # through a file of ours a full disk is an OSError


def pack(prompter: SamicPrompter) -> dict[str, Any]:
    """Plain values and tensors of a prompter."""
    backbone = prompter.backbone
    header = {
        "kind": KIND,
        "version": VERSION,
        "backbone": {
            "name": backbone.name,
            "sha256": backbone.weights_sha256,
            "kind": prompter.settings.encoder,
        },
        "settings": {
            "prompter": prompter.settings.to_dict(),
            "heat": prompter.heat.to_dict(),
            "peaks": prompter.peaks.to_dict(),
        },
        "normalisation": prompter.normalization,
        "report": prompter.report and asdict(prompter.report),
        "growth": prompter.growth and asdict(prompter.growth),
        "tuning": prompter.tuning and asdict(prompter.tuning),
    }
    return {
        **_plain(header),
        "learner": {k: v.cpu() for k, v in prompter.learner.state_dict().items()},
        "centre": prompter.center and [[c.cpu() for c in level] for level in prompter.center],
        "references": [_reference_tree(r, backbone) for r in prompter.references],
        "finder": prompter.finder and prompter.finder.pack(),
        "decoder": prompter.decoder and {k: _half(v) for k, v in prompter.decoder.items()},
    }


def _half(tensor: Tensor) -> Tensor:
    return tensor.cpu().half() if tensor.is_floating_point() else tensor.cpu()


def _plain(value: Any) -> Any:
    """Numbers of NumPy become Python's: with `weights_only=True` a file of others can't be read."""
    return json.loads(json.dumps(value, default=lambda number: number.item()))


def describe(path: Path | str) -> dict[str, Any]:
    """Header of a prompter file: which frozen network it needs, settings, reports.

    `references` are the hashes of the annotated images as they were, before they were shrunk.

    Raises
    ------
    FormatError
        Not such a file, or a damaged one.
    """
    content = _read(Path(path))
    header = {k: content.get(k) for k in ("backbone", "settings", "normalisation", *REPORTS)}
    try:
        return header | {"references": [tree.get("sha256", "") for tree in content["references"]]}
    except (TypeError, AttributeError) as error:
        raise FormatError(f"{Path(path).name}: damaged ({error}). Train again.") from error


def load(path: Path | str, backbone: Backbone) -> SamicPrompter:
    """Read a prompter on top of the frozen network that it was trained with.

    Raises
    ------
    FormatError
        Truncated, another kind or version, or with something other than weights in it.
    ModelError
        `backbone` has other weights than those of the training.
    """
    path = Path(path)
    content = _read(path)
    wanted = content["backbone"]
    if wanted["sha256"] != backbone.weights_sha256:
        msg = (
            f"{path.name}: trained on {wanted['name']} ({wanted['sha256'][:12]}), this machine's "
            f"{backbone.name} is {backbone.weights_sha256[:12]}. Train again, or import that file."
        )
        raise ModelError(msg)
    try:
        return _rebuild(content, backbone)
    except SamicError as error:
        raise FormatError(f"{path.name}: {error}") from error
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{path.name}: damaged ({reason}). Train again.") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FormatError(f"{path}: no such file. Give the file that `train --out` wrote.")
    try:
        content = checkpoints.load_torch(path)
    except FormatError:
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged or foreign file
        msg = (
            f"{path.name}: not a prompter file, or truncated ({type(error).__name__}). Train again."
        )
        raise FormatError(msg) from error
    kind = content.get("kind") if isinstance(content, dict) else type(content).__name__
    if kind != KIND:
        msg = f"{path.name}: holds {kind!r:.40}, expected {KIND!r}. Give the file of `train --out`."
        raise FormatError(msg)
    if content.get("version") != VERSION:
        version = content.get("version")
        raise FormatError(f"{path.name}: version {version!r:.40}, expected {VERSION}. Train again.")
    _check_parts(content, path.name)
    return content  # type: ignore[no-any-return]


def _check_parts(content: dict[str, Any], name: str) -> None:
    missing = set(PARTS) - set(content)
    backbone = content.get("backbone")
    header = backbone if isinstance(backbone, dict) else {}
    if not all(isinstance(header.get(key), str) for key in ("name", "sha256", "kind")):
        missing.add("backbone")
    if missing:
        raise FormatError(f"{name}: lacks {', '.join(sorted(missing))}. Train again.")


def _rebuild(content: dict[str, Any], backbone: Backbone) -> SamicPrompter:
    settings = content["settings"]
    prompter = SamicPrompter(
        backbone,
        settings=PrompterSettings.from_dict(settings["prompter"]),
        heat=HeatMapSettings.from_dict(settings["heat"]),
        peaks=PeakSettings.from_dict(settings["peaks"]),
    )
    prompter.learner.load_state_dict(content["learner"])
    center = content["centre"]
    prompter.center = center and [[c.to(backbone.device) for c in level] for level in center]
    prompter.references = tuple(_reference(tree) for tree in content["references"])
    prompter.normalization = content["normalisation"]
    if content["report"]:
        prompter.report = FitReport(**_tuples(content["report"]))
    if content.get("growth"):
        prompter.growth = FinetuneReport(**_tuples(content["growth"]))
    if content.get("tuning"):
        prompter.tuning = FinetuneReport(**_tuples(content["tuning"]))
    if content.get("decoder"):
        prompter.decoder = checkpoints.to_float32(content["decoder"])
    if content.get("finder"):
        prompter.finder = ForegroundPredictor.unpack(content["finder"], backbone.device)
    return prompter


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _reference_tree(reference: Reference, backbone: Backbone) -> dict[str, Any]:
    small = shrink(reference, backbone)
    return {
        "name": str(reference.name),
        "sha256": pixels_sha256(reference.image),
        "image": torch.from_numpy(np.array(small.image)),
        "objects": [
            {
                "points_rc": torch.tensor(p.points_rc),
                "is_foreground": torch.tensor(p.is_foreground),
                "box_rc": None if p.box_rc is None else torch.tensor(p.box_rc),
                "label": int(p.label),
            }
            for p in small.objects
        ],
        "mask": None if small.mask is None else torch.from_numpy(np.array(small.mask)),
    }


def _reference(tree: dict[str, Any]) -> Reference:
    def plain(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor.numpy()

    objects = tuple(
        Prompts(plain(o["points_rc"]), plain(o["is_foreground"]), plain(o["box_rc"]), o["label"])
        for o in tree["objects"]
    )
    return Reference(tree["name"], plain(tree["image"]), objects, plain(tree.get("mask")))


def shrink(reference: Reference, backbone: Backbone) -> Reference:
    """The reference as the frozen network sees it, prompts and mask moved along.

    The network's features and the heat map of the result are those of the original.
    """
    height, width = reference.image.shape[:2]
    factor = np.divide(backbone.input_px, backbone.frame(reference.image.shape))  # (2,)
    if (factor >= 1).all():
        return reference
    rows, columns = (max(1, int(n * f + 0.5)) for n, f in zip((height, width), factor, strict=True))
    picture = PilImage.fromarray(reference.image).resize(
        (columns, rows), PilImage.Resampling.BILINEAR
    )
    edge = np.array([rows, columns]) - 0.5

    def moved(points: Any) -> Any:
        return np.clip((np.reshape(points, (-1, 2)) + 0.5) * factor - 0.5, -0.5, edge)

    def moved_box(box_rc: Any) -> Any:
        low, high = moved(box_rc)
        return np.concatenate([np.minimum(low, high - 1e-3), high])  # not flat at the edge

    objects = tuple(
        Prompts(
            moved(p.points_rc),
            p.is_foreground,
            None if p.box_rc is None else moved_box(p.box_rc),
            p.label,
        )
        for p in reference.objects
    )
    small: Image = np.array(picture)
    mask = None
    if reference.mask is not None:
        drawn = PilImage.fromarray(np.array(reference.mask, np.int32))
        mask = np.array(drawn.resize((columns, rows), PilImage.Resampling.NEAREST), np.int32)
    return Reference(reference.name, small, objects, mask)
