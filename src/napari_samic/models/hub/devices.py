"""Which device computes, and what to do when its memory is full. Knows torch, no model."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from napari_samic.core.errors import ModelError

OPENVINO = "openvino"
"""The CPU, on which OpenVINO computes what is frozen, if it is installed."""


def pick(device: str | torch.device = "auto") -> torch.device:
    """Turn a user's wish into a device.

    Parameters
    ----------
    device : str or torch.device
        "auto": CUDA, else Apple's MPS, else the CPU; OPENVINO: the CPU.

    Raises
    ------
    ModelError
        Not a device, or one that this machine lacks.
    """
    if device == OPENVINO:
        if find_spec("openvino") is None:
            msg = (
                f'device "{OPENVINO}": the package is not installed. '
                'pip install "napari-samic[openvino]", or use auto.'
            )
            raise ModelError(msg)
        return torch.device("cpu")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ModelError(
            f"device {device!r}: expected auto, cuda, mps, cpu or openvino."
        ) from error
    if not {"cuda": cuda, "mps": mps}.get(chosen.type, True):
        raise ModelError(f"device {device!r}: this machine has none. Use auto or cpu.")
    return chosen


def is_out_of_memory(error: BaseException) -> bool:
    """True for every way that torch says it."""
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
    )


def release(device: torch.device) -> None:
    """Give cached memory back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
