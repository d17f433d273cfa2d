"""Lets the tests here import their helpers (pytest's importlib mode leaves the path alone)."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def trained():
    """A prompter that has learned to find red discs beside blue ones. Not to be changed."""
    import toy_backbone as toy

    from napari_samic.contracts import run

    prompter = toy.prompter(mask_mode="weighted", shots=3)
    settings = toy.quick(epochs=18, views=4, learning_rate=2e-3)
    run(prompter.fit(toy.references(8), settings))
    return prompter
