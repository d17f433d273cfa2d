"""Text and JSON files: what is too large, too deep or of too many brackets is one line."""

import json

import pytest

from napari_samic.core.errors import FormatError, SamicError
from napari_samic.io import text_files
from napari_samic.io.text_files import read_json, read_text


@pytest.mark.parametrize(
    ("text", "match"),
    [
        pytest.param("[" * 100_000, "not JSON", id="open"),
        pytest.param("[" * 100_000 + "]" * 100_000, "not JSON", id="lists"),
        pytest.param('{"a":' * 100_000 + "1" + "}" * 100_000, "not JSON", id="objects"),
        pytest.param("[" + "[]," * 4_000_000 + "1]", "more brackets and commas", id="wide"),
        pytest.param("[" + "0," * 7_000_000 + "1]", "more brackets and commas", id="numbers"),
    ],
)
def test_bombs_of_brackets_are_refused_in_one_line(tmp_path, text, match):
    path = tmp_path / "bomb.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=match) as caught:
        read_json(path, "another")
    assert "\n" not in str(caught.value)


def test_prompts_of_many_objects_are_read_however_large_the_file(tmp_path, monkeypatch):
    """A point as `save_prompts` writes it stays below the limit for a file of any size."""
    monkeypatch.setattr(text_files, "MOST_TREE", 0)
    point = {"row": 12.5, "column": 131.25, "foreground": True}
    one = {"class": 1, "score": 0.91, "points": [point] * 3,
           "box": {"row0": 1.5, "column0": 2.5, "row1": 30.5, "column1": 40.5}}  # fmt: skip
    tree = {"images": [{"name": "a", "objects": [one] * 50}]}
    (tmp_path / "p.json").write_text(json.dumps(tree, indent=1))
    assert read_json(tmp_path / "p.json", "another") == tree


def test_file_larger_than_any_of_ours_is_not_read(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(text_files.LARGEST + 1)  # takes no room on the disk
    with pytest.raises(FormatError, match="500000001 bytes, expected at most 500000000"):
        read_text(path, "another")


def test_path_that_can_not_be_is_one_line(tmp_path):
    with pytest.raises(SamicError, match="can't be read"):
        read_text(tmp_path / ("a" * 300), "another")


def test_outlines_of_a_data_set_may_be_of_numbers_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MOST_TREE", 0)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"segmentation": [[1.5, 2.5] * 1000]}, separators=(",", ":")))
    with pytest.raises(FormatError, match="more brackets and commas"):
        read_json(path, "another")
    assert len(read_json(path, "another", dense=True)["segmentation"][0]) == 2000
