"""Packaged first weights of the learner: a prompter that works before it is trained.

They belong to the packaged segmenter; with any other frozen network, or another number of layers,
the learner starts at random.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from napari_samic.core.errors import FormatError
from napari_samic.models.hub import checkpoints
from napari_samic.models.samic.prompter import SamicPrompter

KIND = "napari-samic/learner"
PATH = Path(__file__).parents[1] / "weights" / "samic.pt"
LAYERS = 3
"""Of the learner that they are for."""


def pack(state: dict[str, Any], backbone_sha256: str) -> dict[str, Any]:
    """What the file holds: half-precision weights and the frozen network they belong to."""
    return {
        "kind": KIND,
        "backbone_sha256": backbone_sha256,
        "learner": {k: v.half() for k, v in state.items()},
    }


def load_pretrained(prompter: SamicPrompter, path: Path = PATH) -> bool:
    """Load the first weights into `prompter` if they were made for its backbone and its layers.

    Returns
    -------
    bool
        Whether they were.

    Raises
    ------
    FormatError
        The packaged file is damaged.
    """
    if prompter.learner.layers != LAYERS or not path.is_file():
        return False
    try:
        content = checkpoints.load_torch(path)
        if content["kind"] != KIND:
            raise ValueError(f"holds {content['kind']!r}, expected {KIND!r}")
        if content["backbone_sha256"] != prompter.backbone.weights_sha256:
            return False
        weights = {k: v.float() for k, v in content["learner"].items()}
        copy.deepcopy(prompter.learner).load_state_dict(weights)  # all or nothing
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{path.name}: damaged ({reason}). Install the package again.") from error
    prompter.learner.load_state_dict(weights)
    return True
