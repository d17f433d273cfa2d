"""Lets the tests here import their helpers (pytest's importlib mode leaves the path alone)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from napari_samic.gui.jobs import load_torch

# Torch before any window, so that a file run alone does not meet Mesa's LLVM with triton's.
load_torch()
