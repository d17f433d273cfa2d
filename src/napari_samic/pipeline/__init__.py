"""The use cases as jobs: generators that yield `JobProgress` and return a result.

One module a use case. The shell loops over them with a bar, the window relays them in a worker, a
script calls `run_job(job)`.
"""

from napari_samic.pipeline.accept import accept
from napari_samic.pipeline.annotate import annotate
from napari_samic.pipeline.common import JobResult
from napari_samic.pipeline.demo import demo
from napari_samic.pipeline.evaluate import evaluate
from napari_samic.pipeline.export import export
from napari_samic.pipeline.precompute import precompute
from napari_samic.pipeline.results.status import status
from napari_samic.pipeline.segment import segment
from napari_samic.pipeline.train import train

__all__ = [
    "JobResult",
    "accept",
    "annotate",
    "demo",
    "evaluate",
    "export",
    "precompute",
    "segment",
    "status",
    "train",
]
