"""What a form shows of settings: titles, help, bounds, and what is wrong with a value.

Plain Python over `core.settings`: knows no Qt. `settings_form` draws it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from napari_samic.core.errors import SettingsError
from napari_samic.core.settings import Settings, hints_of, public_fields

TITLES = {
    "sigma_frac": "Click width",
    "min_area_frac": "Least area",
    "encoder": "Encoder",
    "shots": "References averaged",
    "kept": "References kept",
    "serve": "References that serve",
    "adapt": "Fine-tune the encoder",
    "adapt_steps": "Batches",
    "adapt_others": "Unannotated images too",
    "instances": "Number every object",
    "map_cut": "Cut of the map",
    "map_core": "Core of an object",
    "tile_px": "Tiles of large images",
    "min_score": "Least confidence",
    "strategy": "Prompts",
    "choice": "Mask that is taken",
    "split": "Cut at necks",
    "clicks": "Rounds of clicks",
    "smooth_px": "Smoothing",
    "fill_px": "Holes to fill",
    "limits": "Sizes as the references'",
    "min_stability": "Least stability",
    "min_quality": "Least quality",
    "follow": "Follow objects",
    "link": "Link objects",
    "memory_frames": "Frames remembered",
    "min_object_px": "Smallest object",
    "tiff": "Label TIFF",
    "png": "Label PNG",
    "ome_zarr": "OME-Zarr labels",
    "coco": "COCO JSON",
    "geojson": "GeoJSON outlines",
    "roi": "ImageJ ROIs",
    "table": "CSV of measurements",
    "prompt_file": "Prompts JSON",
}
"""Names for people, where the name in Python does not say enough."""


@dataclass(frozen=True)
class FormEntry:
    """One setting, as a form shows it.

    Attributes
    ----------
    kind : type of Settings
    name : str
    type : type
        int, float, bool or str.
    default : Any
    help, unit : str
    ge, le : float or None
        Bounds; both belong to the range.
    choices : tuple, () if any value does
    """

    kind: type[Settings]
    name: str
    type: type
    default: Any
    help: str = ""
    unit: str = ""
    ge: float | None = None
    le: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def title(self) -> str:
        """What stands before the field."""
        return title_of(self.name)

    @property
    def tooltip(self) -> str:
        """Help, unit, bounds and default, for one tooltip."""
        low, high = (None if v is None else text_of(v) for v in (self.ge, self.le))
        bounds = {
            (True, True): f"{low} to {high}",
            (True, False): f"At least {low}",
            (False, True): f"At most {high}",
        }.get((low is not None, high is not None), "")
        parts = [f"{bounds} {self.unit}".strip(), f"Default: {text_of(self.default)}"]
        return f"{self.help} ({'. '.join(k for k in parts if k)}.)".strip()


def entries(kind: type[Settings]) -> Iterator[FormEntry]:
    """Every setting of a dataclass that people see, in its order."""
    hints = hints_of(kind)
    for spec in public_fields(kind):
        meta = spec.metadata
        yield FormEntry(
            kind,
            spec.name,
            hints[spec.name],
            spec.default,
            help=str(meta.get("help", "")),
            unit=str(meta.get("unit", "")),
            ge=meta.get("ge"),
            le=meta.get("le"),
            choices=tuple(meta.get("choices") or ()),
        )


def title_of(name: str) -> str:
    """What a setting is called before people.

    >>> title_of("link"), title_of("learning_rate")
    ('Link objects', 'Learning rate')
    """
    return TITLES.get(name, name.replace("_", " ").capitalize())


def text_of(value: Any) -> str:
    """A value as people write it; what is read back is the same value.

    >>> text_of(0.001), text_of(1.0), text_of(True), text_of(1 / 3)
    ('0.001', '1', 'yes', '0.3333333333333333')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def read_number(text: str) -> float:
    """A number that a person wrote.

    Raises
    ------
    SettingsError
        Not a number.

    Examples
    --------
    >>> read_number("1e-3"), read_number(" 0,25 ")
    (0.001, 0.25)
    """
    try:
        return float(text.strip().replace(",", "."))
    except ValueError as error:
        raise SettingsError("A number expected") from error


def fault_of(entry: FormEntry, value: Any) -> str:
    """What is wrong with a value by itself; "" if nothing is.

    >>> from napari_samic.core.settings import PeakSettings
    >>> entry = next(entries(PeakSettings))
    >>> fault_of(entry, 2.0), fault_of(entry, 0.5)
    ('At most 1.0 expected', '')
    """
    message = entry.kind.validate_field(entry.name, value)
    return message.rpartition("expected ")[2].capitalize() + " expected" if message else ""


def heading_of(kind: type[Settings]) -> str:
    """First sentence of a settings class."""
    return (kind.__doc__ or kind.__name__).strip().partition(".")[0]
