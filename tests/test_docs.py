import importlib.util
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_settings_page_says_what_the_code_does():
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    make_settings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_settings)
    found = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert found == make_settings.page(), "run: python docs/make_settings.py"
