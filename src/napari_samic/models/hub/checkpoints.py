"""Weights files to state dicts, without ever running code from them; and whose they are.

A file also takes no more memory than one of its size can need: what it claims is counted before it
is unpacked, and what came out of it before it is used. Must not know where files come from.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_samic.core.errors import FormatError, WeightsError

State = dict[str, Tensor]
VIT_ARCHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict")
_PATCH = "image_encoder.patch_embed"
MOST_MORE = 500_000_000
"""Bytes that the content of a file may take beyond twice the file's own."""
DEEPEST = 100
"""Levels of lists and mappings in a file."""
_OPENERS = (b"]", b"}", b"\x8f", b"\x85", b"\x86", b"\x87", b"(t", b"(l", b"(d")
"""What makes a list, a mapping, a set or a tuple in a pickle: a byte or two for 64 of memory."""
_CHUNK = 1 << 20


def read(path: Path) -> Any:
    """Load a file with `weights_only=True`, or one of safetensors.

    Raises
    ------
    FormatError
        Truncated, another kind of file, or a pickle that holds code.
    WeightsError
        The file can't be opened.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return load_torch(path)
    except FormatError:
        raise
    except pickle.UnpicklingError as error:
        text = str(error)
        kinds = "global|class|operand" if _is_pickle(path) else "global|class"
        code = re.search(rf"(?:Unsupported (?:{kinds})|GLOBAL)[: ]+(?:GLOBAL )?(\S+)", text)
        if code:
            msg = f"{path.name}: holds code ({code[1]}), not only weights; it was not run. "
            raise FormatError(msg + "Ask its author for a plain state dict.") from error
        raise _damaged(path, error) from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise WeightsError(f"{path}: can't be opened ({error.strerror}).") from error
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise _damaged(path, error) from error


def load_torch(path: Path) -> Any:
    """Load a file of torch's with `weights_only=True`.

    Raises
    ------
    FormatError
        It would take far more memory than its size.
    Exception
        Whatever torch raises for a damaged file, or for one that holds code.
    """
    most = 2 * path.stat().st_size + MOST_MORE
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_size(sum(entry.file_size for entry in entries), most, path)
            for entry in entries:
                if entry.filename.endswith("/data.pkl"):
                    with archive.open(entry) as stream:
                        _check_size(_opened(stream), most, path)
    else:
        with path.open("rb") as stream:
            _check_size(_opened(stream), most, path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    _check_size(_size(content, {}, 0), most, path)
    return content


def _opened(stream: IO[bytes]) -> int:
    """Bytes of the lists and their like that a pickle may make; weights in it count little."""
    chunks = iter(lambda: stream.read(_CHUNK), b"")
    return 64 * sum(chunk.count(opener) for chunk in chunks for opener in _OPENERS)


def _check_size(size: int, most: int, path: Path) -> None:
    if size > most:
        msg = f"{path.name}: unpacks to {size} bytes, at most {most} fit a file of its size. "
        raise FormatError(msg + "Don't trust it.")


def _size(value: Any, sizes: dict[int, int], depth: int) -> int:
    """Bytes of all that is in a value, once for each place it is at; endless if in itself."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ValueError("a tensor that is not of plain numbers")
        return value.numel() * value.element_size()
    if not isinstance(value, Mapping | list | tuple | set):
        return len(value) if isinstance(value, str | bytes) else 8
    if depth > DEEPEST:
        raise ValueError(f"more than {DEEPEST} levels")
    if id(value) not in sizes:
        inner = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
        sizes[id(value)] = 8 + sum(_size(part, sizes, depth + 1) for part in inner)
    return sizes[id(value)]


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def _damaged(path: Path, error: Exception) -> FormatError:
    first = (str(error).strip().splitlines() or [""])[0][:80]
    reason = f"{type(error).__name__}: {first}"
    return FormatError(f"{path.name}: truncated or not a weights file ({reason}). Fetch it again.")


def state_dict(content: Any, name: str) -> State:
    """Find the float32 state dict in what was read.

    Parameters
    ----------
    content : object
        A state dict, or one inside a training checkpoint; prefixes `module.` are taken off.
    name : str
        Of the file, for the message.

    Raises
    ------
    FormatError
        None in there.
    """
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise FormatError(f"{name}: holds {type(content).__name__}, expected a state dict.")
    if not all(isinstance(v, Tensor) for v in content.values()):
        raise FormatError(f"{name}: holds more than tensors, expected a state dict.")
    return to_float32({str(k).removeprefix("module."): v for k, v in content.items()})


def to_float32(state: State) -> State:
    """Weights in single precision, as networks compute; integers stay."""
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def to_half(state: State) -> State:
    """Weights in half precision, as our own files hold them; integers stay."""
    return {k: v.half() if v.is_floating_point() else v for k, v in state.items()}


def guess_arch(content: Any, name: str) -> str:
    """Tell the architecture from keys and shapes.

    Returns
    -------
    str
        Key of `catalog.ARCHITECTURES`.

    Raises
    ------
    FormatError
        None that this package knows.
    """
    kind = content.get("kind") if isinstance(content, Mapping) else None
    if isinstance(kind, str) and kind.startswith("napari-samic/tiny"):
        return "tiny"
    state = state_dict(content, name)
    if f"{_PATCH}.proj.weight" in state:
        width = int(state[f"{_PATCH}.proj.weight"].shape[0])
        if width in VIT_ARCHS:
            return VIT_ARCHS[width]
        raise FormatError(f"{name}: ViT of width {width}, expected one of {list(VIT_ARCHS)}.")
    if f"{_PATCH}.seq.0.c.weight" in state:
        return "mobile_sam"
    if "layer4.2.conv3.weight" in state:
        return "resnet50"
    first = ", ".join(list(state)[:2])
    raise FormatError(f"{name}: unknown architecture (begins with {first}). Expected a SAM.")


def load_weights(network: nn.Module, state: State, name: str) -> None:
    """Give a network its weights; all keys and shapes must fit. The tensors are taken, not copied.

    Raises
    ------
    FormatError
        Missing, unknown or misshapen keys; counts them and names the first.
    """
    own = network.state_dict()
    missing = [k for k in own if k not in state]
    unknown = [k for k in state if k not in own]
    misfit = [k for k, v in own.items() if k in state and v.shape != state[k].shape]
    if missing or unknown or misfit:
        first = (missing + misfit + unknown)[0]
        msg = (
            f"{name}: does not fit: {len(missing)} keys missing, {len(unknown)} unknown, "
            f"{len(misfit)} of another shape (first {first})."
        )
        raise FormatError(msg)
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False)
