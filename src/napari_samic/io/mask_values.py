"""What the values of a set of masks mean: ground, objects, or void, which nothing counts.

Decided once for a set, from all that its masks hold, or as given; refused where it could be either
way. Array in, array out: knows no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_samic.core.errors import InputError
from napari_samic.core.types import BoolArray, IntArray
from napari_samic.io.paths import some

ROLES = ("ground", "void", "object")
WHITES = (255, 65535)
_FEW = 64  # values below it are numbers or classes; black, gray and white lie apart
_BLURRED = "many pixels are white and some nearly so, as of blurred edges"
_TOUCHING = 16  # how near to white a value is where edges were blurred, or all numbers are taken


@dataclass(frozen=True)
class MaskValues:
    """What values of masks mean.

    Attributes
    ----------
    ground, void : tuple of int
    objects : tuple of int
        Values whose pieces, 8-connected, are objects.
    has_numbers : bool
        Any other value is the number of an object; else no other value may occur.
    by_color : bool
        Of a palette image the gray levels of its colors are the values, not the numbers.
    """

    ground: tuple[int, ...] = (0,)
    void: tuple[int, ...] = ()
    objects: tuple[int, ...] = ()
    has_numbers: bool = True
    by_color: bool = False

    def applied(self, values: NDArray[Any], name: str) -> tuple[IntArray, BoolArray]:
        """Turn stored values into numbers of objects.

        Parameters
        ----------
        values : (H, W) int
        name : str
            For the message.

        Returns
        -------
        labels : (H, W) int32
            0 is ground, and void.
        void : (H, W) bool

        Raises
        ------
        InputError
            A value without a meaning: not named, negative, or above 2**31 - 1.
        """
        void = np.isin(values, self.void)
        named = (*self.ground, *self.void, *self.objects)
        numbers = np.where(np.isin(values, named), 0, values)
        if not self.has_numbers and numbers.any():
            unknown = numbers[numbers != 0][0]
            msg = f"{name}: value {unknown} in a mask, expected {some(named)}. {ADVICE}"
            raise InputError(msg)
        low, high = numbers.min(), numbers.max()
        if low < 0 or high > np.iinfo(np.int32).max:
            msg = f"{name}: values from {low} to {high} in a mask, expected 0 (background) to "
            raise InputError(f"{msg}2**31-1. {ADVICE}")
        return _with_pieces(np.asarray(numbers, np.int32), values, self.objects), void


ADVICE = "Say what they mean with --mask-values, as 0=ground,128=void,255=object."


def _with_pieces(labels: IntArray, values: NDArray[Any], objects: tuple[int, ...]) -> IntArray:
    """Labels, and the pieces of each of the values, numbered on."""
    for value in objects:
        pieces, _ = ndimage.label(values == value, structure=np.ones((3, 3)))
        labels = np.where(pieces > 0, pieces + labels.max(), labels).astype(np.int32)
    return labels


def parse_mask_values(text: str) -> MaskValues:
    """Read what was given: values and what they are; the others are numbers of objects.

    Where objects are named, no other value may occur. 0 is ground unless it is named.

    >>> parse_mask_values("1=object,3=void,2=ground")
    MaskValues(ground=(0, 2), void=(3,), objects=(1,), has_numbers=False, by_color=False)

    Raises
    ------
    InputError
        Another kind of text, or a value that is named twice.
    """
    named: dict[int, str] = {}
    for part in text.split(","):
        value, _, role = (word.strip() for word in part.partition("="))
        if role not in ROLES or not value.lstrip("-").isdecimal() or int(value) in named:
            msg = (
                f"mask values {text!r}: {part.strip()!r} is not one value and what it is (ground, "
                "void or object), each value once. Write them as 0=ground,128=void,255=object."
            )
            raise InputError(msg)
        named[int(value)] = role
    named = {0: "ground"} | named
    ground, void, objects = (tuple(sorted(v for v, r in named.items() if r == k)) for k in ROLES)
    return MaskValues(ground, void, objects, has_numbers=not objects)


@dataclass(frozen=True)
class ValueCounts:
    """What one mask holds.

    Attributes
    ----------
    name : str
    values : frozenset of int
    white : int
        The highest number of its kind of pixels: 255, 65535; 0 of wider kinds.
    white_share : float
        Of its pixels that are not 0, how many are `white`.
    is_inverted : bool
        The file says that 0 is shown white.
    is_framed : bool
        Nearly all of its edge, and most of it, is not 0.
    is_soft : bool
        Neighbors differ as those of blurred edges and of maps of scores do.
    black : int
        Number that its palette shows black; 0 also if that is none.
    """

    name: str
    values: frozenset[int]
    white: int = 0
    white_share: float = 0.0
    is_inverted: bool = False
    is_framed: bool = False
    is_soft: bool = False
    black: int = 0


def infer_meaning(masks: Sequence[ValueCounts]) -> MaskValues:
    """Say what the values of a set mean.

    One value beside 0 is that of all objects, and so is white of masks that are black and white. Of
    black, gray and white, gray is void; so is white among small numbers. All else are numbers.

    Raises
    ------
    InputError
        They could mean this or that.
    """
    values = _values(masks)
    others = [v for v in values if v]
    if not others or others[0] < 0:  # one below 0 is refused by its own mask
        return MaskValues()
    if 0 not in values:
        _refuse(masks, values, "none is 0, the ground")
    if black := next((mask.black for mask in masks if mask.black), 0):
        _refuse(masks, values, f"the palette's black, as of ground, is {black}, not 0")
    if len(others) == 1:
        if any(mask.is_inverted for mask in masks):
            _refuse(masks, values, "the files say that 0 is shown white")
        return MaskValues(objects=(others[0],), has_numbers=False)
    if any(mask.is_soft for mask in masks):
        _refuse(masks, values, "neighbours differ, as of blurred edges or scores: threshold them")
    *rest, top = others
    if top not in WHITES:
        return MaskValues()
    if len(rest) == 1 and rest[0] in (top // 2, top // 2 + 1):
        return MaskValues(void=(rest[0],), objects=(top,), has_numbers=False)
    return _with_white(masks, values, rest, top)


def _with_white(
    masks: Sequence[ValueCounts], values: list[int], rest: list[int], top: int
) -> MaskValues:
    """Of a set of many values, the last of which is white: void, or one number more."""
    if top - 1 in rest:
        if any(mask.white == top and mask.white_share > _usual_share(mask) for mask in masks):
            _refuse(masks, values, f"{_BLURRED}: threshold them")
        return MaskValues()
    is_number = any(top in mask.values and mask.white != top for mask in masks)
    alone = [mask.values - {0} == {top} for mask in masks if top in mask.values]
    if all(alone) and not is_number:
        return MaskValues(objects=(top,))
    is_small = rest[-1] < _FEW or 2 * len(rest) > rest[-1]  # few, or every number up to it
    if is_number or any(alone) or not is_small or rest[-1] > top - _TOUCHING:
        _refuse(masks, values, f"{top} may be white, void, or a number")
    return MaskValues(void=(top,), objects=tuple(rest) if len(rest) == 1 else ())


def _usual_share(mask: ValueCounts) -> float:
    """The most that a number takes of a mask: several times what all take on average."""
    return min(0.5, max(0.1, 5 / max(len(mask.values - {0}), 1)))


def _values(masks: Sequence[ValueCounts]) -> list[int]:
    return sorted({value for mask in masks for value in mask.values})


def _refuse(masks: Sequence[ValueCounts], values: list[int], why: str) -> NoReturn:
    where = masks[0].name if len(masks) == 1 else f"{masks[0].name} and {len(masks) - 1} more"
    raise InputError(f"{where}: values {some(values)} in the masks, and {why}. {ADVICE}")


def describe(meaning: MaskValues, masks: Sequence[ValueCounts]) -> str:
    """One line on what the values of a set mean.

    >>> masks = [ValueCounts("a", frozenset({0, 128, 255}))]
    >>> describe(infer_meaning(masks), masks)
    '3 values: 0 ground, 128 void, 255 object'
    """
    values = _values(masks)
    if not values:
        return "no mask can be read"
    roles = {"ground": meaning.ground, "void": meaning.void, "object": meaning.objects}
    parts = {v: f"{v} {role}" for role, named in roles.items() for v in named if v in values}
    numbers = [v for v in values if v not in parts]
    if numbers:
        first, last = numbers[0], numbers[-1]
        parts[first] = f"{first} to {last} objects" if last > first else f"{first} object"
    words = ", ".join(parts[v] for v in sorted(parts))
    line = f"{len(values)} value{'s' * (len(values) != 1)}: {words}"
    return line + " (of the palette's colours)" * meaning.by_color


def inverted_warning(meaning: MaskValues, masks: Sequence[ValueCounts]) -> str:
    """Why a decided meaning may be the wrong way round; "" if nothing speaks for it."""
    if not masks or len(meaning.objects) != 1 or not all(mask.is_framed for mask in masks):
        return ""
    value = meaning.objects[0]
    return (
        f"{value} is at the border of all masks and most of each: if objects are 0, say "
        f"--mask-values 0=object,{value}=ground."
    )
