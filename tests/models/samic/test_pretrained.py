"""Packaged first weights: for the network that they were made with, and for no other."""

import hashlib

import pytest
import torch
from toy_backbone import ColourBackbone, prompter

from napari_samic.core.errors import FormatError
from napari_samic.models.hub import registry
from napari_samic.models.samic import pretrained

SHA = ColourBackbone().weights_sha256


def weights(made):
    return {k: v.clone() for k, v in made.learner.state_dict().items()}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "samic.pt"
    torch.save(pretrained.pack(prompter(seed=9).learner.state_dict(), SHA), path)
    return path


def test_weights_are_given_to_the_backbone_they_belong_to(file):
    made = prompter(seed=1)
    assert pretrained.load_pretrained(made, file)
    for name, value in prompter(seed=9).learner.state_dict().items():
        assert torch.equal(made.learner.state_dict()[name], value.half().float())


def test_another_backbone_keeps_its_random_weights(file):
    made = prompter(backbone=ColourBackbone(version="2"), seed=1)
    before = weights(made)
    assert not pretrained.load_pretrained(made, file)
    assert all(torch.equal(v, before[k]) for k, v in weights(made).items())


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_another_number_of_layers_keeps_its_random_weights(file, layers):
    made = prompter(seed=1, layers=layers)
    before = weights(made)
    assert not pretrained.load_pretrained(made, file)
    assert all(torch.equal(v, before[k]) for k, v in weights(made).items())


def test_package_without_first_weights_gives_none(tmp_path):
    assert not pretrained.load_pretrained(prompter(), tmp_path / "none.pt")


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def of_another_kind(path):
    torch.save({**torch.load(path), "kind": "napari-samic/tiny"}, path)


def without_a_weight(path):
    content = torch.load(path)
    content["learner"].popitem()
    torch.save(content, path)


class Bomb:
    def __reduce__(self):
        return print, ("boom",)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut, id="truncated"),
        pytest.param(lambda p: p.write_bytes(b""), id="empty"),
        pytest.param(lambda p: p.write_bytes(b"version https://git-lfs"), id="pointer"),
        pytest.param(of_another_kind, id="kind"),
        pytest.param(without_a_weight, id="lacks_a_weight"),
        pytest.param(lambda p: torch.save([1], p), id="list"),
        pytest.param(lambda p: torch.save({"kind": Bomb()}, p), id="code"),
    ],
)
def test_damaged_file_is_one_line_and_changes_nothing(file, damage, capsys):
    damage(file)
    made = prompter(seed=1)
    before = weights(made)
    with pytest.raises(FormatError, match=r"^samic\.pt: damaged .*Install the package") as caught:
        pretrained.load_pretrained(made, file)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in weights(made).items())
    assert "boom" not in capsys.readouterr().out


def test_packaged_files_belong_together_and_the_card_names_them():
    """The learner was made with the features of the packaged segmenter, not of an older one."""
    content = torch.load(pretrained.PATH, weights_only=True)
    assert content["backbone_sha256"] == registry.weights_sha256("tiny")
    card = (pretrained.PATH.parent / "README.md").read_text()
    for name in ("tiny.pt", "samic.pt"):
        sha256 = hashlib.sha256((pretrained.PATH.parent / name).read_bytes()).hexdigest()
        assert f"{sha256}  {name}" in card
