"""What models there are: one row each, data only.

URLs are the authors' own. A checksum is written here only if several independent public sources
agree on it. Knows no file system and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

_META = "https://dl.fbaipublicfiles.com/segment_anything"
_BUILD = "napari_samic.models.sam.builders"
_ENCODER = "napari_samic.models.features.timm_weights"
_MOBILE_COMMIT = "f706ad9c4eb7f219c00d9050e46328518ffb65d2"
_SAM_PAPER = "Kirillov et al., Segment Anything, ICCV 2023, doi:10.1109/ICCV51070.2023.00371"


@dataclass(frozen=True)
class ModelSpec:
    """One set of weights and how to make a network of it.

    Attributes
    ----------
    name : str
        What the user types.
    role : str
        "segmenter" or "encoder".
    build : str
        "module:function" or "module:Class.method": takes the weights' path, returns the network in
        eval mode on the CPU. Imported only when called.
    url : str or None
        Where the authors keep the file; None for packaged and imported files.
    sha256 : str or None
        Lower-case hex; None where no public source names it, or where it follows the package.
    bytes : int or None
        Size of the file.
    licence, cite : str
        Licence of the weights, and what to cite.
    side : int or None
        Side of the network's square input in pixels; None if the file itself says.
    extra : mapping
        `file`: name of the file on disk; `arch`: which architecture; `path`: where, if fixed;
        `card`: its model card.
    """

    name: str
    role: str
    build: str
    url: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    licence: str = "unknown"
    cite: str = ""
    side: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def file(self) -> str:
        """Name of the file on disk."""
        return str(self.extra.get("file") or PurePosixPath(self.url or self.name).name)

    @property
    def arch(self) -> str:
        """Key of `ARCHITECTURES`; "auto" if the file itself has to say."""
        return str(self.extra.get("arch", self.name))


ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "tiny": ("segmenter", "napari_samic.models.tiny.model:load"),
    "vit_b": ("segmenter", f"{_BUILD}:vit_b"),
    "vit_l": ("segmenter", f"{_BUILD}:vit_l"),
    "vit_h": ("segmenter", f"{_BUILD}:vit_h"),
    "mobile_sam": ("segmenter", f"{_BUILD}:mobile_sam"),
    "resnet50": ("encoder", f"{_ENCODER}:resnet50"),
    "timm": ("encoder", f"{_ENCODER}:from_file"),
    "auto": ("segmenter", f"{_BUILD}:from_file"),
}
"""Architecture to (role, build): what a user's file may be declared as."""


def user_spec(name: str, arch: str, sha256: str | None, file: str, path: Path | None) -> ModelSpec:
    """Row for a user's own file; `path` is set if it stays where it is."""
    role, build = ARCHITECTURES[arch]
    extra = {"file": file, "arch": arch, "path": path}
    return ModelSpec(name=name, role=role, build=build, sha256=sha256, extra=extra)


def _sam(name: str, file: str, sha256: str, size: int) -> ModelSpec:
    return ModelSpec(
        name=name,
        role="segmenter",
        build=f"{_BUILD}:{name}",
        url=f"{_META}/{file}",
        sha256=sha256,
        bytes=size,
        licence="Apache-2.0",
        cite=_SAM_PAPER,
        side=1024,
    )


OFFICIAL: tuple[ModelSpec, ...] = (
    ModelSpec(
        name="tiny",
        role="segmenter",
        build="napari_samic.models.tiny.model:load",
        licence="CC-BY-SA-4.0",
        cite="napari-samic, this package",
        extra={"file": "tiny.pt", "packaged": True, "card": "README.md"},
    ),
    _sam(
        "vit_b",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
    ),
    _sam(
        "vit_l",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1_249_524_607,
    ),
    _sam(
        "vit_h",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2_564_550_879,
    ),
    ModelSpec(
        name="medsam",
        role="segmenter",
        build=f"{_BUILD}:vit_b",
        url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        sha256="34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
        bytes=375_049_145,
        licence="CC-BY-4.0",
        cite="Ma et al., Segment anything in medical images, Nat. Commun. 15, 654, 2024, "
        "doi:10.1038/s41467-024-44824-z",
        side=1024,
        extra={"arch": "vit_b"},
    ),
    ModelSpec(
        name="mobile_sam",
        role="segmenter",
        build=f"{_BUILD}:mobile_sam",
        url=f"https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/{_MOBILE_COMMIT}"
        "/weights/mobile_sam.pt",
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        bytes=40_728_226,
        licence="Apache-2.0",
        cite="Zhang et al., Faster Segment Anything, 2023, arXiv:2306.14289",
        side=1024,
    ),
    ModelSpec(
        name="resnet50",
        role="encoder",
        build=f"{_ENCODER}:resnet50",
        url="https://download.pytorch.org/models/resnet50-0676ba61.pth",
        sha256="0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        bytes=102_530_333,
        licence="BSD-3-Clause (torchvision; trained on ImageNet, whose images are for research)",
        cite="He et al., Deep residual learning for image recognition, CVPR 2016; torchvision "
        "IMAGENET1K_V1",
        extra={"file": "resnet50-0676ba61.pth"},
    ),
)
