"""What is advised once clicks change little: it depends on how sure the model is."""

import numpy as np
import pytest

from napari_samic.core.types import CroppedMask
from napari_samic.gui.annotate import guide
from napari_samic.gui.state.annotator import AnnotationModel
from napari_samic.gui.state.objects import AnnotatedObject, MaskCandidates


def advised(confidence):
    """After three clicks on one object that all had the same confidence."""
    state = AnnotationModel(lambda request: None)
    state.open_image("a", (20, 20), "")
    mask = CroppedMask((20, 20), (0, 0), np.ones((4, 4), bool))
    points = ((5.0, 5.0, True), (6.0, 5.0, True), (7.0, 5.0, True))
    answer, history = MaskCandidates((mask,), (confidence,), "toy"), (confidence,) * 2
    state.annotation.commit([AnnotatedObject(1, 1, points, None, answer, history=history)], 1)
    return guide.what_next(state, has_image=True, is_flat=True, is_active=True, has_model=True)


@pytest.mark.parametrize(("confidence", "sure"), [(0.5, False), (0.69, False), (0.9, True)])
def test_mask_that_stays_unsure_is_not_called_done(confidence, sure):
    text = advised(confidence)
    assert "Further clicks change little" in text
    assert ("stays unsure" in text) != sure
