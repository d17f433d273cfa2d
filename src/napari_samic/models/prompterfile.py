"""A trained prompter as one file that opens alone on another machine.

It holds the learner's weights, all settings, the centre, the references (picture at the network's
size and prompts), the normalisation of the data set, and the name and checksum of the frozen
network, which is not in it. Read with `weights_only=True`: a file can't run code.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PilImage
from torch import Tensor

from napari_samic.atomic import atomic_file
from napari_samic.contracts import Image, Prompts, Reference
from napari_samic.errors import FormatError, ModelError, SamicError
from napari_samic.models.backbones import Backbone
from napari_samic.models.samic import SamicPrompter
from napari_samic.models.training import FitReport
from napari_samic.settings import HeatMapSettings, PeakSettings, PrompterSettings

KIND = "napari-samic/prompter"
VERSION = 1


def save(prompter: SamicPrompter, path: Path | str, *, overwrite: bool = False) -> None:
    """Write a prompter, atomically.

    Raises
    ------
    OutputError
        The file exists and `overwrite` is off, or the disk refuses.
    """
    with atomic_file(path, overwrite=overwrite) as temporary:
        torch.save(pack(prompter), temporary)


def pack(prompter: SamicPrompter) -> dict[str, Any]:
    """Plain values and tensors of a prompter."""
    backbone = prompter.backbone
    return {
        "kind": KIND,
        "version": VERSION,
        "backbone": {
            "name": backbone.name,
            "sha256": backbone.weights_sha256,
            "kind": prompter.settings.backbone,
        },
        "settings": {
            "prompter": prompter.settings.to_dict(),
            "heat": prompter.heat.to_dict(),
            "peaks": prompter.peaks.to_dict(),
        },
        "normalisation": prompter.normalisation,
        "learner": {k: v.cpu() for k, v in prompter.learner.state_dict().items()},
        "centre": prompter.centre and [[c.cpu() for c in level] for level in prompter.centre],
        "references": [_reference_tree(r, backbone) for r in prompter.references],
        "report": prompter.report and _report_tree(prompter.report),
    }


def describe(path: Path | str) -> dict[str, Any]:
    """Header of a prompter file: which frozen network it needs, settings, report.

    Raises
    ------
    FormatError
        Not such a file.
    """
    content = _read(Path(path))
    return {k: content[k] for k in ("backbone", "settings", "normalisation", "report")}


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
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        first = str(error).splitlines()[0]
        raise FormatError(f"{path.name}: damaged ({first}). Train again.") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FormatError(f"{path}: no such file. Give the file that `train --out` wrote.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged or foreign file
        msg = (
            f"{path.name}: not a prompter file, or truncated ({type(error).__name__}). Train again."
        )
        raise FormatError(msg) from error
    kind = content.get("kind") if isinstance(content, dict) else type(content).__name__
    if kind != KIND:
        msg = f"{path.name}: holds {kind!r}, expected {KIND!r}. Give the file of `train --out`."
        raise FormatError(msg)
    missing = {"backbone", "settings", "learner", "references", "version"} - set(content)
    if missing:
        raise FormatError(f"{path.name}: lacks {', '.join(sorted(missing))}. Train again.")
    if content["version"] != VERSION:
        msg = f"{path.name}: version {content['version']}, expected {VERSION}. Train again."
        raise FormatError(msg)
    return content  # type: ignore[no-any-return]


def _rebuild(content: dict[str, Any], backbone: Backbone) -> SamicPrompter:
    settings = content["settings"]
    prompter = SamicPrompter(
        backbone,
        settings=PrompterSettings.from_dict(settings["prompter"]),
        heat=HeatMapSettings.from_dict(settings["heat"]),
        peaks=PeakSettings.from_dict(settings["peaks"]),
    )
    prompter.learner.load_state_dict(content["learner"])
    centre = content["centre"]
    prompter.centre = centre and [[c.to(backbone.device) for c in level] for level in centre]
    prompter.references = tuple(_reference(tree) for tree in content["references"])
    prompter.normalisation = content["normalisation"]
    report: dict[str, Any] = content["report"]
    if report:
        values: dict[str, Any] = dict(report)
        for name in ("losses", "held_out"):
            values[name] = tuple(values[name])
        prompter.report = FitReport(**values)
    return prompter


def _report_tree(report: FitReport) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(report).items()}


def _reference_tree(reference: Reference, backbone: Backbone) -> dict[str, Any]:
    small = shrink(reference, backbone.input_px)
    return {
        "name": reference.name,
        "sha256": hashlib.sha256(np.ascontiguousarray(reference.image).tobytes()).hexdigest(),
        "image": torch.from_numpy(np.array(small.image)),
        "objects": [
            {
                "points_rc": torch.tensor(p.points_rc),
                "is_foreground": torch.tensor(p.is_foreground),
                "box_rc": None if p.box_rc is None else torch.tensor(p.box_rc),
                "label": p.label,
            }
            for p in small.objects
        ],
    }


def _reference(tree: dict[str, Any]) -> Reference:
    def plain(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor.numpy()

    objects = tuple(
        Prompts(plain(o["points_rc"]), plain(o["is_foreground"]), plain(o["box_rc"]), o["label"])
        for o in tree["objects"]
    )
    return Reference(tree["name"], plain(tree["image"]), objects)


def shrink(reference: Reference, side_px: int) -> Reference:
    """The reference at the network's size, prompts moved along; its mask is dropped."""
    height, width = reference.image.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1:
        return replace(reference, mask=None)
    rows, columns = (max(1, int(n * scale + 0.5)) for n in (height, width))
    picture = PilImage.fromarray(reference.image).resize(
        (columns, rows), PilImage.Resampling.BILINEAR
    )
    factor = np.array([rows / height, columns / width])

    def moved(points: Any) -> Any:
        high = np.array([rows, columns]) - 0.5
        return np.clip((np.reshape(points, (-1, 2)) + 0.5) * factor - 0.5, -0.5, high)

    objects = tuple(
        Prompts(
            moved(p.points_rc),
            p.is_foreground,
            None if p.box_rc is None else moved(p.box_rc).ravel(),
            p.label,
        )
        for p in reference.objects
    )
    small: Image = np.array(picture)
    return Reference(reference.name, small, objects)
