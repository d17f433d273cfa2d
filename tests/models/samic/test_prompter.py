"""From references and an image to prompts in the image's own pixels."""

import copy
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import numpy as np
import pytest
import torch
from toy_backbone import ColourBackbone, clicks, discs, prompter, reference, references

from napari_samic.core.errors import InputError, PromptError
from napari_samic.core.settings import PeakSettings
from napari_samic.core.types import Prompter, Prompts, Reference, TrainablePrompter
from napari_samic.models.samic import aggregation
from napari_samic.models.samic.episodes import FeatureStore, augmented_views
from napari_samic.ops import heatmaps

SIDE = ColourBackbone.map_px


def seeing(made, *peaks):
    """Let the learner see peaks at (row, column) of its map, whatever it is shown."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    values = torch.zeros(SIDE, SIDE)
    for row, column, height in peaks:
        bell = height * torch.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 2.0**2))
        values = torch.maximum(values, bell)
    made.learner.predict = lambda pyramid, size: values[None].clone()
    return made


def found(proposal):
    return np.concatenate([o.points_rc for o in proposal.objects])


def test_it_is_a_trainable_prompter():
    assert isinstance(prompter(), Prompter)
    assert isinstance(prompter(), TrainablePrompter)


def test_it_finds_the_learned_class_and_not_the_other(trained):
    hits = 0
    for seed, (row, column) in enumerate([(20, 45), (44, 18), (30, 50), (15, 15)]):
        image = discs([(row, column, 1), (63 - row, 63 - column, 2)], seed=90 + seed)
        proposal = trained.propose((), image)
        points = found(proposal)
        hits += len(points) == 1 and np.abs(points[0] - (row, column)).max() <= 8
        assert proposal.heat_map.values.shape == (64, 64)
    assert hits >= 3


@pytest.mark.parametrize("squeeze", [False, True], ids=["padded", "squeezed"])
@pytest.mark.parametrize("shape", [(64, 64), (40, 120), (120, 40), (17, 31), (300, 200)])
def test_peaks_come_back_in_pixels_of_the_original(shape, squeeze):
    backbone = ColourBackbone(squeeze=squeeze)
    made = prompter(backbone=backbone)
    frame = backbone.frame(shape)
    wanted = np.array([0.3 * shape[0], 0.7 * shape[1]])
    at = (wanted + 0.5) * SIDE / np.array(frame) - 0.5
    image = discs([], shape)
    proposal = seeing(made, (*at, 0.9)).propose(references(1), image)
    pixel_of_the_map = np.array(frame) / SIDE
    assert (np.abs(found(proposal) - wanted) <= 0.75 * pixel_of_the_map).all()
    values = proposal.heat_map.values
    assert values.shape == shape
    top = np.unravel_index(values.argmax(), shape)
    assert (np.abs(top - wanted) <= pixel_of_the_map + 0.5).all()
    assert all(o.is_foreground.tolist() == [True] and o.label == 1 for o in proposal.objects)


@pytest.mark.parametrize("shape", [(32, 64), (64, 32)])
def test_padding_is_never_proposed(shape):
    inside, outside = (8, 8, 0.5), (24, 24, 1.0)  # 16 rows or columns of the map are padding
    proposal = seeing(prompter(), inside, outside).propose(references(1), discs([], shape))
    assert len(proposal.objects) == 1
    assert found(proposal)[0] == pytest.approx([16.5, 16.5], abs=1)
    assert proposal.heat_map.values.max() < 0.51


def test_points_at_the_rim_stay_inside_the_image():
    proposal = seeing(prompter(), (0, 0, 1.0), (31, 31, 1.0)).propose(
        references(1), discs([], (90, 90))
    )
    assert len(proposal.objects) == 2
    for prompts in proposal.objects:
        prompts.check_inside((90, 90))
        assert (prompts.points_rc >= 0).all()
        assert (prompts.points_rc <= 89).all()


def test_map_without_a_peak_proposes_nothing():
    made = prompter()
    proposal = seeing(made).propose(references(1), discs([]))
    assert proposal.objects == ()
    assert proposal.heat_map.values.shape == (64, 64)


@pytest.mark.parametrize("shape", [(64, 64), (64, 16), (16, 64)])
def test_specks_are_measured_against_a_click_whatever_the_shape(shape):
    """A click's disc is as large in a padded map: cutting the padding off must not shrink it."""
    made = seeing(prompter(), (4, 4, 1.0))
    disc_px = np.pi * (0.08 * SIDE) ** 2
    region_px = int((made.learner.predict(None, None) > 0.5).sum())
    for share, count in ((0.9, 1), (1.1, 0)):
        made.peaks = PeakSettings(
            threshold=0.5,
            min_area_frac=share * region_px / disc_px,
            subtract_background=False,
        )
        assert len(made.propose(references(1), discs([], shape)).objects) == count


def test_several_references_are_the_mean_of_their_single_maps(trained):
    image, shown = references(1, seed=50)[0].image, references(4, seed=20)
    singles = [trained.network_map([r], image) for r in shown]
    assert (singles[0] - singles[1]).abs().max() > 1e-4
    mean = trained.network_map(shown, image)
    torch.testing.assert_close(mean, torch.stack(singles).mean(0))
    assert mean.shape == (SIDE, SIDE)
    assert not torch.is_inference_mode_enabled()


def test_agreement_is_of_the_single_maps_and_needs_several(trained):
    image, shown = references(1, seed=50)[0].image, references(3, seed=20)
    singles = torch.stack([trained.network_map([r], image) for r in shown])
    found = trained.propose(shown, image).agreement
    assert found == {1: pytest.approx(heatmaps.agreement(singles), abs=1e-4)}
    assert 0 <= found[1] < 1
    assert trained.propose([shown[0], shown[0]], image).agreement == {1: pytest.approx(1.0)}
    assert trained.propose(shown[:1], image).agreement == {}


def test_no_weights_are_the_plain_mean_to_the_bit(trained):
    image, shown = references(1, seed=50)[0].image, references(3, seed=20)
    singles = torch.stack([trained.network_map([r], image) for r in shown])
    plain = trained.maps_and_agreement(shown, image)[0][1]
    np.testing.assert_array_equal(plain, singles.mean(0).numpy())
    np.testing.assert_array_equal(plain, trained.maps_and_agreement(shown, image, None)[0][1])


def test_weights_are_those_of_a_mean(trained):
    image, shown = references(1, seed=50)[0].image, references(2, seed=20)
    one, two = (trained.network_map([r], image).numpy() for r in shown)
    found = trained.propose(shown, image, weights=[3.0, 1.0]).heat_map.values
    maps = trained.maps_and_agreement(shown, image, [3.0, 1.0])[0]
    np.testing.assert_allclose(maps[1], 0.75 * one + 0.25 * two, atol=1e-6)
    plain = trained.propose(shown, image).heat_map.values
    assert np.abs(found - plain).max() > 1e-4


def tinted(image, colour):
    """The picture with its ground in a colour, as from another microscope."""
    return (image * (np.array(colour) / 255)).astype(np.uint8)


def two_kinds(count=3):
    """Reddish and greenish references, in turns; and a target of each kind."""
    colours = {"red": (255, 150, 150), "green": (150, 255, 150)}
    plain = references(count, seed=20)
    own = tuple(
        Reference(f"{kind} {r.name}", tinted(r.image, colour), r.objects)
        for r in plain
        for kind, colour in colours.items()
    )
    target = references(1, seed=50)[0].image
    return own, {kind: tinted(target, colour) for kind, colour in colours.items()}


def spied(made):
    """Names of references as they are asked for."""
    asked, original = [], made.prepare_reference

    def spy(shown, label):
        asked.append((shown.name, label))
        return original(shown, label)

    made.prepare_reference = spy
    return asked


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("kind", ["red", "green"])
def test_nearest_references_serve(kind, centre):
    made = prompter(shots=2, kept=64, serve="nearest", centre=centre)
    made.references, targets = two_kinds()
    if centre:
        made.center = FeatureStore(made).center(augmented_views(made.references, 1))
    asked = spied(made)
    maps, agreement = made.maps_and_agreement((), targets[kind])
    served = [name for name, _ in asked]
    assert [name.split()[0] for name in served] == [kind, kind]
    singles = torch.stack(
        [made.network_map([r], targets[kind]) for r in made.references if r.name in served]
    )
    np.testing.assert_array_equal(maps[1], singles.mean(0).numpy())
    assert agreement == {1: pytest.approx(heatmaps.agreement(singles), abs=1e-6)}


def test_nearest_are_chosen_for_each_class():
    made = prompter(shots=1, kept=64, serve="nearest")
    own, targets = two_kinds(1)
    other = [reference("blue", [(40, 40, 2)], asked=(2,))]
    made.references = (*own, *other)
    asked = spied(made)
    made.maps_and_agreement((), targets["green"])
    assert asked == [("green r0", 1), ("blue", 2)]


def test_references_that_are_not_kept_always_serve():
    """Frames of a memory are given for this image; nearest chooses among the user's own."""
    made = prompter(shots=1, kept=64, serve="nearest")
    made.references, targets = two_kinds(1)
    frames = references(2, seed=7)
    asked = spied(made)
    made.maps_and_agreement([*made.references, *frames], targets["green"], [1, 1, 0.3, 0.2])
    assert [name for name, _ in asked] == ["green r0", "r0", "r1"]
    del asked[:]
    made.maps_and_agreement(made.references, targets["green"], [1.0, 0.0])
    assert [name for name, _ in asked] == ["red r0"]  # the near one does not count at all


def test_nearest_costs_one_more_look_at_each_reference_and_none_at_the_image():
    made = prompter(shots=1, kept=64, serve="nearest")
    made.references, targets = two_kinds(2)
    made.propose((), targets["red"])
    assert made.backbone.passes == 1 + 1 + 4 + 1  # at birth, the image, embeddings, the one
    made.propose((), targets["red"])
    assert made.backbone.passes == 8  # only the image
    made.clear_caches()
    made.propose((), targets["red"])
    assert made.backbone.passes == 8 + 1 + 4 + 1


def test_all_kept_serve_evenly_unless_asked_otherwise(trained):
    made = prompter(shots=2, kept=6)
    made.learner.load_state_dict(trained.learner.state_dict())
    made.references, targets = two_kinds()
    singles = [made.network_map([r], targets["red"]) for r in made.references]
    found = made.maps((), targets["red"])[1]
    np.testing.assert_array_equal(found, torch.stack(singles).mean(0).numpy())


def scripted(made, *maps):
    """Let the learner answer these maps in turns, whatever it is shown."""
    turn = cycle(maps)
    made.learner.predict = lambda pyramid, size: next(turn)[None].clone()
    return made


def blob(row, column):
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 18.0)


def test_reference_that_says_something_else_counts_less_with_agreement():
    answers = [blob(8, 8), blob(24, 24), blob(8, 9)]
    for weigh, seen in (("even", True), ("agreement", False)):
        made = scripted(prompter(weigh=weigh), *answers)
        values = made.maps(references(3), discs([]))[1]
        assert (values[24, 24] > 0.3) == seen
        assert values[8, 8] > 0.6


def test_weights_and_agreement_are_multiplied():
    answers = [blob(8, 8), blob(8, 12), blob(12, 10)]
    weights = [1.0, 0.25, 0.5]
    made = scripted(prompter(weigh="agreement"), *answers)
    found = made.maps_and_agreement(references(3), discs([]), weights)[0][1]
    share = aggregation.agreement_weights(torch.stack(answers)) * torch.tensor(weights)
    wanted = sum(s * a for s, a in zip(share / share.sum(), answers, strict=True))
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6)


def test_weight_of_0_is_as_if_the_reference_were_not_given(trained):
    image, shown = references(1, seed=50)[0].image, references(3, seed=20)
    without = trained.maps_and_agreement([shown[0], shown[2]], image, [1.0, 0.5])
    zero = trained.maps_and_agreement(shown, image, [1.0, 0.0, 0.5])
    np.testing.assert_array_equal(zero[0][1], without[0][1])
    assert zero[1] == without[1]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        pytest.param([1.0], "1 weights for 2 references", id="too_few"),
        pytest.param([1.0, -1.0], "finite numbers from 0", id="negative"),
        pytest.param([1.0, float("nan")], "finite numbers from 0", id="not_a_number"),
    ],
)
def test_weights_that_do_not_fit_are_refused(trained, weights, message):
    with pytest.raises(InputError, match=message):
        trained.maps_and_agreement(references(2), discs([]), weights)


def test_weights_of_0_alone_are_no_reference(trained):
    with pytest.raises(PromptError, match="no reference with a prompt"):
        trained.propose(references(2), discs([]), [0.0, 0.0])


def test_no_reference_at_all_is_refused():
    nothing = Prompts(np.array([[3.0, 3]]), np.array([False]))
    for given in ((), [Reference("e", discs([]), ())], [Reference("n", discs([]), (nothing,))]):
        with pytest.raises(PromptError, match="no reference with a prompt"):
            prompter().propose(given, discs([]))


def test_class_that_nobody_shows_is_refused():
    with pytest.raises(PromptError, match="no reference shows class 5"):
        prompter().network_map(references(2), discs([]), 5)


def test_own_references_are_used_when_none_are_given(trained):
    image = references(1, seed=50)[0].image
    own = trained.propose((), image).heat_map.values
    same = trained.propose(trained.references, image).heat_map.values
    other = trained.propose(references(2, seed=77), image).heat_map.values
    assert np.array_equal(own, same)
    assert not np.array_equal(own, other)


def test_each_class_is_proposed_under_its_own_label():
    made = prompter()
    asked = spied(made)
    both = [*references(2, asked=(1,)), reference("b", [(40, 40, 2)], asked=(2,))]
    proposal = seeing(made, (16, 16, 1.0)).propose(both, discs([]))
    assert asked == [("r0", 1), ("r1", 1), ("b", 2)]
    assert [o.label for o in proposal.objects] == [1, 2]


def test_reference_with_only_a_negative_click_of_a_class_is_passed_over():
    nothing = Prompts(np.array([[3.0, 3]]), np.array([False]), label=1)
    mute = Reference("mute", discs([]), (nothing, *clicks([(40, 40, 2)])))
    given = [*references(2), mute]
    alone = prompter().network_map(references(2), discs([]), 1)
    torch.testing.assert_close(prompter().network_map(given, discs([]), 1), alone)
    assert prompter().propose(given, discs([])).heat_map is not None


def test_heat_map_of_prompts_lies_in_the_networks_frame():
    objects = clicks([(10, 50, 1)])
    padded = prompter().map_of(objects, (30, 60))[0]
    assert divmod(int(padded.argmax()), SIDE) == (5, 26)
    squeezed = prompter(backbone=ColourBackbone(squeeze=True)).map_of(objects, (30, 60))[0]
    assert divmod(int(squeezed.argmax()), SIDE) == (11, 26)


def test_references_are_prepared_once_and_again_after_the_centre_changed():
    made, image = prompter(), discs([])
    [shown] = references(1)
    made.propose([shown], image)
    passes = made.backbone.passes
    made.propose([shown], image)
    assert made.backbone.passes == passes + 1  # only the image
    made.clear_caches()
    made.propose([shown], image)
    assert made.backbone.passes == passes + 3


def test_prepared_references_do_not_pile_up():
    made, image = prompter(shots=1), discs([])
    shown = references(9)

    def passes(reference):
        before = made.backbone.passes
        made.propose([reference], image)
        return made.backbone.passes - before

    assert [passes(reference) for reference in shown] == [2] * 9  # the image, and the reference
    assert [passes(reference) for reference in shown[5:]] == [1] * 4
    assert passes(shown[0]) == 2


def test_first_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = prompter(seed=3).learner.state_dict()
    torch.manual_seed(2)
    again, other = prompter(seed=3).learner.state_dict(), prompter(seed=4).learner.state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_first_weights_leave_the_global_random_numbers_alone():
    torch.manual_seed(2)
    expected = torch.rand(1)
    torch.manual_seed(2)
    prompter(seed=3)
    assert torch.equal(torch.rand(1), expected)


def test_maps_are_made_once_for_many_peak_settings():
    made, image = prompter(), discs([])
    seeing(made, (8, 8, 0.9), (20, 20, 0.5))
    maps = made.maps(references(1), image)
    whole = made.propose(references(1), image)
    same = made.proposal(maps, image.shape)
    assert [p.points_rc.tolist() for p in same.objects] == [
        p.points_rc.tolist() for p in whole.objects
    ]
    np.testing.assert_array_equal(same.heat_map.values, whole.heat_map.values)
    fewer = made.proposal(maps, image.shape, PeakSettings(threshold=0.6))
    assert (len(whole.objects), len(fewer.objects)) == (2, 1)


def test_fewer_references_are_compared_at_once_when_memory_runs_out(trained):
    given, image = references(5), discs([(20, 45, 1)])
    wanted = trained.maps(given, image)[1]
    made, predict, batches = trained.copy(), trained.learner.predict, []

    def full(pyramid, size):
        batches.append(len(pyramid[0]))
        if batches[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(pyramid, size)

    made.learner = copy.copy(trained.learner)
    made.learner.predict = full
    made.batch_size = 4
    np.testing.assert_allclose(made.maps(given, image)[1], wanted, atol=1e-6)
    made.maps(given, image)
    assert batches == [4, 2, 2, 1, 2, 2, 1]


def test_prompter_goes_to_the_cpu_with_the_network_of_its_features(trained):
    given, image = references(2), discs([(20, 45, 1)])
    wanted = trained.maps(given, image)[1]
    made, predict = trained.copy(), trained.learner.predict
    made.backbone = copy.copy(trained.backbone)
    made.backbone.device = torch.device("cpu:0")  # stands in for a GPU
    made.learner = copy.copy(trained.learner)

    def moved(pyramid, size):
        if made.backbone.device == torch.device("cpu"):
            return predict(pyramid, size)
        made.backbone.device = torch.device("cpu")
        raise RuntimeError("Expected all tensors to be on the same device")

    made.learner.predict = moved
    np.testing.assert_allclose(made.maps(given, image)[1], wanted, atol=1e-6)


def test_device_without_its_number_is_no_move(trained):
    given = references(2)
    made, features, looked = trained.copy(), trained.backbone.features, []
    made.backbone = copy.copy(trained.backbone)
    made.backbone.device = torch.device("cpu:0")  # as "cuda" and "cuda:0" are one
    made.backbone.features = lambda image: looked.append(id(image)) or features(image)
    for row in (20, 30):
        made.maps(given, discs([(row, 45, 1)]))
    assert [looked.count(id(reference.image)) for reference in given] == [1, 1]


def test_other_faults_of_the_network_are_not_taken_for_a_move(trained):
    def broken(pyramid, size):
        raise RuntimeError("a fault")

    made = trained.copy()
    made.learner = copy.copy(trained.learner)
    made.learner.predict = broken
    with pytest.raises(RuntimeError, match="a fault"):
        made.maps(references(2), discs([(20, 45, 1)]))


def test_threads_share_one_prompter(trained):
    given = references(3)
    images = [discs([(20 + 4 * k, 45 - 4 * k, 1)]) for k in range(4)]
    alone = [trained.maps(given, image)[1] for image in images]
    made = trained.copy()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: made.maps(given, image)[1], images))
    np.testing.assert_allclose(together, alone, atol=1e-6)
