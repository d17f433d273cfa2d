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
    assert script.drawing() in found, "run: python docs/make_architecture.py"


def test_drawing_twice_changes_nothing(script, tmp_path, monkeypatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{script.BEGIN}\nstale drawing\n{script.END}\n\nafter\n", encoding="utf-8")
    monkeypatch.setattr(script, "PAGE", page)
    drawn = script.page()
    page.write_text(drawn, encoding="utf-8")
    assert script.page() == drawn
    assert drawn.startswith("before\n")
    assert drawn.endswith("\nafter\n")
    assert "stale drawing" not in drawn


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param({("a", "b"), ("b", "c")}, {("a", "b"), ("b", "c")}, id="chain"),
        pytest.param({("a", "b"), ("b", "c"), ("a", "c")}, {("a", "b"), ("b", "c")}, id="short cut"),
        pytest.param({("a", "b"), ("b", "a")}, {("a", "b"), ("b", "a")}, id="circle of two"),
    ],
)
def test_arrows_that_follow_from_others_are_left_out(script, given, kept) -> None:
    assert script.reduced(given) == kept
