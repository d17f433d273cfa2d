"""The benchmark of segmenters, on pictures whose answers are known."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from napari_samic.core.types import Candidates
from napari_samic.models.sam import segmenter
from napari_samic.models.tiny import model as tiny_model

PATH = Path(__file__).parents[2] / "benchmarks" / "segmenter.py"
CONFIG = tiny_model.TinyConfig("test_efficientnet", 32, 16, (8, 8, 16, 16))


@pytest.fixture(scope="module")
def session():
    spec = importlib.util.spec_from_file_location("bench_segmenter", PATH)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
        yield module


class Toy:
    """Sees bright objects on black. `kind` says what it makes of them: all, nothing, too much."""

    name, weights_sha256, side_px, device = "toy", "", 64, torch.device("cpu")

    def __init__(self, kind="all"):
        self.kind, self.asked = kind, []

    def candidates(self, image, objects, *, multimask=True, logits=None):
        labels = ndimage.label(image[..., 0] > 100)[0]
        given = logits or [None] * len(objects)
        self.asked += [(p, g, multimask) for p, g in zip(objects, given, strict=True)]
        return [self.answer(labels, p, 3 if multimask else 1) for p in objects]

    def answer(self, labels, prompts, count):
        box = prompts.box_rc
        place = prompts.points_rc[0] if box is None else (box[:2] + box[2:]) / 2
        mask = labels == labels[tuple(np.round(place).astype(int))]
        if self.kind == "nothing":
            mask = np.zeros_like(mask)
        if self.kind == "too much":
            mask = np.ones_like(mask)
        masks = np.repeat(mask[None], count, 0)
        logits = np.full((count, 4, 4), len(self.asked), np.float32)
        return Candidates(masks, np.full(count, float(self.kind == "all"), np.float32), logits)


def lay_out(folder, stems=("a", "b", "c"), size=(64, 80)):
    """Pictures of a large and a smaller bright block, and their masks."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    mask = np.zeros(size, np.uint8)
    mask[8:30, 10:40] = mask[40:50, 50:62] = 255
    for stem in stems:
        Image.fromarray(np.repeat(mask[..., None], 3, 2)).save(folder / "images" / f"{stem}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
    return folder.parent


def measured(session, monkeypatch, data, out, toy, *more):
    monkeypatch.setattr(session, "segmenter_of", lambda *_: toy)
    session.main(["--data", str(data), "--out", str(out), "--max-clicks", "7", *more])
    return json.loads((out / "segmenter.json").read_text())["models"][0]


@pytest.fixture
def data(tmp_path):
    return lay_out(tmp_path / "data" / "kvasir-seg-train880")


def test_perfect_segmenter_needs_one_click(session, monkeypatch, data, tmp_path):
    found = measured(session, monkeypatch, data, tmp_path / "out", Toy(), "--sets", "kvasir")
    row = found["rows"][0]
    assert (row["images"], row["objects"]) == (3, 6)
    assert [row[c] for c in session.COLUMNS] == [1, 1, 1, 1, 1, 1, 0, 0]
    assert row["interval_95"] == {"box": [1, 1], "1 click": [1, 1], "3 clicks": [1, 1]}
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["segmenter.json", "segmenter.md", "sheet.png"]


def test_failure_counts_as_all_clicks(session, monkeypatch, data, tmp_path):
    toy = Toy("nothing")
    found = measured(session, monkeypatch, data, tmp_path / "out", toy, "--sets", "kvasir")
    assert [found["rows"][0][c] for c in session.COLUMNS] == [0, 0, 0, 0, 0, 7, 0, 1]
    assert {len(o["clicks"]) for o in found["objects"]} == {7}


def test_next_click_is_negative_outside_and_takes_the_earlier_logits(session):
    truth = np.zeros((40, 60), bool)
    truth[5:15, 5:15] = True
    toy, trial = Toy("too much"), session.Trial(truth, 1)
    session.ask(toy, np.zeros((40, 60, 3), np.uint8), [trial], 5)
    assert [c[2] for c in trial.clicks] == [True, False, False, False, False]
    assert not truth[tuple(np.array(trial.clicks[1][:2], int))]
    box, three, *single = toy.asked
    assert box[0].box_rc.tolist() == [4.5, 4.5, 14.5, 14.5]
    assert (box[2], three[2]) == (False, True)
    assert [logits is None for _, logits, _ in single] == [True, False, False, False, False]
    assert [logits.max() for _, logits, _ in single[1:]] == [3, 4, 5, 6]


def test_last_mask_counts_not_the_best(session):
    trial = session.Trial(np.ones((2, 2), bool), 1, three=[(0.2, 0.0), (0.4, 0.0)])
    trial.answers = [(0.5, 0.5), (0.9, 0.5), (0.6, 0.5)]
    figures = dict(zip(session.COLUMNS, trial.figures(20), strict=True))
    assert figures["3 clicks"] == figures["5 clicks"] == 0.6
    assert figures["clicks to 85 %"] == 2
    assert figures["1 click, best of three"] == 0.4
    assert figures["confidence error"] == pytest.approx((0 + 0 + 0.4 + 0.1) / 4)


def test_objects_are_drawn_by_seed_and_large_ones_more_often(session):
    ids = np.repeat(np.arange(1, 11), 40).reshape(10, 40)
    ids[:5] = 1
    draws = [tuple(session.drawn(ids, 2, seed, "a")) for seed in range(100)]
    assert draws == [tuple(session.drawn(ids, 2, seed, "a")) for seed in range(100)]
    assert {len(set(d)) for d in draws} == {2}
    counts = np.bincount(np.ravel(draws), minlength=11)
    assert counts[1] > max(counts[2:])
    assert draws != [tuple(session.drawn(ids, 2, seed, "b")) for seed in range(100)]


@pytest.mark.parametrize(
    ("blocks", "kept"),
    [
        pytest.param([60, 6], [3600], id="small_beside_large"),
        pytest.param([6], [36], id="only_one"),
        pytest.param([5], [], id="under_30_px"),
    ],
)
def test_small_polyps_are_left_out(session, blocks, kept):
    mask = np.zeros((200, 200), np.uint8)
    for number, side in enumerate(blocks):
        mask[100 * number : 100 * number + side, :side] = 200
    areas = np.unique(session.instances("polyp", mask), return_counts=True)[1][1:]
    assert areas.tolist() == kept


def test_absent_set_is_named_and_skipped(session, monkeypatch, data, tmp_path, capsys):
    sets = ["--sets", "cvc", "kvasir"]
    found = measured(session, monkeypatch, data, tmp_path / "out", Toy(), *sets)
    assert [r["set"] for r in found["rows"]] == ["kvasir"]
    assert "skipped cvc" in capsys.readouterr().out


def test_only_held_back_pictures_are_read(session, monkeypatch, tmp_path):
    rules = SimpleNamespace(
        SETS={"blocks": "block", "others": "block", "absent": "block"},
        is_held_back=lambda name: name == "b",
        objects=lambda _, mask: (ndimage.label(mask)[0], []),
    )
    monkeypatch.setattr(session, "pretraining", lambda: rules)
    lay_out(tmp_path / "data" / "pretrain" / "blocks")
    data = lay_out(tmp_path / "data" / "pretrain" / "others").parent
    more = ["--sets", "heldback", "--objects", "1"]
    found = measured(session, monkeypatch, data, tmp_path / "out", Toy(), *more)
    assert {o["image"] for o in found["objects"]} == {"b"}
    rows = [(r["set"], r["objects"]) for r in found["rows"]]
    assert rows == [("heldback/blocks", 1), ("heldback/others", 1), ("heldback, mean of sets", 2)]


def test_side_rebuilds_a_tiny_network_around_the_same_weights(session, tmp_path):
    file = tmp_path / "weights.pt"
    network = tiny_model.build(CONFIG)
    torch.save(tiny_model.pack(network, CONFIG), file)
    name = f"path:{file}"
    assert [session.segmenter_of(name, side, "cpu").side_px for side in (None, 64)] == [32, 64]


def test_speed_compares_with_vit_b_in_turn(session, monkeypatch):
    monkeypatch.setattr("segment_anything.build_sam_vit_b", lambda: tiny_model.build(CONFIG).eval())
    model = segmenter.SamSegmenter(tiny_model.build(CONFIG), name="mine", device="cpu")
    encoded = []
    monkeypatch.setattr(model, "precompute", lambda image: encoded.append(image.tobytes()))
    rows = session.speed([model], 2)
    assert [r["model"] for r in rows] == ["mine", "ViT-B, random"]
    assert rows[0]["x ViT-B"] == pytest.approx(rows[1]["encode_ms"] / rows[0]["encode_ms"])
    assert len(set(encoded)) == 3  # a new picture each turn: nothing to remember
