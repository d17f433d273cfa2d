import copy
import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from napari_samic.core.errors import FormatError, InputError, OutputError, PromptError
from napari_samic.core.types import CroppedMask, Prompts
from napari_samic.io.prompts import ImagePrompts, PromptFile, load_prompts, save_prompts

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "prompts.schema.json").read_text(encoding="utf-8")
)


def two_images():
    mask = CroppedMask((50, 60), (9, 19), np.ones((2, 3), bool))
    cell = Prompts([(10.25, 20), (3, 4)], [True, False], [1, 2, 30.5, 40], label=2)
    dot = Prompts(np.zeros((0, 2)), [], [0, 0, 5, 5])
    return PromptFile(
        images=(
            ImagePrompts(
                "day 1",
                "raw/day 1.tif",
                (50, 60),
                "a" * 64,
                (cell, dot),
                (0.97, 1.009),
                masks=(mask, None),
            ),
            ImagePrompts("stack[3]", "", (8, 9), "", (), (), clicks=4, seconds=2.5),
        ),
        model="tiny",
        normalization={"low": 1.0, "high": [99.5, 3], "mode": "percentile"},
        classes={1: "dot", 2: "Zelle, grün"},
    )


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "clicks.json"
    save_prompts(path, two_images())
    return path


@pytest.fixture
def tree(saved):
    return json.loads(saved.read_text(encoding="utf-8"))


def write(path, tree):
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def test_saved_prompts_come_back_to_the_last_digit(saved):
    before, after = two_images(), load_prompts(saved)
    assert (after.model, after.normalization) == (before.model, before.normalization)
    assert after.classes == before.classes
    for one, other in zip(before.images, after.images, strict=True):
        for name in ("name", "file", "shape", "sha256", "scores", "clicks", "seconds"):
            assert getattr(one, name) == getattr(other, name)
        assert len(one.objects) == len(other.objects)
        for mask, again in zip(one.masks, other.masks, strict=True):
            assert (mask is None) == (again is None)
            assert mask is None or np.array_equal(mask.full(), again.full())
        for p, q in zip(one.objects, other.objects, strict=True):
            np.testing.assert_array_equal(p.points_rc, q.points_rc)
            np.testing.assert_array_equal(p.is_foreground, q.is_foreground)
            np.testing.assert_array_equal(p.box_rc, q.box_rc)
            assert p.label == q.label


def test_object_without_box_comes_back_without_box(tmp_path):
    one = Prompts([(1, 1)], [True])
    data = PromptFile((ImagePrompts("a", "", (4, 4), "", (one,), (0.5,)),))
    save_prompts(tmp_path / "a.json", data)
    assert load_prompts(tmp_path / "a.json").images[0].objects[0].box_rc is None


def test_file_names_its_rows_and_columns(tree):
    point = tree["images"][0]["objects"][0]["points"][0]
    assert point == {"row": 10.25, "column": 20.0, "foreground": True}
    assert tree["images"][0]["shape"] == {"rows": 50, "columns": 60}


def test_what_is_saved_fits_the_schema(tree):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(tree)


def test_numpy_numbers_can_be_saved(tmp_path):
    image = ImagePrompts(
        "a", "", (np.int64(4), np.int64(4)), "", (Prompts([(1, 1)], [True]),), (np.float32(0.5),)
    )
    save_prompts(tmp_path / "a.json", PromptFile((image,)))
    assert load_prompts(tmp_path / "a.json").images[0].scores == (0.5,)


def test_name_that_is_no_unicode_survives(tmp_path):
    name = "caf\udce9"  # as Python gives a Latin-1 file name on Linux
    save_prompts(tmp_path / "a.json", PromptFile((ImagePrompts(name, name, (4, 4), "", (), ()),)))
    assert load_prompts(tmp_path / "a.json").images[0].name == name


def test_file_edited_with_a_byte_order_mark_is_read(saved):
    saved.write_text(saved.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert len(load_prompts(saved).images) == 2


def test_existing_file_is_kept_unless_told(saved):
    before = saved.read_bytes()
    with pytest.raises(OutputError, match=r"clicks\.json: exists already"):
        save_prompts(saved, PromptFile(()))
    assert saved.read_bytes() == before
    save_prompts(saved, PromptFile(()), overwrite=True)
    assert load_prompts(saved).images == ()


def test_failed_save_leaves_the_old_file_and_no_litter(saved, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full_disk)
        with pytest.raises(OutputError, match="disk is full"):
            save_prompts(saved, PromptFile(()), overwrite=True)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_folder_in_the_way_is_refused(tmp_path):
    with pytest.raises(OutputError, match="that is a folder"):
        save_prompts(tmp_path, PromptFile(()), overwrite=True)


ONE = Prompts([(1, 1)], [True])


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        pytest.param(
            PromptFile((ImagePrompts("a", "", (4, 4), "", (ONE,), ()),)),
            OutputError,
            "a: 0 scores for 1 objects",
            id="scores_missing",
        ),
        pytest.param(
            PromptFile((ImagePrompts("a", "", (4, 4), "", (ONE,), (np.nan,)),)),
            OutputError,
            "can't be written as JSON",
            id="nan_score",
        ),
        pytest.param(
            PromptFile((), normalization={"f": np.zeros(3)}),
            OutputError,
            "ndarray is not JSON serializable",
            id="array_in_normalisation",
        ),
        pytest.param(
            PromptFile((ImagePrompts("a", "", (1, 4), "", (ONE,), (1.0,)),)),
            PromptError,
            r"new\.json: a, objects\[0\]: prompt at row 1, column 1 is outside",
            id="outside",
        ),
        pytest.param(
            PromptFile((ImagePrompts("a", "", (4, 4), "", (), ()),) * 2),
            FormatError,
            r"images\[1\]\.name: \"a\" is listed already as images\[0\]",
            id="twice",
        ),
        pytest.param(PromptFile((), classes={0: "sky"}), FormatError, 'classes: "0"', id="class_0"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, data, error, message):
    with pytest.raises(error, match=message):
        save_prompts(tmp_path / "new.json", data)
    assert not list(tmp_path.iterdir())


def put(tree, path, value):
    """Change one place, given as 'images.0.name'; delete it for the value ...."""
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in way:
        tree = tree[key]
    if value is ...:
        del tree[last]
    else:
        tree[last] = value


A = "images.0"
P = "images.0.objects.0.points.1"
BOX = "images.0.objects.0.box"
BROKEN = [
    # (place to change, value, what the loader says)
    ("model", ..., "model: missing, expected a text"),
    ("model", 3, "model: 3, expected a text"),
    ("normalisation", ..., "normalisation: missing"),
    ("normalisation", [], "normalisation: [], expected an object or null"),
    ("classes", None, "classes: null, expected an object"),
    ("classes", {"zero": "x"}, 'classes: "zero", expected a whole number from 1'),
    ("classes", {"01": "x"}, 'classes: "01"'),
    ("classes", {"1": 5}, "classes.1: 5, expected a text"),
    ("images", {}, "images: {}, expected a list"),
    ("images", ..., "images: missing"),
    ("imagess", [], "imagess: not known, expected only format,"),
    (A, "a", 'images[0]: "a", expected an object with name'),
    (f"{A}.name", ..., "images[0].name: missing"),
    (f"{A}.name", "", 'images[0].name: "", expected a text, not empty'),
    (f"{A}.name", "../../x", 'images[0].name: "../../x", expected a text, not empty, without a fo'),
    (f"{A}.name", "/x", 'images[0].name: "/x", '),
    (f"{A}.name", "..", 'images[0].name: "..", '),
    (f"{A}.name", "a\\b", 'images[0].name: "a\\\\b", '),
    (f"{A}.name", "C:x", 'images[0].name: "C:x", '),
    (f"{A}.name", "a\0b", 'images[0].name: "a\\u0000b", '),
    (f"{A}.file", None, "images[0].file: null, expected a text"),
    (f"{A}.shape", [5, 5], "images[0].shape: [5, 5], expected an object"),
    (f"{A}.shape", {"rows": 50}, "images[0].shape.columns: missing"),
    (f"{A}.shape.rows", 0, "images[0].shape.rows: 0, expected a whole number from 1"),
    (f"{A}.shape.rows", 5.5, "images[0].shape.rows: 5.5"),
    (f"{A}.shape.rows", True, "images[0].shape.rows: true"),
    (f"{A}.shape.depth", 3, "images[0].shape.depth: not known"),
    (f"{A}.sha256", "abc", 'images[0].sha256: "abc", expected 64 digits'),
    (f"{A}.sha256", "A" * 64, "images[0].sha256: "),
    (f"{A}.clicks", -1, "images[0].clicks: -1, expected a whole number from 0, or null"),
    (f"{A}.clicks", 1.5, "images[0].clicks: 1.5"),
    (f"{A}.seconds", -0.5, "images[0].seconds: -0.5, expected a number from 0"),
    (f"{A}.seconds", "2", 'images[0].seconds: "2"'),
    (f"{A}.note", "hm", "images[0].note: not known"),
    (f"{A}.objects", None, "images[0].objects: null, expected a list"),
    (f"{A}.objects.0", [], "images[0].objects[0]: [], expected an object"),
    (f"{A}.objects.0.class", 0, "images[0].objects[0].class: 0"),
    (f"{A}.objects.0.class", ..., "images[0].objects[0].class: missing"),
    (f"{A}.objects.0.score", None, "images[0].objects[0].score: null, expected a finite number"),
    (f"{A}.objects.0.points", ..., "images[0].objects[0].points: missing"),
    (f"{A}.objects.0.x", 1, "images[0].objects[0].x: not known"),
    (P, [1, 2], "images[0].objects[0].points[1]: [1, 2], expected an object with row"),
    (f"{P}.row", "3", 'images[0].objects[0].points[1].row: "3", expected a finite number'),
    (f"{P}.column", ..., "images[0].objects[0].points[1].column: missing"),
    (f"{P}.foreground", 1, "images[0].objects[0].points[1].foreground: 1, expected true or false"),
    (f"{P}.z", 1, "images[0].objects[0].points[1].z: not known"),
    (BOX, [1, 2, 3, 4], "images[0].objects[0].box: [1, 2, 3, 4], expected an object"),
    (f"{BOX}.row1", ..., "images[0].objects[0].box.row1: missing"),
    (f"{BOX}.row1", False, "images[0].objects[0].box.row1: false"),
]
SOUND = [
    ("normalisation", None),
    ("version", 1.0),
    ("images", []),
    (f"{A}.sha256", ""),
    (f"{A}.shape.rows", 50.0),
    (f"{A}.clicks", ...),
    (f"{A}.seconds", ...),
    (f"{A}.seconds", 3),
    (f"{A}.objects", []),
    (f"{A}.objects.0.box", None),
    (f"{A}.objects.0.box", ...),
    (f"{A}.objects.0.points", []),
    (f"{A}.objects.0.class", 900),
]


@pytest.mark.parametrize(
    ("place", "value", "message"), [pytest.param(*case, id=case[2][:50]) for case in BROKEN]
)
def test_schema_and_loader_refuse_the_same_files(saved, tree, place, value, message):
    put(tree, place, value)
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(tree)
    with pytest.raises(FormatError, match=re.escape(f"clicks.json: {message}")):
        load_prompts(write(saved, tree))


@pytest.mark.parametrize(("place", "value"), SOUND)
def test_schema_and_loader_accept_the_same_files(saved, tree, place, value):
    put(tree, place, value)
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(tree)
    load_prompts(write(saved, tree))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        pytest.param("format", ..., "format is None, expected 'napari-samic/prompts'", id="none"),
        pytest.param("format", "coco", "format is 'coco', .* Pick a prompt file", id="other_kind"),
        pytest.param("version", 2, "version is 2, expected 1. Open it with the", id="newer"),
        pytest.param("version", "1", "version is '1', expected 1", id="text"),
        pytest.param("version", True, "version is True, expected 1", id="bool"),
        pytest.param("version", ..., "version is None, expected 1", id="missing"),
    ],
)
def test_other_kinds_and_versions_are_told_apart(saved, tree, place, value, message):
    put(tree, place, value)
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(tree)
    with pytest.raises(FormatError, match=message):
        load_prompts(write(saved, tree))


def test_every_fault_is_named_at_once(saved, tree):
    put(tree, "model", 3)
    put(tree, f"{P}.row", None)
    put(tree, f"{BOX}.row1", 0)
    put(tree, "images.1.shape.rows", -4)
    with pytest.raises(FormatError) as caught:
        load_prompts(write(saved, tree))
    message = str(caught.value)
    places = ("model: 3", "points[1].row: null", "expected row0 < row1", "images[1].shape.rows: -4")
    assert [place for place in places if place not in message] == []
    assert message.startswith("clicks.json: ")
    assert message.count(";") == 3


def test_image_listed_twice_is_refused(saved, tree):
    tree["images"].append(copy.deepcopy(tree["images"][0]))
    expected = r'images\[2\]\.name: "day 1" is listed already as images\[0\]'
    with pytest.raises(FormatError, match=expected):
        load_prompts(write(saved, tree))


@pytest.mark.parametrize(("key", "value"), [("row1", 1.0), ("column1", -3)])
def test_box_without_area_is_refused(saved, tree, key, value):
    put(tree, f"{BOX}.{key}", value)
    with pytest.raises(FormatError, match=r"objects\[0\]\.box: .* expected row0 < row1 and col"):
        load_prompts(write(saved, tree))


def test_points_outside_name_every_image(saved, tree):
    put(tree, f"{P}.row", 50)
    tree["images"][1]["objects"] = [
        {"class": 1, "score": 1, "points": [{"row": 1, "column": -2, "foreground": True}]}
    ]
    with pytest.raises(PromptError) as caught:
        load_prompts(write(saved, tree))
    message = str(caught.value)
    assert message.startswith("clicks.json: day 1, objects[0]: prompt at row 50, column 4")
    assert "stack[3], objects[0]" in message
    assert "column -2" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "not JSON", id="empty"),
        pytest.param('{"format": "nap', "not JSON .*line 1", id="cut"),
        pytest.param("[" * 100_000, "not JSON", id="deep"),
        pytest.param('{"a": NaN}', "NaN is not a JSON number", id="nan"),
        pytest.param("[]", "format is None", id="list"),
        pytest.param("null", "format is None", id="null"),
        pytest.param("\ud800", "not a text", id="not_utf8"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(FormatError, match=rf"bad\.json: .*{message}"):
        load_prompts(path)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
def test_numbers_that_overflow_are_refused(saved, number):
    text = saved.read_text(encoding="utf-8").replace("10.25", number)
    saved.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=r"points\[0\]\.row: .* expected a finite number"):
        load_prompts(saved)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: can't be read \(No such file"):
        load_prompts(tmp_path / "gone.json")


def test_file_of_very_many_faults_is_still_one_line(saved, tree):
    tree["images"][0]["objects"] = [{}] * 10_000
    saved.write_text(json.dumps(tree))
    with pytest.raises(FormatError, match="and others") as caught:
        load_prompts(saved)
    assert len(str(caught.value)) < 5000


def test_file_of_very_many_points_outside_is_still_one_line(saved, tree):
    one = tree["images"][0]["objects"][0]
    far = {**one, "points": [{"row": 1e6, "column": 1, "foreground": True}]}
    tree["images"][0]["objects"] = [far] * 10_000
    saved.write_text(json.dumps(tree))
    with pytest.raises(PromptError, match="and others") as caught:
        load_prompts(saved)
    assert len(str(caught.value)) < 10_000


def test_mask_that_does_not_fill_its_image_is_named(tree, tmp_path):
    tree["images"][0]["objects"][0]["mask"] = "13"
    with pytest.raises(FormatError, match=r"a\.json: day 1, objects\[0\]\.mask: runs for 4 pixels"):
        load_prompts(write(tmp_path / "a.json", tree))
