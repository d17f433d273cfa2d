"""OpenVINO as the engine of frozen networks on a CPU (the extra `openvino`). Knows no image."""

from __future__ import annotations

import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from napari_samic.core.errors import ModelError


class OpenVinoNetwork:
    """A network as OpenVINO computes it, in 16 bits where the processor has them.

    It is compiled for each shape that it meets, which takes two seconds, and may be asked from
    several threads; each computes with as many threads as torch would.

    Parameters
    ----------
    net : nn.Module
        In eval mode, on the CPU; takes one tensor, answers one or several.

    Raises
    ------
    ModelError
        When asked: OpenVINO can't compute the network.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._models: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._aside = ThreadPoolExecutor(1)

    def __call__(self, x: Tensor) -> list[Tensor]:
        """All answers to (B, C, h, w) float32.

        Never computed in the main thread: OpenVINO leaves the registers of Intel's matrix unit in
        use, and a signal there, as Ctrl-C, then ends a process that has `faulthandler` enabled.
        """
        if threading.current_thread() is threading.main_thread():
            return self._aside.submit(self._answers, x).result()
        return self._answers(x)

    def _answers(self, x: Tensor) -> list[Tensor]:
        requests = self._local.__dict__.setdefault("requests", {})
        shape = tuple(x.shape)
        if shape not in requests:
            with self._lock:
                requests[shape] = self._request(x)
        answers = requests[shape].infer([x.contiguous().numpy()])
        return [torch.from_numpy(answers[i]) for i in range(len(answers))]

    def _request(self, x: Tensor) -> Any:
        shape = tuple(x.shape)
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,
        }
        try:
            if shape not in self._models:
                self._models[shape] = _converted(self._net, x)
            compiled = _openvino().Core().compile_model(self._models[shape], "CPU", config)
            return compiled.create_infer_request()
        except Exception as error:  # of many kinds, also openvino's own
            reason = " ".join(str(error).split())[:120]
            msg = f'device "openvino": can\'t compute this network ({reason}). Use auto.'
            raise ModelError(msg) from error


def _converted(net: nn.Module, x: Tensor) -> Any:
    """An OpenVINO model for inputs of the shape of `x`."""
    openvino = _openvino()
    with warnings.catch_warnings(), torch.no_grad(), torch.autocast("cpu", enabled=False):
        warnings.simplefilter("ignore")  # of the tracer: shapes are fixed, as is meant
        traced = torch.jit.trace(net, x.clone(), check_trace=False)  # type: ignore[no-untyped-call]
        shape = openvino.PartialShape(list(x.shape))
        return openvino.convert_model(traced, example_input=x.clone(), input=[shape])


def _openvino() -> Any:
    """The package, without the part that tells its makers of each import over the network."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
