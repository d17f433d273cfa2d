"""The shell's `--record` and `run`."""

import shutil
import signal
from dataclasses import replace

import pytest
from toys import scene, write_image, write_scenes

from napari_samic import cli, pipeline, recipes
from napari_samic.cli import progress
from napari_samic.core.settings import (
    AdaptSettings,
    HeatMapSettings,
    PeakSettings,
    PrompterSettings,
    RefineSettings,
    SegmentSettings,
    TrainSettings,
)
from napari_samic.core.types import JobProgress


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder to work in: `images`, `masks`, `more`."""
    write_scenes(tmp_path, 3)
    write_image(tmp_path / "more" / "q3.png", scene(3)[0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def recorded(shell, project, toy, prompter):
    """`r.yaml` of two commands, and their results."""
    common = ("--device", "cpu", "--record", "r.yaml")
    ran = shell("annotate", "images", "--masks", "masks", "--simulate", "--out", "a", "--model",
                toy, "--target-iou", "0.8", *common)  # fmt: skip
    assert (ran.code, ran.complaints) == (0, [])
    shutil.copy(prompter, "p.pt")
    ran = shell(
        "segment", "more", "--prompter", "p.pt", "--out", "s", "--min-area-frac", "0.2", *common
    )
    assert (ran.code, ran.complaints) == (0, [])
    return project / "r.yaml"


def test_commands_are_recorded_as_they_were_given(recorded, prompter):
    first, second = recipes.load_recipe(recorded).steps
    assert (first.do, first.inputs) == ("annotate", {"images": "images", "masks": "masks"})
    assert first.settings == {"simulate": True, "device": "cpu", "target_iou": 0.8}
    assert second.inputs == {"images": "more", "prompter": "p.pt"}
    assert second.settings == {"device": "cpu"}  # the least area is the prompter's


@pytest.mark.parametrize("command", ["annotate", "train", "segment", "evaluate"])
def test_every_command_can_be_recorded(shell, monkeypatch, command):
    seen = {}

    def recorded(make, record):
        seen.update(name=make.__name__, record=record)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "recorded", recorded)
    lines = {
        "annotate": ["x", "--out", "o"],
        "train": ["--images", "x", "--out", "o"],
        "segment": ["x", "--prompter", "p", "--out", "o"],
        "evaluate": ["--predictions", "x", "--truth", "y"],
    }
    shell(command, *lines[command], "--record", "r.yaml")
    assert (seen["name"], str(seen["record"])) == (command, "r.yaml")
    shell(command, *lines[command])
    assert seen["record"] is None


def test_one_switch_gives_the_literal_paper(shell, monkeypatch):
    seen = {}

    def job(*args, **kwargs):
        seen.update(kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "recorded", lambda make, record: job)
    shell("train", "--images", "x", "--out", "o", "--paper", "--epochs", "7", "--sigma-frac", "0.1")
    assert seen["settings"] == replace(TrainSettings.paper(), epochs=7)
    assert seen["prompter"] == PrompterSettings.paper()
    assert seen["heat"] == replace(HeatMapSettings.paper(), sigma_frac=0.1)
    assert (seen["peaks"], seen["adapt"]) == (PeakSettings.paper(), AdaptSettings.paper())


@pytest.mark.parametrize("words", [(), ("--min-area-frac", "0.7", "--method", "auto")])
def test_preset_counts_where_nothing_is_given(shell, monkeypatch, prompter, words):
    seen = {}

    def job(*args, **kwargs):
        seen.update(kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "recorded", lambda make, record: job)
    own = ("--prompter", prompter, "--out", "o", "--preset", "literal-paper", *words)
    shell("segment", "x", *own)
    area = 0.7 if words else PeakSettings.paper().min_area_frac
    assert seen["method"] == ("auto" if words else "samic")
    assert seen["settings"] == SegmentSettings.paper()
    assert seen["peaks"] == replace(PeakSettings.paper(), min_area_frac=area)
    assert seen["refine"] == RefineSettings()


def test_preset_that_is_not_known_is_named_with_those_that_are(shell):
    ran = shell("segment", "x", "--prompter", "p", "--out", "o", "--preset", "cells")
    assert (ran.code, "touching-cells" in ran.err) == (2, True)


def test_option_that_is_given_counts_over_the_paper_even_if_it_is_the_default(shell, monkeypatch):
    seen = {}

    def job(*args, **kwargs):
        seen.update(kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "recorded", lambda make, record: job)
    usual = PrompterSettings().encoder
    shell("train", "--images", "x", "--out", "o", "--paper", "--encoder", usual)
    assert seen["prompter"] == replace(PrompterSettings.paper(), encoder=usual)
    assert seen["settings"] == TrainSettings.paper()


def test_replay_says_that_the_labels_are_the_same(shell, recorded, project):
    ran = shell("run", "r.yaml", "--out", "again")
    assert (ran.code, ran.complaints) == (0, [])
    assert ran.out.splitlines() == [
        f"1 annotate: 3 done, mIoU {ran.out.split('mIoU ')[1][:5]}, same labels as recorded; "
        f"results in {project / 'again' / 'a'}",
        f"2 segment: 1 done, same labels as recorded; results in {project / 'again' / 's'}",
    ]
    ran = shell("run", "r.yaml", "--out", "again")
    assert "3 done before" in ran.out.splitlines()[0]
    assert "--overwrite" in ran.out.splitlines()[0]


def test_dry_run_tells_step_by_step(shell, recorded, project, toy):
    before = sorted(project.rglob("*"))
    ran = shell("run", "r.yaml", "--out", "new", "--images", "images", "--set", "2.threshold=0.4",
                "--dry-run")  # fmt: skip
    assert (ran.code, ran.complaints) == (0, [])
    assert ran.out.splitlines() == [
        "1 annotate:",
        f"    images: {project}/images (3 files)",
        f"    masks: {project}/masks (3 files)",
        f"    model: {toy}",
        "    settings: simulate=True, device=cpu, target_iou=0.8",
        f"    to: {project}/new/a",
        "2 segment:",
        f"    images: {project}/images (3 files)",
        f"    prompter: {project}/p.pt (1 file)",
        "    settings: device=cpu, threshold=0.4",
        f"    to: {project}/new/s",
        "nothing was written",
    ]
    assert sorted(project.rglob("*")) == before


def test_json_is_one_document(shell, recorded):
    ran = shell("run", "r.yaml", "--out", "new", "--json")
    assert (ran.code, ran.err, len(ran.out.splitlines())) == (0, "", 1)
    assert (ran.json["done"], ran.json["out"]) == (2, "new")
    assert [s["same_labels"] for s in ran.json["steps"]] == [True, True]
    dry = shell("run", "r.yaml", "--out", "newer", "--json", "--dry-run").json
    assert [s["do"] for s in dry["steps"]] == ["annotate", "segment"]


def test_change_of_data_is_a_line_on_stderr_and_strict_refuses(shell, recorded):
    write_image(recorded.parent / "more" / "q4.png", scene(4)[0])
    line = "r.yaml: step 2 (segment): images has 2 files, 1 when it was recorded.\n"
    ran = shell("run", "r.yaml", "--dry-run")
    assert (ran.code, ran.err) == (0, f"warning: {line}")
    ran = shell("run", "r.yaml", "--strict")
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {line}")


def test_image_that_fails_is_code_1(shell, recorded):
    (recorded.parent / "bad").mkdir()
    (recorded.parent / "bad" / "x.png").write_text("hello")
    shutil.copy("more/q3.png", "bad")
    ran = shell("run", "r.yaml", "--out", "new", "--images", "bad")
    assert ran.code == 1
    assert "1 done, 1 failed" in ran.out
    assert ran.complaints[0].startswith("failed: x.png: ")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        pytest.param(["none.yaml"], 2, "none.yaml: can't be read", id="no_file"),
        pytest.param(["images/p0.png"], 2, "p0.png: not a text", id="no_recipe"),
        pytest.param(["r.yaml", "--set", "epochs"], 2, "--set 'epochs': expected KEY", id="set"),
        pytest.param(["r.yaml", "--set", "epochs=3"], 2, "epochs: not known. Known", id="key"),
        pytest.param(["r.yaml", "--images", "more"], 2, "Name another folder for them (--out).",
                     id="images_without_out"),
        pytest.param(["r.yaml", "--set", "model=x"], 2, "unknown model 'x'", id="model"),
        pytest.param(["r.yaml", "--set", "model=vit_b", "--dry-run"], 3, "step 1 (annotate): ",
                     id="weights"),
    ],
)  # fmt: skip
def test_errors_are_one_line(shell, recorded, words, code, message):
    ran = shell("run", *words)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (code, "", 1)
    assert message in ran.err


def test_command_into_a_file_that_is_no_recipe_does_not_begin(shell, recorded, toy):
    text = recorded.parent / "notes.txt"
    text.write_text("hello")
    ran = shell(
        "annotate", "images", "--masks", "masks", "--simulate", "--out", "b", "--record", text
    )
    assert (ran.code, len(ran.err.splitlines()), text.read_text()) == (2, 1, "hello")
    assert not (recorded.parent / "b").exists()


def test_ctrl_c_leaves_the_recipe_as_it_was(shell, recorded, monkeypatch):
    before = recorded.read_bytes()

    def evaluate(*, predictions, truth, mask_values=None, out=None, overwrite=False, dask=None):
        yield JobProgress(1, 2, "half")
        signal.raise_signal(signal.SIGINT)
        yield JobProgress(2, 2, "never")

    monkeypatch.setattr(pipeline, "evaluate", evaluate)
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ran = shell("evaluate", "--predictions", "a", "--truth", "masks", "--record", recorded)
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert (ran.code, recorded.read_bytes()) == (130, before)


def test_every_step_of_a_recipe_has_its_own_bar():
    from rich.console import Console

    it = progress.ProgressBoard(Console(), disable=True)
    for number in (1, 2):
        for done in (1, 2):
            it.show(JobProgress(done, 2, "image", {"step": number}))
    assert [(t.completed, t.total) for t in it.bar.tasks] == [(2, 2), (2, 2)]


def test_help_says_which_images_are_replaced():
    from typer.main import get_command

    texts = {p.name: p.help for p in get_command(cli.app).commands["run"].params}
    assert "instead of the recorded images" in texts["images"]
