"""The encoder grown to the references: in the prompter file, used by `segment`, or refused."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from toys import scene, write_image, write_scenes

from napari_samic import pipeline, recipes
from napari_samic.core import settings as settings_room
from napari_samic.core.errors import FormatError, InputError, TrainingError
from napari_samic.core.settings import (
    AdaptSettings,
    MemorySettings,
    PrompterSettings,
    TrainSettings,
)
from napari_samic.core.types import Reference, run_job
from napari_samic.evaluation.metrics import iou
from napari_samic.models.features import reference_masks
from napari_samic.models.features.reference_masks import InstanceMasks
from napari_samic.models.finetune import checkpointing, dataset, encoder, mask_decoder
from napari_samic.models.samic import serialization
from napari_samic.pipeline import finetune
from napari_samic.pipeline.segment import open_predictor

TRAIN = import_module("napari_samic.pipeline.train")  # `pipeline.train` is the job
QUICK = TrainSettings(epochs=1, views=1)
GROW = AdaptSettings(adapt_steps=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("data"), 6)


@pytest.fixture(scope="module")
def grown(folder, toy, tmp_path_factory):
    """A prompter file with a network that was grown to four references."""
    out = tmp_path_factory.mktemp("grown") / "p.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "WINDOW_PX", 64)
        patch.setattr(dataset, "SIDES_PX", (64,))
        patch.setattr(encoder, "BATCH", 4)
        patch.setattr(settings_room, "ADAPT_STEPS", ((1, 60),))  # judged after 40
        outcome = train(folder, out, toy)
    return out, outcome


def train(folder, out, toy, adapt=GROW, **options):
    return run_job(
        pipeline.train(
            [folder / "images" / f"p{i}.png" for i in range(4)], masks=folder / "masks", out=out,
            model=toy, device="cpu", settings=QUICK, adapt=adapt, **options,
        )
    )  # fmt: skip


@pytest.fixture
def on(monkeypatch):
    """Few steps on small windows."""
    monkeypatch.setattr(dataset, "WINDOW_PX", 64)
    monkeypatch.setattr(dataset, "SIDES_PX", (64,))
    monkeypatch.setattr(encoder, "BATCH", 2)
    monkeypatch.setattr(settings_room, "ADAPT_STEPS", ((1, 3),))  # judged after 2


def judged(patch, with_finder, with_decoder=lambda _: 0.9):
    """Masks on the images kept aside are as good as told, by what is judged."""
    judge = finetune.HoldoutEvaluator
    patch.setattr(judge, "with_finder", lambda _, finder: with_finder(finder))
    patch.setattr(judge, "with_decoder", lambda _, state, **__: with_decoder(state))


def test_segment_uses_it_and_finds_more(grown, folder, tmp_path):
    prompter, outcome = grown
    assert outcome.figures["adapted"]
    assert "with it" in outcome.figures["growth"]
    scores = {}
    for method in ("auto", "samic"):
        out = tmp_path / method
        images = [folder / "images" / f"p{i}.png" for i in (4, 5)]
        run_job(pipeline.segment(images, prompter=prompter, out=out, method=method, device="cpu"))
        scores[method] = np.mean(
            [iou(tifffile.imread(out / f"p{i}.tif") > 0, scene(i)[1] > 0) for i in (4, 5)]
        )
    assert scores["auto"] > scores["samic"]
    assert scores["auto"] > 0.6


def test_the_file_tells_how_it_went(grown):
    growth = serialization.describe(grown[0])["growth"]
    assert growth["accepted"]
    assert growth["steps"] == 60
    assert growth["after"] > growth["before"]
    assert len(growth["held_out"]) == 1


def test_it_comes_back_the_same_from_the_file(grown, folder):
    image = scene(5)[0]
    first, again = (open_predictor(grown[0], device="cpu").segment(image) for _ in "ab")
    assert (first.labels == again.labels).all()
    assert len(first.scores) == 2


@pytest.fixture
def others_of(folder, toy, tmp_path, monkeypatch):
    """What a training with these options would learn from without annotation."""

    def found(images, seed=0, **options):
        got = []

        def grow(*args, unlabeled, **_):
            got.extend(unlabeled)
            yield from ()

        monkeypatch.setattr(TRAIN, "finetune", grow)
        found.outcome = run_job(
            pipeline.train(
                images, masks=folder / "masks", out=tmp_path / "p.pt", model=toy, device="cpu",
                settings=replace(QUICK, seed=seed), overwrite=True, **options,
            )
        )  # fmt: skip
        return got

    return found


def test_images_without_a_mask_are_learned_from_too(folder, others_of, tmp_path):
    four = [folder / "images" / f"p{i}.png" for i in range(4)]
    beside_too = AdaptSettings(adapt_others=True)
    assert others_of(four, adapt=beside_too) == []
    for i in (7, 8):
        write_image(tmp_path / "more" / f"q{i}.png", scene(i)[0])
    (tmp_path / "more" / "broken.png").write_bytes(b"no picture")
    assert others_of([*four, tmp_path / "more" / "q7.png"]) == []
    beside = others_of([*four, tmp_path / "more" / "q7.png"], adapt=beside_too)
    assert len(beside) == 1
    assert (beside[0] == scene(7)[0]).all()
    apart = others_of(four, others=tmp_path / "more")
    assert sorted(one.sum() for one in apart) == sorted(scene(i)[0].sum() for i in (7, 8))
    told = others_of.outcome.figures["growth"]
    assert told.startswith("1 without annotation")
    assert "broken.png" in told
    assert len(others_of(four, others=[four[0], *(tmp_path / "more").glob("q*")])) == 2
    write_image(tmp_path / "far" / "p0.png", scene(9)[0])  # of the name of a reference
    [far] = others_of(four, others=tmp_path / "far")
    assert (far == scene(9)[0]).all()
    array = np.stack([scene(i)[0] for i in range(3)])
    assert len(others_of(four, others=array)) == 3


def test_a_training_with_others_is_recorded_told_and_replayed(
    folder, toy, tmp_path, on, monkeypatch
):
    monkeypatch.setattr(encoder, "OTHERS_FROM", 2)
    judged(monkeypatch, lambda finder: float(finder is not None))
    for i in (7, 8):
        write_image(tmp_path / "more" / f"q{i}.png", scene(i)[0])
    few = AdaptSettings(adapt_steps=9)
    outcome = run_job(
        recipes.recorded(pipeline.train, tmp_path / "r.yaml")(
            [folder / "images" / f"p{i}.png" for i in range(4)], masks=folder / "masks",
            others=tmp_path / "more", out=tmp_path / "p.pt", model=toy, device="cpu",
            settings=QUICK, adapt=few,
        )
    )  # fmt: skip
    assert outcome.figures["others"] == 2
    assert "2 images more" in outcome.figures["growth"]
    assert serialization.describe(tmp_path / "p.pt")["growth"]["others"] == 2
    run_job(recipes.replay(tmp_path / "r.yaml", out=tmp_path / "again", strict=True))
    files = (tmp_path / "p.pt", tmp_path / "again" / "p.pt")
    one, again = (torch.load(file, weights_only=True)["finder"]["state"] for file in files)
    assert all(torch.equal(one[k], again[k]) for k in one)
    (tmp_path / "more" / "q8.png").unlink()
    with pytest.raises(InputError, match="others has 1 files, 2 when it was recorded"):
        run_job(recipes.replay(tmp_path / "r.yaml", out=tmp_path / "third", strict=True))


def test_the_seed_draws_the_others(folder, others_of, tmp_path):
    four = [folder / "images" / f"p{i}.png" for i in range(4)]
    for i in range(8):
        write_image(tmp_path / "more" / f"q{i}.png", scene(i)[0])
    orders = [
        [one.sum() for one in others_of(four, others=tmp_path / "more", seed=seed)]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    with pytest.raises(InputError, match="nowhere"):
        others_of(four, others=tmp_path / "nowhere")


def test_no_better_it_is_left_out(folder, toy, tmp_path, on, monkeypatch):
    judged(monkeypatch, lambda finder: 0.2 if finder else 0.9)
    few = AdaptSettings(adapt_steps=3, decoder_steps=2)
    outcome = train(folder, tmp_path / "p.pt", toy, few)
    for what in ("adapted", "tuned"):
        assert not outcome.figures[what]
    for told in ("growth", "tuning"):
        assert "not better" in outcome.figures[told]
    worker = open_predictor(tmp_path / "p.pt", device="cpu")
    assert worker.finder is None
    assert worker.prompter.decoder is None


def test_stopped_by_hand_it_is_not_adapted_and_recorded_so(folder, toy, tmp_path, on):
    more = AdaptSettings(adapt_steps=60, decoder_steps=50)
    outcome = train(folder, tmp_path / "p.pt", toy, more, stop=lambda: True)
    assert not outcome.figures["adapted"]
    assert not outcome.figures["tuned"]
    assert outcome.resolved_settings["adapt"] is False
    assert outcome.resolved_settings["decoder_steps"] == 0


def test_switched_off_nothing_is_learned(folder, toy, tmp_path, on, monkeypatch):
    monkeypatch.setattr(encoder, "finetune_encoder", None)  # would fail
    outcome = train(folder, tmp_path / "p.pt", toy, AdaptSettings(adapt=False))
    assert outcome.figures["growth"] == ""


def test_damaged_network_in_the_file_is_told(grown, tmp_path):
    content = torch.load(grown[0], weights_only=True)
    content["finder"]["state"].pop("last.bias")
    torch.save(content, tmp_path / "damaged.pt")
    with pytest.raises(Exception, match=r"damaged.pt: its object network is damaged"):
        open_predictor(tmp_path / "damaged.pt", device="cpu")


def test_an_image_with_nothing_on_it_is_learned_from_or_left_out(folder, toy, tmp_path, on):
    from PIL import Image

    more = write_scenes(tmp_path / "data", 5)
    Image.fromarray(np.zeros(scene(0)[1].shape, np.uint8)).save(more / "masks" / "p4.png")
    out = tmp_path / "p.pt"
    outcome = run_job(
        pipeline.train(
            more / "images", masks=more / "masks", out=out, model=toy, device="cpu",
            settings=QUICK, adapt=AdaptSettings(adapt_steps=3),
        )
    )  # fmt: skip
    assert outcome.figures["growth"]


def test_nothing_seen_at_any_click_leaves_the_prompter_as_it_is(
    folder, toy, tmp_path, on, monkeypatch
):
    blank = InstanceMasks(np.zeros(scene(0)[1].shape, np.int32), ())
    monkeypatch.setattr(reference_masks, "mask_of", lambda *_: blank)
    outcome = train(folder, tmp_path / "p.pt", toy)
    assert not outcome.figures["adapted"]


def test_what_fails_in_growing_leaves_the_trained_prompter(folder, toy, tmp_path, on, monkeypatch):
    def fail(*args, **options):
        raise TrainingError("the loss is not finite any more. Adapt with a lower rate.")
        yield

    monkeypatch.setattr(encoder, "finetune_encoder", fail)
    outcome = train(folder, tmp_path / "p.pt", toy, resume=tmp_path / "mark")
    assert "not adapted: " in outcome.figures["growth"]
    assert (tmp_path / "p.pt").exists()
    assert (tmp_path / "mark").exists()


class Killed(BaseException):
    """Nothing tidies up after it."""


def killing(calls):
    """A `stop` that ends the process when it is asked so often."""
    left = iter(range(calls))

    def stop():
        if next(left, None) is None:
            raise Killed
        return False

    return stop


def network_of(path):
    return torch.load(path, map_location="cpu", weights_only=True)["finder"]["state"]


@pytest.mark.parametrize(
    ("calls", "decoder_steps"),
    [
        pytest.param(4, 0, id="before_judging"),
        pytest.param(9, 0, id="after_judging"),
        pytest.param(9, 2, id="after_judging_with_a_decoder"),
    ],
)
def test_killed_training_goes_on_where_it_was_and_ends_as_if_never_stopped(
    folder, toy, tmp_path, on, monkeypatch, calls, decoder_steps
):
    monkeypatch.setattr(settings_room, "ADAPT_STEPS", ((1, 9),))  # judged after 6
    monkeypatch.setattr(checkpointing, "EVERY_S", 0.0)
    how = replace(GROW, adapt_steps=9, decoder_steps=decoder_steps)
    steps = []
    straight = train(folder, tmp_path / "straight.pt", toy, how)
    with pytest.raises(Killed):
        train(folder, tmp_path / "p.pt", toy, how, stop=killing(calls))
    assert not (tmp_path / "p.pt").exists()
    (tmp_path / f".p.pt{TRAIN.UNFINISHED}.tmp").write_bytes(b"half")  # killed while it was written
    job = pipeline.train(
        [folder / "images" / f"p{i}.png" for i in range(4)], masks=folder / "masks",
        out=tmp_path / "p.pt", model=toy, device="cpu", settings=QUICK, adapt=how,
    )  # fmt: skip
    outcome = run_job(job, steps.append)
    assert "went on" in outcome.notices[-1]
    batches = [s.done for s in steps if s.data.get("phase") == "adapt" and "loss" in s.data]
    assert batches[0] > 1
    for told in ("growth", "tuning"):
        assert outcome.figures[told].split(" s;")[1:] == straight.figures[told].split(" s;")[1:]
    for name, found in network_of(tmp_path / "straight.pt").items():
        assert torch.equal(network_of(tmp_path / "p.pt")[name], found)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.pt", "straight.pt"]


def test_checkpoint_of_another_training_is_passed_over(folder, toy, tmp_path, on, monkeypatch):
    monkeypatch.setattr(checkpointing, "EVERY_S", 0.0)
    with pytest.raises(Killed):
        train(folder, tmp_path / "p.pt", toy, stop=killing(2))
    outcome = train(folder, tmp_path / "p.pt", toy, replace(GROW, adapt_steps=40))
    assert "went on" not in outcome.notices[-1]


def test_damaged_checkpoint_is_passed_over(folder, toy, tmp_path, on):
    (tmp_path / f".p.pt{TRAIN.UNFINISHED}").write_bytes(b"PK")
    assert "went on" not in train(folder, tmp_path / "p.pt", toy).notices[-1]


def test_stopped_growing_can_be_resumed_and_ends_as_if_never_stopped(
    folder, toy, tmp_path, on, monkeypatch
):
    monkeypatch.setattr(encoder, "LEAST_STEPS", 2)
    how = replace(GROW, adapt_steps=6)
    straight = train(folder, tmp_path / "straight.pt", toy, how)
    asked = iter([False] * 5)
    mark = tmp_path / "mark"
    train(folder, tmp_path / "a.pt", toy, how, stop=lambda: next(asked, True), resume=mark)
    assert mark.exists()
    train(folder, tmp_path / "b.pt", toy, how, resume=mark)
    assert straight.figures["adapted"]
    assert not mark.exists()
    for name, found in network_of(tmp_path / "straight.pt").items():
        assert torch.equal(network_of(tmp_path / "b.pt")[name], found)


@pytest.fixture(scope="module")
def tuned(folder, toy, tmp_path_factory):
    """A prompter file with a mask decoder that was tuned, and found good whatever it does."""
    out = tmp_path_factory.mktemp("tuned") / "p.pt"
    scores = iter([0.5, 0.4, 0.5, 0.6])  # the network is no better, the decoder is
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "WINDOW_PX", 64)
        patch.setattr(dataset, "SIDES_PX", (64,))
        patch.setattr(encoder, "BATCH", 2)
        patch.setattr(settings_room, "ADAPT_STEPS", ((1, 3),))
        patch.setattr(mask_decoder, "RATE", 0.01)
        judged(patch, lambda _: next(scores), lambda _: next(scores))
        few = AdaptSettings(adapt_steps=3, decoder_steps=4)
        outcome = train(folder, out, toy, few)
    return out, outcome


def test_a_tuned_decoder_is_in_the_file_and_used(tuned, toy, folder):
    path, outcome = tuned
    assert outcome.figures["tuned"]
    assert "0.500 without" in outcome.figures["tuning"]
    assert "0.600 with" in outcome.figures["tuning"]
    assert serialization.describe(path)["tuning"]["steps"] == 4
    image = scene(5)[0]
    clicked = open_predictor(path, device="cpu").prompter.references[0].objects[:1]
    auto, plain = (
        open_predictor(path, device="cpu", method=m).segmenter for m in ("auto", "samic")
    )
    logits = [one.candidates(image, clicked)[0].logits for one in (auto, plain)]
    assert np.abs(logits[0] - logits[1]).max() > 1e-3
    same = open_predictor(path, device="cpu").segmenter.candidates(image, clicked)[0].logits
    np.testing.assert_array_equal(logits[0], same)


def test_a_decoder_of_another_network_is_told(tuned, tmp_path):
    content = torch.load(tuned[0], weights_only=True)
    content["decoder"].pop(next(iter(content["decoder"])))
    torch.save(content, tmp_path / "damaged.pt")
    with pytest.raises(FormatError, match="mask decoder does not fit"):
        open_predictor(tmp_path / "damaged.pt", device="cpu")


def test_what_fails_in_tuning_leaves_the_grown_network(folder, toy, tmp_path, on, monkeypatch):

    def fail(*args, **options):
        raise TrainingError("the loss is not finite any more. Tune with a lower rate.")
        yield

    monkeypatch.setattr(mask_decoder, "finetune_mask_decoder", fail)
    few = AdaptSettings(adapt_steps=3)
    outcome = train(folder, tmp_path / "p.pt", toy, few)
    assert "adapted in" in outcome.figures["growth"]
    assert "not tuned: " in outcome.figures["tuning"]


def test_judges_see_each_candidate_with_a_finder_that_has_not_seen_them(
    folder, toy, tmp_path, on, monkeypatch
):
    asked, real = [], finetune.ImagePredictor

    def predictor(prompter, segmenter, settings, finder):
        asked.append((segmenter, finder))
        return real(prompter, segmenter, settings, finder)

    monkeypatch.setattr(finetune, "ImagePredictor", predictor)
    monkeypatch.setattr(finetune, "iou", lambda *_: float(len(asked)))  # each better than the last
    few = AdaptSettings(adapt_steps=6, decoder_steps=3)
    train(folder, tmp_path / "p.pt", toy, few)
    (plain, none), (same, early), (still, known), (tuned, again) = asked
    assert plain is same is still
    assert tuned is not plain
    assert none is None
    assert early is known is again
    final = open_predictor(tmp_path / "p.pt", device="cpu").finder
    one, other = (f.pack()["state"]["last.weight"] for f in (early, final))
    assert not torch.allclose(one, other, atol=1e-3)  # it went on to learn from the judges


def test_a_reference_without_an_object_is_learned_from_and_does_not_judge(monkeypatch):
    asked = {}

    def learn(samples, labels, settings, *, held_out, **_):
        asked.update(kept=[s.name for s in samples], held_out=[s.name for s in held_out])
        yield from ()
        return None, None

    monkeypatch.setattr(encoder, "finetune_encoder", learn)
    image, mask = scene(0)
    blank = np.zeros_like(mask)
    shown = {"a": mask, "b": mask, "c": blank}
    references = [Reference(name, image, (), one) for name, one in shown.items()]
    learner = SimpleNamespace(
        backbone=SimpleNamespace(device=torch.device("cpu")),
        settings=PrompterSettings(),
        finder=None,
    )
    run_job(finetune.finetune(learner, object(), references, GROW, holdout_names=["b", "c"]))
    assert asked == {"kept": ["a", "c"], "held_out": ["b"]}


def test_what_was_tuned_is_not_used_for_frames(tuned, folder, tmp_path, monkeypatch):
    room = import_module("napari_samic.pipeline.segment")
    used = []
    real = room.VideoPredictor
    monkeypatch.setattr(room, "VideoPredictor", lambda *a: used.append(a) or real(*a))
    run_job(
        pipeline.segment(
            [folder / "images" / "p4.png"], prompter=tuned[0], out=tmp_path / "out", device="cpu",
            memory=MemorySettings(follow="always"),
        )
    )  # fmt: skip
    [(prompter, segmenter, *_)] = used
    own = segmenter.engine.network.mask_decoder.state_dict()
    assert any(not torch.equal(own[name], value) for name, value in prompter.decoder.items())


def test_when_its_minutes_are_over_it_ends_and_is_recorded_without_them(folder, toy, tmp_path, on):
    outcome = run_job(
        pipeline.train(
            [folder / "images" / f"p{i}.png" for i in range(4)], masks=folder / "masks",
            out=tmp_path / "p.pt", model=toy, device="cpu",
            settings=TrainSettings(epochs=50, views=1, minutes=1e-6), adapt=GROW,
        )
    )  # fmt: skip
    assert not outcome.figures["adapted"]
    assert outcome.figures["epochs"] == 1  # what ends earlier would have learned nothing
    assert outcome.resolved_settings == {
        "minutes": 0.0,
        "decoder_steps": 0,
        "epochs": 1,
        "adapt": False,
    }


def test_stopped_while_it_learns_it_is_recorded_as_so_many_steps(folder, toy, tmp_path, on):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 30

    outcome = train(folder, tmp_path / "p.pt", toy, stop=stop)
    assert outcome.figures["adapted"]
    steps = serialization.describe(tmp_path / "p.pt")["growth"]["steps"]
    assert 20 <= steps < 60
    assert outcome.resolved_settings == {"decoder_steps": 0, "adapt_steps": steps}
    few = AdaptSettings(adapt_steps=steps)
    train(folder, tmp_path / "again.pt", toy, few)
    files = (tmp_path / name for name in ("p.pt", "again.pt"))
    one, again = (torch.load(file, weights_only=True)["finder"]["state"] for file in files)
    assert all(torch.equal(one[k], again[k]) for k in one)
