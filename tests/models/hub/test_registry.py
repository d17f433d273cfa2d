"""Names to weights: the table, a user's own files, checksums, fetching, plugins."""

import hashlib
import json
import subprocess
import sys

import pooch
import pytest
import requests
import torch

from napari_samic.core.errors import FormatError, ModelError, WeightsError
from napari_samic.models.hub import download as hub_download
from napari_samic.models.hub import registry
from napari_samic.models.hub.catalog import OFFICIAL, ModelSpec


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"some weights")
    return path, hashlib.sha256(b"some weights").hexdigest()


@pytest.fixture
def official(monkeypatch):
    """A small official model, in place of the table."""

    def make(sha256):
        model = ModelSpec("vit_z", "segmenter", "m:f", "https://example.org/z.pth", sha256)
        monkeypatch.setattr(registry, "OFFICIAL", (model,))
        return model

    return make


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise requests.exceptions.ConnectionError("no route\nto host")

    monkeypatch.setattr(requests, "get", refuse)


def files(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file()) if folder.exists() else []


def test_importing_the_registry_loads_no_torch():
    code = "import sys, napari_samic.models.hub.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("model", OFFICIAL, ids=lambda m: m.name)
def test_every_row_is_complete(model):
    packaged = model.name == "tiny"
    assert model.licence != "unknown"
    assert model.cite
    assert packaged or (model.url.startswith("https://") and model.bytes > 1e6)
    assert packaged or (len(model.sha256) == 64 and model.sha256 == model.sha256.lower())
    assert packaged or model.file.endswith((".pth", ".pt"))
    assert callable(registry.builder(model.name))


def test_official_files_have_their_authors_names():
    assert registry.spec("vit_h").file == "sam_vit_h_4b8939.pth"
    assert registry.spec("resnet50").file == "resnet50-0676ba61.pth"
    assert registry.spec("resnet50").role == "encoder"
    assert registry.spec("medsam").arch == "vit_b"


def test_resnets_checksum_begins_as_its_file_name_says():
    assert registry.spec("resnet50").sha256.startswith("0676ba61")


def test_unknown_model_names_the_known_ones_and_the_nearest():
    with pytest.raises(ModelError, match=r"'vit-b'\. Did you mean vit_b\? Known: tiny, vit_b"):
        registry.spec("vit-b")
    with pytest.raises(LookupError, match=r"'qqqq'\. Known: "):
        registry.spec("qqqq")


def test_home_follows_the_environment(home, monkeypatch):
    assert registry.home() == home
    monkeypatch.delenv("NAPARI_SAMIC_HOME")
    assert "napari-samic" in str(registry.home())


def test_absent_weights_say_what_is_there_and_how_to_get_them(home):
    (home / "models").mkdir(parents=True)
    (home / "models" / "mobile_sam.pt").touch()
    with pytest.raises(WeightsError) as caught:
        registry.locate("vit_b")
    message = str(caught.value)
    for part in (
        "sam_vit_b_01ec64.pth",
        str(home / "models"),
        "there: mobile_sam.pt",
        "napari-samic models fetch vit_b",
        "napari-samic models import FILE --name vit_b",
    ):
        assert part in message
    assert "\n" not in message


def test_file_put_there_by_hand_is_found(home, official, weights):
    path, sha256 = weights
    model = official(sha256)
    target = home / "models" / model.file
    target.parent.mkdir(parents=True)
    target.write_bytes(path.read_bytes())
    assert registry.locate("vit_z") == target
    assert registry.weights_sha256("vit_z") == sha256


def test_wrong_file_put_there_by_hand_is_refused_when_used(home, official, weights):
    model = official("0" * 64)
    target = home / "models" / model.file
    target.parent.mkdir(parents=True)
    target.write_bytes(weights[0].read_bytes())
    with pytest.raises(WeightsError, match=f"sha256 is {weights[1]}, expected 0000"):
        registry.weights_sha256("vit_z")


def test_fetch_without_network_says_where_to_put_the_file_and_leaves_nothing(home, no_network):
    with pytest.raises(WeightsError) as caught:
        registry.fetch("vit_b")
    message = str(caught.value)
    assert "no route to host" in message
    assert str(home / "models") in message
    assert "sam_vit_b_01ec64.pth" in message
    assert "\n" not in message
    assert files(home) == []


def _serve(monkeypatch, content):
    def download(self, url, output_file, pooch, check_only=False):
        hub_download.Path(output_file).write_bytes(content)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)


def test_fetched_file_is_checked_then_named(home, official, weights, monkeypatch):
    official(weights[1])
    _serve(monkeypatch, b"some weights")
    path = registry.fetch("vit_z")
    assert path == home / "models" / "z.pth"
    assert files(home) == ["z.pth", "z.pth.json"]
    assert registry.verify("vit_z") == [("vit_z", "ok", str(path))]


def test_fetched_file_with_another_checksum_is_refused_and_nothing_is_left(
    home, official, monkeypatch
):
    official("0" * 64)
    _serve(monkeypatch, b"some weights")
    with pytest.raises(WeightsError, match="can't be fetched"):
        registry.fetch("vit_z")
    assert files(home) == []


def test_present_file_is_not_fetched_again(official, weights, monkeypatch, no_network):
    official(weights[1])
    registry.import_file(weights[0], name="vit_z")
    assert registry.fetch("vit_z") == registry.locate("vit_z")


def test_model_without_public_checksum_is_not_fetched(official, no_network):
    official(None)
    with pytest.raises(WeightsError, match="models import FILE --name vit_z --sha256 HASH"):
        registry.fetch("vit_z")


def test_imported_file_gets_a_name_and_survives_its_source(home, weights):
    path, sha256 = weights
    spec = registry.import_file(path, name="cells", arch="vit_b", sha256=sha256.upper())
    path.unlink()
    assert (spec.name, spec.arch, spec.sha256, spec.role) == ("cells", "vit_b", sha256, "segmenter")
    assert registry.locate("cells").read_bytes() == b"some weights"
    assert "cells" in [s.name for s in registry.specs()]
    assert registry.weights_sha256("cells") == sha256
    note = json.loads((home / "models" / "cells.pth.json").read_text())
    assert (note["name"], note["arch"], note["sha256"]) == ("cells", "vit_b", sha256)


def test_import_with_another_checksum_leaves_nothing(home, weights):
    with pytest.raises(WeightsError, match=f"sha256 is {weights[1]}, expected ffff"):
        registry.import_file(weights[0], name="cells", sha256="f" * 64)
    assert files(home) == []


def test_official_name_takes_only_the_official_file(home, weights):
    with pytest.raises(WeightsError, match=r"expected ec2df627.* for vit_b.*pick another --name"):
        registry.import_file(weights[0], name="vit_b")
    assert files(home) == []


def test_import_under_an_official_name_puts_the_file_where_fetch_would(home, official, weights):
    model = official(weights[1])
    registry.import_file(weights[0], name="vit_z")
    assert registry.locate("vit_z") == home / "models" / model.file
    assert [s.name for s in registry.specs()] == ["vit_z"]


@pytest.mark.parametrize(
    ("name", "arch", "match"),
    [
        pytest.param("a/b", "auto", "use letters", id="slash"),
        pytest.param("", "auto", "use letters", id="empty"),
        pytest.param("..", "auto", "use letters", id="dots"),
        pytest.param("tiny", "auto", "part of the package", id="packaged"),
        pytest.param("cells", "vit_x", "expected one of tiny, vit_b", id="arch"),
        pytest.param("sam_vit_b_01ec64", "auto", "is taken", id="official_file"),
        pytest.param("SAM_vit_b_01ec64", "auto", "is taken", id="official_file_by_case"),
    ],
)
def test_names_that_can_not_be_are_refused(home, weights, name, arch, match):
    with pytest.raises(ModelError, match=match):
        registry.import_file(weights[0], name=name, arch=arch)
    assert files(home) == []


def test_imported_name_is_not_overwritten(weights):
    registry.import_file(weights[0], name="cells")
    with pytest.raises(ModelError, match="is taken"):
        registry.import_file(weights[0], name="cells", arch="vit_b")
    assert registry.spec("cells").arch == "auto"


def test_import_of_an_absent_file_is_one_line(home, tmp_path):
    with pytest.raises(WeightsError, match=r"gone\.pth: can't be copied"):
        registry.import_file(tmp_path / "gone.pth", name="cells")
    assert files(home) == []


def test_damaged_note_hides_the_file_but_breaks_nothing(home, weights):
    registry.import_file(weights[0], name="cells")
    (home / "models" / "cells.pth.json").write_text("{")
    assert "cells" not in [s.name for s in registry.specs()]


def test_verify_reads_the_file_again(home, weights):
    registry.import_file(weights[0], name="cells")
    path = registry.locate("cells")
    assert registry.verify("cells")[0][1] == "ok"
    path.write_bytes(b"same weights")
    assert registry.verify("cells")[0][1] == "damaged"


def test_verify_of_all_tells_missing_from_unchecked(tmp_path):
    found = {name: status for name, status, _ in registry.verify()}
    assert found["vit_b"] == "missing"
    own = tmp_path / "own.pt"
    own.write_bytes(b"x")
    assert registry.verify(f"path:{own}")[0][1] == "unchecked"


def test_changed_file_is_hashed_again(tmp_path):
    own = tmp_path / "own.pt"
    own.write_bytes(b"one")
    first = registry.weights_sha256(f"path:{own}")
    own.write_bytes(b"three")
    assert registry.weights_sha256(f"path:{own}") != first


def test_unchanged_file_is_hashed_once(weights, monkeypatch):
    registry.import_file(weights[0], name="cells")
    monkeypatch.setattr(hub_download, "digest", None)  # would fail if called
    assert registry.weights_sha256("cells") == weights[1]
    assert registry.verify("cells", quick=True)[0][1] == "ok"


def test_path_names_a_file_where_it_lies(weights):
    name = f"path:{weights[0]}"
    assert registry.locate(name) == weights[0]
    assert registry.weights_sha256(name) == weights[1]
    with pytest.raises(WeightsError, match="no such weights file"):
        registry.locate("path:/nowhere/at_all.pt")


def test_file_that_is_no_state_dict_is_refused_in_one_line(weights):
    with pytest.raises(FormatError, match=r"^mine\.pth: truncated or not a weights file") as caught:
        registry.builder(f"path:{weights[0]}")(weights[0])
    assert "\n" not in str(caught.value)


def test_unknown_architecture_is_told_from_its_keys(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"encoder.weight": torch.zeros(2)}, path)
    with pytest.raises(FormatError, match=r"other\.pt: unknown architecture .*encoder\.weight"):
        registry.builder(f"path:{path}")(path)
