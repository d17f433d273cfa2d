"""Names and files to timm networks with weights; those of ResNet-50 are HSNet's features."""

import json
from collections import OrderedDict
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from napari_samic.core.errors import FormatError, ModelError, WeightsError
from napari_samic.models.encoders.pyramid_encoder import fuse_batch_norms
from napari_samic.models.features import timm_weights
from napari_samic.models.hub import checkpoints, registry
from napari_samic.models.tiny import model

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "hsnet_golden.npz"


def golden_value(index, name, shape):
    """Weights as the golden README builds them, from the place in torchvision's state dict."""
    r = np.random.RandomState(1000 + index)
    if len(shape) == 4:
        return r.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    if name.endswith("running_var"):
        return 0.5 + r.rand(*shape)
    if name.endswith("running_mean"):
        return 0.1 * r.standard_normal(shape)
    return 0.2 + 0.4 * r.rand(*shape) if name.endswith("weight") else 0.2 * r.standard_normal(shape)


@pytest.fixture(scope="module")
def golden_encoder(tmp_path_factory):
    """ResNet-50 from a file of torchvision's format, with its classifier."""
    from torchvision.models import resnet50

    if not GOLDEN.exists():
        pytest.skip(f"no golden vectors at {GOLDEN}")
    given = resnet50().state_dict()
    values = {
        name: torch.from_numpy(np.float32(golden_value(i, name, tuple(value.shape))))
        for i, (name, value) in enumerate(given.items())
        if value.ndim and not name.startswith("fc.")
    }
    path = tmp_path_factory.mktemp("weights") / "resnet50-0676ba61.pth"
    torch.save({**given, **values}, path)
    return timm_weights.from_file(path).eval()


@pytest.mark.parametrize("ready", [lambda e: e, fuse_batch_norms], ids=["plain", "folded"])
def test_golden_features_of_resnet50(golden_encoder, ready):
    golden, encoder = np.load(GOLDEN), ready(golden_encoder)
    image = np.random.RandomState(99).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        levels = encoder.levels(encoder.blocks(torch.from_numpy(image)), (224, 224))
    assert [len(level) for level in levels] == [4, 6, 3]
    for i, block in enumerate(block[0].numpy() for level in levels for block in level):
        found = np.array([block.mean(), block.std(), block.min(), block.max()])
        scale = float(block.std())
        np.testing.assert_allclose(found, golden["feat/stats"][i], atol=1e-4 * scale, rtol=1e-4)
        wanted = golden[f"feat/slice_{i:02}"]
        np.testing.assert_allclose(block[:8, :4, :4], wanted, atol=1e-4 * scale, rtol=0)


def test_resnet50_sees_colors_as_torchvisions(golden_encoder):
    assert golden_encoder.side_px == 224
    assert golden_encoder.mean == pytest.approx([255 * v for v in (0.485, 0.456, 0.406)])
    assert golden_encoder.deviation == pytest.approx([255 * v for v in (0.229, 0.224, 0.225)])


def state_of(name, **options):
    """Random weights with a classifier, as timm publishes them."""
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, **options).state_dict()


def same(encoder, state):
    own = encoder.network.state_dict()
    return all(torch.equal(v, state[k]) for k, v in own.items())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_file_of_timm_gives_its_weights_without_the_classifier(tmp_path, name):
    state = state_of(name)
    torch.save(state, tmp_path / f"{name}-0676ba61.pth")
    encoder, sha256 = timm_weights.load(f"path:{tmp_path}/{name}-0676ba61.pth")
    assert encoder.name == name
    assert same(encoder, state)
    assert sha256 == registry.weights_sha256(f"path:{tmp_path}/{name}-0676ba61.pth")


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(lambda s: {"state_dict": s, "epoch": 3}, id="state_dict"),
        pytest.param(lambda s: {"model": s}, id="model"),
        pytest.param(lambda s: OrderedDict((f"module.{k}", v) for k, v in s.items()), id="module"),
        pytest.param(
            lambda s: {k: v for k, v in s.items() if "num_batches" not in k}, id="no_counters"
        ),
    ],
)
def test_wrapped_weights_are_found(tmp_path, wrapped):
    state = state_of("test_resnet")
    torch.save(wrapped(state), tmp_path / "test_resnet.pt")
    assert same(timm_weights.from_file(tmp_path / "test_resnet.pt"), state)


def test_folder_of_hugging_face_is_told_by_its_config(tmp_path):
    state = state_of("test_vit")
    save_file(state, tmp_path / "model.safetensors")
    config = {"architecture": "test_vit", "pretrained_cfg": {"tag": "r160_in1k"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    encoder = timm_weights.from_file(tmp_path / "model.safetensors")
    assert encoder.name == "test_vit.r160_in1k"
    assert same(encoder, state)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("resnet50_a1_0-14fe96d1.pth", "resnet50"),
        ("ResNet50.tv_in1k.pth", "resnet50.tv_in1k"),
        ("resnet50d_ra2-464e36ba.pth", "resnet50d"),
        ("convnext_tiny_1k_224_ema.pth", "convnext_tiny"),
        ("vit_small_patch14_reg4_dinov2-1.pth", "vit_small_patch14_reg4_dinov2"),
        ("vit-small-patch14-dinov2.safetensors", "vit_small_patch14_dinov2"),
        ("deit_tiny_patch16_224-a1311bcf.pth", "deit_tiny_patch16_224"),
    ],
)
def test_network_is_told_by_the_files_name(tmp_path, file, name):
    assert timm_weights.network_of(tmp_path / file) == name


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(None, id="none"),
        pytest.param("{", id="cut"),
        pytest.param("[]", id="list"),
        pytest.param('{"architecture": "Dinov2Model"}', id="of_another_library"),
        pytest.param('{"architectures": ["Dinov2Model"]}', id="of_transformers"),
    ],
)
def test_file_whose_network_is_not_told_is_refused_in_one_line(tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    torch.save(state_of("test_resnet"), tmp_path / "weights.pth")
    with pytest.raises(FormatError, match=r"weights\.pth: of which network is not told") as caught:
        timm_weights.from_file(tmp_path / "weights.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        pytest.param(lambda s: {"a": torch.zeros(1)}, r"keys missing, 1 unknown", id="another"),
        pytest.param(
            lambda s: s | {"layer5.0.conv1.weight": torch.zeros(1)},
            "0 keys missing, 1 unknown, 0 of another shape .first layer5.0",
            id="deeper",
        ),
        pytest.param(
            lambda s: s | {"conv1.0.weight": torch.zeros(1)}, "1 of another shape", id="shape"
        ),
        pytest.param(lambda s: {"epoch": 3}, "more than tensors, expected a state", id="numbers"),
        pytest.param(lambda s: [1, 2], "expected a state dict", id="list"),
        pytest.param(lambda s: torch.nn.Linear(1, 1), "holds code", id="module"),
    ],
)
def test_file_of_another_kind_is_refused_in_one_line(tmp_path, changed, match):
    path = tmp_path / "test_resnet.pth"
    torch.save(changed(state_of("test_resnet")), path)
    with pytest.raises(FormatError, match=match) as caught:
        timm_weights.load(f"path:{path}")
    assert str(caught.value).startswith("test_resnet.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["test_resnet.pth", "test_resnet.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut"])
def test_damaged_file_is_refused_in_one_line(tmp_path, file, content):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(FormatError, match="truncated or not a weights file") as caught:
        timm_weights.load(f"path:{tmp_path / file}")
    assert "\n" not in str(caught.value)


def test_absent_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pth: no such weights file"):
        timm_weights.load(f"path:{tmp_path / 'none.pth'}")


def test_positions_of_another_grid_are_resampled(tmp_path):
    state = state_of("test_vit", img_size=224)
    torch.save(state, tmp_path / "test_vit.pth")
    network = timm_weights.from_file(tmp_path / "test_vit.pth").network
    assert state["pos_embed"].shape[1] == 14 * 14 + network.num_prefix_tokens
    assert network.pos_embed.shape[1] == 10 * 10 + network.num_prefix_tokens
    assert torch.equal(network.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize("name", ["segmenter", "packaged"])
def test_packaged_encoder_has_the_packaged_weights(name):
    packaged = model.unpack(
        checkpoints.read(registry.locate("tiny")), "tiny"
    ).image_encoder.backbone
    encoder, sha256 = timm_weights.load(packaged.name if name == "packaged" else name)
    assert same(encoder, packaged.network.state_dict())
    assert sha256 == registry.weights_sha256("tiny")


def test_timms_own_weights_are_taken_and_hashed(monkeypatch):
    state = state_of("test_resnet")
    monkeypatch.setattr(timm_weights, "own_weights", {"test_resnet": state}.get)
    encoder, sha256 = timm_weights.load("test_resnet")
    assert same(encoder, state)
    assert timm_weights.load("test_resnet")[1] == sha256
    state["conv1.0.weight"] = state["conv1.0.weight"] + 1
    assert timm_weights.load("test_resnet")[1] != sha256


@pytest.fixture
def unreachable(tmp_path, monkeypatch):
    """No hub, and nothing kept of it."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return constants


def test_without_a_network_it_is_one_line_at_once(unreachable, capfd):
    with pytest.raises(WeightsError, match=r"test_resnet: timm's .* --encoder path:FILE") as caught:
        timm_weights.load("test_resnet")
    assert "\n" not in str(caught.value)
    assert "etry" not in capfd.readouterr().err  # the hub would try for a minute
    assert unreachable.HF_HUB_OFFLINE is False


def test_network_without_weights_of_timms_own_is_told(unreachable):
    with pytest.raises(WeightsError, match=r"No pretrained weights .*path:FILE"):
        timm_weights.own_weights("nf_resnet26")


@pytest.mark.parametrize(
    ("name", "like"),
    [
        pytest.param("resnet5o", "resnet50", id="typo"),
        pytest.param("small_patch14_dinov2", "vit_small_patch14_dinov2", id="part"),
    ],
)
def test_unknown_name_lists_some_like_it(name, like):
    with pytest.raises(ModelError, match=f"'{name}': timm has none.*{like}.*path:FILE"):
        timm_weights.load(name)


def test_segmenter_is_no_encoder():
    with pytest.raises(ModelError, match=r"'vit_b': is a segmenter\. .*resnet50"):
        timm_weights.load("vit_b")


def test_resnet50_that_is_not_here_is_told():
    with pytest.raises(WeightsError, match="models fetch resnet50"):
        timm_weights.load("resnet50")


def test_imported_file_is_told_by_the_name_it_got(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    state = state_of("test_convnext")
    torch.save(state, tmp_path / "weights.pth")
    registry.import_file(tmp_path / "weights.pth", name="test_convnext-mine", arch="timm")
    encoder, sha256 = timm_weights.load("test_convnext-mine")
    assert (encoder.name, same(encoder, state)) == ("test_convnext", True)
    assert sha256 == registry.weights_sha256("test_convnext-mine")


@pytest.mark.parametrize("name", ["hf-hub:evil/resnet50", "hf_hub:evil/x", "local-dir:/evil"])
def test_encoder_that_names_a_repository_is_refused(name):
    with pytest.raises(ModelError, match="timm has none of this name"):
        timm_weights.load(name)
