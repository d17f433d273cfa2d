"""How ways learn: what an ablation changes of the paper, and what is learned once."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from napari_samic.benchmark import learners
from napari_samic.benchmark.methods import WAYS
from napari_samic.core.settings import AdaptSettings, PeakSettings, PrompterSettings, TrainSettings
from napari_samic.core.types import run_job
from napari_samic.models.sam.segmenter import load_segmenter


@pytest.mark.parametrize(
    ("way", "layers", "weights"),
    [
        pytest.param("paper", 3, (1, 1, 1), id="paper"),
        pytest.param("layers-1", 1, (1, 1, 1), id="1_layer"),
        pytest.param("layers-2", 2, (1, 1, 1), id="2_layers"),
        pytest.param("layers-4", 4, (1, 1, 1), id="4_layers"),
        pytest.param("kld", 3, (1, 0, 0), id="kld"),
        pytest.param("cc", 3, (0, 1, 0), id="cc"),
        pytest.param("nss", 3, (0, 0, 1), id="nss"),
        pytest.param("kld+cc", 3, (1, 1, 0), id="kld_and_cc"),
        pytest.param("kld+nss", 3, (1, 0, 1), id="kld_and_nss"),
        pytest.param("cc+nss", 3, (0, 1, 1), id="cc_and_nss"),
    ],
)
def test_ablation_is_the_paper_with_one_thing_changed(way, layers, weights, toy, monkeypatch):
    fitted = []

    def fit(self, references, how):
        fitted.append((self, how))
        yield from ()

    monkeypatch.setattr(learners.SamicPrompter, "fit", fit)
    given = learners.TrialContext(
        load_segmenter(toy, device="cpu"), TrainSettings(epochs=2), AdaptSettings(), seed=3
    )
    run_job(learners.learn(way, [SimpleNamespace(name=n) for n in ("one", "two")], given))
    [(prompter, how)] = fitted
    paper = PrompterSettings("segmenter", mask_mode="faithful", centre=False, layers=layers)
    assert (prompter.settings, prompter.learner.layers) == (paper, layers)
    names = ("kld_weight", "cc_weight", "nss_weight")
    changed = dict(zip(names, weights, strict=True))
    assert how == TrainSettings(
        epochs=2, learning_rate=1e-3, views=1, shift_frac=0.0, holdout_frac=0.0, seed=3, **changed
    )
    assert WAYS[way].settings == WAYS["paper"].settings
    assert WAYS[way].peaks.normalise == (way != "paper")


def test_ways_that_learn_alike_learn_once_and_keep_their_own_peaks(toy, monkeypatch):
    fitted = []

    def fit(self, references, how):
        fitted.append(self.settings)
        yield from ()

    monkeypatch.setattr(learners.SamicPrompter, "fit", fit)
    segmenter = load_segmenter(toy, device="cpu")
    given = learners.TrialContext(segmenter, TrainSettings(epochs=2), AdaptSettings(adapt=False))
    two = [SimpleNamespace(name=name, objects=()) for name in ("one", "two")]
    made = {}
    for way in (
        "paper",
        "paper+level",
        "paper+peaks",
        "samic",
        "default",
        "layers-2",
        "paper+peaks+join",
    ):
        made[way] = run_job(learners.learn(way, two, given)).__self__.prompter
    assert [s.layers for s in fitted] == [3, 3, 2]
    assert made["paper"].peaks == PeakSettings.paper()
    assert made["paper+level"].peaks == replace(PeakSettings.paper(), normalise=True)
    assert made["paper+peaks"].peaks == PeakSettings()
    assert made["samic"] is not made["default"]
    run_job(learners.learn("paper", [two[0], SimpleNamespace(name="three")], given))
    assert len(fitted) == 4


@pytest.mark.parametrize("taught", [False, True])
def test_growth_is_judged_by_references_kept_aside_whoever_was_learned_from(
    taught, toy, monkeypatch
):
    asked = []

    def fit(self, references, how):
        yield from ()

    def finetune(prompter, segmenter, references, settings, seed, *, holdout_names, unlabeled):
        asked.append((holdout_names, tuple(r.name for r in prompter.references)))
        yield from ()

    monkeypatch.setattr(learners.SamicPrompter, "fit", fit)
    monkeypatch.setattr(learners, "finetune", finetune)
    shown = SimpleNamespace(label=1, is_empty=False)
    few = [SimpleNamespace(name=f"r{n}", objects=(shown,)) for n in range(8)]
    base_class_references = tuple(SimpleNamespace(name=f"t{n}", objects=(shown,)) for n in range(3))
    given = learners.TrialContext(
        load_segmenter(toy, device="cpu"), TrainSettings(), AdaptSettings(),
        base_class_references=base_class_references if taught else (),
    )  # fmt: skip
    run_job(learners.learn("default", few, given))
    [(aside, serving)] = asked
    assert len(aside) == 1
    assert set(aside) < {r.name for r in few}
    if taught:
        assert serving == tuple(r.name for r in few)


@pytest.mark.parametrize(
    ("way", "seen"),
    [
        pytest.param("default-others", ["a", "b", "c"], id="with_the_images_to_be_segmented"),
        pytest.param("default", [], id="without_them"),
    ],
)
def test_what_grows_sees_the_images_to_be_segmented_if_the_way_is_so(way, seen, toy, monkeypatch):
    asked = []

    def fit(self, references, how):
        yield from ()

    def finetune(*args, unlabeled, **_):
        asked.extend(unlabeled)
        yield from ()

    monkeypatch.setattr(learners.SamicPrompter, "fit", fit)
    monkeypatch.setattr(learners, "finetune", finetune)
    given = learners.TrialContext(
        load_segmenter(toy, device="cpu"), TrainSettings(), AdaptSettings(),
        more=tuple(lambda name=name: name for name in "abc"),
    )  # fmt: skip
    run_job(
        learners.learn(
            way, [SimpleNamespace(name=name, objects=()) for name in ("one", "two")], given
        )
    )
    assert sorted(asked) == seen
