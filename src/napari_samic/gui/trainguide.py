"""What a training needs, and what to know before it, in one or two sentences.

Plain Python: knows no Qt, no napari.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from napari_samic.gui.sources import Found


def counts(found: Sequence[Found]) -> dict[int, int]:
    """In how many references each class is."""
    labels = [{i.label for i in one.page.items if i.is_askable} for one in found]
    return {n: sum(n in one for one in labels) for n in sorted(set().union(*labels))}


def missing(found: Sequence[Found], epochs: int, *, has_model: bool) -> str:
    """Why training can't start; "" if it can."""
    if not found:
        return "Annotate two images or more in the first step: what you click on is learned."
    if epochs > 0 and max(counts(found).values()) < 2:
        return (
            "Training needs two annotated images that show the same class. With one, set Epochs "
            "to 0: the packaged prompter looks for its objects untrained (one-shot)."
        )
    return "" if has_model else "The model is being loaded."


def before(found: Sequence[Found], epochs: int, names: Mapping[int, str]) -> str:
    """What to know before a training that can start."""
    count = f"{len(found)} reference{'s' * (len(found) != 1)}"
    if epochs == 0:
        return f"{count}. No epochs: the packaged prompter looks for their objects untrained."
    lone = [names.get(label, str(label)) for label, n in counts(found).items() if n < 2]
    if lone:
        return (
            f"{count}. Only one shows {', '.join(lone)}: annotate another, so that it is learned."
        )
    if len(found) < 4:
        return f"{count}. From four on, one is kept aside to judge the training."
    return f"{count}. Some are kept aside to judge the training."
