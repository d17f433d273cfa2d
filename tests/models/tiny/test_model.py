"""The packaged architecture under segment-anything's own callers, and its file."""

import copy
import io

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from torch import nn
from toy_sam import picture, random_sam

from napari_samic.core.errors import FormatError, PromptError, WeightsError
from napari_samic.core.types import Prompts
from napari_samic.models.finetune import network as finetune_network
from napari_samic.models.hub import checkpoints, registry
from napari_samic.models.sam.segmenter import SamSegmenter
from napari_samic.models.sam.segmenter import build as build_segmenter
from napari_samic.models.tiny import decoder, model
from napari_samic.ops.shape import box_of
from napari_samic.sample_data.samples import sample_set

SMALL = model.TinyConfig(encoder="test_efficientnet", side_px=64, embed=16, unet=(16, 24, 32, 40))
CLICK = (torch.tensor([[[20.0, 35.0], [45.0, 10.0]]]), torch.tensor([[1, 0]]))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return model.build(SMALL).eval().requires_grad_(False)


@pytest.fixture
def predictor(network):
    predictor = SamPredictor(network)
    predictor.set_image(picture((48, 80)))
    return predictor


def embedding(network, seed=0):
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    return network.image_encoder(x)


PROMPTS = [
    pytest.param({"point_coords": [[20, 10]], "point_labels": [1]}, id="point"),
    pytest.param({"point_coords": [[20, 10], [70, 40]], "point_labels": [1, 0]}, id="two_points"),
    pytest.param({"box": [5, 6, 40, 30]}, id="box"),
    pytest.param({"point_coords": [[9, 9]], "point_labels": [1], "box": [5, 6, 40, 30]}, id="both"),
]


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_sam_predictor_runs_it_unchanged(predictor, prompt, multimask):
    asked = {k: np.array(v) for k, v in prompt.items()}
    masks, scores, low = predictor.predict(**asked, multimask_output=multimask)
    count = 3 if multimask else 1
    assert masks.shape == (count, 48, 80)
    assert masks.dtype == bool
    assert low.shape == (count, 16, 16)
    assert ((scores >= 0) & (scores <= 1)).all()
    _, _, again = predictor.predict(**asked, mask_input=5 * low[:1], multimask_output=multimask)
    assert np.abs(again - low).max() > 1e-3  # the earlier answer is heard


def test_single_answer_is_the_surest_of_the_three(predictor):
    ask = {"point_coords": np.array([[20, 10]]), "point_labels": np.array([1])}
    _, score, one = predictor.predict(**ask, multimask_output=False)
    _, scores, three = predictor.predict(**ask, multimask_output=True)
    assert np.array_equal(one[0], three[0])
    assert score[0] == scores[0] == scores.max()


def test_only_this_network_says_that_one_pass_gives_single_and_candidates(network):
    assert SamSegmenter(network, name="tiny", device="cpu").single_is_first
    assert not SamSegmenter(random_sam(), name="sam", device="cpu").single_is_first


def test_several_boxes_at_once_equal_one_by_one(predictor):
    boxes = torch.tensor([[5.0, 6, 40, 30], [0, 0, 20, 20], [30, 10, 60, 40]])
    masks, scores, low = predictor.predict_torch(None, None, boxes, multimask_output=True)
    assert masks.shape == (3, 3, 48, 80)
    for i in range(3):
        _, score, alone = predictor.predict_torch(None, None, boxes[i : i + 1])
        torch.testing.assert_close(low[i : i + 1], alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(scores[i : i + 1], score, atol=1e-5, rtol=1e-5)


def test_automatic_mask_generator_runs_it_unchanged(network):
    generator = SamAutomaticMaskGenerator(
        network, points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.0
    )
    masks = generator.generate(picture((48, 80)))
    assert masks
    assert all(m["segmentation"].shape == (48, 80) for m in masks)


def test_prompts_of_a_batch_do_not_hear_each_other(network):
    points = torch.tensor([[[10.0, 12]], [[50, 40]], [[30, 60]]])
    signs = torch.tensor([[1], [1], [1]])
    _, maps = network.prompt_encoder((points, signs), None, None)
    together, scores = network.mask_decoder.all_masks(embedding(network), maps)
    other = maps.clone()
    other[1:] = 5.0
    beside, scores_beside = network.mask_decoder.all_masks(embedding(network), other)
    torch.testing.assert_close(together[0], beside[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores[0], scores_beside[0], atol=1e-5, rtol=1e-5)
    assert (together[1] - beside[1]).abs().max() > 1e-2


def test_decoder_takes_one_embedding_for_each_prompt(network):
    _, maps = network.prompt_encoder((torch.full((2, 1, 2), 9.0), torch.ones(2, 1)), None, None)
    both = torch.cat([embedding(network, 0), embedding(network, 1)])
    logits, _ = network.mask_decoder.all_masks(both, maps)
    for i in range(2):
        alone, _ = network.mask_decoder.all_masks(both[i : i + 1], maps[i : i + 1])
        torch.testing.assert_close(logits[i : i + 1], alone, atol=1e-5, rtol=1e-5)


class Fixed(nn.Module):
    """Answers the same whatever it is given, which it keeps."""

    def __init__(self, values):
        super().__init__()
        self.values, self.given = values, None

    def forward(self, x):
        self.given = x
        return self.values


def halves(*sides):
    """Logits of masks that fill one half each, (1, len(sides), 16, 16)."""
    logits = torch.full((1, len(sides), 16, 16), -20.0)
    parts = {"left": np.s_[:, :8], "right": np.s_[:, 8:], "top": np.s_[:8], "bottom": np.s_[8:]}
    for mask, side in zip(logits[0], sides, strict=True):
        mask[parts[side]] = 20.0
    return logits


def decoder_of(masks, scores):
    """A decoder whose four masks and their confidences are fixed."""
    decoder = model.TinyMaskDecoder(SMALL.embed, SMALL.unet).eval().requires_grad_(False)
    decoder.head = Fixed(masks)
    decoder.confidence = Fixed(torch.logit(torch.tensor(scores))[None, :, None])
    return decoder


@pytest.mark.parametrize(
    ("masks", "scores", "expected"),
    [
        pytest.param(
            ["left", "top", "right", "bottom"], [0.2, 0.9, 0.3, 0.5], [1, 3, 2], id="all_differ"
        ),
        pytest.param(
            ["left", "left", "right", "top"], [0.9, 0.8, 0.7, 0.6], [0, 2, 3], id="two_alike"
        ),
        pytest.param(["left"] * 4, [0.6, 0.9, 0.7, 0.8], [1, 3, 2], id="all_alike"),
    ],
)
def test_masks_alike_are_offered_once_if_others_differ(masks, scores, expected):
    decoder = decoder_of(halves(*masks), scores)
    image, maps = torch.zeros(1, SMALL.embed, 16, 16), encode(CLICK)
    for count, multimask in ((3, True), (1, False)):
        logits, sure = decoder(image, None, None, maps, multimask)
        torch.testing.assert_close(sure[0], torch.tensor(scores)[expected[:count]])
        assert torch.equal(logits[0], halves(*masks)[0, expected[:count]])


@pytest.mark.parametrize(
    ("points", "share"),
    [
        pytest.param([(12, 12, 1)], [1.0, 1, 0, 0], id="positive"),
        pytest.param([(12, 52, 1)], [1.0, 0, 0, 1], id="positive_below"),
        pytest.param([(52, 52, 0)], [0.0, 0, 1, 1], id="negative"),
        pytest.param([(12, 12, 1), (52, 12, 1)], [0.5, 1, 0.5, 0], id="one_of_two"),
    ],
)
def test_confidence_knows_how_full_masks_are_at_the_points(points, share):
    decoder = decoder_of(halves("left", "top", "right", "bottom"), [0.5] * 4)
    decoder(torch.zeros(1, SMALL.embed, 16, 16), None, None, encode(point(*points)), True)
    columns = decoder.confidence.given[0].T  # (facts, masks)
    gap = (columns - torch.tensor(share)).abs().amax(1)
    assert gap.min() < 0.05


def test_positive_points_come_before_negative_ones():
    """Weights of the confidence rely on it."""
    decoder = decoder_of(halves("left", "top", "right", "bottom"), [0.5] * 4)
    maps = encode(point((12, 12, 1), (52, 52, 0)))
    decoder(torch.zeros(1, SMALL.embed, 16, 16), None, None, maps, True)
    columns = decoder.confidence.given[0].T  # (facts, masks)
    positive, negative = (
        int((columns - torch.tensor(share)).abs().amax(1).argmin())
        for share in ([1.0, 1, 0, 0], [0.0, 0, 1, 1])
    )
    assert negative == positive + 1


def test_what_prompts_of_an_image_share_is_computed_once(network):
    passes = []
    handle = network.mask_decoder.from_image.register_forward_hook(
        lambda _module, inputs, _output: passes.append(tuple(inputs[0].shape))
    )
    maps = encode(CLICK)
    with torch.inference_mode():
        images = [embedding(network, 0), embedding(network, 1)]
        answers = [network.mask_decoder(e, None, None, maps, True)[0] for e in images for _ in "ab"]
    handle.remove()
    assert passes == [(1, 16, 16, 16)] * 2
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[2], answers[3])
    assert not torch.equal(answers[0], answers[2])


def test_training_keeps_nothing_of_an_image():
    decoder = model.TinyMaskDecoder(SMALL.embed, SMALL.unet)
    image, maps = torch.randn(1, SMALL.embed, 16, 16), encode(CLICK)
    for _ in range(2):  # the second fails if it goes back through the first
        decoder(image, None, None, maps, True)[0].sum().backward()


def test_answer_after_training_is_of_the_new_weights():
    decoder = model.TinyMaskDecoder(SMALL.embed, SMALL.unet)
    image, maps = torch.randn(1, SMALL.embed, 16, 16), encode(CLICK)
    decoder(image, None, None, maps, True)
    with torch.no_grad():
        decoder.from_image.weight.neg_()
        again = decoder(image, None, None, maps, True)
        fresh = decoder(image.clone(), None, None, maps, True)
    assert torch.equal(again[0], fresh[0])


def test_training_does_not_take_what_an_answer_kept():
    decoder = model.TinyMaskDecoder(SMALL.embed, SMALL.unet)
    image, maps = torch.randn(1, SMALL.embed, 16, 16), encode(CLICK)
    with torch.no_grad():
        decoder(image, None, None, maps, True)
    decoder(image, None, None, maps, True)[0].square().sum().backward()
    assert decoder.from_image.weight.grad is not None


def encode(points=None, boxes=None, masks=None):
    sparse, maps = model.TinyPromptEncoder(64)(points, boxes, masks)
    assert sparse.shape == (len(maps), 0, model.PROMPT_MAPS)
    return maps


def point(*rows):
    return torch.tensor([[r[:2] for r in rows]]).float(), torch.tensor([[r[2] for r in rows]])


def test_points_are_drawn_where_they_are_with_their_sign():
    maps = encode(point((17.5, 41.5, 1), (49.5, 5.5, 0)))[0]
    for channel in (0, 1, 2):
        assert divmod(int(maps[channel].argmax()), 16) == (10, 4)
        assert divmod(int(maps[channel + 3].argmax()), 16) == (1, 12)
    assert torch.equal(maps[6:], torch.zeros(4, 16, 16))


def test_label_of_nothing_draws_nothing():
    with_padding = encode(point((17.5, 41.5, 1), (3.0, 3.0, -1)))
    assert torch.equal(with_padding, encode(point((17.5, 41.5, 1))))


def test_no_points_draw_nothing():
    box = torch.tensor([[4.0, 4, 30, 20]])
    maps = encode((torch.zeros(1, 0, 2), torch.zeros(1, 0)), box)
    assert torch.equal(maps, encode(boxes=box))


def test_box_is_positive_inside_and_negative_outside():
    boxes = torch.tensor([[16.0, 8, 48, 40]])
    maps = encode(boxes=boxes)[0]
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[2:10, 4:12] = True  # rows from y, columns from x
    assert ((maps[6] > 0.5) == inside).all()
    assert ((maps[7] > 0) == inside).all()
    assert torch.equal(maps, encode(boxes=boxes[:, None])[0])


def test_earlier_logits_are_passed_on_and_flagged():
    maps = encode(masks=torch.full((1, 1, 16, 16), 4.0))[0]
    torch.testing.assert_close(maps[8], torch.full((16, 16), float(np.tanh(1))))
    assert (maps[9] == 1).all()
    assert (encode(point((1, 1, 1)))[0, 9] == 0).all()


def test_nothing_to_encode_is_refused():
    with pytest.raises(PromptError, match="nothing to encode"):
        encode()


def test_what_the_user_sees_of_the_embedding_is_the_image_alone(network):
    segmenter = SamSegmenter(network, name="tiny", device="cpu")
    assert segmenter.embedding(picture((32, 64))).shape == (SMALL.embed, 8, 16)


def through_disk(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_unpacked_network_is_the_packed_one_in_half_precision(network):
    content = through_disk(model.pack(network, SMALL, {"note": "n", "kind": "not mine"}))
    assert (content["kind"], content["version"], content["note"]) == ("napari-samic/tiny", 2, "n")
    again = model.unpack(content, "x.pt")
    assert not again.training
    rounded = copy.deepcopy(network)
    rounded.load_state_dict({k: v.half() for k, v in network.state_dict().items()})
    for name, value in again.state_dict().items():
        assert value.dtype == network.state_dict()[name].dtype
        assert torch.equal(value, rounded.state_dict()[name]), name
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again.image_encoder(x), rounded.image_encoder(x))
    torch.testing.assert_close(
        again.image_encoder(x), network.image_encoder(x), atol=0.02, rtol=0.02
    )


def test_ready_network_answers_alike_without_batch_norms():
    torch.manual_seed(0)
    network = model.build(SMALL)
    for module in network.modules():  # running figures as after a training
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    network.eval().requires_grad_(False)
    ready = model.optimize_for_inference(copy.deepcopy(network))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ready.modules())
    maps = encode(CLICK)
    plain, quick = (n.mask_decoder.all_masks(embedding(n).float(), maps) for n in (network, ready))
    assert (quick[0] - plain[0]).abs().max() < 0.05 * plain[0].abs().max()
    torch.testing.assert_close(quick[1], plain[1], atol=0.02, rtol=0)


def test_file_format_has_not_moved():
    """Weights of earlier days must load: names and shapes of the default network."""
    state = model.build().state_dict()
    assert (len(state), sum(v.numel() for v in state.values())) == (469, 6_448_900)
    for name in (
        "image_encoder.backbone.network.conv_stem.weight",
        "image_encoder.backbone.network.blocks.1.0.conv_dw.weight",
        "image_encoder.backbone.network.blocks.6.0.bn3.running_var",
        "image_encoder.neck.lateral.3.weight",
        "image_encoder.neck.smooth.0.bias",
        "image_encoder.neck.norm.0.weight",
        "mask_decoder.from_prompt.weight",
        "mask_decoder.down.2.3.body.3.weight",
        "mask_decoder.context.2.weight",
        "mask_decoder.narrow.2.bias",
        "mask_decoder.up.0.1.weight",
        "mask_decoder.head.weight",
        "mask_decoder.confidence.2.weight",
    ):
        assert name in state
    assert not any(name.startswith("prompt_encoder") for name in state)


def changed(network, **changes):
    content = model.pack(network, SMALL)
    content.update(changes)
    return {k: v for k, v in content.items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        pytest.param(
            {"kind": "other"}, "'other' version 2, expected 'napari-samic/tiny'", id="kind"
        ),
        pytest.param({"version": 10**600}, r"version 10{39}, expected", id="huge"),
        pytest.param({"version": 1}, "version 1, expected .* version 2", id="version"),
        pytest.param({"config": None}, "damaged", id="no_config"),
        pytest.param({"config": {"depth": 3}}, "damaged .*depth", id="unknown_size"),
        pytest.param({"config": {"encoder": "nobody"}}, "damaged .*nobody", id="unknown_encoder"),
        pytest.param({"config": {"unet": [16, 24]}}, "damaged .*unpack", id="too_few_sizes"),
        pytest.param({"config": [64]}, "damaged", id="config_is_a_list"),
        pytest.param({"config": {"side_px": 64}}, "damaged", id="other_sizes"),
        pytest.param({"state": {}}, "damaged .*[Mm]issing key", id="no_weights"),
        pytest.param({"state": {"a": 1}}, "damaged", id="weights_are_numbers"),
        pytest.param({"state": None}, "damaged", id="no_state"),
    ],
)
def test_content_of_another_kind_is_one_line(network, changes, match):
    with pytest.raises(FormatError, match=match) as caught:
        model.unpack(changed(network, **changes), "x.pt")
    assert str(caught.value).startswith("x.pt: ")
    assert "\n" not in str(caught.value)


def test_content_that_is_no_dict_is_refused():
    with pytest.raises(FormatError, match=r"x\.pt: 'list' version None"):
        model.unpack([1, 2], "x.pt")


def test_file_is_read_back(tmp_path, network):
    torch.save(model.pack(network, SMALL), tmp_path / "tiny.pt")
    again = model.load(tmp_path / "tiny.pt")
    assert again.image_encoder.img_size == 64


class Bomb:
    def __reduce__(self):
        return print, ("boom",)


def damage(path, how):
    if how == "code":
        torch.save({"kind": "napari-samic/tiny", "config": Bomb()}, path)
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    else:
        path.write_bytes(how)


@pytest.mark.parametrize("how", ["code", "truncated", b"", b"no weights"])
def test_damaged_file_is_one_line_and_runs_no_code(tmp_path, network, how, capsys):
    path = tmp_path / "tiny.pt"
    torch.save(model.pack(network, SMALL), path)
    damage(path, how)
    with pytest.raises(FormatError, match=r"^tiny\.pt: ") as caught:
        model.load(path)
    assert "\n" not in str(caught.value)
    assert "boom" not in capsys.readouterr().out


def test_absent_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pt: can't be opened"):
        model.load(tmp_path / "none.pt")


@pytest.fixture(scope="module")
def packaged():
    """The packaged network's encoder, and three pictures as it takes them."""
    network = model.unpack(checkpoints.read(registry.locate("tiny")), "tiny")
    samples = (sample_set("cells")[0], *sample_set("coins")[:2])
    inputs = [finetune_network.to_input(sample.image, 256)[0] for sample in samples]
    return network.image_encoder, [(x - network.pixel_mean) / network.pixel_std for x in inputs]


def test_every_level_of_the_packaged_neck_is_alive(packaged):
    """Its ReLUs once were 0 at strides 8, 16 and 32 for every picture, and nobody saw it."""
    encoder, inputs = packaged
    shares = [[] for _ in encoder.neck.norm]

    def note(level):
        def hook(_module, _inputs, output):
            shares[level].append((output > 0).float().mean((0, 2, 3)))

        return hook

    handles = [n.register_forward_hook(note(level)) for level, n in enumerate(encoder.neck.norm)]
    with torch.inference_mode():
        for x in inputs:
            encoder(x)
    for handle in handles:
        handle.remove()
    assert len(shares) == 4
    for level, seen in enumerate(shares):
        each = torch.stack(seen)  # (3, 64): pictures, channels
        assert each.mean() > 0.02, level
        assert (each.amax(0) > 0.01).float().mean() > 0.6, level  # channels that ever speak
        assert (each.amax(0) - each.amin(0)).mean() > 0.005, level  # and not always the same


def test_every_level_of_the_packaged_neck_is_heard(packaged):
    encoder, inputs = packaged
    with torch.inference_mode():
        for x in inputs:
            ends = encoder.backbone.ends(encoder.backbone.blocks(x), tuple(x.shape[-2:]))
            whole = encoder.neck(ends)
            for level in range(len(ends)):
                silent = [t * 0 if i == level else t for i, t in enumerate(ends)]
                change = (encoder.neck(silent) - whole).abs().mean() / whole.abs().mean()
                assert change > 0.02, level  # one behind a lateral without a norm: 0.004


def boxed(*boxes, grid=128):
    """Maps of the insides of boxes, as rows and columns of cells."""
    maps = torch.zeros(len(boxes), grid, grid)
    for inside, (top, left, bottom, right) in zip(maps, boxes, strict=True):
        inside[top:bottom, left:right] = 1
    return maps


@pytest.mark.parametrize(
    ("boxes", "wanted"),
    [
        pytest.param([(20, 40, 24, 43)], [(0, 17)], id="least"),
        pytest.param([(50, 110, 64, 124)], [(29, 72)], id="four_boxes_at_a_corner"),
        pytest.param([(20, 30, 24, 33), (90, 10, 104, 20)], [(0, 3), (69, 0)], id="one_size"),
        pytest.param([(0, 0, 30, 3)], [], id="most_of_the_map"),
        pytest.param([(20, 30, 24, 33), (0, 0, 0, 0)], [], id="no_box"),
    ],
)
def test_crops_hold_boxes_with_their_surroundings(boxes, wanted):
    crops = decoder.crops_around_boxes(boxed(*boxes))
    assert [(rows.start, columns.start) for rows, columns in crops] == wanted
    sides = {at.stop - at.start for crop in crops for at in crop}
    assert len(sides) <= 1
    assert not crops or all(
        crop[0].start <= box[0] <= box[2] <= crop[0].stop <= 128
        and crop[1].start <= box[1] <= box[3] <= crop[1].stop <= 128
        for crop, box in zip(crops, boxes, strict=True)
    )


def test_small_boxes_are_answered_as_before_from_their_surroundings(monkeypatch):
    segmenter = build_segmenter("tiny", device="cpu")
    scene = sample_set("cells")[0]
    image = np.pad(scene.image, ((0, 256), (0, 256), (0, 0)), mode="reflect")
    objects = [
        Prompts(np.empty((0, 2)), np.empty(0, bool), box_of(scene.truth == number))
        for number in np.unique(scene.truth)[1:9]
    ]
    sides = []
    head = segmenter.engine.network.mask_decoder.head
    handle = head.register_forward_pre_hook(lambda _, args: sides.append(args[0].shape[-1]))
    near = segmenter.candidates(image, objects)
    assert max(sides) < 128
    monkeypatch.setattr(decoder, "crops_around_boxes", lambda _: [])
    whole = segmenter.candidates(image, objects)
    handle.remove()
    assert sides[-1] == 128
    for a, b in zip(near, whole, strict=True):
        x, y = a.masks[a.best], b.masks[b.best]
        assert (x & y).sum() / (x | y).sum() > 0.85
        assert abs(a.scores[a.best] - b.scores[b.best]) < 0.15
