"""One pass for each image: memory, disk, taps, full memory, threads and devices."""

import threading
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toy_sam import Counting, FullMemory, assert_same, box, picture, point, random_sam

from napari_samic.core.errors import ModelError
from napari_samic.io.cache import ArrayCache
from napari_samic.models.encoders import pyramid_encoder
from napari_samic.models.hub import devices
from napari_samic.models.sam import decoding, encoding
from napari_samic.models.sam.segmenter import SamSegmenter
from napari_samic.models.tiny import model


@pytest.fixture(scope="module")
def network():
    return random_sam()


@pytest.fixture
def segmenter(network):
    return SamSegmenter(network, name="toy", weights_sha256="ab", device="cpu")


def test_image_is_encoded_once_for_all_verbs():
    network = random_sam()
    counting = Counting(network)
    segmenter = SamSegmenter(network, name="toy", device="cpu")
    image = picture()
    segmenter.precompute(image)
    segmenter.candidates(image, [point(10, 20), box(4, 5, 30, 40)])
    segmenter.segment(image.copy(), [point(10, 20), box(4, 5, 30, 40)])
    segmenter.taps(image)
    assert counting.passes == 1
    segmenter.candidates(picture(seed=1), [point(1, 1)])
    assert counting.passes == 2


def test_changed_pixels_are_encoded_anew(segmenter):
    image = picture()
    [before] = segmenter.candidates(image, [point(1, 1)])
    image[:] = 255 - image
    [after] = segmenter.candidates(image, [point(1, 1)])
    assert np.abs(before.logits - after.logits).max() > 1e-4


def test_cache_hit_equals_the_miss_and_spares_the_encoder(tmp_path, network):
    image, objects = picture(), [point(10, 20), box(4, 5, 30, 40)]
    make = partial(SamSegmenter, name="toy", weights_sha256="ab", device="cpu")
    fresh = make(network, cache=ArrayCache(tmp_path))
    first, first_taps = fresh.candidates(image, objects), fresh.taps(image)
    blind = random_sam()
    counting = Counting(blind)
    again = make(blind, cache=ArrayCache(tmp_path))
    for a, b in zip(first, again.candidates(image, objects), strict=True):
        assert (a.logits == b.logits).all()
        assert (a.masks == b.masks).all()
    for a, b in zip(first_taps.levels, again.taps(image).levels, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert counting.passes == 0
    exact = make(network).candidates(image, objects)
    assert np.abs(exact[0].logits - first[0].logits).max() < 0.05


def test_other_weights_miss_the_cache(tmp_path, network):
    counting = Counting(other := random_sam())
    cache = ArrayCache(tmp_path)
    SamSegmenter(network, name="a", weights_sha256="a", device="cpu", cache=cache).taps(picture())
    SamSegmenter(other, name="b", weights_sha256="b", device="cpu", cache=cache).taps(picture())
    assert counting.passes == 1


def test_memory_keeps_only_the_last_images():
    counting = Counting(network := random_sam())
    segmenter = SamSegmenter(network, name="toy", device="cpu")
    for seed in (*range(7), 3, 4, 5, 6):
        segmenter.precompute(picture(seed=seed))
    assert counting.passes == 7
    segmenter.precompute(picture(seed=2))
    assert counting.passes == 8


def test_taps_are_pooled_blocks_of_the_same_pass():
    network = random_sam(side=512, depth=4)
    segmenter = SamSegmenter(network, name="toy", device="cpu")
    segmenter.engine.quick = False
    taps = segmenter.taps(picture((100, 200)))
    assert taps.valid_rc == (0.5, 1.0)
    assert [[t.shape[-2:] for t in level] for level in taps.levels] == [
        [(g, g)] * 2 for g in (32, 16, 8)
    ]
    x = encoding.to_input(picture((100, 200)), network, torch.device("cpu"))
    caught = []
    network.image_encoder.blocks[3].register_forward_hook(lambda *a: caught.append(a[2]))
    with torch.no_grad():
        network.image_encoder(x)
    plain = caught[0].permute(0, 3, 1, 2)
    pooled = nn.functional.avg_pool2d(plain, 4)
    torch.testing.assert_close(taps.levels[2][-1], pooled, atol=1e-5, rtol=1e-5)


def test_sixteen_bits_answer_alike(monkeypatch):
    network, image = random_sam(), picture()
    exact, quick = (SamSegmenter(network, name="toy", device="cpu") for _ in range(2))
    exact.engine.quick = False
    monkeypatch.setattr(pyramid_encoder, "has_fast_bfloat16", lambda device: True)
    a, b = exact.embedding(image), quick.embedding(image)
    assert 0 < np.linalg.norm(a - b) < 0.03 * np.linalg.norm(a)


def test_taps_can_be_trained_on(segmenter):
    weight = torch.ones(1, requires_grad=True)
    (segmenter.taps(picture()).levels[0][0] * weight).sum().backward()
    assert weight.grad is not None


def test_taps_are_not_those_of_another_segmenter_on_the_same_network(network):
    mine = SamSegmenter(network, name="mine", device="cpu")
    alone = mine.taps(picture(seed=1)).levels[0][0]
    mine, other = (SamSegmenter(network, name=n, device="cpu") for n in ("mine", "other"))
    inside = []

    def between(*_):  # in the middle of the first pass, another thread makes a whole one
        if not inside:
            inside.append(True)
            thread = threading.Thread(target=other.precompute, args=(picture(seed=2),))
            thread.start()
            thread.join()

    handle = network.image_encoder.neck.register_forward_pre_hook(between)
    found = mine.taps(picture(seed=1)).levels[0][0]
    handle.remove()
    assert inside
    assert torch.equal(found, alone)


def test_packaged_architecture_gives_its_own_taps():
    torch.manual_seed(0)
    segmenter = SamSegmenter(model.build(), name="tiny", device="cpu")
    taps = segmenter.taps(picture((64, 128)))
    assert [len(level) for level in taps.levels] == [3, 8, 6]
    assert [level[0].shape[-1] for level in taps.levels] == [32, 16, 8]
    [answer] = segmenter.candidates(picture((64, 128)), [point(10, 100)])
    assert answer.masks.shape == (3, 64, 128)
    [again] = segmenter.candidates(
        picture((64, 128)), [point(10, 100)], logits=[answer.logits[answer.best]]
    )
    assert again.logits.shape == answer.logits.shape


def test_batch_is_halved_for_good_when_memory_is_full(segmenter):
    image, objects = picture(), [point(r, 5) for r in range(8)]
    expected = segmenter.candidates(image, objects)
    small = SamSegmenter(random_sam(), name="toy", device="cpu", batch_size=8)
    memory = FullMemory(small.engine.network, limit=2)
    with (
        pytest.warns(RuntimeWarning, match=r"toy: cpu is out of memory; .* 4 at a time"),
        pytest.warns(RuntimeWarning, match=r"toy: cpu is out of memory; .* 2 at a time"),
    ):
        got = small.candidates(image, objects)
    for a, b in zip(got, expected, strict=True):
        assert_same(a, b.masks, b.scores, b.logits)
    memory.batches.clear()
    small.candidates(image, objects)
    assert memory.batches == [2, 2, 2, 2]


def test_work_moves_to_the_cpu_when_one_prompt_is_too_much(segmenter):
    small = SamSegmenter(random_sam(), name="toy", device="cpu:0")  # stands in for a GPU
    memory = FullMemory(small.engine.network, limit=0)
    memory.full = lambda: small.device == torch.device("cpu", 0)
    with pytest.warns(RuntimeWarning, match="continuing on the CPU"):
        [got] = small.candidates(picture(), [point(3, 3)])
    assert small.device == torch.device("cpu")
    [expected] = segmenter.candidates(picture(), [point(3, 3)])
    assert_same(got, expected.masks, expected.scores, expected.logits)


def test_full_memory_on_the_cpu_is_not_hidden():
    small = SamSegmenter(random_sam(), name="toy", device="cpu")
    FullMemory(small.engine.network, limit=0)
    with pytest.raises(RuntimeError, match="out of memory"):
        small.candidates(picture(), [point(3, 3)])


def test_other_errors_are_not_taken_for_full_memory(segmenter, monkeypatch):
    def broken(**_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(segmenter.engine.network.mask_decoder, "forward", broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="shapes differ"):
            segmenter.candidates(picture(), [point(1, 1), point(2, 2)])


def test_threads_share_one_segmenter(network):
    segmenter = SamSegmenter(network, name="toy", device="cpu")
    images = [picture(seed=s) for s in range(6)]
    alone = [segmenter.candidates(i, [point(9, 9)])[0].logits for i in images]
    found = {}

    def work(k):
        found[k] = segmenter.candidates(images[k], [point(9, 9)])[0].logits

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Not bit by bit: numba, once napari has drawn labels, gives this thread more OpenMP threads
    # than new ones have, and sums over more parts differ in the last digit (2e-7).
    for k in range(6):
        np.testing.assert_allclose(found[k], alone[k], atol=1e-5)


def test_known_image_is_answered_while_another_is_encoded(network):
    segmenter = SamSegmenter(network, name="toy", device="cpu")
    known, alive = picture(seed=1), []
    before = segmenter.candidates(known, [point(9, 9)])[0].logits
    found = []

    def between(*_):  # in the middle of the pass a click comes
        ask = lambda: found.append(segmenter.candidates(known, [point(9, 9)])[0].logits)  # noqa: E731
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(20)
        alive.append(thread.is_alive())

    handle = network.image_encoder.neck.register_forward_pre_hook(between)
    segmenter.precompute(picture(seed=2))
    handle.remove()
    assert alive == [False]
    np.testing.assert_allclose(found[0], before, atol=1e-5)


@pytest.mark.parametrize(("device", "waits"), [("cpu", False), ("cpu:0", True)])
def test_prompts_wait_for_the_encoder_where_all_may_have_to_move(network, device, waits):
    segmenter = SamSegmenter(network, name="toy", device=device)  # cpu:0 stands in for a GPU
    found = []
    handle = network.image_encoder.neck.register_forward_pre_hook(
        lambda *_: found.append(segmenter.engine.lock.locked())
    )
    segmenter.precompute(picture(seed=2))
    handle.remove()
    assert found == [waits]


def test_image_that_two_threads_want_is_encoded_once(network):
    segmenter = SamSegmenter(network, name="toy", device="cpu")
    threads, passes = [], []

    def between(*_):
        passes.append(True)
        if len(passes) == 1:
            threads.append(threading.Thread(target=segmenter.precompute, args=(picture(seed=2),)))
            threads[0].start()

    handle = network.image_encoder.neck.register_forward_pre_hook(between)
    segmenter.precompute(picture(seed=2))
    threads[0].join()
    handle.remove()
    assert passes == [True]


def test_answering_leaves_gradients_on_and_hooks_alone(segmenter):
    segmenter.candidates(picture(), [point(1, 1)])
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("device", "match"),
    [
        pytest.param("abacus", "expected auto, cuda, mps, cpu or openvino", id="nonsense"),
        pytest.param("mps", "this machine has none", id="absent"),
    ],
)
def test_devices_that_are_not_there_are_refused(device, match, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match=match):
        devices.pick(device)


def test_auto_prefers_cuda_then_mps_then_the_cpu(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda answer=cuda: answer)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda answer=mps: answer)
        assert devices.pick("auto").type == expected


def test_another_decoder_shares_what_is_encoded_on_the_cpu(network, segmenter):
    counting = Counting(network)
    image = picture(seed=4)
    segmenter.precompute(image)
    same = segmenter.with_decoder(network.mask_decoder.state_dict())
    [first], [again] = (s.candidates(image, [point(9, 9)]) for s in (segmenter, same))
    np.testing.assert_array_equal(first.logits, again.logits)
    assert counting.passes == 1


def test_elsewhere_another_decoder_has_a_network_of_its_own(segmenter, monkeypatch):
    """Else a full memory would move the shared encoder under the other one's feet."""
    monkeypatch.setattr(type(segmenter.engine), "_is_at_last_resort", False)
    other = segmenter.with_decoder(segmenter.engine.network.mask_decoder.state_dict())
    mine, theirs = (s.engine.network.image_encoder for s in (segmenter, other))
    assert mine is not theirs
    assert all(
        torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True)
    )


@pytest.mark.parametrize("shape", [(64, 64), (48, 64), (30, 47), (100, 130)])
@pytest.mark.parametrize(
    "on",
    [
        pytest.param(np.s_[4:7, 5:9], id="inside"),
        pytest.param(np.s_[0:2, 12:16], id="corner"),
        pytest.param(np.s_[0:16, 0:16], id="all"),
        pytest.param(np.s_[0:0, 0:0], id="nothing"),
    ],
)
def test_masks_are_those_of_the_logits_over_the_whole_image(network, shape, on):
    """Only the part around a mask is brought to the size of the image."""
    image = picture(shape)
    embedding = encoding.encode(image, network, torch.device("cpu"))
    side = network.image_encoder.img_size
    logits = -torch.rand(2, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    logits[:, *on] += 2
    rows, columns = embedding.input_hw
    full = F.interpolate(logits[:, None], (side, side), mode="bilinear")[..., :rows, :columns]
    if embedding.image_hw != (rows, columns):
        full = F.interpolate(full, embedding.image_hw, mode="bilinear")
    wanted = (full[:, 0] > network.mask_threshold).numpy()
    np.testing.assert_array_equal(decoding.to_image(logits, network, embedding), wanted)
