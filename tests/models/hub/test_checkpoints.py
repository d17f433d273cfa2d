"""Weights files to networks: official formats with random weights, and files that are refused."""

import hashlib
import io
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from toy_sam import official_state, prompts_and_masks, vit_b

from napari_samic.core.errors import FormatError, WeightsError
from napari_samic.core.types import Prompts
from napari_samic.models.hub import checkpoints, registry
from napari_samic.models.sam import builders, tiny_vit
from napari_samic.models.sam import segmenter as sam_segmenter
from napari_samic.models.tiny import model


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))


@pytest.fixture
def one_block(monkeypatch):
    """ViT-B with one block: a small file of the official format."""
    monkeypatch.setitem(builders.VIT, "vit_b", (768, 1, 12, (0,)))


def vit_state(side_px=128):
    """Of a ViT-B with one block."""
    return official_state(*vit_b(side_px, depth=1, global_blocks=(0,)))


def official(encoder):
    """State under MobileSAM's names, where a step to the next stage belongs to the one before."""
    out = {}
    for name, value in encoder.state_dict().items():
        parts = name.removeprefix("network.").split(".")
        if parts[0] == "patch_embed":
            parts[1] = {"conv1": "seq.0", "conv2": "seq.2"}[parts[1]]
        if parts[0] == "stages":
            parts[:2] = ["layers", str(int(parts[1]) - (parts[2] == "downsample"))]
        out[".".join("c" if p == "conv" else p for p in parts)] = value
    return out


def mobile_state():
    torch.manual_seed(0)
    prompts, masks = prompts_and_masks()
    parts = {"image_encoder": official(tiny_vit.TinyViT()), "prompt_encoder": prompts.state_dict(),
             "mask_decoder": masks.state_dict()}  # fmt: skip
    state = {f"{n}.{k}": v for n, part in parts.items() for k, v in part.items()}
    unused = {"norm_head.weight": (320,), "norm_head.bias": (320,), "head.weight": (1000, 320),
              "head.bias": (1000,)}  # fmt: skip
    return state | {f"image_encoder.{k}": torch.zeros(s) for k, s in unused.items()}


def save(content, path, **options):
    torch.save(content, path, **options)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


CLICK = Prompts(np.array([[10.0, 30.0]]), np.array([True]))
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 100, 3), dtype=np.uint8)


def test_official_format_is_imported_with_its_checksum_and_answers(tmp_path, one_block):
    path, sha256 = save(vit_state(), tmp_path / "mine.pth")
    registry.import_file(path, name="mine", arch="vit_b", sha256=sha256)
    segmenter = sam_segmenter.load_segmenter("mine", device="cpu")
    segmenter.engine.quick = False
    assert segmenter.weights_sha256 == sha256
    assert segmenter.side_px == 128
    [answer] = segmenter.candidates(IMAGE, [CLICK])
    predictor = SamPredictor(builders.vit_b(path))
    predictor.set_image(IMAGE)
    masks, _, logits = predictor.predict(np.array([[30.0, 10.0]]), np.array([1]))
    np.testing.assert_allclose(answer.logits, logits, atol=1e-5)
    assert (answer.masks != masks).mean() < 1e-3


@pytest.mark.slow
def test_whole_vit_b_equals_segment_anythings_own(tmp_path):
    torch.manual_seed(0)
    theirs = sam_model_registry["vit_b"]()
    path, sha256 = save(theirs.state_dict(), tmp_path / "sam_vit_b_01ec64.pth")
    registry.import_file(path, name="random-b", arch="vit_b", sha256=sha256)
    segmenter = sam_segmenter.load_segmenter("random-b", device="cpu")
    segmenter.engine.quick = False
    predictor = SamPredictor(theirs.eval())
    predictor.set_image(IMAGE)
    _, _, logits = predictor.predict(np.array([[30.0, 10.0]]), np.array([1]))
    [answer] = segmenter.candidates(IMAGE, [CLICK])
    np.testing.assert_allclose(answer.logits, logits, atol=1e-5)
    assert [len(level) for level in segmenter.taps(IMAGE).levels] == [3, 3, 3]


@pytest.mark.parametrize("arch", ["vit_b", "vit_l", "vit_h"])
def test_key_names_and_shapes_are_segment_anythings(arch):
    with torch.device("meta"):
        theirs = sam_model_registry[arch]().state_dict()
        ours = builders.assemble(arch, theirs, "x").state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_path_name_tells_the_architecture_from_the_file(tmp_path, one_block):
    path, sha256 = save(vit_state(), tmp_path / "anything.pth")
    segmenter = sam_segmenter.build(f"path:{path}", device="cpu")
    assert segmenter.side_px == 128
    assert segmenter.weights_sha256 == sha256


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param({"image_encoder.patch_embed.proj.weight": (768, 3, 16, 16)}, "vit_b", id="b"),
        pytest.param({"image_encoder.patch_embed.proj.weight": (1024, 3, 16, 16)}, "vit_l", id="l"),
        pytest.param({"image_encoder.patch_embed.proj.weight": (1280, 3, 16, 16)}, "vit_h", id="h"),
        pytest.param(
            {"image_encoder.patch_embed.seq.0.c.weight": (32, 3, 3, 3)}, "mobile_sam", id="mobile"
        ),
        pytest.param({"layer4.2.conv3.weight": (2048, 512, 1, 1)}, "resnet50", id="resnet"),
        pytest.param(
            {"module.image_encoder.patch_embed.proj.weight": (768, 3, 16, 16)},
            "vit_b", id="data_parallel",
        ),
    ],
)  # fmt: skip
def test_architecture_is_told_from_keys_and_shapes(state, expected):
    content = {k: torch.zeros(s) for k, s in state.items()}
    assert checkpoints.guess_arch(content, "f") == expected
    assert checkpoints.guess_arch({"epoch": 3, "model": content}, "f") == expected


def test_our_own_file_is_known_by_its_kind(tmp_path):
    config = model.TinyConfig(encoder="test_efficientnet", side_px=64)
    path, _ = save(model.pack(model.build(config), config), tmp_path / "own.pt")
    assert checkpoints.guess_arch(checkpoints.read(path), "own.pt") == "tiny"
    assert sam_segmenter.build(f"path:{path}", device="cpu").side_px == 64


def test_mobile_sam_loads_with_its_unused_classifier_and_taps(tmp_path):
    path, _ = save(mobile_state(), tmp_path / "mobile_sam.pt")
    network = builders.mobile_sam(path)
    assert sum(p.numel() for p in network.parameters()) == 5_743_892 + 6_220 + 4_058_340
    with torch.inference_mode():
        embedding, taps = network.image_encoder.encode(torch.zeros(1, 3, 224, 160))
    assert embedding.shape == (1, 256, 14, 10)
    assert [(len(level), tuple(level[0].shape[1:])) for level in taps] == [
        (2, (128, 28, 20)), (3, (160, 14, 10)), (2, (320, 14, 10)),
    ]  # fmt: skip


def test_half_precision_weights_become_single(tmp_path, one_block):
    half = {k: v.half() for k, v in vit_state().items()}
    path, _ = save(half, tmp_path / "half.pth")
    assert {p.dtype for p in builders.vit_b(path).parameters()} == {torch.float32}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_file_is_refused_in_one_line(tmp_path, one_block, zipped, share):
    path, _ = save({"w": torch.zeros(1000)}, tmp_path / "cut.pth",
                   _use_new_zipfile_serialization=zipped)  # fmt: skip
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FormatError, match=r"^cut\.pth: truncated or not a weights file") as caught:
        builders.vit_b(path)
    assert "\n" not in str(caught.value)


class Evil:
    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return open, (str(self.flag), "w")


@pytest.mark.parametrize("how", ["torch_zip", "torch_old", "pickle"])
def test_pickle_with_code_is_refused_and_not_run(tmp_path, how):
    path, flag = tmp_path / "evil.pth", tmp_path / "was_run"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Evil(flag), protocol=2))
    else:
        torch.save(Evil(flag), path, _use_new_zipfile_serialization=how == "torch_zip")
    with pytest.raises(FormatError, match=r"evil\.pth: holds code \(\S*open\)") as caught:
        registry.builder(f"path:{path}")(path)
    assert not flag.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        pytest.param(lambda s: s.pop("mask_decoder.iou_token.weight"), "1 keys missing", id="less"),
        pytest.param(lambda s: s.update(extra=torch.zeros(1)), "1 unknown", id="more"),
        pytest.param(
            lambda s: s.update({"mask_decoder.iou_token.weight": torch.zeros(2, 256)}),
            r"1 of another shape \(first mask_decoder\.iou_token\.weight\)",
            id="shape",
        ),
    ],
)
def test_keys_that_do_not_fit_are_counted(tmp_path, one_block, change, match):
    state = vit_state()
    change(state)
    path, _ = save(state, tmp_path / "odd.pth")
    with pytest.raises(FormatError, match=match):
        builders.vit_b(path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        pytest.param([1, 2], "holds list, expected a state dict", id="list"),
        pytest.param({}, "expected a state dict", id="empty"),
        pytest.param({"a": 1}, "holds more than tensors", id="numbers"),
        pytest.param({"a": torch.zeros(1)}, "unknown architecture", id="stranger"),
        pytest.param(
            {"image_encoder.patch_embed.proj.weight": torch.zeros(192, 3, 16, 16)},
            "ViT of width 192", id="width",
        ),
        pytest.param({"layer4.2.conv3.weight": torch.zeros(1)}, "resnet50, which is no", id="cnn"),
    ],
)  # fmt: skip
def test_other_contents_are_refused(tmp_path, content, match):
    path, _ = save(content, tmp_path / "other.pth")
    with pytest.raises(FormatError, match=match):
        builders.from_file(path)


def test_file_of_another_architecture_than_declared_is_refused(tmp_path):
    path, _ = save(
        {"image_encoder.patch_embed.proj.weight": torch.zeros(1024, 3, 16, 16)}, tmp_path / "l.pth"
    )
    with pytest.raises(FormatError, match="holds vit_l, expected vit_b"):
        builders.vit_b(path)


def test_file_that_can_not_be_opened_is_no_format_error(tmp_path):
    with pytest.raises(WeightsError, match=re.escape(f"{tmp_path / 'gone.pt'}: can't be opened")):
        checkpoints.read(tmp_path / "gone.pt")


def pickled(how, value):
    """A pickle as such, or inside of a zip as torch writes them."""
    data = pickle.dumps(value, protocol=2) if not isinstance(value, bytes) else value
    if how == "pickle":
        return data
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/version", "3")
        archive.writestr("a/byteorder", "little")
    return out.getvalue()


class Late:
    """Names something that is not a plain value as what shall be called."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce_ex__(self, _):
        return eval, (f"open({str(self.flag)!r}, 'w')",)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".bin", ".ckpt"])
@pytest.mark.parametrize("how", ["zip", "pickle"])
def test_code_deep_inside_a_state_dict_is_not_run(tmp_path, how, suffix):
    path, flag = tmp_path / f"evil{suffix}", tmp_path / "was_run"
    path.write_bytes(pickled(how, {"state_dict": {"a": [{"b": Late(flag)}]}}))
    with pytest.raises(FormatError, match=r"^evil\.") as caught:
        checkpoints.read(path)
    assert not flag.exists()
    assert "\n" not in str(caught.value)


def laughs():
    found = ["ha"]
    for _ in range(40):
        found = [found, found, found]
    return found


def endless():
    found = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("content", "match"),
    [
        pytest.param(torch.zeros(1).expand(10**10), "unpacks to 40000000000 bytes", id="expanded"),
        pytest.param({"a": laughs()}, r"unpacks to \d{15,} bytes", id="laughs"),
        pytest.param({"a": endless()}, "more than 100 levels", id="in_itself"),
        pytest.param({"a": torch.zeros(9, device="meta")}, "not of plain numbers", id="meta"),
        pytest.param({"a": torch.zeros(9).to_sparse()}, "not of plain numbers", id="sparse"),
    ],
)
def test_small_file_of_a_large_content_is_refused(tmp_path, content, match):
    path, _ = save(content, tmp_path / "bomb.pt")
    with pytest.raises(FormatError, match=rf"^bomb\.pt: .*{match}"):
        checkpoints.read(path)


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.pt"
    save({"a": torch.zeros(4)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data/9", bytes(600_000_000))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(FormatError, match=r"^bomb\.pt: unpacks to 600\d+ bytes, at most 50"):
        checkpoints.read(path)


@pytest.mark.parametrize("how", ["zip", "pickle"])
def test_pickle_of_lists_alone_is_refused_before_it_is_read(tmp_path, how):
    path = tmp_path / "bomb.pt"
    path.write_bytes(pickled(how, b"\x80\x02" + b"]" * 9_000_000 + b"."))
    with pytest.raises(FormatError, match=r"^bomb\.pt: unpacks to 576\d+ bytes"):
        checkpoints.read(path)
