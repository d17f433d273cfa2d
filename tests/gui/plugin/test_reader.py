"""Prompt files as layers, without a window."""

import json

import pytest
from toys import prompts_tree, write_prompts

from napari_samic.core.errors import FormatError
from napari_samic.gui.plugin.reader import get_reader


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
