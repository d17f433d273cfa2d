"""Draw the rooms in docs/architecture.md from the imports of src/napari_samic.

    python docs/make_architecture.py

An arrow points from a room to one that it imports from. Arrows that follow from others are left
out. A test fails when the page is older than the code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

PAGE = Path(__file__).with_name("architecture.md")
PACKAGE = Path(__file__).parents[1] / "src" / "napari_samic"
BEGIN, END = "<!-- drawn by docs/make_architecture.py -->", "<!-- end of the drawing -->"

Name = tuple[str, ...]
Arrow = tuple[str, str]


def modules() -> dict[Name, Path]:
    """Every module by its name below the package: ("io", "files"); a folder is ("io",)."""
    paths = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").parts
        paths[name[:-1] if name[-1] == "__init__" else name] = path
    return paths


def imports() -> set[tuple[Name, Name]]:
    """Pairs of a module and one that it imports anywhere in its text, for types as well."""
    paths = modules()
    return {
        (name, target)
        for name, path in paths.items()
        for target in _targets(ast.parse(path.read_text(encoding="utf-8")), paths)
    }


def _targets(tree: ast.Module, names: Iterable[Name]) -> Iterator[Name]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            full = [(*node.module.split("."), alias.name) for alias in node.names]
        else:
            continue
        for root, *name in full:
            if root == PACKAGE.name:
                yield tuple(name) if tuple(name) in names else tuple(name[:-1])


def arrows(below: Name = ()) -> set[Arrow]:
    """Imports between the rooms of one folder; the folder itself is no room."""
    depth = len(below)
    return {
        (source[depth], target[depth])
        for source, target in imports()
        if source[:depth] == target[:depth] == below
        and min(len(source), len(target)) > depth
        and source[depth] != target[depth]
    }


def reduced(given: set[Arrow]) -> set[Arrow]:
    """Those that do not follow from others: the transitive reduction of a graph without circles."""
    kept = set(given)
    for arrow in sorted(given):
        if _leads(arrow, kept - {arrow}):
            kept.remove(arrow)
    return kept


def _leads(arrow: Arrow, among: set[Arrow]) -> bool:
    """Whether one can walk from the start of `arrow` to its end."""
    reached = {arrow[0]}
    while more := {end for start, end in among if start in reached} - reached:
        reached |= more
    return arrow[1] in reached


def chart(given: set[Arrow]) -> str:
    """A Mermaid flowchart, the rooms that import most on top."""
    lines = [f"    {start} --> {end}" for start, end in sorted(reduced(given))]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```"])


def drawing() -> str:
    """All charts, with their headings, between the two markers."""
    parts = [
        BEGIN,
        chart(arrows()),
        "The folders of `models`:",
        chart(arrows(("models",))),
        "The folders of `gui`:",
        chart(arrows(("gui",))),
        END,
    ]
    return "\n\n".join(parts)


def page(text: str) -> str:
    """The page with the drawing as the code has it now."""
    before, _, rest = text.partition(BEGIN)
    return before + drawing() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
