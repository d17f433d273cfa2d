"""A recipe run again: the same labels, elsewhere, changed, or only told."""

import hashlib
import re
import shutil

import pytest
import torch
from toys import hidden_files, scene, write_image, write_toy

import napari_samic
from napari_samic import pipeline, recipes
from napari_samic.core.errors import FormatError, InputError, ModelError, OutputError, WeightsError


def replay(project, **options):
    return napari_samic.run_recipe(project / "recipe.yaml", **options)


def labels(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.tif")}


def tree(folder):
    return {p: p.is_file() and p.read_bytes() for p in folder.rglob("*")}


def by_step(outcome, key):
    return [row.get(key) for row in outcome.figures["steps"]]


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["in_place", "out"])
def test_labels_are_the_same_to_the_last_byte(original, project, tmp_path, is_elsewhere):
    out = tmp_path / "again" if is_elsewhere else None
    outcome = replay(project, out=out, strict=True)
    found = out or project
    for name in ("annotated", "labels"):
        assert labels(found / name) == labels(original / name) != {}
    assert outcome.done == ("step 1 (annotate)", "step 2 (train)", "step 3 (segment)",
                            "step 4 (evaluate)")  # fmt: skip
    assert (outcome.out, outcome.skipped, outcome.failures) == (found, (), {})
    assert by_step(outcome, "same_labels") == [True, None, True, None]
    assert (found / "m.json").read_bytes() == (original / "m.json").read_bytes()
    names = sorted(p.name for p in project.iterdir())
    assert ("labels" in names) is not is_elsewhere
    assert not hidden_files(tmp_path)


class Killed(BaseException):
    """Nothing tidies up after it."""


@pytest.fixture
def killed(project, tmp_path):
    """A replay to `again` that ends in a step without tidying up."""

    def dies(*args, **options):
        raise Killed
        yield

    def die(step):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, step, dies)
            with pytest.raises(Killed):
                replay(project, out=tmp_path / "again")
        return tmp_path / "again"

    return die


@pytest.mark.parametrize("during", ["train", "segment", "evaluate"])
def test_killed_replay_goes_on_with_the_step_that_was_under_way(project, tmp_path, killed, during):
    out = killed(during)
    before = ["annotate", "train", "segment", "evaluate"].index(during)
    outcome = replay(project, out=out, strict=True)
    assert (len(outcome.skipped), len(outcome.done)) == (before, 4 - before)
    assert by_step(outcome, "same_labels") == [True, None, True, None]
    assert not hidden_files(tmp_path)


def test_killed_replay_whose_images_changed_begins_anew(project, killed):
    out = killed("segment")
    image = next((project / "images").glob("*.png"))
    write_image(image, scene(7)[0])
    with pytest.raises(OutputError, match="exists already"):
        replay(project, out=out)
    with pytest.warns(UserWarning, match="images"):
        assert len(replay(project, out=out, overwrite=True).done) == 4


def test_killed_replay_whose_results_were_touched_begins_anew(project, killed):
    out = killed("segment")
    next(out.glob("*.pt")).unlink()
    assert replay(project, out=out).skipped == ()


def test_change_of_a_setting_changes_the_labels(original, project):
    (project / "more" / "q4.png").unlink()
    with pytest.warns(UserWarning, match="images has 1 files, 2 when it was recorded"):
        outcome = replay(project, set={"segment.min_score": 1.0, "train.epochs": 2})
    assert by_step(outcome, "figures")[1]["epochs"] == 2
    assert by_step(outcome, "figures")[2]["objects"] == 0
    assert by_step(outcome, "same_labels") == [None] * 4


def test_other_labels_than_recorded_are_noticed(project):
    path = project / "recipe.yaml"
    path.write_text(path.read_text().replace("target_iou: 0.8", "instances: false"))
    assert by_step(replay(project), "same_labels")[0] is False


def test_other_images_are_segmented_and_their_truth_asked_for(original, project, tmp_path):
    write_image(tmp_path / "other" / "z.png", scene(5)[0])
    outcome = replay(project, images=tmp_path / "other", out=tmp_path / "o")
    assert sorted(labels(tmp_path / "o" / "labels")) == ["z.tif"]
    assert labels(tmp_path / "o" / "annotated") == labels(original / "annotated")
    assert outcome.skipped == ("step 4 (evaluate)",)
    assert by_step(outcome, "left_out")[3].startswith("its truth")
    assert not (tmp_path / "o" / "m.json").exists()


def test_images_that_fail_are_told_with_their_step(project):
    (project / "more" / "bad.png").write_text("hello")
    with pytest.warns(UserWarning, match="images has 3 files, 2 when"):
        outcome = replay(project)
    assert list(outcome.failures) == ["3.bad"]
    assert by_step(outcome, "failures") == [0, 0, 1, 0]


def test_dry_run_tells_all_and_writes_nothing(project, tmp_path):
    before = tree(tmp_path)
    outcome = replay(project, out=tmp_path / "new", dry_run=True)
    assert tree(tmp_path) == before
    assert by_step(outcome, "out") == [
        str(tmp_path / "new" / name) for name in ("annotated", "discs.pt", "labels", "m.json")
    ]
    second = outcome.figures["steps"][1]["inputs"]
    assert second["images"] == {"path": str(project / "images"), "files": 3, "from_step": None}
    assert second["prompts"] == {
        "path": str(tmp_path / "new" / "annotated" / "prompts.json"),
        "files": None,
        "from_step": 1,
    }
    assert (by_step(outcome, "done"), outcome.done) == ([None] * 4, ())


def test_job_tells_its_steps_and_can_be_cancelled(project):
    job = recipes.replay(project / "recipe.yaml")
    seen = [next(job)]
    while not seen[-1].message.startswith("1/4 annotate: p1"):
        seen.append(next(job))
    job.close()
    assert seen[0].message == "hashing p0.png"
    assert (seen[-1].done, seen[-1].total, seen[-1].data["step"]) == (2, 3, 1)
    assert sorted(labels(project / "annotated")) == ["p0.tif", "p1.tif"]
    assert not (project / "discs.pt").exists()


# What is other than when it was recorded.


def edit_image(project):
    write_image(project / "images" / "p0.png", scene(9)[0])
    return "step 1 (annotate): images has other contents or names than when it was recorded."


def add_image(project):
    write_image(project / "more" / "q9.png", scene(9)[0])
    return "step 3 (segment): images has 3 files, 2 when it was recorded."


def other_version(project):
    path = project / "recipe.yaml"
    path.write_text(re.sub("package: .*", "package: 0.0.9", path.read_text(), count=1))
    return f"recorded with napari-samic 0.0.9, this is {napari_samic.__version__}: settings that"


def other_model(project):
    path = project / "recipe.yaml"
    file = write_toy(project / "toy.pt", side=32)
    path.write_text(re.sub("name: path:.*", f"name: path:{file.name}", path.read_text()))
    return f"step 1 (annotate): model path:{file} is "


CHANGES = [edit_image, add_image, other_version, other_model]


@pytest.mark.filterwarnings("ignore:recipe.yaml")
@pytest.mark.parametrize("change", CHANGES)
def test_difference_is_a_warning_and_strict_refuses_it(project, change):
    message = "recipe.yaml: .*" + re.escape(change(project))
    with pytest.warns(UserWarning, match=message):
        outcome = replay(project, dry_run=True)
    assert re.match(message, f"recipe.yaml: {outcome.figures['differences'][0]}")
    with pytest.raises(InputError, match=message):
        replay(project, strict=True)
    assert not (project / "annotated").exists()


def test_nothing_is_warned_of_when_nothing_has_changed(project, recwarn):
    replay(project, dry_run=True)
    assert not recwarn.list


# What can't be done is told before the first step.


def lose(name):
    def act(project):
        shutil.rmtree(project / name)

    return act


def lose_model(project):
    path = project / "recipe.yaml"
    path.write_text(re.sub("name: path:.*", "name: path:gone.pt", path.read_text()))


def unknown_model(project):
    path = project / "recipe.yaml"
    path.write_text(re.sub("name: path:.*", "name: nonsense", path.read_text()))


def result_there(project):
    (project / "discs.pt").write_text("mine")


def file_for_folder(project):
    (project / "labels").write_text("mine")


UNFIT = [
    pytest.param(lose("more"), InputError, "step 3 (segment), images: {}/more: no such", id="more"),
    pytest.param(lose("truth"), InputError, "step 4 (evaluate), truth: {}/truth: no", id="truth"),
    pytest.param(lose_model, WeightsError, "step 1 (annotate): {}/gone.pt: no such", id="weights"),
    pytest.param(unknown_model, ModelError, "step 1 (annotate): unknown model", id="model"),
    pytest.param(result_there, OutputError, "step 2 (train): {}/discs.pt: exists already", id="pt"),
    pytest.param(file_for_folder, OutputError, "step 3 (segment): {}/labels: is a file", id="out"),
]


@pytest.mark.parametrize("dry_run", [False, True], ids=["run", "dry"])
@pytest.mark.parametrize(("act", "error", "message"), UNFIT)
def test_what_is_missing_or_in_the_way_is_told_first(project, act, error, message, dry_run):
    act(project)
    before = tree(project)
    with pytest.raises(error, match=re.escape(message.format(project))):
        replay(project, dry_run=dry_run)
    assert tree(project) == before


@pytest.mark.parametrize("name", ["recipe.yaml", "weights.pt"])
def test_result_in_the_place_of_the_recipe_or_the_model_is_refused(project, toy, name):
    shutil.copy(toy.removeprefix("path:"), project / "weights.pt")
    before = tree(project)
    changes = {"train.out": project / name, "train.model": f"path:{project / 'weights.pt'}"}
    with pytest.raises(InputError, match=rf"step 2 \(train\): \S+{name}: is an input, too"):
        replay(project, set=changes, overwrite=True)
    assert tree(project) == before


def test_all_that_is_wrong_is_told_at_once(project):
    lose("more")(project)
    lose("truth")(project)
    with pytest.raises(InputError, match=r"step 3 .*more: no such.* step 4 .*truth: no such"):
        replay(project)


def test_overwrite_replaces_what_is_there(original, project):
    result_there(project)
    replay(project, overwrite=True)
    assert labels(project / "labels") == labels(original / "labels")


def test_error_of_a_step_names_it(project):
    with pytest.raises(InputError, match=r"^step 2 \(train\): give either a prompt file"):
        replay(project, set={"train.masks": project / "masks"})


def test_what_is_no_recipe_is_refused(project):
    with pytest.raises(FormatError, match=r"p0\.png: not a text"):
        napari_samic.run_recipe(project / "images" / "p0.png")


def test_steps_compute_with_the_threads_they_were_recorded_with(project, monkeypatch):
    before, used = torch.get_num_threads(), []
    recipe = project / "recipe.yaml"
    recipe.write_text(re.sub("threads: .*", f"threads: {before + 2}", recipe.read_text()))
    original = pipeline.annotate

    def annotate(*args, **kwargs):
        used.append(torch.get_num_threads())
        return (yield from original(*args, **kwargs))

    monkeypatch.setattr(pipeline, "annotate", annotate)
    replay(project)
    assert used == [before + 2]
    assert torch.get_num_threads() == before


# What a recipe of somebody else may write to.


def lead_out(project, where="../../x"):
    path = project / "recipe.yaml"
    path.write_text(path.read_text().replace("annotated", where))


def link_out(project):
    (project.parent / "elsewhere").mkdir()
    (project / "annotated").symlink_to(project.parent / "elsewhere")


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lead_out, id="dots"),
        pytest.param(lambda p: lead_out(p, f"{p.parent}/elsewhere/deep"), id="whole_path"),
        pytest.param(link_out, id="link"),
    ],
)
def test_results_go_nowhere_outside_unless_the_user_says_so(project, tmp_path, act):
    act(project)
    before = tree(tmp_path)
    told = r"step 1 \(annotate\): would write to /.*outside of the recipe's folder.*--out"
    with pytest.raises(OutputError, match=told):
        replay(project)
    assert tree(tmp_path) == before
    assert len(replay(project, dry_run=True).figures["steps"]) == 4
    assert replay(project, out=tmp_path / "o").done[0] == "step 1 (annotate)"


def test_one_place_outside_is_allowed_where_it_is_named(project, tmp_path):
    lead_out(project)
    replay(project, set={"annotate.out": tmp_path / "named"})
    assert sorted(labels(tmp_path / "named")) == ["p0.tif", "p1.tif", "p2.tif"]


def test_recipe_that_is_trusted_may_write_anywhere(project, tmp_path):
    lead_out(project, "../x")
    replay(project, anywhere=True)
    assert sorted(labels(tmp_path / "x")) == ["p0.tif", "p1.tif", "p2.tif"]


def test_path_that_no_system_knows_is_refused(project):
    path = project / "recipe.yaml"
    path.write_text(re.sub("out: annotated", r'out: "a\\0b"', path.read_text()))
    with pytest.raises(FormatError, match=r"step 1 \(annotate\): out is .a\\x00b., expected"):
        replay(project, dry_run=True)
