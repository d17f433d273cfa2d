"""The house stands as docs/architecture.md says: imports run one way, and the door is light."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import napari_samic

SOURCE = Path(napari_samic.__file__).parent
# fmt: off
FLOORS = [  # a room imports from its own floor and from those above it here, never from below
    {"", "errors"},
    {"contracts"},
    {"settings"},
    {"atomic", "cache", "colours", "datasets", "doubts", "export", "formats", "heatmaps", "hints",
     "images", "join", "kvasir", "listing", "losses", "masks", "maskvalues", "matching",
     "measures", "metrics", "normalise", "peaks", "pictures", "prompt_faults",
     "prompts", "report", "reviews", "sambox", "samples", "scenes", "shapes", "statistics",
     "textfiles", "tiffs", "tracking", "vendors", "videoscores"},
    {"models"},
    {"refine"},
    {"pipeline"},
    {"recipes", "api"},
    {"cli", "gui", "__main__"},
]
# fmt: on
WINDOW = {"napari", "qtpy", "magicgui", "superqt", "vispy", "PyQt5", "PyQt6", "PySide2", "PySide6"}
FILES = {
    ".".join(("napari_samic", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def room(module: str) -> str:
    return (*module.split("."), "")[1]


def floor(module: str) -> int:
    found = [level for level, rooms in enumerate(FLOORS) if room(module) in rooms]
    assert found, f"{module} has no floor: add '{room(module)}' to FLOORS and docs/architecture.md"
    return found[0]


def imports(module: str) -> Iterator[str]:
    """Every module that `module` imports anywhere in its text, absolute names."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            inner = [f"{name}.{alias.name}" for alias in node.names]
            yield from (full if full in FILES else name for full in inner)


OURS = {module: {name for name in imports(module) if name in FILES} for module in FILES}


@pytest.mark.parametrize("module", FILES)
def test_imports_run_one_way(module: str) -> None:
    lower = {name for name in OURS[module] if floor(name) > floor(module)}
    assert not lower, f"{module} imports {sorted(lower)}, which stand below it"


def test_no_module_imports_itself_round_a_circle() -> None:
    TopologicalSorter(OURS).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", [m for m in FILES if room(m) != "gui"])
def test_only_the_gui_knows_the_window(module: str) -> None:
    assert not {name.split(".")[0] for name in imports(module)} & WINDOW


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        pytest.param("napari_samic", WINDOW | {"torch", "dask", "numpy", "scipy"}, id="package"),
        pytest.param("napari_samic.models.hub.registry", WINDOW | {"torch", "dask"}, id="registry"),
        pytest.param("napari_samic.recipes", WINDOW | {"torch", "dask"}, id="recipes"),
    ],
)
def test_light_doors_load_nothing_heavy(module: str, heavy: set[str]) -> None:
    if module not in FILES:
        pytest.skip(f"{module} is not built yet")
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not heavy & set(loaded)
