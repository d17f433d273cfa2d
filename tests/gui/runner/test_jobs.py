"""Jobs in napari's worker: steps, results, cancel, errors; no viewer."""

import sys
import threading

import pytest

pytest.importorskip("napari")
from napari_samic.core.errors import InputError, TrainingError
from napari_samic.core.types import JobProgress
from napari_samic.gui.runner import jobs as room
from napari_samic.gui.runner.jobs import Calls, Jobs


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    monkeypatch.setattr(room, "load_torch", lambda: None)


@pytest.fixture
def shown(monkeypatch):
    seen = []
    monkeypatch.setattr(room, "show", seen.append)
    return seen


class Heard:
    """Records calls and the thread they came in."""

    def __init__(self, **more):
        self.events, self.threads = [], set()
        self.calls = Calls(
            on_step=lambda step: self.hear(step.done), on_done=lambda r: self.hear(("done", r)),
            on_end=lambda: self.hear("end"), **more,
        )  # fmt: skip

    def hear(self, what):
        self.events.append(what)
        self.threads.add(threading.current_thread())

    @property
    def ended(self):
        return "end" in self.events


def count_to(n):
    for i in range(n):
        yield JobProgress(i, n)
    return n


def test_steps_that_come_while_one_is_told_wait_for_it(qtbot):
    from qtpy.QtWidgets import QApplication

    heard, jobs, depth, deepest = [], Jobs(), [0], [0]

    def on_step(step):
        depth[0] += 1
        deepest[0] = max(deepest[0], depth[0])
        QApplication.processEvents()  # as napari's bar does while it draws
        heard.append(step.done)
        depth[0] -= 1

    calls = Calls(on_step=on_step, on_done=heard.append, on_end=lambda: heard.append("end"))
    jobs.start(count_to(300), calls)
    qtbot.waitUntil(lambda: "end" in heard)
    assert heard == [*range(300), 300, "end"]
    assert deepest[0] == 1


def test_steps_and_result_arrive_in_order_in_the_main_thread(qtbot):
    heard, jobs = Heard(), Jobs()
    jobs.start(count_to(3), heard.calls)
    qtbot.waitUntil(lambda: heard.ended)
    assert heard.events == [0, 1, 2, ("done", 3), "end"]
    assert heard.threads == {threading.main_thread()}
    assert jobs.count == 0


def test_job_runs_in_another_thread(qtbot):
    threads = []

    def job():
        threads.append(threading.current_thread())
        yield JobProgress(0, 1)

    heard = Heard()
    Jobs().start(job(), heard.calls)
    qtbot.waitUntil(lambda: heard.ended)
    assert threads[0] is not threading.main_thread()


def test_cancel_closes_the_generator_and_calls_nothing_but_the_end(qtbot):
    closed = []
    go_on = threading.Event()

    def job():
        try:
            yield JobProgress(0, 2)
            go_on.wait(10)
            yield JobProgress(1, 2)
            yield JobProgress(2, 2)
        finally:
            closed.append(True)

    heard, jobs = Heard(), Jobs()
    handle = jobs.start(job(), heard.calls)
    qtbot.waitUntil(lambda: heard.events == [0])
    handle.cancel()
    go_on.set()
    qtbot.waitUntil(lambda: heard.ended)
    assert closed == [True]
    assert heard.events == [0, "end"]


@pytest.mark.parametrize(
    ("title", "wait_s", "trims"),
    [
        pytest.param("SAMIC: training", -1.0, 3, id="long_after_its_steps_and_its_end"),
        pytest.param("SAMIC: encoding", 60.0, 0, id="short"),
        pytest.param("", -1.0, 0, id="click"),
    ],
)
def test_long_job_gives_back_the_memory_that_it_freed(qtbot, monkeypatch, title, wait_s, trims):
    seen = []
    monkeypatch.setattr(room, "TRIM_S", wait_s)
    monkeypatch.setattr(room, "malloc_trim", lambda: seen.append(threading.current_thread()))
    heard = Heard()
    Jobs().start(count_to(2), heard.calls, title=title)
    qtbot.waitUntil(lambda: heard.ended)
    assert len(seen) == trims
    assert threading.main_thread() not in seen


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries give back by themselves")
def test_what_is_freed_in_small_pieces_leaves_the_process():
    psutil = pytest.importorskip("psutil")
    resident = lambda: psutil.Process().memory_info().rss / 2**20  # noqa: E731
    pieces = [b"." * 2**14 for _ in range(12_800)]  # 200 MB
    last = b"." * 2**14  # above them, so that the heap can't simply shrink
    del pieces
    before = resident()
    room.malloc_trim()
    assert before - resident() > 150
    assert last


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(InputError("no such image."), id="ours"),
        pytest.param(TrainingError("it diverged."), id="ours_and_a_runtime_error"),
        pytest.param(RuntimeError("mat1 and mat2"), id="torch"),
        pytest.param(ZeroDivisionError("a bug"), id="bug"),
    ],
)
def test_error_is_shown_once_and_the_job_ends(qtbot, shown, error):
    def job():
        yield JobProgress(0, 1)
        raise error

    heard = Heard()
    Jobs().start(job(), heard.calls)
    qtbot.waitUntil(lambda: heard.ended)
    assert shown == [error]
    assert heard.events == [0, "end"]


def test_error_that_is_dealt_with_is_not_shown(qtbot, shown):
    dealt = []

    def job():
        yield JobProgress(0, 1)
        raise InputError("no such image.")

    heard = Heard(on_error=lambda error: dealt.append(error) or True)
    Jobs().start(job(), heard.calls)
    qtbot.waitUntil(lambda: heard.ended)
    assert len(dealt) == 1
    assert not shown


def test_nothing_is_called_after_close(qtbot):
    go_on = threading.Event()
    over = []

    def job():
        try:
            go_on.wait(10)
            yield JobProgress(0, 1)
        finally:
            over.append(True)

    heard, jobs = Heard(), Jobs()
    jobs.start(job(), heard.calls)
    jobs.close()
    go_on.set()
    qtbot.waitUntil(lambda: jobs.count == 0)
    assert heard.events == []


def test_error_of_ours_is_a_line_and_a_bug_has_its_traceback(monkeypatch):
    from napari.utils import notifications

    lines, bugs = [], []
    monkeypatch.setattr(notifications, "show_error", lines.append)
    monkeypatch.setattr(
        notifications.notification_manager, "receive_error", lambda *parts: bugs.append(parts)
    )
    room.show(InputError("cell.tif: can't be read."))
    assert (lines, bugs) == (["cell.tif: can't be read."], [])
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError as error:
        room.show(error)
    assert bugs[0][0] is ZeroDivisionError
    assert bugs[0][2] is not None


def test_hidden_module_is_not_found_and_comes_back():
    with room.hidden_module("colorsys_that_nobody_has"):
        assert sys.modules["colorsys_that_nobody_has"] is None
    assert "colorsys_that_nobody_has" not in sys.modules
    with room.hidden_module("sys"):
        assert sys.modules["sys"] is sys


def test_cancelled_job_tidies_up_in_its_own_thread(qtbot):
    """What it writes then, tables of many images, would hold the window up."""
    heard, jobs, where = Heard(), Jobs(), []
    gate = threading.Event()

    def job():
        try:
            yield JobProgress(0, 2)
            gate.wait()
            yield JobProgress(1, 2)
        finally:
            where.append(threading.current_thread())

    handle = jobs.start(job(), heard.calls)
    qtbot.waitUntil(lambda: heard.events == [0])
    handle.cancel()
    gate.set()
    qtbot.waitUntil(lambda: heard.ended)
    assert len(where) == 1
    assert where[0] is not threading.main_thread()
    assert heard.events == [0, "end"]


def test_error_while_a_cancelled_job_tidies_up_is_shown(qtbot, shown):
    heard, jobs = Heard(), Jobs()

    def job():
        try:
            while True:
                yield JobProgress(0, 2)
        finally:
            raise InputError("disk full.")

    handle = jobs.start(job(), heard.calls)
    qtbot.waitUntil(lambda: len(heard.events) > 1)
    handle.cancel()
    qtbot.waitUntil(lambda: heard.ended)
    assert [str(error) for error in shown] == ["disk full."]


def test_bar_begins_anew_with_each_part_of_a_job():
    from napari.utils import progress

    bar = progress(total=0)
    for done, total in ((0, 3), (2, 3), (0, 5), (1, 5)):
        room.update_bar(bar, JobProgress(done, total, "part"), "job")
        assert (bar.n, bar.total) == (done, total)
    bar.close()


def test_click_does_not_wait_for_jobs_on_every_core(qtbot, monkeypatch):
    from qtpy.QtCore import QThreadPool

    pool, before = QThreadPool.globalInstance(), QThreadPool.globalInstance().maxThreadCount()
    pool.setMaxThreadCount(2)
    jobs, gate, quick = Jobs(), threading.Event(), Heard()

    def long():
        yield JobProgress(0, 1)
        gate.wait(30)

    for _ in range(3):
        jobs.start(long())
    jobs.start(count_to(1), quick.calls)
    try:
        qtbot.waitUntil(lambda: quick.ended, timeout=5000)
    finally:
        gate.set()
        qtbot.waitUntil(lambda: jobs.count == 0)
        pool.setMaxThreadCount(before)
