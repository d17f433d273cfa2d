"""Each public layout to its items, their masks, folds and episodes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
from PIL import Image

from napari_samic.benchmark import datasets
from napari_samic.core.errors import FormatError, InputError
from napari_samic.export.coco import rle

Make = Callable[[Path], Path]


def flat(root: Path) -> Path:
    for name in ("cow_b", "bear"):
        for n in range(3):
            layouts.picture(root / "images" / f"{name}_{n:05d}.jpg", n)
            layouts.mask(root / "masks" / f"{name}_{n:05d}.png")
    return root


def nwpu(root: Path) -> Path:
    layouts.nwpu(root)
    ship, bridge = layouts.square(2, 3, 4), layouts.square(8, 8, 2)
    notes = [(n, 2, ship) for n in range(1, 11)] + [(n, 9, bridge) for n in range(1, 6)] * 2
    inner = root / "NWPU VHR-10 dataset"
    layouts.instances(inner / "annotations.json", notes, {2: "ship", 9: "bridge"}, "{:03d}.jpg")
    return root


LAYOUTS: list[Any] = [
    pytest.param("coco-20i", layouts.coco, "COCO2014", 240, id="coco"),
    pytest.param("pascal-5i", layouts.pascal, "VOCdevkit/VOC2012", 60, id="pascal"),
    pytest.param("fss-1000", layouts.fss, "fewshot_data", 30, id="fss"),
    pytest.param("perseg", layouts.perseg, "data", 6, id="perseg"),
    pytest.param("tsmu", layouts.pairs, "one", 10, id="tsmu"),
    pytest.param("nwpu-vhr10", nwpu, "", 15, id="nwpu"),
    pytest.param("nwpu-vhr10-boxes", layouts.nwpu, "", 15, id="nwpu_boxes"),
    pytest.param("kvasir-seg", layouts.pairs, "Kvasir-SEG", 10, id="kvasir"),
    pytest.param("davis-16", layouts.davis, "DAVIS", 12, id="davis16"),
    pytest.param("davis-17", layouts.davis, "DAVIS", 12, id="davis17"),
    pytest.param("davis-flat", flat, "", 6, id="davis_flat"),
    pytest.param("folder", layouts.pairs, "", 10, id="folder"),
]


def test_every_name_has_a_layout_here() -> None:
    assert {p.values[0] for p in LAYOUTS} == set(datasets.names())


@pytest.mark.parametrize(("name", "make", "inner", "count"), LAYOUTS)
def test_layout_is_read_from_its_folder_and_the_one_around(
    tmp_path: Path, name: str, make: Make, inner: str, count: int
) -> None:
    root = make(tmp_path / inner)
    for folder in (root, tmp_path):
        assert len(datasets.open(name, folder).items) == count


@pytest.mark.parametrize(("name", "make", "inner", "count"), LAYOUTS)
def test_order_does_not_depend_on_the_disk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make: Make,
    inner: str,
    count: int,
) -> None:
    root = make(tmp_path)
    found = [i.name for i in datasets.open(name, root).items]
    plain = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(plain(self), reverse=True)))
    assert [i.name for i in datasets.open(name, root).items] == found


@pytest.mark.parametrize(("name", "make", "inner", "count"), [p for p in LAYOUTS if p.id != "coco"])
def test_truth_has_the_size_of_the_image_and_some_object(
    tmp_path: Path, name: str, make: Make, inner: str, count: int
) -> None:
    for item in datasets.open(name, make(tmp_path)).items:
        truth = item.read_truth()
        assert (truth.shape, truth.dtype) == (item.read_image().shape[:2], np.int32)
        assert truth.any()


@pytest.mark.parametrize(
    ("name", "make", "inner", "count"), [p for p in LAYOUTS if p.id not in ("coco", "pascal")]
)
def test_no_pixel_is_read_on_opening(
    tmp_path: Path, name: str, make: Make, inner: str, count: int
) -> None:
    root = make(tmp_path)
    for path in [*root.rglob("*.jpg"), *root.rglob("*.png")]:
        path.write_bytes(b"")
    assert len(datasets.open(name, root).items) == count


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        pytest.param("coco-20i", "annotations", "instances_train2014", id="coco_annotations"),
        pytest.param("coco-20i", "val2014", "'val2014' missing", id="coco_images"),
        pytest.param("pascal-5i", "JPEGImages", "'JPEGImages' missing", id="pascal_images"),
        pytest.param("pascal-5i", "SegmentationClassAug", "SegmentationClassAug", id="pascal_sbd"),
        pytest.param("pascal-5i", "ImageSets", r"val\.txt, which say", id="pascal_lists"),
        pytest.param("fss-1000", "axe|bear|cat", "no class folder with 1.jpg", id="fss"),
        pytest.param("perseg", "Annotations", "'Annotations' missing, found Images", id="perseg"),
        pytest.param("perseg", "Annotations/dog", "'dog' missing, found cat", id="perseg_class"),
        pytest.param("tsmu", "masks", "'mask' or 'masks' or 'label' or 'labels'", id="tsmu"),
        pytest.param(
            "nwpu-vhr10",
            "NWPU VHR-10 dataset/annotations.json",
            "open 'nwpu-vhr10-boxes'",
            id="nwpu_json",
        ),
        pytest.param(
            "nwpu-vhr10-boxes", "NWPU VHR-10 dataset/ground truth", "'ground truth'", id="boxes"
        ),
        pytest.param("kvasir-seg", "masks", "'masks' missing, found images", id="kvasir"),
        pytest.param("davis-16", "JPEGImages", "'JPEGImages/480p' missing", id="davis_images"),
        pytest.param("davis-17", "ImageSets/2017", r"2017/train\.txt' or", id="davis_lists"),
        pytest.param("davis-17", "Annotations/480p/cow", "'cow' missing", id="davis_sequence"),
        pytest.param("davis-flat", "masks", "'masks' missing", id="davis_flat"),
        pytest.param("folder", "images", "'images' missing, found masks", id="folder"),
    ],
)
def test_wrong_folder_says_what_is_missing(
    tmp_path: Path, name: str, part: str, message: str
) -> None:
    make = next(p.values[1] for p in LAYOUTS if p.values[0] == name)
    root = make(tmp_path / "set")
    for one in part.split("|"):
        (root / one).rename(tmp_path / one.replace("/", "_"))
    with pytest.raises(InputError, match=message) as caught:
        datasets.open(name, root)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("name", datasets.names())
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="nowhere"):
        datasets.open(name, tmp_path / "nowhere")


def test_unknown_name_and_part_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data set 'perse'\. Did you mean 'perseg'"):
        datasets.open("perse", tmp_path)
    with pytest.raises(InputError, match=r"no part 'val' .* It has: none"):
        datasets.open("perseg", layouts.perseg(tmp_path), split="val")


def test_coco_folds_take_every_fourth_class(tmp_path: Path) -> None:
    found = datasets.open("coco-20i", layouts.coco(tmp_path))
    assert [len(labels) for labels in found.folds.values()] == [20] * 4
    assert found.folds[1][:3] == ("class01", "class05", "class09")
    drawn = list(datasets.episodes(found, fold=1, shots=2, count=200))
    assert {e.label for e in drawn} == set(found.folds[1])


def test_coco_parts_may_be_opened_alone(tmp_path: Path) -> None:
    layouts.coco(layouts.coco(tmp_path), 2, "train")
    (tmp_path / "annotations" / "instances_train2014.json").write_text("{", encoding="utf-8")
    found = datasets.open("coco-20i", tmp_path, split="val")
    assert (found.splits, len(found.items)) == (("val",), 240)
    with pytest.raises(FormatError, match=r"instances_train2014\.json: not JSON"):
        datasets.open("coco-20i", tmp_path)


def test_coco_truth_numbers_the_objects_of_one_class(tmp_path: Path) -> None:
    crowd = np.zeros((16, 16), bool)
    crowd[10:] = True
    notes = [
        (7, 10, layouts.square(0, 0, 3)),
        (7, 11, layouts.square(8, 0, 3)),
        (7, 10, rle(crowd)),
    ]
    path = tmp_path / "annotations" / "instances_val2014.json"
    layouts.instances(path, notes, layouts.COCO_CLASSES)
    layouts.picture(tmp_path / "val2014" / "7.jpg")
    first, second = datasets.open("coco-20i", tmp_path).items
    assert (first.name, first.source, second.label) == ("7:class00", "7", "class01")
    truth = first.read_truth()
    assert [(truth == n).sum() for n in (1, 2)] == [9, 96]
    assert second.read_truth()[0, 8:11].tolist() == [1, 1, 1]
    assert first.read_image().shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("[1]", "not a file of COCO", id="list"),
        pytest.param('{"images": []}', "KeyError", id="no_annotations"),
    ],
)
def test_coco_file_of_another_kind_is_refused(tmp_path: Path, content: str, message: str) -> None:
    layouts.coco(tmp_path)
    layouts.text(tmp_path / "annotations" / "instances_val2014.json", content)
    with pytest.raises(FormatError, match=message):
        datasets.open("coco-20i", tmp_path)


def test_pascal_folds_are_five_neighbours(tmp_path: Path) -> None:
    found = datasets.open("pascal-5i", layouts.pascal(tmp_path))
    assert found.folds[0] == ("aeroplane", "bicycle", "bird", "boat", "bottle")
    assert found.folds[3][-1] == "tvmonitor"
    drawn = list(datasets.episodes(found, fold=2))
    assert len(drawn) == 1000
    assert {e.label for e in drawn} == set(found.folds[2])
    assert {i.split for e in drawn for i in e.references} == {"val"}


def test_pascal_truth_is_the_class_and_its_rim_is_not_counted(tmp_path: Path) -> None:
    item = datasets.open("pascal-5i", layouts.pascal(tmp_path)).where(label="cat")[0]
    truth, ignored = item.read_truth(), item.read_ignored()
    assert truth[:4].all()
    assert truth.sum() == 64
    assert ignored[-1].all()
    assert ignored.sum() == 16


def test_pascal_image_of_two_classes_gives_two_items(tmp_path: Path) -> None:
    layouts.pascal(tmp_path)
    path = tmp_path / "SegmentationClassAug" / "2007_001000.png"
    pixels = np.array(Image.open(path))
    pixels[8] = 20
    Image.fromarray(pixels).save(path)
    found = [i for i in datasets.open("pascal-5i", tmp_path).items if i.source == "2007_001000"]
    assert [(i.label, int(i.read_truth().sum())) for i in found] == [
        ("aeroplane", 64), ("tvmonitor", 16)]  # fmt: skip


def test_pascal_takes_the_lists_of_hsnet_and_reads_no_mask(tmp_path: Path) -> None:
    layouts.pascal(tmp_path)
    for path in (tmp_path / "SegmentationClassAug").iterdir():
        path.write_bytes(b"")
    for fold in range(4):
        layouts.text(
            tmp_path / f"splits/val/fold{fold}.txt", f"2007_00{fold + 1}000__{fold + 1:02d}"
        )
        layouts.text(tmp_path / f"splits/trn/fold{fold}.txt", "2007_009000__09")
    found = datasets.open("pascal-5i", tmp_path)
    assert [(i.split, i.name) for i in found.items][:2] == [
        ("train", "2007_009000:chair"), ("val", "2007_001000:aeroplane")]  # fmt: skip
    assert len(found.items) == 5
    layouts.text(tmp_path / "splits/val/fold0.txt", "2007_001000__21")
    with pytest.raises(FormatError, match="line '2007_001000__21'"):
        datasets.open("pascal-5i", tmp_path)


@pytest.mark.parametrize("name", ["fss_test_set.txt", "splits/test.txt"])
def test_fss_tests_the_listed_classes(tmp_path: Path, name: str) -> None:
    root = layouts.fss(tmp_path / "fewshot_data")
    layouts.text(tmp_path / name, "bear")
    found = datasets.open("fss-1000", root)
    drawn = list(datasets.episodes(found, shots=5))
    assert {e.label for e in drawn} == {"bear"}
    assert [e.targets[0].name for e in drawn] == [f"bear/{n}" for n in range(1, 11)]
    assert {i.label for i in datasets.base_class_items(found, share=0.99)} == {"axe", "cat"}


def test_fss_mask_is_cut_in_the_middle(tmp_path: Path) -> None:
    truth = datasets.open("fss-1000", layouts.fss(tmp_path)).items[0].read_truth()
    assert truth.sum() == 64  # the ground of the mask is grey 30


def test_perseg_shows_image_00(tmp_path: Path) -> None:
    cat, dog = datasets.episodes(datasets.open("perseg", layouts.perseg(tmp_path)))
    assert [i.name for i in cat.references] == ["cat/00"]
    assert [i.name for i in cat.targets] == ["cat/01", "cat/02"]
    assert dog.label == "dog"


@pytest.mark.parametrize("images", ["image", "images", "img"])
@pytest.mark.parametrize("masks", ["mask", "masks", "label", "labels"])
def test_tsmu_takes_the_usual_names(tmp_path: Path, images: str, masks: str) -> None:
    layouts.pairs(tmp_path, 6, images, masks)
    found = datasets.open("tsmu", tmp_path)
    assert [i.name for i in found.items] == [f"p{n}" for n in range(6)]
    assert found.items[2].read_truth().sum() == 48


def test_tsmu_regions_and_parts_are_told_apart(tmp_path: Path) -> None:
    for place in ("moxi/train", "moxi/test", "palu/train"):
        layouts.pairs(tmp_path / place, 5, "img", "mask")
    found = datasets.open("tsmu", tmp_path)
    assert [found.groups, found.splits] == [
        ("moxi/test", "moxi/train", "palu/train"), ("test", "train")]  # fmt: skip
    (episode,) = datasets.episodes(found, shots=None)
    assert (len(episode.references), len(episode.targets)) == (2, 5)


def test_nwpu_outlines_are_objects_by_class(tmp_path: Path) -> None:
    found = datasets.open("nwpu-vhr10", nwpu(tmp_path))
    assert [i.name for i in found.items[:3]] == ["001:ship", "001:bridge", "002:ship"]
    assert found.items[0].read_truth()[3:7, 2:6].all()
    assert found.items[0].read_truth().sum() == 16
    assert found.items[1].read_truth().max() == 2


def test_nwpu_boxes_are_filled(tmp_path: Path) -> None:
    found = datasets.open("nwpu-vhr10-boxes", layouts.nwpu(tmp_path))
    ship, bridge = (i.read_truth() for i in found.items[:2])
    assert ship[3:7, 2:6].all()
    assert (ship.sum(), bridge.sum()) == (16, 32)


def test_nwpu_box_of_an_unknown_class_is_refused(tmp_path: Path) -> None:
    root = layouts.nwpu(tmp_path)
    layouts.text(root / "NWPU VHR-10 dataset/ground truth/003.txt", "(1,2),(3,4),11")
    with pytest.raises(FormatError, match=r"003\.txt: line '\(1,2\),\(3,4\),11'"):
        datasets.open("nwpu-vhr10-boxes", root)


def test_kvasir_jpeg_masks_are_cut_in_the_middle(tmp_path: Path) -> None:
    layouts.pairs(tmp_path, 3, ending="jpg")
    layouts.mask(tmp_path / "masks" / "p0.jpg", 20, rows=16)  # noise of a JPEG without a polyp
    truths = [i.read_truth() for i in datasets.open("kvasir-seg", tmp_path).items]
    assert [int(t.sum()) for t in truths] == [0, 32, 48]


def test_kvasir_lists_divide_it(tmp_path: Path) -> None:
    layouts.pairs(tmp_path)
    layouts.text(tmp_path / "train.txt", *(f"p{n}" for n in range(5)))
    layouts.text(tmp_path / "val.txt", *(f"p{n}.jpg" for n in range(5, 10)))
    (episode,) = datasets.episodes(datasets.open("kvasir-seg", tmp_path), shots=None)
    assert [i.name for i in episode.targets] == [f"p{n}" for n in range(5, 10)]
    assert {i.split for i in episode.references} == {"train"}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param("davis-16", [0, 1], id="one_object"),
        pytest.param("davis-17", [0, 1, 2], id="objects"),
    ],
)
def test_davis_masks_have_one_object_or_several(
    tmp_path: Path, name: str, values: list[int]
) -> None:
    item = datasets.open(name, layouts.davis(tmp_path)).items[0]
    assert np.unique(item.read_truth()).tolist() == values


def test_davis_tests_the_validation_sequences_in_order(tmp_path: Path) -> None:
    found = datasets.open("davis-17", layouts.davis(tmp_path))
    drawn = [(e.references[0].name, e.targets[0].name) for e in datasets.episodes(found)]
    assert drawn == [(f"dog/{n:05d}", f"dog/{n + 1:05d}") for n in range(3)]
    assert found.groups == ("bear", "cow", "dog")


def test_davis_16_reads_the_lists_of_its_first_release(tmp_path: Path) -> None:
    layouts.davis(tmp_path)
    (tmp_path / "ImageSets").rename(tmp_path / "old")
    lines = [f"/JPEGImages/480p/cow/{n:05d}.jpg /Annotations/480p/cow/{n:05d}.png" for n in (0, 1)]
    layouts.text(tmp_path / "ImageSets/480p/val.txt", *lines)
    assert datasets.open("davis-16", tmp_path, split="val").groups == ("cow",)


def test_flat_davis_is_told_apart_by_name(tmp_path: Path) -> None:
    found = datasets.open("davis-flat", flat(tmp_path))
    drawn = [(e.group, e.references[0].name, e.targets[0].name) for e in datasets.episodes(found)]
    assert drawn[:2] == [
        ("bear", "bear/00000", "bear/00001"), ("bear", "bear/00001", "bear/00002")]  # fmt: skip
    assert drawn[-1][0] == "cow_b"
    layouts.picture(tmp_path / "images" / "lone.jpg")
    layouts.mask(tmp_path / "masks" / "lone.png")
    with pytest.raises(InputError, match="no number of its frame"):
        datasets.open("davis-flat", tmp_path)


def test_folder_keeps_the_numbers_of_objects(tmp_path: Path) -> None:
    layouts.pairs(tmp_path, 2)
    layouts.mask(tmp_path / "masks" / "p0.png", 7)
    layouts.picture(tmp_path / "images" / "alone.jpg")
    found = datasets.open("folder", tmp_path)
    assert [i.name for i in found.items] == ["p0", "p1"]
    assert found.items[0].read_truth().max() == 7


@pytest.mark.parametrize(
    ("name", "folder", "count", "first"),
    [
        pytest.param("kvasir-seg", "kvasir-seg-train880", 880, "cju0qk", id="kvasir"),
        pytest.param("davis-flat", "davis16-val-sub3", 465, "blackswan/00000", id="davis"),
        pytest.param("folder", "coelho2009-nuclei", 30, "gnf_dna-1", id="nuclei"),
    ],
)
def test_shared_data(shared_dir: Path, name: str, folder: str, count: int, first: str) -> None:
    if not (place := shared_dir / "data" / folder).is_dir():
        pytest.skip(f"no {place}")
    found = datasets.open(name, place)
    assert len(found.items) == count
    assert found.items[0].name.startswith(first)
    episode = next(iter(datasets.episodes(found, shots=5)))
    target = episode.targets[0]
    assert target.read_truth().shape == target.read_image().shape[:2]
    assert target.read_truth().any()


def test_a_fifth_of_kvasir_is_176(shared_dir: Path) -> None:
    if not (place := shared_dir / "data" / "kvasir-seg-train880").is_dir():
        pytest.skip(f"no {place}")
    (episode,) = datasets.episodes(datasets.open("kvasir-seg", place), shots=None)
    assert (len(episode.references), len(episode.targets)) == (176, 704)


def test_shared_davis_has_twenty_sequences(shared_dir: Path) -> None:
    if not (place := shared_dir / "data" / "davis16-val-sub3").is_dir():
        pytest.skip(f"no {place}")
    found = datasets.open("davis-flat", place)
    assert len(found.groups) == 20
    assert len(list(datasets.episodes(found))) == 465 - 20
