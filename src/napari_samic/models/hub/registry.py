"""Names to weights: the table, a user's own files, checksums and fetching.

A name is one of the table (`vit_b`), of an imported file, or `path:FILE`. Imports no torch; how a
file becomes a network is in `builders`, by dotted path, looked up when it is needed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

from napari_samic.core.errors import ModelError, WeightsError
from napari_samic.io.cache import home_folder as home
from napari_samic.models.hub import download
from napari_samic.models.hub.catalog import ARCHITECTURES, OFFICIAL, ModelSpec, user_spec
from napari_samic.models.hub.plugins import plugins

__all__ = ["ModelSpec", "builder", "fetch", "home", "import_file", "locate"]
__all__ += ["plugins", "spec", "specs", "verify", "weights_sha256"]

PATH_PREFIX = "path:"
_PACKAGED = Path(__file__).parents[1] / "weights"


def specs() -> list[ModelSpec]:
    """All models that have a name: the table, then imported files.

    Returns
    -------
    list of ModelSpec
    """
    official = {s.name for s in OFFICIAL}
    notes = sorted(download.folder().glob("*.json")) if download.folder().is_dir() else []
    imported = [s for n in notes if (s := _from_note(n)) and s.name not in official]
    return [*OFFICIAL, *imported]


def spec(name: str) -> ModelSpec:
    """Look one model up.

    Parameters
    ----------
    name : str
        Of the table, of an imported file, or `path:FILE`.

    Raises
    ------
    ModelError
        Unknown; the message names the known ones and the nearest.
    """
    if name.startswith(PATH_PREFIX):
        path = Path(name[len(PATH_PREFIX) :]).expanduser()
        return user_spec(name, "auto", None, path.name, path)
    by_name = {s.name: s for s in specs()}
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    msg = f"unknown model {name!r}.{hint} Known: {', '.join(by_name)}; or path:FILE."
    raise ModelError(msg)


def _from_note(note: Path) -> ModelSpec | None:
    path = note.with_suffix("")
    facts = download.read_note(path)
    name, arch = facts.get("name"), facts.get("arch")
    if not name or arch not in ARCHITECTURES:
        return None
    return user_spec(str(name), str(arch), facts.get("sha256"), path.name, None)


def builder(name: str) -> Callable[[Path], Any]:
    """The function that turns the weights file of `name` into a network.

    Raises
    ------
    ModelError
        Its module or function is missing from this installation.
    """
    dotted = spec(name).build
    module, _, function = dotted.partition(":")
    try:
        return attrgetter(function)(import_module(module))  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{name}: {dotted} can't be imported ({error}).") from error


def _target(model: ModelSpec) -> Path:
    if model.extra.get("path") is not None:
        return Path(model.extra["path"])
    return (_PACKAGED if model.extra.get("packaged") else download.folder()) / model.file


def locate(name: str) -> Path:
    """The weights file of a model: packaged, fetched, imported or named by path.

    Raises
    ------
    ModelError
        Unknown name.
    WeightsError
        The file is not there; the message says what is, and how to get it.
    """
    model = spec(name)
    path = _target(model)
    if path.is_file():
        return path
    if model.extra.get("packaged"):
        raise WeightsError(f"{path}: packaged weights are missing. Reinstall napari-samic.")
    if model.extra.get("path") is not None:
        raise WeightsError(f"{path}: no such weights file. Check the path after 'path:'.")
    raise WeightsError(f"{name}: {model.file} is not in {path.parent} {_by_hand(model)}")


def card(model: ModelSpec) -> Path | None:
    """The packaged model card: data, recipe, figures, limits; None if there is none."""
    name = model.extra.get("card")
    return _PACKAGED / str(name) if name else None


def _by_hand(model: ModelSpec) -> str:
    return (
        f"(there: {download.present()}). Run `napari-samic models fetch {model.name}`, or get "
        f"{model.url or 'it'} elsewhere and put it there as {model.file}, or run `napari-samic "
        f"models import FILE --name {model.name}`."
    )


def fetch(name: str, *, progress: Any = False) -> Path:
    """Download official weights, unless they are there; checked before they get their name.

    Parameters
    ----------
    name : str
    progress : bool or object
        As in pooch: True for tqdm's bar, or an object with `total`, `update`, `reset`, `close`.

    Returns
    -------
    Path

    Raises
    ------
    ModelError
        Unknown name.
    WeightsError
        No network, another checksum, no room, or nothing to fetch. Nothing is left behind.
    """
    model = spec(name)
    if model.url is None:
        return locate(name)
    if model.sha256 is None:
        msg = (
            f"{name}: no public checksum is known, so it is not downloaded. Get {model.url} "
            f"yourself and run `napari-samic models import FILE --name {name} --sha256 HASH`."
        )
        raise WeightsError(msg)
    path = _download(model, progress)
    with suppress(OSError):  # the note only saves time
        download.write_note(path, name=name, arch=model.arch, sha256=model.sha256)
    return path


def _download(model: ModelSpec, progress: Any) -> Path:
    import pooch

    try:
        download.folder().mkdir(parents=True, exist_ok=True)
        got = pooch.retrieve(
            url=model.url,
            known_hash=f"sha256:{model.sha256}",
            fname=model.file,
            path=download.folder(),
            downloader=pooch.HTTPDownloader(progressbar=progress, chunk_size=download.CHUNK),
        )
    except (
        OSError,
        ValueError,
    ) as error:  # requests' errors are OSErrors, a wrong hash a ValueError
        reason = " ".join(str(error).split())[:160]
        msg = f"{model.name}: can't be fetched to {download.folder()} ({reason}) {_by_hand(model)}"
        raise WeightsError(msg) from error
    return Path(got)


def import_file(
    path: Path | str, *, name: str, arch: str = "auto", sha256: str | None = None
) -> ModelSpec:
    """Copy a user's weights file into our folder under a name, with a note beside it.

    Parameters
    ----------
    path : Path or str
    name : str
        Letters, digits, dot, dash, underscore. An official name takes the official file only.
    arch : str
        One of `catalog.ARCHITECTURES`; "auto": told from the file's contents when it is built.
    sha256 : str, optional
        What the file must have.

    Returns
    -------
    ModelSpec

    Raises
    ------
    ModelError
        A name that can't be or is taken, or an unknown architecture.
    WeightsError
        Unreadable file or another checksum; nothing is left behind.
    """
    source = Path(path).expanduser()
    model = _import_spec(source, name, arch)
    wanted = [w.lower() for w in (sha256, model.sha256) if w]

    def accept(digest: str) -> None:
        for want in wanted:
            if digest != want:
                msg = f"{source.name}: sha256 is {digest}, expected {want} for {name}. "
                advice = "Copy it again." if sha256 else "Copy it again, or pick another --name."
                raise WeightsError(msg + advice)

    target = download.folder() / model.file
    download.copy_in(source, target, accept, name=name, arch=model.arch)
    return spec(name)


def _import_spec(source: Path, name: str, arch: str) -> ModelSpec:
    for model in OFFICIAL:
        if model.name == name:
            if model.extra.get("packaged"):
                raise ModelError(f"{name}: is part of the package. Pick another name.")
            return model
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ModelError(f"name {name!r}: use letters, digits, dot, dash and underscore.")
    if arch not in ARCHITECTURES:
        raise ModelError(f"architecture {arch!r}: expected one of {', '.join(ARCHITECTURES)}.")
    model = user_spec(name, arch, None, f"{name}{source.suffix or '.pt'}", None)
    taken = [s.file for s in specs() if model.file.lower() == s.file.lower() or s.name == name]
    if taken or source.suffix.lower() == ".json":
        where = download.folder() / (taken[0] if taken else source.name)
        raise ModelError(f"{name}: is taken by {where}. Pick another name, or delete that file.")
    return model


def weights_sha256(name: str) -> str:
    """Checksum of a model's weights; part of every cache key.

    Returns
    -------
    str
        Lower-case hex. Read once, then remembered while the file's size and time stay.

    Raises
    ------
    WeightsError
        No file, or not the one that the table or the import names.
    """
    model, path = spec(name), locate(name)
    digest = download.quick_digest(path)
    if model.sha256 is not None and digest != model.sha256:
        msg = (
            f"{path}: sha256 is {digest}, expected {model.sha256} for {name}. Delete it and run "
            f"`napari-samic models fetch {name}`, or import it under another name."
        )
        raise WeightsError(msg)
    return digest


def verify(name: str | None = None, *, quick: bool = False) -> list[tuple[str, str, str]]:
    """Compare weights files with their checksums.

    Parameters
    ----------
    name : str, optional
        One model; None for all that have a name.
    quick : bool
        Trust the checksum noted earlier while a file's size and time are the same; else read all.

    Returns
    -------
    list of (name, status, detail)
        Status is "ok", "unchecked" (no checksum to compare with), "missing" or "damaged".
    """
    return [_verified(s, quick) for s in ([spec(name)] if name else specs())]


def _verified(model: ModelSpec, quick: bool) -> tuple[str, str, str]:
    path = _target(model)
    if not path.is_file():
        return model.name, "missing", f"{path} is not there"
    digest = (download.quick_digest if quick else download.digest)(path)
    if model.sha256 is None:
        return model.name, "unchecked", f"{path} has sha256 {digest}"
    if digest != model.sha256:
        return model.name, "damaged", f"{path} has sha256 {digest}, expected {model.sha256}"
    return model.name, "ok", str(path)
