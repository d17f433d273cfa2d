"""The drawing in docs/architecture.md is that of the imports, and leaves out what follows."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "make_architecture.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_architecture", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_holds_what_the_script_draws(script) -> None:
    found = script.PAGE.read_text(encoding="utf-8")
    assert script.page(found) == found, "run: python docs/make_architecture.py"


def test_a_stale_drawing_is_replaced_and_nothing_else(script) -> None:
    stale = f"before\n\n{script.BEGIN}\nstale\n{script.END}\n\nafter\n"
    assert script.page(stale) == f"before\n\n{script.drawing()}\n\nafter\n"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param({("a", "b"), ("b", "c")}, {("a", "b"), ("b", "c")}, id="chain"),
        pytest.param(
            {("a", "b"), ("b", "c"), ("a", "c")}, {("a", "b"), ("b", "c")}, id="short cut"
        ),
        pytest.param({("a", "b"), ("b", "a")}, {("a", "b"), ("b", "a")}, id="circle of two"),
    ],
)
def test_arrows_that_follow_from_others_are_left_out(script, given, kept) -> None:
    assert script.reduced(given) == kept
