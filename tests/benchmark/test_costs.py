"""What learners cost: which are timed, in which order, and what is told of them."""

import itertools

import numpy as np
import pytest

from napari_samic.benchmark import costs
from napari_samic.core.types import run_job
from napari_samic.models.sam.segmenter import load_segmenter
from napari_samic.models.samic.hsnet import HyperCorrelationLearner

BLANK = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture
def segmenter(toy):
    return load_segmenter(toy, device="cpu")


def test_learners_are_timed_in_turn_after_one_run_that_does_not_count(segmenter, monkeypatch):
    seen = []

    def timed(learner, pyramid):
        seen.append(learner.layers)
        run_of_it = seen.count(learner.layers) - 1
        times = [9000.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 800.0]  # the first one warms up
        return learner.layers * times[run_of_it]

    monkeypatch.setattr(costs, "milliseconds", timed)
    told = run_job(costs.measure(("layers-1", "paper"), segmenter))
    assert seen == [1, 3] * 8
    assert {way: cost["ms"] for way, cost in told.ways.items()} == {"layers-1": 4.0, "paper": 12.0}
    assert told.turns == 7


def test_parameters_are_those_of_each_ways_own_learner(segmenter):
    told = run_job(costs.measure(("layers-2", "samic-first", "prototypes", "kld"), segmenter))
    inch = tuple(reversed([len(level) for level in segmenter.taps(BLANK).levels]))
    wanted = {
        way: sum(p.numel() for p in HyperCorrelationLearner(inch, layers).parameters())
        for way, layers in (("layers-2", 2), ("samic-first", 3), ("kld", 3))
    }
    assert {way: cost["parameters"] for way, cost in told.ways.items()} == wanted
    assert all(cost["ms"] > 0 for cost in told.ways.values())
    assert len(told.grids) == 3


def test_ways_without_a_learner_are_not_timed(segmenter, monkeypatch):
    monkeypatch.setattr(costs, "milliseconds", lambda *args: pytest.fail("was timed"))
    assert run_job(costs.measure(("prototypes", "persam"), segmenter)) == costs.Costs()


def test_learners_are_not_timed_on_zeros(segmenter, monkeypatch):
    seen, real = [], HyperCorrelationLearner.forward

    def forward(self, pyramid):
        seen.append([bool(level.any()) for level in pyramid])
        return real(self, pyramid)

    monkeypatch.setattr(HyperCorrelationLearner, "forward", forward)
    run_job(costs.measure(("samic-first",), segmenter))
    assert seen == [[True] * 3] * len(seen)
    assert seen


def test_job_may_be_closed_at_each_turn(segmenter):
    job = costs.measure(("paper",), segmenter)
    steps = list(itertools.islice(job, 2))
    job.close()
    assert [(step.done, step.total) for step in steps] == [(1, 7), (2, 7)]


def test_table_has_a_row_for_each_way():
    table = costs.markdown(
        {"paper": {"parameters": 2573794, "ms": 31.42}, "cc": {"parameters": 9, "ms": 0.04}}
    )
    rows = table.splitlines()
    assert rows[0].count("|") == rows[2].count("|") == 4
    assert rows[2:] == ["| paper | 2,573,794 | 31.4 |", "| cc | 9 | 0.0 |"]
