"""A project's folder: made, opened again, refused."""

import json

import pytest

from napari_samic.core.errors import FormatError, InputError, OutputError
from napari_samic.gui.data.project import Project


def test_project_comes_back_with_its_notes(tmp_path):
    made = Project.create(tmp_path / "new" / "project")
    made.notes["train"] = {"epochs": 3}
    made.save()
    for way in (made.folder, made.file, str(made.folder)):
        assert Project.open(way).notes == {"train": {"epochs": 3}}
    assert [p.name for p in made.folder.iterdir()] == ["project.json"]


def test_folder_with_files_of_others_is_refused_and_untouched(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=r"holds a\.txt and 1 more"):
        Project.create(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_project_is_not_begun_over_another(tmp_path):
    Project.create(tmp_path)
    with pytest.raises(OutputError, match="is a project already"):
        Project.create(tmp_path)


def test_hidden_files_of_the_system_do_no_harm(tmp_path):
    (tmp_path / ".DS_Store").write_text("")
    assert Project.create(tmp_path).file.exists()


def test_file_in_place_of_the_folder_is_said(tmp_path):
    (tmp_path / "project").write_text("")
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        Project.create(tmp_path / "project")


def test_folder_without_a_project_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no SAMIC project, it has no project\.json"):
        Project.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{", "not JSON", id="cut"),
        pytest.param("[1]", "not a SAMIC project", id="a_list"),
        pytest.param('{"format": "napari-samic/prompts"}', "not a SAMIC project", id="other_kind"),
        pytest.param(
            '{"format": "napari-samic/project", "version": 2, "notes": {}}',
            "version 2, this package knows 1", id="newer",
        ),
        pytest.param(
            '{"format": "napari-samic/project", "version": 1, "notes": []}',
            "notes are no object", id="no_notes",
        ),
    ],
)  # fmt: skip
def test_damaged_project_says_what_is_wrong(tmp_path, text, said):
    (tmp_path / "project.json").write_text(text)
    with pytest.raises(FormatError, match=said):
        Project.open(tmp_path)


def test_notes_that_json_can_not_hold_are_refused_and_the_file_stays(tmp_path):
    made = Project.create(tmp_path)
    made.notes["train"] = float("nan")
    with pytest.raises(OutputError, match="notes that JSON can't hold"):
        made.save()
    assert json.loads(made.file.read_text())["notes"] == {}


def test_late_write_of_older_notes_is_dropped(tmp_path):
    made = Project.create(tmp_path)
    older = made.snapshot()
    made.notes["step"] = "Train"
    made.save()
    made.write(older)
    assert Project.open(tmp_path).notes == {"step": "Train"}


@pytest.mark.parametrize("name", ["results", "images", "review", "results/edits"])
def test_folder_of_a_project_that_leads_out_of_it_is_refused(tmp_path, name):
    made = Project.create(tmp_path / "p")
    (tmp_path / "private").mkdir()
    link = made.folder / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "private")
    with pytest.raises(FormatError, match=r"private, out of the project"):
        Project.open(made.folder)


def test_folder_of_a_project_that_leads_elsewhere_in_it_is_fine(tmp_path):
    made = Project.create(tmp_path / "p")
    (made.folder / "large").mkdir()
    (made.folder / "results").symlink_to(made.folder / "large")
    assert Project.open(made.folder).results_folder.is_dir()
