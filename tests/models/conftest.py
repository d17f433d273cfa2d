"""Lets the tests here import their helper, `toy_sam` (pytest's importlib mode leaves the path)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
