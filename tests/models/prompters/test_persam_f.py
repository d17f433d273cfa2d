"""PerSAM-F: weights of the three masks, learned on what the references show."""

import numpy as np
import pytest
import torch
from toy_backbone import discs
from toy_segmenter import ColourSegmenter, colour_at, disc, low_of, shown

from napari_samic.evaluation.metrics import iou
from napari_samic.models.prompters import persam_f
from napari_samic.models.prompters.persam_f import (
    PersamF,
    fit_mask_weights,
    loss,
    mask_weights,
    without_padding,
)

ONE = shown("one", [(14, 44, 1), (44, 14, 2)])
TWO = shown("two", [(44, 44, 1), (14, 20, 2)], seed=1)
TARGET = discs([(40, 16, 1), (20, 44, 2)], radius=10, seed=2)
WIDE = discs([(24, 72, 1), (24, 24, 2)], (48, 96), radius=15, seed=3)
SCALES = [disc((64, 64), 30, 30, r) for r in (5, 10, 20)]


def pair(which):
    logits = torch.from_numpy(np.stack([low_of(m) for m in SCALES]))
    return logits, torch.from_numpy(SCALES[which].astype(np.float32))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_weight_of_the_mask_that_fits_is_the_largest(which):
    weights = fit_mask_weights([pair(which)])
    assert int(weights.argmax()) == which
    assert float(weights.sum()) == pytest.approx(1)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_learned_weights_improve_the_references_loss(which):
    even = torch.full((3,), 1 / 3)
    assert loss(fit_mask_weights([pair(which)]), *pair(which)) < 0.9 * loss(even, *pair(which))


def test_weights_are_of_sum_one_whatever_was_learned():
    assert mask_weights(torch.tensor([0.9, -0.4])).tolist() == pytest.approx([0.5, 0.9, -0.4])


def test_all_references_count():
    both = fit_mask_weights([pair(0), pair(2)])
    assert both[0] > fit_mask_weights([pair(2)])[0]
    assert both[2] > fit_mask_weights([pair(0)])[2]


def test_padding_is_cut_off():
    logits = torch.from_numpy(low_of(np.ones((48, 96), bool)))
    assert without_padding(logits, (48, 96, 3)).shape == (32, 64)
    assert (without_padding(logits, (48, 96, 3)) > 0).all()


@pytest.mark.parametrize("image", [TARGET, WIDE], ids=["square", "wide"])
def test_answer_is_the_object(image):
    proposal = PersamF(ColourSegmenter()).propose([ONE, TWO], image)
    (found,) = proposal.objects
    assert found.is_foreground.tolist() == [True]
    assert colour_at(image, found.points_rc[0]) == 1
    truth = (image[..., 0] > 180) & (image[..., 2] < 90)
    assert iou(proposal.answer.labels, truth) > 0.9


def test_mixed_mask_goes_into_the_next_question():
    segmenter = ColourSegmenter()
    PersamF(segmenter).propose([ONE], TARGET)
    second, third = segmenter.asked[-2:]
    assert second[0].box_rc is not None
    assert second[2].shape == third[2].shape == (64, 64)
    assert np.abs(second[2] - low_of(disc((64, 64), 40, 16, 10))).max() > 0.05  # not one mask's own


def test_each_class_has_weights_of_its_own():
    reference = shown("both", [(14, 44, 1), (44, 14, 2)], asked=(1, 2))
    prompter = PersamF(ColourSegmenter())
    assert prompter.propose([reference], TARGET).answer.labels.max() == 2
    assert sorted(prompter.tuned.of([reference])[1]) == [1, 2]


def test_order_of_references_does_not_matter(monkeypatch):
    monkeypatch.setattr(persam_f, "STEPS", 20)
    a, b = (PersamF(ColourSegmenter()).tuned.of(r)[1] for r in ([ONE, TWO], [TWO, ONE]))
    torch.testing.assert_close(a[1], b[1], rtol=0, atol=0)


def test_masks_of_a_network_that_answers_surest_first_go_by_area():
    class SurestFirst(ColourSegmenter):
        single_is_first = True

        def answer(self, image, prompts, multimask):
            found = super().answer(image, prompts, multimask)
            order = np.argsort(-found.scores)
            return type(found)(found.masks[order], found.scores[order], found.logits[order])

    a, b = (PersamF(kind()).tuned.of([ONE])[1][1] for kind in (ColourSegmenter, SurestFirst))
    torch.testing.assert_close(a, b)
