"""Third parties' segmenters and prompters, joined by entry points.

Names are read at once, code is imported at first use and then checked against the protocol.
Must not know any model of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from napari_samic.core import types
from napari_samic.core.errors import PluginError, SettingsError

PROTOCOLS: Mapping[str, type] = {
    "segmenters": types.Segmenter,
    "prompters": types.Prompter,
}


class Plugins(Mapping[str, Any]):
    """Name to class; asking for a name imports and checks it, listing names does not."""

    def __init__(self, kind: str, entries: Mapping[str, EntryPoint]) -> None:
        self._kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        entry = self._entries[name]
        try:
            loaded = entry.load()
        except (Exception, SystemExit) as error:  # a stranger's module may raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            msg = (
                f"plugin {name} ({entry.value}): can't be imported ({reason}). Update or remove it."
            )
            raise PluginError(msg) from error
        return check(loaded, self._kind, f"plugin {name} ({entry.value})")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)


def plugins(kind: str = "segmenters") -> Plugins:
    """What other packages offer.

    Parameters
    ----------
    kind : {"segmenters", "prompters"}
        Read from the entry point group `napari_samic.<kind>`.

    Returns
    -------
    Mapping
        Name to class. Looking a name up imports it; PluginError if it can't be, or if it lacks
        methods of the protocol.

    Raises
    ------
    SettingsError
        Another `kind`.
    """
    if kind not in PROTOCOLS:
        raise SettingsError(f"{kind!r} plugins: expected one of {', '.join(PROTOCOLS)}.")
    return Plugins(kind, {e.name: e for e in entry_points(group=f"napari_samic.{kind}")})


def check(candidate: Any, kind: str, where: str) -> Any:
    """Return `candidate` if it has all methods of the protocol of `kind`.

    Parameters
    ----------
    candidate : type
        The class an entry point names.
    kind : str
        Key of `PROTOCOLS`.
    where : str
        Begins the message.

    Raises
    ------
    PluginError
        Not a class, or methods are missing; the message lists them.
    """
    if not isinstance(candidate, type):
        raise PluginError(f"{where}: {type(candidate).__name__}, expected a class.")
    protocol = PROTOCOLS[kind]
    needed = [n for n, v in vars(protocol).items() if callable(v) and not n.startswith("_")]
    missing = [n for n in needed if not callable(getattr(candidate, n, None))]
    if missing:
        msg = f"{where}: lacks {', '.join(missing)} of {protocol.__name__}. Ask its author."
        raise PluginError(msg)
    return candidate
