"""Click on the references of the packaged sample sets as a simulated user does, for the demo.

    python -m pretrain.demo_prompts

To be run again when the packaged segmenter changes: its answers decide where the next click falls.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from napari_samic import pipeline
from napari_samic.core.settings import AnnotateSettings
from napari_samic.core.types import run_job
from napari_samic.io import writers
from napari_samic.sample_data import samples

DATA = Path(__file__).parents[1] / "src" / "napari_samic" / "data"


def main() -> None:
    for name in samples.NAMES:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for sample in samples.sample_set(name):
                if sample.is_reference:
                    writers.write_png(root / "images" / f"{sample.name}.png", sample.image)
                    writers.write_labels(root / "masks" / f"{sample.name}.tif", sample.truth)
            outcome = run_job(
                pipeline.annotate(
                    root / "images",
                    masks=root / "masks",
                    simulate=True,
                    out=root / "out",
                    settings=AnnotateSettings(max_clicks=4),
                )
            )
            content = json.loads((root / "out" / "prompts.json").read_text())
        for image in content["images"]:
            image["file"], image["sha256"] = "", ""
        (DATA / f"{name}.prompts.json").write_text(json.dumps(content, indent=1) + "\n")
        print(name, outcome.figures)


if __name__ == "__main__":
    main()
