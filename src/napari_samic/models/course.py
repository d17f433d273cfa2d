"""One training of a network: its moving mean, optimiser and rate.

Growing and tuning share it. Must not know what is learned.

The rate rises, then is constant: the moving mean takes the place of a fall, so that a training that
ends early is as good as one of that length.

Source: the weights' moving mean is Polyak and Juditsky's, SIAM J. Control 1992.
"""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from napari_samic.errors import TrainingError

RISE = 20
"""Steps until the rate is at its highest."""
Net = TypeVar("Net", bound=nn.Module)


def _rise(step: int) -> float:
    return min(1.0, (step + 1) / RISE)


class Course(Generic[Net]):
    """One training: the network, its moving mean, optimiser and rate.

    Parameters
    ----------
    net : nn.Module
        Changed in place.
    groups : list of dict
        Of parameters, as AdamW takes them.
    rates : list of float
        Highest, of each group.
    steps : int
    decay : float
        Weight decay.
    kept : float
        Of the moving mean at each step, once it has begun.
    """

    def __init__(
        self,
        net: Net,
        groups: list[dict[str, Any]],
        rates: list[float],
        steps: int,
        *,
        decay: float,
        kept: float,
    ) -> None:
        self.net, self.steps, self.done = net, steps, 0
        self.mean = copy.deepcopy(net)
        self._kept = kept
        self._optimiser = torch.optim.AdamW(groups, lr=rates[0], weight_decay=decay)
        for group, rate in zip(self._optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, _rise)

    def learn(self, loss: Tensor) -> float:
        """Take one step down; returns the loss.

        Raises
        ------
        TrainingError
            It is not finite.
        """
        if not bool(torch.isfinite(loss)):
            raise TrainingError("the loss is not finite any more. Take a lower rate.")
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._optimiser.step()
        self._schedule.step()
        self.done += 1
        self._follow(min(self._kept, self.done / (self.done + 9)))
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """All that the next step depends on; the tensors are those in use."""
        return {
            "done": self.done,
            "net": self.net.state_dict(),
            "mean": self.mean.state_dict(),
            "optimiser": self._optimiser.state_dict(),
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
        self.mean.load_state_dict(state["mean"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self.done = int(state["done"])

    @torch.no_grad()
    def _follow(self, kept: float) -> None:
        for mine, theirs in zip(
            self.mean.state_dict().values(), self.net.state_dict().values(), strict=True
        ):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - kept)
