"""Whether a plan can be carried out, and whether its data and models are those of the recording.

Everything is looked at before the first step begins, and all that is wrong is told at once.
Writes nothing.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_samic import __version__
from napari_samic.atomic import check_apart, check_free
from napari_samic.contracts import Job
from napari_samic.errors import InputError, OutputError, SamicError
from napari_samic.recipes.fingerprint import Fingerprint, files_of, fingerprint
from napari_samic.recipes.kinds import KINDS
from napari_samic.recipes.plan import Planned
from napari_samic.recipes.recording import sha256_of


@dataclass
class Findings:
    """What a check found.

    Attributes
    ----------
    errors : list of SamicError
        Why the plan can't be carried out.
    differences : list of str
        What is other than when it was recorded.
    files : dict of (int, str) to int
        How many files each input of each step means; inputs that are yet to be made are not there.
    """

    errors: list[SamicError] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    files: dict[tuple[int, str], int] = field(default_factory=dict)

    def refuse(self, name: str, *, strict: bool) -> None:
        """Raise what was found, of the kind of the first; with `strict` differences too.

        Raises
        ------
        SamicError
        """
        told = [*map(str, self.errors), *(self.differences if strict else ())]
        if told:
            kind = type(self.errors[0]) if self.errors else InputError
            raise kind(f"{name}: {' '.join(told)}")


def check(
    plan: Sequence[Planned],
    *,
    overwrite: bool,
    inside: Path | None = None,
    done: Container[int] = (),
    recipe: Path | None = None,
) -> Job[Findings]:
    """Look at inputs, models and places for results; a job, as it hashes.

    Parameters
    ----------
    plan : sequence of Planned
    overwrite : bool
        As for `replay`.
    inside : Path, optional
        Folder that results must lie in unless the user said where they go.
    done : container of int
        Numbers of steps whose results are there.
    recipe : Path, optional
        File of the recipe, which no result may replace.
    """
    found = Findings()
    found.differences += _versions(plan)
    for planned in plan:
        if planned.left_out:
            continue
        yield from _check_inputs(planned, found)
        for look in (_check_model, _check_out)[: 1 if planned.number in done else 2]:
            try:
                check_apart(planned.step.out, recipe)
                found.differences += look(planned, overwrite)
            except SamicError as error:
                found.errors.append(_placed(planned, error))
        if inside is not None and (fault := _leads_out(planned, inside)):
            found.errors.append(OutputError(f"{planned.place}: {fault}"))
    return found


def _leads_out(planned: Planned, inside: Path) -> str:
    """Whether a step would write where neither the user said nor the recipe lies; links count."""
    if planned.out is None or planned.is_out_given:
        return ""
    leads = planned.out.resolve()
    if leads.is_relative_to(inside.resolve()):
        return ""
    return (
        f"would write to {leads}, outside of the recipe's folder. Name a folder for the results "
        "(--out), or trust the recipe (--anywhere)."
    )


def _placed(planned: Planned, error: SamicError) -> SamicError:
    return type(error)(f"{planned.place}: {error}")


def _versions(plan: Sequence[Planned]) -> Iterator[str]:
    others = sorted({p.step.package for p in plan} - {"", __version__})
    if others:
        yield (
            f"recorded with napari-samic {', '.join(others)}, this is {__version__}: settings that "
            "are not in the recipe have the defaults of this one."
        )


def _check_inputs(planned: Planned, found: Findings) -> Job[None]:
    for key, value in planned.step.inputs.items():
        if key in planned.made_by:
            continue
        try:
            sources = [value] if isinstance(value, str) else value
            files = [file for source in sources for file in files_of(source)]
        except SamicError as error:
            found.errors.append(type(error)(f"{planned.place}, {key}: {error}"))
            continue
        found.files[planned.number, key] = len(files)
        if key in planned.step.data:
            wanted = planned.step.data[key]
            now = yield from fingerprint(files, hashed=wanted.hashed)
            if now != wanted:
                found.differences.append(f"{planned.place}: {key} {_difference(now, wanted)}")


def _difference(now: Fingerprint, wanted: Fingerprint) -> str:
    if now.files != wanted.files:
        return f"has {now.files} files, {wanted.files} when it was recorded."
    return "has other contents or names than when it was recorded."


def _check_model(planned: Planned, overwrite: bool) -> list[str]:  # noqa: ARG001
    step = planned.step
    now, wanted = sha256_of(step.model), step.model_sha256
    if not wanted or now == wanted:
        return []
    return [
        f"{planned.place}: model {step.model} is {now[:12]}, {wanted[:12]} when it was recorded."
    ]


def _check_out(planned: Planned, overwrite: bool) -> list[str]:
    if planned.out is None:
        return []
    if KINDS[planned.step.do].is_file:
        step = planned.step
        check_apart(planned.out, *step.inputs.values(), step.model, step.settings.get("encoder"))
        may = planned.replaces(overwrite=overwrite) or planned.made_before
        check_free(planned.out, overwrite=may)
    elif planned.out.is_file():
        raise OutputError(f"{planned.out}: is a file, expected a folder. Choose another.")
    return []
