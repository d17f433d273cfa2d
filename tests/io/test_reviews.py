"""The review file: read, checked, written."""

import json

import pytest

from napari_samic.core.errors import FormatError, InputError, OutputError
from napari_samic.core.label_objects import ObjectRecord
from napari_samic.io.reviews import Verdict, load_review, save_review
from napari_samic.io.text_files import sha256_of

HASH = "0" * 64
VERDICTS = {
    "a": Verdict("accepted", "confidence 0.90"),
    "b[2]": Verdict("edited", "", "b-0002.tif", HASH, {1: ObjectRecord(2, 0.5), 4: ObjectRecord()}),
    "c": Verdict("rejected", "out of focus"),
}


def test_verdicts_come_back_as_they_were(tmp_path):
    save_review(tmp_path / "r.json", VERDICTS)
    assert load_review(tmp_path / "r.json") == VERDICTS


def test_earlier_review_is_kept_unless_overwriting_is_allowed(tmp_path):
    save_review(tmp_path / "r.json", VERDICTS)
    with pytest.raises(OutputError, match="exists already"):
        save_review(tmp_path / "r.json", {})
    save_review(tmp_path / "r.json", {}, overwrite=True)
    assert load_review(tmp_path / "r.json") == {}


def write(path, images, **changes):
    tree = {"format": "napari-samic/review", "version": 1, "images": images} | changes
    path.write_text(json.dumps(tree))
    return path


FAULTY = [
    pytest.param([], "images is \\[\\], expected a mapping", id="list"),
    pytest.param({"a": "yes"}, "a is 'yes', expected a mapping of verdict", id="text"),
    pytest.param({"a": {"verdict": "good"}}, "a: verdict is 'good', expected one of accepted, ed",
                 id="verdict"),
    pytest.param({"a": {"verdict": "accepted", "why": ""}}, "a: unknown why. Known: verdict",
                 id="unknown"),
    pytest.param({"a": {"verdict": "rejected", "reason": 3}}, "a: reason is 3", id="reason"),
    pytest.param({"a": {"verdict": "edited", "sha256": HASH}}, "a: file is None", id="no_file"),
    pytest.param({"a": {"verdict": "edited", "file": "../a.tif", "sha256": HASH}},
                 "a: file is '../a.tif', expected the name", id="elsewhere"),
    pytest.param({"a": {"verdict": "edited", "file": "..", "sha256": HASH}},
                 "a: file is '..', expected the name", id="above"),
    pytest.param({"../../a": {"verdict": "accepted"}}, "'../../a' has a folder", id="folder"),
    pytest.param({"a": {"verdict": "edited", "file": "a.tif", "sha256": "1"}}, "sha256 is '1'",
                 id="hash"),
    pytest.param({"a": {"verdict": "accepted", "objects": {"x": 1}}}, "object x is 1, expected a c",
                 id="object"),
    pytest.param({"a": {"verdict": "accepted", "objects": {"1": {"class": 0, "score": None}}}},
                 "object 1 is", id="class"),
    pytest.param({"a": {"verdict": "accepted", "objects": {"1": {"class": 1}}}},
                 "object 1 is", id="no_score"),
    pytest.param({"a": {"verdict": "9" * 9999}}, "a: verdict is '9{10,40}, expected", id="long"),
]  # fmt: skip


@pytest.mark.parametrize(("images", "message"), FAULTY)
def test_faulty_reviews_are_refused_with_the_place(tmp_path, images, message):
    with pytest.raises(FormatError, match=message):
        load_review(write(tmp_path / "r.json", images))


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(FormatError, match=r"a: verdict is 1.*b: verdict is 2"):
        load_review(write(tmp_path / "r.json", {"a": {"verdict": 1}, "b": {"verdict": 2}}))


@pytest.mark.parametrize("text", ["{", "[1]", '{"format": "x"}'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(FormatError, match="Pick a review file"):
        load_review(tmp_path / "r.json")


def test_newer_version_is_refused(tmp_path):
    with pytest.raises(FormatError, match="version 2, expected 'napari-samic/review', version 1"):
        load_review(write(tmp_path / "r.json", {}, version=2))


def test_missing_files_are_told(tmp_path):
    with pytest.raises(InputError, match=r"r\.json: can't be read \(No such file"):
        load_review(tmp_path / "r.json")
    with pytest.raises(InputError, match=r"e\.tif: can't be read"):
        sha256_of(tmp_path / "e.tif")
