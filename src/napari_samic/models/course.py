"""One training of a network: its moving mean, optimiser and rate.

Growing and tuning share it. Must not know what is learned.

Source: the weights' moving mean is Polyak and Juditsky's, SIAM J. Control 1992; the rate is Smith
and Topin's one cycle, arXiv 1708.07120.
"""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from napari_samic.errors import TrainingError

Net = TypeVar("Net", bound=nn.Module)


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
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, rates, total_steps=steps + 1, pct_start=0.15
        )

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

    @torch.no_grad()
    def _follow(self, kept: float) -> None:
        for mine, theirs in zip(
            self.mean.state_dict().values(), self.net.state_dict().values(), strict=True
        ):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - kept)
