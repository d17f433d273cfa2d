"""The shell: options, output, exit codes, bars, Ctrl-C, models."""

import hashlib
import importlib
import io
import json
import os
import re
import shutil
import signal
import warnings
from pathlib import Path

import pytest
import requests
from rich.console import Console
from toys import hidden_files, write_labels_of, write_scenes

from napari_samic import cli, pipeline
from napari_samic.cli import progress
from napari_samic.core.settings import (
    AnnotateSettings,
    HeatMapSettings,
    PeakSettings,
    PrompterSettings,
    SegmentSettings,
    TrainSettings,
    public_fields,
)
from napari_samic.core.types import JobProgress
from napari_samic.models.hub import catalog

GROUPS = {
    "annotate": (AnnotateSettings, SegmentSettings),
    "train": (TrainSettings, PrompterSettings, HeatMapSettings, PeakSettings),
    "segment": (SegmentSettings, PeakSettings),
}
ALL = [
    (command, kind, s) for command, ks in GROUPS.items() for kind in ks for s in public_fields(kind)
]


def flag(spec):
    return "--" + spec.name.replace("_", "-")


def given(command, *more):
    """A command line that is complete but for what is looked at."""
    lines = {
        "annotate": ["annotate", "x", "--out", "o"],
        "train": ["train", "--images", "x", "--out", "o"],
        "segment": ["segment", "x", "--prompter", "p", "--out", "o"],
    }
    return [*lines[command], *more]


# Options.


@pytest.fixture
def asked(monkeypatch):
    """What a command gives to its job, which is not run."""
    seen = {}

    def replaced(name):
        def job(*args, **kwargs):
            seen.update(kwargs, job=name, args=args)
            raise KeyboardInterrupt

        return job

    for name in GROUPS:
        monkeypatch.setattr(pipeline, name, replaced(name))
    room = importlib.import_module("napari_samic.pipeline.segment")
    monkeypatch.setattr(room, "stored_peaks", lambda _: PeakSettings(min_area_frac=0.5))
    return seen


def other_value(spec):
    """A value that is not the default and is allowed."""
    meta, default = spec.metadata, spec.default
    if isinstance(default, bool):
        return not default
    if meta["choices"]:
        return next(c for c in meta["choices"] if c != default)
    if isinstance(default, str):
        return "other"
    low = 256 if meta["unit"] == "px" and not meta["ge"] else meta["ge"] or 0
    return type(default)(low if low != default else meta["le"] or low + 1)


@pytest.mark.parametrize(
    ("command", "kind", "spec"), [pytest.param(*row, id=f"{row[0]}-{row[2].name}") for row in ALL]
)
def test_every_setting_is_an_option_of_its_command(shell, asked, command, kind, spec):
    value = other_value(spec)
    if isinstance(value, bool):
        words = [flag(spec) if value else flag(spec).replace("--", "--no-", 1)]
    else:
        words = [flag(spec), str(value)]
    shell(*given(command, *words))
    groups = [v for v in asked.values() if isinstance(v, kind)]
    assert [getattr(g, spec.name) for g in groups] == [value]


def test_images_without_annotation_reach_the_training(shell, asked):
    shell(*given("train", "--others", "far", "--others", "more/*.tif"))
    assert asked["others"] == ["far", "more/*.tif"]
    shell(*given("train"))
    assert asked["others"] is None


@pytest.mark.parametrize(
    "words",
    [[], ["demo"], ["annotate"], ["train"], ["segment"], ["evaluate"], ["accept"], ["export"],
     ["precompute"], ["status"], ["run"], ["benchmark"], ["models"], ["models", "import"]],
    ids="-".join,
)  # fmt: skip
def test_help_of_every_command_fits_a_screen(shell, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    ran = shell(*words, "--help")
    assert ran.code == 0
    assert len(ran.out.splitlines()) <= 45


@pytest.mark.parametrize("command", GROUPS)
def test_all_settings_are_in_the_long_help_and_few_in_the_short_one(shell, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "200")
    ran = shell(command, "--help-all")
    assert ran.code == 0
    specs = [spec for kind in GROUPS[command] for spec in public_fields(kind)]
    for spec in specs:
        assert f"{flag(spec)} " in ran.out
        assert spec.metadata["help"] in ran.out
    short = shell(command, "--help").out
    assert "--help-all" in short
    assert "--axes" in ran.out
    assert "--axes" not in short
    assert 1 <= sum(f"{flag(spec)} " in short for spec in specs) <= 5


def beyond(spec):
    ge, le, choices = (spec.metadata[k] for k in ("ge", "le", "choices"))
    if choices:
        yield (7 if isinstance(choices[0], int) else "neither"), str(choices[0])
    if ge is not None:
        yield ge - 1, f"at least {ge}"
    if le is not None:
        yield le + 1, f"at most {le}"


@pytest.mark.parametrize(
    ("command", "spec", "value", "bound"),
    [
        pytest.param(command, spec, *row, id=f"{command}-{spec.name}-{row[0]}")
        for command, _, spec in ALL
        for row in beyond(spec)
    ],
)
def test_bounds_are_told_with_the_option(shell, asked, command, spec, value, bound):
    ran = shell(*given(command, flag(spec), value))
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert f"error: {flag(spec)} is " in ran.err
    assert bound in ran.err
    assert asked == {}


def test_all_faults_are_told_at_once(shell):
    ran = shell(*given("train", "--epochs", "-1", "--seed", "-2"))
    assert "--epochs is -1" in ran.err
    assert "--seed is -2" in ran.err


def test_peaks_that_are_not_given_stay_those_of_the_prompter(shell, asked):
    shell(*given("segment", "--threshold", "0.25"))
    assert asked["peaks"] == PeakSettings(threshold=0.25, min_area_frac=0.5)
    shell(*given("segment"))
    assert asked["peaks"] is None


def test_other_options_reach_the_job(shell, asked):
    shell(*given("annotate", "y", "--masks", "m", "--simulate", "--channels", "2,0,1", "--overlay"))
    assert asked["args"] == (["x", "y"],)
    assert (asked["channels"], asked["simulate"], asked["overlay"]) == ((2, 0, 1), True, True)
    assert (asked["overwrite"], asked["model"], asked["device"]) == (False, "tiny", "auto")
    assert (asked["axes"], asked["series"]) == (None, None)


@pytest.mark.parametrize("command", ["annotate", "train", "segment"])
def test_axes_and_series_reach_the_job(shell, asked, command):
    shell(*given(command, "--axes", "YXC", "--series", "1"))
    assert (asked["axes"], asked["series"]) == ("YXC", 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["train", "--images", "x"], "Missing option '--out'", id="missing"),
        pytest.param(given("train", "--epochs", "many"), "Invalid value for '--epochs'", id="type"),
        pytest.param(["trian"], "No such command 'trian'", id="command"),
        pytest.param(given("train", "--epoch", "3"), "No such option: --epoch", id="option"),
        pytest.param(["models", "list", "x"], "unexpected extra argument", id="extra"),
        pytest.param(given("train", "--masks", ""), "'--masks': an empty name", id="masks"),
        pytest.param(given("annotate", "--prompts="), "'--prompts': an empty name", id="sign"),
        pytest.param(["segment", " ", "--out", "o"], "an argument: an empty name", id="argument"),
        pytest.param(
            ["segment", "x", "--prompter", "p", "--out", ""], "'--out': an empty name", id="empty"
        ),
    ],
)
def test_usage_error_is_one_line_that_names_the_help(shell, words, message):
    ran = shell(*words)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert message in ran.err
    assert re.search(r"See `napari-samic.* --help`\.$", ran.err.strip())


def test_help_and_version(shell):
    assert shell("--version").out.startswith("napari-samic ")
    ran = shell("--help")
    assert ran.code == 0
    for command in ("demo", "annotate", "train", "segment", "evaluate", "models"):
        assert command in ran.out
    assert shell().code == 2


# The commands.


def test_the_whole_way(shell, scenes, toy, tmp_path):
    images, masks, out = scenes / "images", scenes / "masks", tmp_path
    common = ("--model", toy, "--device", "cpu")
    ran = shell("annotate", images, "--masks", masks, "--simulate", "--target-iou", "0.8",
                "--out", out / "a", *common)  # fmt: skip
    assert (ran.code, ran.complaints) == (0, [])
    assert "8 objects" in ran.out
    assert "1.0 clicks each" in ran.out
    assert "4 done" in ran.out
    assert str(out / "a") in ran.out
    ran = shell("train", "--images", images, "--prompts", out / "a" / "prompts.json", "--out",
                out / "p.pt", "--epochs", "1", "--no-adapt", *common)  # fmt: skip
    assert (ran.code, ran.complaints) == (0, [])
    assert f"wrote {out / 'p.pt'}" in ran.out
    ran = shell("segment", images, "--prompter", out / "p.pt", "--out", out / "s", "--heatmaps",
                "--overlay", "--min-area-frac", "0.25")  # fmt: skip
    assert (ran.code, ran.complaints) == (0, [])
    again = shell("segment", images, "--prompter", out / "p.pt", "--out", out / "s")
    assert "4 done before" in again.out
    assert "--overwrite" in again.out
    ran = shell("evaluate", "--predictions", out / "a", "--truth", masks, "--out", out / "m.json")
    assert (ran.code, ran.complaints) == (0, [])
    assert "mIoU 0.8" in ran.out
    assert {"miou", "dice", "n", "object_f1"} <= set(json.loads((out / "m.json").read_text()))
    assert not hidden_files(out)


def test_status_says_how_far_a_folder_is_and_what_to_do(shell, scenes, prompter, tmp_path):
    images, out = shutil.copytree(scenes / "images", tmp_path / "images"), tmp_path / "s"
    (images / "p2.png").write_bytes(b"no image")
    segment = ("segment", images, "--prompter", prompter, "--out", out)
    assert shell(*segment).code == 1
    ran = shell("status", out)
    assert ran.code == 1
    assert ["done", "3"] in [line.split() for line in ran.out.splitlines()]
    assert "p2" in ran.err
    assert "the same command again" in ran.out
    shutil.copy(scenes / "images" / "p2.png", images)
    assert shell(*segment).code == 0
    assert shell("status", out, "--verify").code == 0
    (out / "p1.tif").unlink()
    ran = shell("status", out, "--json")
    assert (ran.code, ran.json["done"], ran.json["missing"]) == (1, 3, 1)


def test_json_is_one_document_and_nothing_else(shell, scenes, toy, prompter, tmp_path):
    images, masks = scenes / "images", scenes / "masks"
    ran = shell("segment", images, "--prompter", prompter, "--out", tmp_path / "s", "--json")
    assert (ran.code, ran.err, len(ran.out.splitlines())) == (0, "", 1)
    assert (ran.json["done"], ran.json["skipped"], ran.json["failures"]) == (4, 0, {})
    assert ran.json["out"] == str(tmp_path / "s")
    ran = shell("train", "--images", images, "--masks", masks, "--model", toy, "--epochs", "1",
                "--no-adapt", "--out", tmp_path / "p.pt", "--json")  # fmt: skip
    assert (ran.json["epochs"], ran.err) == (1, "")
    ran = shell("evaluate", "--predictions", masks, "--truth", masks, "--json")
    assert (ran.code, ran.err) == (2, ran.err)  # the predictions are the truth
    write_labels_of(tmp_path / "labels", 4)
    ran = shell("evaluate", "--predictions", tmp_path / "labels", "--truth", masks, "--json")
    assert (ran.json["miou"], ran.json["out"]) == (1.0, None)


def test_json_tells_failures_and_the_code_stays_1(shell, prompter, tmp_path):
    write_scenes(tmp_path, 1)
    (tmp_path / "images" / "bad.png").write_text("hello")
    ran = shell("segment", tmp_path / "images", "--prompter", prompter, "--out", tmp_path / "o",
                "--json")  # fmt: skip
    assert (ran.code, ran.err, list(ran.json["failures"])) == (1, "", ["bad"])


def test_error_with_json_is_still_one_line_on_stderr(shell, tmp_path):
    ran = shell("segment", tmp_path, "--prompter", "p", "--out", tmp_path / "o", "--json")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)


def test_samples_are_written_by_the_shell(shell, tmp_path):
    ran = shell("demo", "--samples-only", "--out", tmp_path / "samples")
    assert ran.code == 0
    assert "prompts.json" in ran.out
    assert len(list((tmp_path / "samples" / "cells" / "references").iterdir())) == 6


def test_demo_prints_every_image_and_the_mean(shell, monkeypatch, tmp_path):
    row = {"iou": 0.5, "n_matched": 3.0, "n_true": 4.0, "n_predicted": 5.0}
    found = {"training": "30 epochs", "images": {"cells-06": row}, "miou": 0.5, "dice": 0.6,
             "object_f1": 0.7, "seconds": 9.0}  # fmt: skip

    def demo(out, **_):
        yield JobProgress(1, 1, "half")
        return pipeline.JobResult(out, ("cells",), (), {}, {"cells": found})

    monkeypatch.setattr(pipeline, "demo", demo)
    ran = shell("demo", "--out", tmp_path)
    assert ran.out.splitlines() == [
        "cells: 30 epochs",
        "  cells-06  IoU 0.500  3 of 4 objects found, 2 false",
        "cells: mIoU 0.500  Dice 0.600  object F1 0.700  (9.0 s)",
        f"look at {tmp_path / 'contact-sheet.png'}",
    ]


# Errors that are nobody's fault, and Ctrl-C.


@pytest.fixture
def heeded():
    """Ctrl-C as in a terminal; a shell that starts pytest in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "terminated"])
def stopping(request, heeded):
    return request.param


def slow(monkeypatch, step, cleaned):
    def evaluate(**_):
        try:
            yield JobProgress(1, 3, "one")
            step()
            yield JobProgress(2, 3, "two")
        finally:
            cleaned.append(True)

    monkeypatch.setattr(pipeline, "evaluate", evaluate)
    return ["evaluate", "--predictions", "x", "--truth", "y"]


def test_ctrl_c_ends_with_130_and_tidies_up(shell, monkeypatch, stopping):
    before = signal.getsignal(stopping)
    cleaned = []
    ran = shell(*slow(monkeypatch, lambda: os.kill(os.getpid(), stopping), cleaned))
    assert (ran.code, ran.out, cleaned) == (130, "", [True])
    assert ran.err == "cancelled; what was done is kept\n"
    assert signal.getsignal(stopping) is before


def test_second_ctrl_c_does_not_disturb_the_tidying_up(shell, monkeypatch, stopping):
    kept = []

    def evaluate(**_):
        try:
            yield JobProgress(1, 3, "one")
            os.kill(os.getpid(), stopping)
            yield JobProgress(2, 3, "two")
        finally:
            os.kill(os.getpid(), stopping)
            kept.append("all of it")

    monkeypatch.setattr(pipeline, "evaluate", evaluate)
    ran = shell("evaluate", "--predictions", "x", "--truth", "y")
    assert (ran.code, kept) == (130, ["all of it"])


def test_ctrl_c_in_a_run_leaves_whole_results(
    shell, prompter, scenes, tmp_path, monkeypatch, stopping
):
    room = importlib.import_module("napari_samic.pipeline.segment")
    look, seen = room.ImagePredictor.extract_features, []

    def interrupted(self, image, references=()):
        seen.append(image)
        if len(seen) == 3:
            os.kill(os.getpid(), stopping)
        return look(self, image, references)

    monkeypatch.setattr(room.ImagePredictor, "extract_features", interrupted)
    ran = shell("segment", scenes / "images", "--prompter", prompter, "--out", tmp_path)
    assert ran.code == 130
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["ledger.sqlite", "p0.tif", "p1.tif", "prompts.json", "scores.csv"]
    stored = json.loads((tmp_path / "prompts.json").read_text())
    assert [i["name"] for i in stored["images"]] == ["p0", "p1"]


def test_ctrl_c_stays_ignored_where_it_was(shell, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    step = lambda: os.kill(os.getpid(), signal.SIGINT) or raise_(MemoryError())()  # noqa: E731
    try:
        assert shell(*slow(monkeypatch, step, [])).code == 3
    finally:
        signal.signal(signal.SIGINT, before)


def raise_(error):
    def step():
        raise error

    return step


def test_full_memory_is_one_line(shell, monkeypatch):
    ran = shell(*slow(monkeypatch, raise_(MemoryError()), []))
    assert (ran.code, len(ran.err.splitlines())) == (3, 1)
    assert "memory" in ran.err


def test_bug_is_a_traceback(monkeypatch):
    arguments = slow(monkeypatch, raise_(ZeroDivisionError("a bug")), [])
    with pytest.raises(ZeroDivisionError):
        cli.main(arguments)


def test_warning_is_one_line(shell, monkeypatch):
    def step():
        warnings.warn("toy: cuda is out of\nmemory", RuntimeWarning, stacklevel=1)
        raise KeyboardInterrupt

    ran = shell(*slow(monkeypatch, step, []))
    assert ran.err.startswith("warning: toy: cuda")


# The bar.


def board():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    return progress.ProgressBoard(console, disable=False)


def drawn(it):
    console = Console(file=io.StringIO(), width=100)
    console.print(it.bar)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_every_phase_has_its_own_bar_and_none_goes_back():
    it = board()
    for step in (
        JobProgress(0, 0, "loading", {"phase": "load"}),
        JobProgress(5, 5, "features of p4", {"phase": "features"}),
        JobProgress(500, 4000, "epoch 1", {"phase": "batch"}),
        JobProgress(1000, 4000, "epoch 1: loss 3", {"phase": "epoch"}),
    ):
        it.show(step)
    assert [(t.completed, t.total) for t in it.bar.tasks] == [(1, 1), (5, 5), (1, 4)]
    assert "25 %" in drawn(it)[-1]
    it.finish()
    assert all(t.finished for t in it.bar.tasks)


def test_bar_tells_the_rate_and_the_time_left(monkeypatch):
    it = board()
    now = [0.0]
    it.bar.get_time = lambda: now[0]
    for done in range(5):
        it.show(JobProgress(done, 9, f"p{done}: [red]2 objects"))
        now[0] += 0.5
    line = drawn(it)[-1]
    assert "p4: [red]2 objects" in line
    assert "2.0 images/s" in line
    assert "left 0:00:0" in line
    now[0] += 40
    it.show(JobProgress(5, 9, "slow"))
    assert "s/image" in drawn(it)[-1]


def test_long_message_stays_on_one_line():
    it = board()
    it.show(JobProgress(1, 2, "bad.tif: can't be read " * 20))
    assert len(drawn(it)) == 1


def test_no_bar_where_stderr_is_not_a_terminal(shell, monkeypatch):
    ran = shell(*slow(monkeypatch, raise_(KeyboardInterrupt()), []))
    assert ran.err.startswith("cancelled")


# Models.


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_models_are_listed(shell, home):
    ran = shell("models", "list")
    assert ran.code == 0
    for name in ("tiny", "vit_b", "mobile_sam", "resnet50"):
        assert name in ran.out
    rows = {r["name"]: r for r in shell("models", "list", "--json").json}
    assert rows["vit_b"]["status"] == "missing"
    card = Path(rows["tiny"]["card"])
    assert "`tiny`" in card.read_text().splitlines()[0]
    assert str(card) in ran.out


def test_model_is_imported_used_and_verified(shell, home, toy, scenes, tmp_path):
    file = toy.removeprefix("path:")
    ran = shell("models", "import", file, "--name", "mine", "--json")
    assert (ran.json["name"], len(ran.json["sha256"])) == ("mine", 64)
    ran = shell("annotate", scenes / "images", "--masks", scenes / "masks", "--simulate", "--model",
                "mine", "--out", tmp_path / "o")  # fmt: skip
    assert ran.code == 0
    assert shell("models", "verify", "mine").out.startswith("mine: ok")
    stored = next((home / "models").glob("mine*.pt"))
    stored.write_bytes(b"damaged")
    ran = shell("models", "verify")
    assert ran.code == 3
    assert "mine: damaged" in ran.out
    assert len(ran.err.splitlines()) == 1
    assert shell("models", "verify", "--json").json[-1]["status"] == "damaged"


def test_import_with_another_checksum_leaves_nothing(shell, home, toy):
    ran = shell("models", "import", toy.removeprefix("path:"), "--name", "mine", "--sha256", "00")
    assert (ran.code, len(ran.err.splitlines())) == (3, 1)
    assert "expected 00" in ran.err
    assert "mine" in ran.err
    assert not [p for p in home.rglob("*") if p.is_file()]


class Answer:
    """What requests would answer, without a network."""

    def __init__(self, content):
        self.content = content
        self.headers = {"content-length": str(len(content))}

    def raise_for_status(self):
        pass

    def iter_content(self, chunk_size):
        yield from (self.content[i : i + 7] for i in range(0, len(self.content), 7))

    def close(self):
        pass


@pytest.mark.parametrize("is_right", [True, False])
def test_fetch_keeps_only_the_right_file(shell, home, monkeypatch, is_right):
    content = b"weights" * 9
    sha256 = hashlib.sha256(content if is_right else b"other").hexdigest()
    spec = catalog.ModelSpec("far", "segmenter", "x:y", "https://far.example/far.pt", sha256)
    registry = importlib.import_module("napari_samic.models.hub.registry")
    monkeypatch.setattr(registry, "OFFICIAL", (spec,))
    monkeypatch.setattr(requests, "get", lambda *_, **__: Answer(content))
    ran = shell("models", "fetch", "far")
    stored = home / "models" / "far.pt"
    if is_right:
        assert (ran.code, ran.out, ran.err) == (0, f"far: {stored}\n", "")
        assert stored.read_bytes() == content
    else:
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (3, "", 1)
        assert [p for p in home.rglob("*") if p.is_file()] == []
