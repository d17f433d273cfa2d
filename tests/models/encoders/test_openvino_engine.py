"""OpenVINO in place of torch: the same answers, for any shape, from any thread."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import timm
import torch
from torch import nn
from toy_sam import random_sam

from napari_samic.core.errors import ModelError
from napari_samic.io.cache import ArrayCache
from napari_samic.models.encoders.openvino_engine import OpenVinoNetwork
from napari_samic.models.features import backbones
from napari_samic.models.finetune import network
from napari_samic.models.finetune.network import ForegroundPredictor
from napari_samic.models.hub import devices
from napari_samic.models.sam.segmenter import SamSegmenter, load_segmenter

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (96, 128, 3)).astype(np.uint8)


@pytest.fixture
def openvino():
    if find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")


class Two(nn.Module):
    """Two answers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return y, y.mean((-2, -1))


def test_many_threads_and_shapes_get_the_answers_of_torch(openvino):
    net = Two().eval()
    compiled = OpenVinoNetwork(net)
    inputs = [torch.rand(1, 3, 16 + 8 * (i % 3), 24) for i in range(12)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(compiled, inputs))
    for x, given in zip(inputs, answers, strict=True):
        for ours, theirs in zip(net(x), given, strict=True):
            assert theirs.shape == ours.shape
            torch.testing.assert_close(theirs, ours, atol=0.02, rtol=0.02)  # of 16 bits
    assert sys.modules.get("openvino_telemetry") is None  # it would use the network


def test_main_thread_leaves_the_work_to_another(openvino):
    threads = []

    class Where(Two):
        def forward(self, x):
            threads.append(threading.current_thread())
            return super().forward(x)

    OpenVinoNetwork(Where().eval())(torch.rand(1, 3, 16, 24))
    assert threads
    assert threading.main_thread() not in threads  # a signal there would end the process


def test_a_network_is_left_as_it_was(openvino):
    net = Two().eval().to(memory_format=torch.channels_last)
    OpenVinoNetwork(net)(torch.rand(1, 3, 16, 24))
    assert net.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert net.conv.weight.requires_grad


def test_a_network_that_cannot_be_compiled_is_a_clear_error(openvino):
    class Odd(nn.Module):
        def forward(self, x):
            raise RuntimeError("not today")

    with pytest.raises(ModelError, match=r"openvino.*not today"):
        OpenVinoNetwork(Odd())(torch.rand(1, 3, 8, 8))


def test_fine_tuned_network_answers_alike(openvino):
    net = network.build(1).eval()
    ours = ForegroundPredictor(net, (1,), 96, torch.device("cpu"), whole=True)
    theirs = ForegroundPredictor(net, (1,), 96, torch.device("cpu"), whole=True)
    theirs.use_openvino()
    for kind in ("foreground_prob", "distance_map"):
        a, b = (getattr(p.predict(PICTURE)[1], kind) for p in (ours, theirs))
        assert 0 < np.abs(a - b).max() < 0.03


@pytest.mark.parametrize("kind", ["packaged", "vit"])
def test_segmenters_encode_alike(openvino, tmp_path, kind):
    ours, theirs = (
        load_segmenter("tiny", device=device, cache=ArrayCache(tmp_path / device))
        if kind == "packaged"
        else SamSegmenter(random_sam(), name="toy", weights_sha256="ab", device=device)
        for device in ("cpu", "openvino")
    )
    assert_alike(ours.taps(PICTURE).levels, theirs.taps(PICTURE).levels)
    a, b = ours.embedding(PICTURE), theirs.embedding(PICTURE)
    assert a.shape == b.shape
    assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(a)
    assert not np.array_equal(a, b)


def test_timm_backbone_looks_alike(openvino, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "test_resnet.pth"
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), path)
    ours, theirs = (backbones.build(f"path:{path}", None, device=d) for d in ("cpu", "openvino"))
    assert_alike(ours.features(PICTURE), theirs.features(PICTURE))


def assert_alike(ours, theirs):
    """Up to what 16 bits leave of the values, where the processor has them."""
    flat = [[t for level in levels for t in level] for levels in (ours, theirs)]
    for x, y in zip(*flat, strict=True):
        assert x.shape == y.shape
        assert (x - y).norm() < 0.05 * x.norm()


def test_without_the_extra_it_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"napari-samic\[openvino\]"):
        load_segmenter("tiny", device="openvino")
