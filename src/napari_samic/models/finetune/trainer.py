"""One training of a network: loss to better weights, and the exponential moving average of these.

The learner, the encoder that is fine-tuned and the mask decoder are trained by it. Must not know
what is learned.

Where there is a mean, the rate may rise and then be constant: the mean takes the place of a fall,
so that a training that ends early is as good as one of that length.

Source: the weights' moving mean is Polyak and Juditsky's, SIAM J. Control 1992.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from napari_samic.core.errors import TrainingError

Net = TypeVar("Net", bound=nn.Module)


class Trainer(Generic[Net]):
    """The trainer of a network: its optimizer, learning rate, and the EMA of its weights.

    EMA (exponential moving average): after each step the average moves a little towards the new
    weights. The average is what is kept, as it changes less from step to step than they do.

    Parameters
    ----------
    net : nn.Module
        Changed in place.
    optimizer : Optimizer
        Of its parameters, with the highest rate of each group.
    ema_decay : float, optional
        Share of the moving average that stays at each step, after its first ones; without it there
        is none.
    warmup : int
        Steps until the rate is at its highest.
    max_norm : float
        Longer gradients are cut to this length.

    Attributes
    ----------
    step : int
        Steps so far.
    """

    def __init__(
        self,
        net: Net,
        optimizer: torch.optim.Optimizer,
        *,
        ema_decay: float | None = None,
        warmup: int = 1,
        max_norm: float = math.inf,
    ) -> None:
        self.net, self.optimizer, self.step = net, optimizer, 0
        self._max_norm = max_norm
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / warmup)
        )
        self._average: AveragedModel | None = None
        if ema_decay is not None:
            self._average = AveragedModel(
                net, multi_avg_fn=_ema_update(ema_decay), use_buffers=True
            )
            self._average.n_averaged += 1  # the first weights count, too

    @property
    def ema_model(self) -> Net:
        """The network with the moving average of the weights."""
        return self.net if self._average is None else cast(Net, self._average.module)

    def training_step(self, loss: Tensor) -> float:
        """Take one step down; returns the loss.

        Raises
        ------
        TrainingError
            It is not finite.
        """
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                "the loss is not finite any more. Train with a lower learning rate."
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._max_norm < math.inf:
            nn.utils.clip_grad_norm_(self.net.parameters(), self._max_norm)
        self.optimizer.step()
        self._schedule.step()
        self.step += 1
        if self._average is not None:
            self._average.update_parameters(self.net)
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """All that the next step depends on; the tensors are those in use."""
        average = {} if self._average is None else self._average.state_dict()
        return {
            "done": self.step,
            "net": self.net.state_dict(),
            "average": average,
            "optimiser": self.optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken.

        Raises
        ------
        KeyError, RuntimeError, ValueError
            It is of another network.
        """
        self.net.load_state_dict(state["net"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self.step = int(state["done"])


def _ema_update(ema_decay: float) -> Any:
    """Moves the average of weights, faster at first; for `AveragedModel`."""

    @torch.no_grad()
    def moved(means: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        decay = min(ema_decay, int(count) / (int(count) + 9))
        for mean, weight in zip(means, weights, strict=True):
            if mean.is_floating_point():
                mean.lerp_(weight, 1 - decay)

    return moved
