"""Click on five images, get five hundred: in-context segmentation for napari, shell and scripts.

Importing this loads neither torch nor Qt; public names load their room at first use.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("napari-samic")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_ROOMS = {
    "napari_samic.core.types": ("Prompts", "Reference", "Segmentation", "JobProgress", "run_job"),
    "napari_samic.core.errors": ("SamicError",),
    "napari_samic.api": (
        "annotate",
        "train",
        "segment",
        "evaluate",
        "accept",
        "export_results",
        "run_benchmark",
        "demo",
        "run_recipe",
        "status",
        "precompute",
    ),
}
_WHERE = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'napari_samic' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
