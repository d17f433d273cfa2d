"""A prompter by Otsu's threshold; the references say whether objects are bright or dark."""

import numpy as np
from scipy import ndimage
from skimage.filters import gaussian, threshold_otsu

from napari_samic.core.types import PromptProposal, Prompts

SMOOTHING_PX = 1.5
SMALLEST = 0.25
"""A piece below this part of the smallest reference object is noise."""


class Otsu:
    """Ask for each piece of what lies on the objects' side of the threshold."""

    def propose(self, references, image):
        """One point and box for each piece: `napari_samic.core.types.Prompter`."""
        pieces, _ = ndimage.label(above_threshold(image) == are_bright(references))
        sizes = np.bincount(pieces.ravel())
        prompts = tuple(
            prompt_of(pieces == number, place)
            for number, place in enumerate(ndimage.find_objects(pieces), start=1)
            if sizes[number] >= smallest_px(references)
        )
        return PromptProposal(objects=prompts)


def above_threshold(image):
    """Pixels (H, W) brighter than Otsu's threshold."""
    gray = gaussian(image.mean(axis=-1), SMOOTHING_PX)
    return gray > threshold_otsu(gray)


def are_bright(references):
    """Whether most positive clicks of the references lie on bright pixels."""
    votes = []
    for reference in references:
        bright = above_threshold(reference.image)
        for prompts in reference.objects:
            rows, columns = prompts.points_rc[prompts.is_foreground].round().astype(int).T
            votes += bright[rows, columns].tolist()
    return not votes or np.mean(votes) >= 0.5


def smallest_px(references):
    """Pixels that an object needs; 1 where no mask of a reference is known."""
    masks = [reference.mask for reference in references if reference.mask is not None]
    areas = [area for mask in masks for area in np.bincount(mask.ravel())[1:] if area]
    return SMALLEST * min(areas, default=0) or 1


def prompt_of(piece, place):
    """The piece's box, first to last row and column, and the pixel farthest from its edge."""
    inner = np.unravel_index(ndimage.distance_transform_edt(np.pad(piece, 1)).argmax(),
                             np.add(piece.shape, 2))  # fmt: skip
    rows, columns = place
    box = (rows.start, columns.start, rows.stop - 1, columns.stop - 1)
    return Prompts(
        points_rc=np.subtract([inner], 1), is_foreground=np.array([True]), box_rc=np.array(box)
    )
