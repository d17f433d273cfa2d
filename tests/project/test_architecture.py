"""The house stands as docs/architecture.md says: imports run one way, and the door is light.

The floors are the contracts of import-linter in pyproject.toml.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WINDOW = {"napari", "qtpy", "magicgui", "superqt", "vispy", "PyQt5", "PyQt6", "PySide2", "PySide6"}


def test_imports_keep_the_contracts() -> None:
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        pytest.param("napari_samic", WINDOW | {"torch", "dask", "numpy", "scipy"}, id="package"),
        pytest.param("napari_samic.cli", WINDOW | {"torch", "dask", "numpy", "scipy"}, id="shell"),
        pytest.param("napari_samic.models.hub.registry", WINDOW | {"torch", "dask"}, id="registry"),
        pytest.param("napari_samic.recipes", WINDOW | {"torch", "dask"}, id="recipes"),
    ],
)
def test_light_doors_load_nothing_heavy(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not heavy & set(loaded)
