"""Write docs/settings.md from the settings dataclasses.

    python docs/make_settings.py

A test fails when the page is older than the code.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from napari_samic.core import settings

PAGE = Path(__file__).with_name("settings.md")
HEAD = """# Settings

Made by `python docs/make_settings.py` from `src/napari_samic/core/settings.py`. Every one is an
option of the shell (`--sigma-frac 0.03`) and a field for scripts
(`HeatMapSettings(sigma_frac=0.03)`). One that is true or false is `--adapt` or `--no-adapt` there.
The literal paper is `train --paper` and `segment --paper`; in scripts `TrainSettings.paper()`, and
so on for the groups that have it.
"""


def page() -> str:
    """Text of the page."""
    parts = [HEAD]
    for kind in settings.Settings.__subclasses__():
        parts.append(f"\n## {kind.__name__}\n\n{(kind.__doc__ or '').splitlines()[0]}\n")
        parts.append("| setting | default | range | meaning |\n|---|---|---|---|")
        parts += [_row(spec) for spec in fields(kind)]
    return "\n".join(parts) + "\n"


def _row(spec) -> str:
    meta = spec.metadata
    low, high = meta["ge"], meta["le"]
    if meta["choices"]:
        span = ", ".join(map(str, meta["choices"]))
    elif low is not None and high is not None:
        span = f"{low:g} to {high:g}"
    elif low is not None:
        span = f"at least {low:g}"
    else:
        span = "true, false" if isinstance(spec.default, bool) else "a text"
    unit = f" In {meta['unit']}." if meta["unit"] else ""
    default = spec.default
    if isinstance(default, bool):
        default = str(default).lower()
    return f"| `{spec.name}` | {default} | {span} | {meta['help']}{unit} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
