"""A prompter as one file: it answers as before, elsewhere, or says in one line why not."""

import numpy as np
import pytest
import torch
from toy_backbone import ColourBackbone, clicks, discs, prompter, reference, references

from napari_samic.core.errors import FormatError, ModelError, OutputError
from napari_samic.core.settings import HeatMapSettings, PeakSettings
from napari_samic.core.types import Prompts, Reference
from napari_samic.models.samic import serialization
from napari_samic.models.samic.fit_report import FitReport


def given(shape=(64, 64)):
    """Untrained, with references of one shape."""
    made = prompter(mask_mode="weighted", seed=4)
    row, column = shape[0] // 3, shape[1] // 2
    made.references = (
        reference("a", [(row, column, 1)], shape=shape),
        reference("b", [(row // 2, column // 2, 1)], shape=shape, seed=1),
    )
    return made


def assert_same_answer(made, again, image, atol=0.0):
    before, after = made.propose((), image), again.propose((), image)
    np.testing.assert_allclose(after.heat_map.values, before.heat_map.values, atol=atol)
    assert len(before.objects) == len(after.objects)
    for a, b in zip(before.objects, after.objects, strict=True):
        np.testing.assert_allclose(a.points_rc, b.points_rc, atol=atol * 1000)
        assert a.label == b.label


def test_read_back_it_proposes_the_same(trained, tmp_path):
    serialization.save(trained, tmp_path / "red.samic")
    again = serialization.load(tmp_path / "red.samic", ColourBackbone())
    for seed in range(3):
        assert_same_answer(trained, again, references(1, seed=40 + seed)[0].image)
    assert len(trained.propose((), references(1, seed=40)[0].image).objects) > 0
    assert again.report == trained.report
    assert not again.learner.training


@pytest.mark.parametrize("squeeze", [False, True], ids=["padded", "squeezed"])
@pytest.mark.parametrize("shape", [(200, 300), (129, 400), (33, 97), (20, 30), (50, 90)])
def test_pictures_of_any_shape_answer_as_before_at_the_networks_size(tmp_path, shape, squeeze):
    backbone = ColourBackbone(squeeze=squeeze)
    made = given(shape)
    made.backbone = backbone
    serialization.save(made, tmp_path / "p.samic")
    again = serialization.load(tmp_path / "p.samic", ColourBackbone(squeeze=squeeze))
    assert_same_answer(made, again, discs([(30, 30, 1)], (80, 70)), atol=1e-6)
    for small, large in zip(again.references, made.references, strict=True):
        assert max(small.image.shape) <= max(64, min(shape))
        assert np.array_equal(
            made.backbone.features(small.image)[0][0], made.backbone.features(large.image)[0][0]
        )


def test_everything_else_is_kept(tmp_path):
    made = given()
    made.settings = made.settings.from_dict({**made.settings.to_dict(), "shots": 3})
    made.heat, made.peaks = HeatMapSettings(sigma_frac=0.05), PeakSettings.paper()
    made.normalization = {"model": "tiny", "low": [0.5], "nested": {"a": None}}
    made.report = FitReport((2.0, 1.0), 0.1, 0.2, True, ("x",), 4, 1.5, "all done")
    box = Prompts(np.zeros((0, 2)), np.zeros(0, bool), np.array([3.0, 4, 20, 30]), label=2)
    mixed = Prompts(np.array([[1.5, 2], [3, 4]]), np.array([True, False]))
    made.references = (Reference("r", discs([]), (box, mixed), np.ones((64, 64), np.int32)),)
    serialization.save(made, tmp_path / "p.samic")
    again = serialization.load(tmp_path / "p.samic", ColourBackbone())
    for name in ("settings", "heat", "peaks", "normalization", "report"):
        assert getattr(again, name) == getattr(made, name)
    [shown] = again.references
    assert shown.name == "r"
    assert shown.mask.tolist() == np.ones((64, 64)).tolist()
    assert np.array_equal(shown.image, made.references[0].image)
    assert shown.objects[0].box_rc.tolist() == [3, 4, 20, 30]
    assert [o.label for o in shown.objects] == [2, 1]
    assert shown.objects[1].points_rc.tolist() == [[1.5, 2], [3, 4]]
    assert shown.objects[1].is_foreground.tolist() == [True, False]


def test_references_that_serve_are_the_same_after_reading(tmp_path):
    made = given()
    values = {"shots": 1, "kept": 9, "serve": "nearest", "weigh": "agreement"}
    made.settings = made.settings.from_dict({**made.settings.to_dict(), **values})
    serialization.save(made, tmp_path / "p.samic")
    again = serialization.load(tmp_path / "p.samic", ColourBackbone())
    assert again.settings == made.settings
    assert len(again.references) == 2
    assert_same_answer(made, again, discs([(30, 30, 1)]))


def test_file_from_before_there_was_a_choice_opens(tmp_path):
    made = given()
    made.settings = made.settings.from_dict({**made.settings.to_dict(), "shots": 8})
    content = serialization.pack(made)
    for name in ("kept", "serve", "weigh"):
        del content["settings"]["prompter"][name]
    torch.save(content, tmp_path / "old.samic")
    again = serialization.load(tmp_path / "old.samic", ColourBackbone())
    assert (again.settings.keeps, again.settings.serve, again.settings.weigh) == (8, "all", "even")
    assert_same_answer(made, again, discs([(30, 30, 1)]))


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_number_of_layers_is_kept(tmp_path, layers):
    made = prompter(seed=4, layers=layers)
    made.references = given().references
    serialization.save(made, tmp_path / "p.samic")
    again = serialization.load(tmp_path / "p.samic", ColourBackbone())
    assert (again.settings.layers, again.learner.layers) == (layers, layers)
    assert_same_answer(made, again, discs([(30, 30, 1)]))


def test_file_from_before_layers_could_be_chosen_has_three(tmp_path):
    path, made = tmp_path / "p.samic", given()
    serialization.save(made, path)
    content = torch.load(path)
    del content["settings"]["prompter"]["layers"]
    torch.save(content, path)
    again = serialization.load(path, ColourBackbone())
    assert again.learner.layers == 3
    assert_same_answer(made, again, discs([(30, 30, 1)]))


def test_header_is_read_without_a_network(tmp_path):
    made = given()
    made.normalization = {"model": "tiny"}
    serialization.save(made, tmp_path / "p.samic")
    header = serialization.describe(tmp_path / "p.samic")
    assert header["backbone"]["name"] == "colours"
    assert header["backbone"]["sha256"] == ColourBackbone().weights_sha256
    assert header["settings"]["heat"] == {"sigma_frac": 0.08, "combine": "max"}
    assert header["normalisation"] == {"model": "tiny"}
    assert header["report"] is None


def test_numbers_of_numpy_do_not_make_the_file_unreadable(tmp_path):
    made = given()
    made.heat = HeatMapSettings(sigma_frac=np.float64(0.08))
    made.normalization = {"low": np.float32(1.5), "bits": np.int64(8)}
    made.references = (
        Reference(np.str_("n"), discs([]), (Prompts([[3.0, 3]], [True], label=np.int64(1)),)),
    )
    serialization.save(made, tmp_path / "p.samic")
    again = serialization.load(tmp_path / "p.samic", ColourBackbone())
    assert again.normalization == {"low": 1.5, "bits": 8}
    assert again.references[0].objects[0].label == 1


def test_prompts_at_the_edge_survive_the_way_to_the_networks_size(tmp_path):
    made = given()
    edge = Prompts(
        np.array([[99.5, 299.5], [-0.5, -0.5]]), np.array([True, True]), [98.9, 0, 99.5, 299.5]
    )
    made.references = (Reference("edge", discs([], (100, 300)), (edge,)),)
    serialization.save(made, tmp_path / "p.samic")
    again = serialization.load(tmp_path / "p.samic", ColourBackbone())
    assert again.references[0].image.shape == (21, 64, 3)


def test_existing_file_is_not_replaced_unless_told(tmp_path):
    path = tmp_path / "p.samic"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        serialization.save(given(), path)
    assert path.read_bytes() == b"precious"
    serialization.save(given(), path, overwrite=True)
    assert serialization.describe(path)["report"] is None


@pytest.mark.parametrize("overwrite", [True, False])
def test_failed_save_leaves_nothing_half_written(tmp_path, monkeypatch, overwrite):
    path = tmp_path / "p.samic"
    if overwrite:
        path.write_bytes(b"precious")

    def full(content, file):
        file.write(b"half a ")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="disk is full"):
        serialization.save(given(), path, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["p.samic"] * overwrite
    assert not overwrite or path.read_bytes() == b"precious"


def test_other_weights_of_the_backbone_are_refused_with_both_hashes(tmp_path):
    serialization.save(given(), tmp_path / "p.samic")
    other = ColourBackbone(version="2")
    with pytest.raises(ModelError) as caught:
        serialization.load(tmp_path / "p.samic", other)
    assert "p.samic" in str(caught.value)
    assert ColourBackbone().weights_sha256[:12] in str(caught.value)
    assert other.weights_sha256[:12] in str(caught.value)


def edit(**changes):
    def damage(path):
        content = {**torch.load(path), **changes}
        torch.save({k: v for k, v in content.items() if v is not ...}, path)

    return damage


def resized(path):
    content = torch.load(path)
    content["learner"]["decoder2.2.bias"] = torch.zeros(3)
    torch.save(content, path)


def other_layers(path):
    content = torch.load(path)
    content["settings"]["prompter"]["layers"] = 2
    torch.save(content, path)


def strange_reference(path):
    content = torch.load(path)
    content["references"][0]["objects"][0]["points_rc"] = torch.full((1, 2), 1e6)
    torch.save(content, path)


class Bomb:
    def __reduce__(self):
        return print, ("boom",)


DAMAGE = [
    pytest.param(edit(kind="napari-samic/tiny"), "holds 'napari-samic/tiny', expected", id="kind"),
    pytest.param(edit(version=2), "version 2, expected 1", id="version"),
    pytest.param(edit(version=10**600), r"version 10{39}, expected 1", id="huge_version"),
    pytest.param(edit(version=...), "version None, expected 1", id="no_version"),
    pytest.param(lambda p: torch.save([1], p), "holds 'list', expected", id="list"),
    pytest.param(edit(learner=...), "lacks learner", id="no_learner"),
    pytest.param(edit(centre=..., report=...), "lacks centre, report", id="no_centre"),
    pytest.param(edit(backbone={"name": "x"}), "lacks backbone", id="half_a_backbone"),
    pytest.param(edit(backbone=3), "lacks backbone", id="backbone_is_a_number"),
    pytest.param(lambda p: p.write_bytes(p.read_bytes()[:-500]), "truncated", id="truncated"),
    pytest.param(lambda p: p.write_bytes(b""), "truncated", id="empty"),
    pytest.param(lambda p: p.write_bytes(b"GIF89a"), "not a prompter file", id="picture"),
    pytest.param(edit(normalization=Bomb()), "not a prompter file", id="code"),
]
DEEPER = [
    pytest.param(edit(learner={}), "damaged .*[Mm]issing key", id="no_weights"),
    pytest.param(resized, "damaged", id="weight_of_another_shape"),
    pytest.param(other_layers, "damaged", id="weights_of_other_layers"),
    pytest.param(edit(settings={}), "damaged .*prompter", id="no_settings"),
    pytest.param(edit(references=[{}]), "damaged", id="empty_reference"),
    pytest.param(edit(references=3), "damaged", id="references_are_a_number"),
    pytest.param(edit(centre=[[3]]), "damaged", id="centre_is_a_number"),
    pytest.param(edit(report={"losses": []}), "damaged", id="half_a_report"),
    pytest.param(strange_reference, "outside the image", id="prompt_outside"),
]


@pytest.mark.parametrize(("damage", "match"), [*DAMAGE, *DEEPER])
def test_damaged_file_is_one_line_and_runs_no_code(tmp_path, damage, match, capsys):
    path = tmp_path / "p.samic"
    serialization.save(given(), path)
    damage(path)
    with pytest.raises(FormatError, match=match) as caught:
        serialization.load(path, ColourBackbone())
    assert str(caught.value).startswith("p.samic: ")
    assert "\n" not in str(caught.value)
    assert "boom" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "match"), [*DAMAGE, pytest.param(edit(references=3), "damaged", id="references")]
)
def test_header_of_a_damaged_file_is_refused_too(tmp_path, damage, match):
    path = tmp_path / "p.samic"
    serialization.save(given(), path)
    damage(path)
    with pytest.raises(FormatError, match=match):
        serialization.describe(path)


def test_absent_file_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"none\.samic: no such file"):
        serialization.load(tmp_path / "none.samic", ColourBackbone())


def test_clicks_of_the_stored_picture_lie_on_the_same_things(tmp_path):
    places = [(60, 200, 1), (30, 90, 1)]
    large = Reference("l", discs(places, (100, 250), radius=15), clicks(places))
    small = serialization.shrink(large, ColourBackbone())
    assert small.image.shape == (26, 64, 3)
    for prompts in small.objects:
        row, column = np.rint(prompts.points_rc[0]).astype(int)
        assert small.image[row, column, 0] > 200
        assert small.image[row, column, 1] < 60


@pytest.mark.parametrize("value", [0.5, None, ["a"]])
def test_checksum_that_is_no_text_is_refused(tmp_path, value):
    content = serialization.pack(given())
    content["backbone"]["sha256"] = value
    torch.save(content, tmp_path / "p.samic")
    with pytest.raises(FormatError, match=r"p\.samic: lacks backbone"):
        serialization.load(tmp_path / "p.samic", ColourBackbone())


def test_expanded_picture_of_a_reference_is_refused(tmp_path):
    content = serialization.pack(given())
    content["references"][0]["image"] = torch.zeros(1, dtype=torch.uint8).expand(10**6, 10**6, 3)
    torch.save(content, tmp_path / "p.samic")
    with pytest.raises(FormatError, match=r"p\.samic: unpacks to 30000\d+ bytes"):
        serialization.load(tmp_path / "p.samic", ColourBackbone())
