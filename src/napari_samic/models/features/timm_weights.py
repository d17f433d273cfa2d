"""A name to a timm network with its weights: a file's, the packaged ones, or timm's own.

Which network a file is of is told by its name, as timm and torchvision name theirs, or by the
`config.json` beside it, as Hugging Face's repositories of timm have one. No file can run code. Must
not know images, or what the network is for.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from napari_samic.core.errors import FormatError, ModelError, SamicError, WeightsError
from napari_samic.io.text_files import read_json
from napari_samic.models.encoders.pyramid_encoder import PyramidEncoder
from napari_samic.models.encoders.timm_encoder import TimmEncoder
from napari_samic.models.hub import checkpoints, registry
from napari_samic.models.hub.checkpoints import State
from napari_samic.models.tiny import model

SEGMENTER = "segmenter"
"""As an encoder: the packaged one."""
START = "tiny"
"""The packaged model, whose encoder it is."""
REACH_S = 5.0
"""Seconds in which Hugging Face's hub must answer."""


def load(name: str) -> tuple[TimmEncoder, str]:
    """Make the network of a setting.

    Parameters
    ----------
    name : str
        "segmenter", `path:FILE`, the name of an imported file or of the catalog, or timm's.

    Returns
    -------
    encoder : TimmEncoder
        On the CPU.
    sha256 : str
        Of the file; of timm's own weights that of the state dict's keys and bytes.

    Raises
    ------
    ModelError
        A name that nobody knows, a segmenter's, or a network without maps that can be used.
    WeightsError
        Weights that are not on this machine and can't be fetched.
    FormatError
        A file of another network, or whose network is not told.
    """
    if name.startswith(registry.PATH_PREFIX):
        sha256 = registry.weights_sha256(name)
        return from_file(registry.locate(name)), sha256
    for spec in registry.specs():
        if spec.name == name and spec.role != "encoder":
            msg = f"encoder {name!r}: is a {spec.role}. Give segmenter, a name of timm's as "
            raise ModelError(msg + "resnet50, path:FILE, or a file imported with --arch timm.")
        if spec.name == name:
            sha256 = registry.weights_sha256(name)
            return registry.builder(name)(registry.locate(name)), sha256
    if name in (SEGMENTER, _content()["config"]["encoder"]):
        return packaged().backbone, registry.weights_sha256(START)
    encoder = TimmEncoder(name)
    state = own_weights(name)
    hasher = hashlib.sha256()
    for key in sorted(state):
        hasher.update(key.encode() + state[key].contiguous().numpy().tobytes())
    return _filled(encoder, state, name), hasher.hexdigest()


def packaged() -> PyramidEncoder:
    """The packaged segmenter's encoder, with its neck; on the CPU."""
    return cast(PyramidEncoder, model.unpack(_content(), START).image_encoder)


def _content() -> Any:
    return checkpoints.read(registry.locate(START))


def from_file(path: Path, network: str = "") -> TimmEncoder:
    """Make a network from a file of timm's or torchvision's format; `network` if it is known.

    Raises
    ------
    FormatError
        Damaged, holds code, its network is not told, or is another one.
    """
    encoder = TimmEncoder(network or network_of(path))
    return _filled(encoder, checkpoints.state_dict(checkpoints.read(path), path.name), path.name)


def resnet50(path: Path) -> TimmEncoder:
    """As `from_file`, whatever the file's name."""
    return from_file(path, "resnet50")


def network_of(path: Path) -> str:
    """Timm's name of the network that a file holds.

    Raises
    ------
    FormatError
        Neither its own name nor a `config.json` says so.
    """
    import timm

    stem = _plain(path.stem) + "_"
    names: list[str] = [*timm.list_models(), *timm.list_pretrained()]
    if fitting := [name for name in names if stem.startswith(_plain(name) + "_")]:
        return max(fitting, key=len)
    with suppress(SamicError, AttributeError, TypeError):
        config = read_json(path.with_name("config.json"), "Hugging Face's config.json")
        name = str(config["architecture"]) if "architecture" in config else ""
        full = f"{name}.{config.get('pretrained_cfg', {}).get('tag', '')}"
        if name in names:
            return full if full in names else name
    msg = (
        f"{path.name}: of which network is not told. Let its name begin with timm's, as "
        "resnet50-0676ba61.pth, or put Hugging Face's config.json beside it."
    )
    raise FormatError(msg)


def _plain(name: str) -> str:
    """Lower case with underscores, as file names spell timm's.

    >>> _plain("resnet50.a1_in1k"), _plain("ResNet50-0676ba61")
    ('resnet50_a1_in1k', 'resnet50_0676ba61')
    """
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def _filled(encoder: TimmEncoder, state: State, source: str) -> TimmEncoder:
    """Take weights over; timm's own filter renames keys and resamples positional embeddings."""
    import timm

    network: Any = encoder.network
    module = sys.modules[timm.models.model_entrypoint(encoder.name).__module__]
    tidy = getattr(module, "checkpoint_filter_fn", lambda state, _: state)
    try:
        state = tidy(dict(state), network)
    except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:80]
        raise FormatError(f"{source}: not the weights of {encoder.name} ({reason}).") from error
    heads = network.pretrained_cfg["classifier"] or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    left_out = tuple(f"{part}." for part in (*heads, "conv_head", "bn2"))  # the classifier's
    state = {k: v for k, v in state.items() if not k.startswith(left_out)}
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("batches_tracked")}
    checkpoints.load_weights(network, counters | state, f"{source} as {encoder.name}")
    return encoder


def own_weights(name: str) -> State:
    """Weights that timm itself has, kept by Hugging Face's hub or fetched from it now.

    Raises
    ------
    WeightsError
        None, or no network.
    """
    import timm

    try:
        with _no_retries():
            network = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # of the hub, its HTTP client, timm or torch
        reason = " ".join(str(error).split())[:100]
        msg = (
            f"encoder {name}: timm's weights are not on this machine and can't be fetched "
            f"({reason}). Get their file elsewhere and give --encoder path:FILE."
        )
        raise WeightsError(msg) from error
    state: State = network.state_dict()
    return state


@contextmanager
def _no_retries() -> Iterator[None]:
    """Let the hub look only at what it keeps if it can't be reached: it would try for a minute."""
    from huggingface_hub import constants, get_session

    before = constants.HF_HUB_OFFLINE
    try:
        if not before:
            get_session().head(constants.ENDPOINT, timeout=REACH_S)
    except Exception:  # whatever its HTTP client raises
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
