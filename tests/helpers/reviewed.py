"""A folder of results to review: two usual images, one with fewer objects, one with none."""

import numpy as np
import tifffile
from PIL import Image

from napari_samic.core.types import Prompts
from napari_samic.io.prompts import ImagePrompts, PromptFile, save_prompts
from napari_samic.io.writers import write_csv
from napari_samic.pipeline.accept import COLUMNS

SHAPE = (40, 60)
PLACES = {"a": [(10, 10), (30, 40)], "b": [(10, 10), (30, 40)], "c": [(20, 30)], "d": []}
BOXED = {"b"}
SCORES = {"a": 0.9, "b": 0.6, "c": 0.9, "d": 0.0}


def disc(labels, place, value, radius=5):
    rows, columns = np.indices(labels.shape)
    labels[np.hypot(rows - place[0], columns - place[1]) <= radius] = value


def box_of(place, radius=6.0):
    return np.array([*place, *place]) + np.array([-1, -1, 1, 1]) * radius


def labels_of(name):
    labels = np.zeros(SHAPE, np.int32)
    for value, place in enumerate(PLACES[name], start=1):
        disc(labels, place, value)
    return labels


def write_results(folder, pictures):
    folder.mkdir(exist_ok=True)
    pictures.mkdir(exist_ok=True)
    images, rows = [], []
    for name, places in PLACES.items():
        file = pictures / f"{name}.png"
        tifffile.imwrite(folder / f"{name}.tif", labels_of(name))
        picture = np.random.default_rng(len(images)).integers(0, 255, (*SHAPE, 3), np.uint8)
        Image.fromarray(picture).save(file)
        objects = tuple(
            Prompts(np.array([p], float), np.array([True]), box_of(p) if name in BOXED else None)
            for p in places
        )
        score = SCORES[name]
        images.append(
            ImagePrompts(name, str(file), SHAPE, "", objects, tuple(score for _ in places))
        )
        head = {"image": name, "image_score": score}
        rows += [
            {**head, "object": n, "class": 1, "score": score, "area_px": 81}
            for n, _ in enumerate(places, start=1)
        ] or [{**head, "object": 0}]
    save_prompts(folder / "prompts.json", PromptFile(tuple(images), "tiny"), overwrite=True)
    write_csv(folder / "scores.csv", rows, columns=COLUMNS, overwrite=True)
