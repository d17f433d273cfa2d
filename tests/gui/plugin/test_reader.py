"""Prompt files as layers, without a window."""

import json

import numpy as np
import pytest
from PIL import Image
from toys import prompts_tree, write_prompts

from napari_samic.core.errors import FormatError
from napari_samic.gui.plugin.reader import get_project_reader, get_reader


def test_prompt_file_opens_as_clicks_and_boxes(tmp_path):
    path = write_prompts(tmp_path / "prompts.json", [("cell", (20, 30), [[(3, 4), (5, 6)]])])
    tree = json.loads(path.read_text())
    tree["images"][0]["objects"][0]["box"] = {"row0": 1, "column0": 2, "row1": 9, "column1": 8}
    tree["images"][0]["objects"][0]["points"][1]["foreground"] = False
    path.write_text(json.dumps(tree))
    points, boxes = get_reader(str(path))(str(path))
    assert points[0].tolist() == [[3, 4], [5, 6]]
    assert points[1]["features"] == {"object": [1, 1], "positive": [True, False]}
    assert (points[1]["name"], points[2]) == ("cell clicks", "points")
    assert boxes[0][0].tolist() == [[1, 2], [1, 8], [9, 8], [9, 2]]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"format": "another/prompts"}', id="other_json"),
        pytest.param('["napari-samic/prompts"]', id="a_list_that_names_us"),
        pytest.param("", id="empty"),
    ],
)
def test_other_files_are_left_to_others(tmp_path, text):
    path = tmp_path / "prompts.json"
    path.write_text(text)
    assert get_reader(str(path)) is None


def test_several_or_missing_files_are_left_to_others(tmp_path):
    assert get_reader([str(tmp_path / "prompts.json")]) is None
    assert get_reader(str(tmp_path / "prompts.json")) is None


def test_damaged_prompt_file_says_what_is_wrong(tmp_path):
    tree = prompts_tree([]) | {"classes": None}
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(FormatError, match="classes: null, expected an object"):
        get_reader(str(path))(str(path))


@pytest.mark.parametrize("name", ["a.ome.zarr", "a.czi", "a.dcm", "a.nii.gz", "a.gif", ""])
def test_folders_that_others_read_are_left_to_them(tmp_path, name):
    folder = tmp_path / (name if name.endswith("zarr") else "folder")
    folder.mkdir()
    if name:
        (folder / ("zarr.json" if name.endswith("zarr") else name)).write_text("{}")
    assert get_project_reader(str(folder)) is None


def test_folder_of_several_sizes_opens_as_a_layer_each(tmp_path):
    for i, shape in enumerate([(60, 100), (80, 90), (60, 100)]):
        Image.fromarray(np.full(shape, 10 + i, np.uint8)).save(tmp_path / f"p{i}.png")
    layers = get_project_reader(str(tmp_path))(str(tmp_path))
    name = f"{tmp_path.name} 60 x 100"
    assert {o["name"]: data.shape for data, o, _ in layers} == {name: (2, 60, 100), "p1": (80, 90)}
    assert [int(np.asarray(data).max()) for data, _, _ in layers] == [12, 11]
