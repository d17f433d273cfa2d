"""The ledger of a folder of results: never lost, never taken for another's; and what it tells."""

import os
import shutil
import signal
import sqlite3
from contextlib import closing, contextmanager

import numpy as np
import pytest
import tifffile
from toys import hidden_files, write_image

from napari_samic.core.errors import FormatError, InputError, OutputError
from napari_samic.core.types import Prompts, Segmentation, run_job
from napari_samic.io import files
from napari_samic.io.images import open_images
from napari_samic.io.normalize import Normalization
from napari_samic.pipeline import status
from napari_samic.pipeline.contact_sheet import ContactSheet
from napari_samic.pipeline.results.ledger import Ledger, settle
from napari_samic.pipeline.results.reader import read_results
from napari_samic.pipeline.results.writer import ResultsWriter
from napari_samic.pipeline.runner import BatchRunner, PlaneResult

GREY = Normalization((0.0,), (255.0,), (0,), 1)
POINT = Prompts(np.array([[2.0, 3.0]]), np.array([True]))


@pytest.fixture
def folder(tmp_path):
    """Six pictures of 10 x 12; the results go to `out` beside them."""
    for i in range(6):
        write_image(tmp_path / "images" / f"p{i}.png", np.full((10, 12), 20 * i, np.uint8))
    (tmp_path / "out").mkdir()
    return tmp_path


def answer(plane, image):
    labels = np.zeros(image.shape[:2], np.int32)
    labels[2:5, 2:6] = 1
    return PlaneResult(Segmentation(labels, [0.5], (POINT,)), "one object")


def job(folder, at=None, act=None, **options):
    """A run; at one image `act` comes before the answer."""

    def work(plane, image):
        if plane.label == at:
            act()
        return answer(plane, image)

    writer = ResultsWriter(folder / "out", "toy", GREY, {"job": "test"}, **options)
    return BatchRunner(open_images(folder / "images"), work, writer, ContactSheet(None)).run()


def fail():
    raise InputError("odd.")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed(folder, at):
    """A run that dies in a process of its own."""
    child = os.fork()
    if not child:
        run_job(job(folder, at, die))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def sql(folder, statement):
    with closing(sqlite3.connect(folder / "out" / "ledger.sqlite")) as db, db:
        return db.execute(statement).fetchall()


def told(folder, **options):
    """What `status` says: how many images are in each state that there is."""
    outcome = run_job(status(folder / "out", **options))
    states = ("failed", "unfinished", "edited", "missing")
    counts = {"done": len(outcome.done)} | {k: outcome.figures[k] for k in states}
    return {k: n for k, n in counts.items() if n}


def garble(path):
    path.write_bytes(b"no ledger" * 999)


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def foreign(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE images (mine)")


def later(path):
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 99")


def hostile(path):
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TRIGGER t AFTER INSERT ON notes BEGIN DELETE FROM images; END")


def link(path):
    path.symlink_to(path.rename(path.with_name("mine")))


@pytest.mark.parametrize("spoil", [garble, cut, foreign, later, hostile, link])
def test_ledger_that_is_not_ours_is_refused_and_left(folder, spoil):
    run_job(job(folder))
    path = folder / "out" / "ledger.sqlite"
    spoil(path)
    before = {p.name: p.read_bytes() for p in (folder / "out").iterdir()}
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"ledger\.sqlite"):
            job(folder, overwrite=overwrite)
    for read in (read_results, lambda out: run_job(status(out))):
        with pytest.raises(FormatError, match=r"ledger\.sqlite"):
            read(folder / "out")
    assert {p.name: p.read_bytes() for p in (folder / "out").iterdir()} == before


def test_labels_of_an_older_kind_of_record_are_left_alone(folder):
    run_job(job(folder))
    (folder / "out" / "ledger.sqlite").rename(folder / "out" / "provenance.json")
    before = {p.name: p.read_bytes() for p in (folder / "out").iterdir()}
    assert len(run_job(job(folder)).failures) == 6
    now = {p.name: p.read_bytes() for p in (folder / "out").iterdir()}
    assert {name: now[name] for name in before} == before


@contextmanager
def drive(statement_of):
    """Another statement is carried out in place of the one that asks for a write-ahead log."""

    class Drive(sqlite3.Connection):
        def execute(self, statement, *values):
            return super().execute(
                statement_of if statement.endswith("WAL") else statement, *values
            )

    connect = sqlite3.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Drive, **k))
        yield


def test_disk_that_is_full_stops_the_run_and_loses_nothing(folder):
    with drive("PRAGMA max_page_count = 8"), pytest.raises(OutputError, match="disk is full"):
        run_job(job(folder))
    done = len(list((folder / "out").glob("*.tif")))
    assert 0 < done < 6
    assert told(folder) == {"done": done, "unfinished": 6 - done}
    again = run_job(job(folder))
    assert (len(again.skipped), len(again.done)) == (done, 6 - done)
    assert told(folder, verify=True) == {"done": 6}


def test_file_system_without_shared_memory_does_without(folder):
    with drive("not carried out"):
        killed(folder, "p3")
        assert told(folder) == {"done": 3, "unfinished": 3}
        assert len(run_job(job(folder)).skipped) == 3
    assert told(folder) == {"done": 6}


def test_drive_that_knows_no_locks_is_written_to_and_read(folder, monkeypatch):
    class Drive(sqlite3.Connection):
        def execute(self, statement, *values):
            if statement.endswith("schema_version") or "sqlite_master" in statement:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_LOCK
                raise error
            return super().execute(statement, *values)

    connect = sqlite3.connect

    def connected(place, **options):
        is_unlocked = "nolock" in place or "immutable" in place
        return connect(place, factory=sqlite3.Connection if is_unlocked else Drive, **options)

    monkeypatch.setattr(sqlite3, "connect", connected)
    killed(folder, "p3")
    assert told(folder) == {"done": 3, "unfinished": 3}
    assert len(run_job(job(folder)).skipped) == 3
    assert told(folder, verify=True) == {"done": 6}


def test_clock_that_was_set_back_changes_nothing(folder):
    killed(folder, "p3")
    sql(folder, "UPDATE runs SET started = '2999-01-01T00:00:00+00:00'")
    for path in (folder / "out").glob("*.tif"):
        os.utime(path, (9e9, 9e9))
    again = run_job(job(folder))
    assert (again.skipped, again.done) == (("p0", "p1", "p2"), ("p3", "p4", "p5"))
    assert told(folder) == {"done": 6}


def test_second_process_is_refused_and_the_first_ledger_is_whole(folder):
    with files.claimed(folder / "out"):
        first = job(folder)
        next(first), next(first)
        child = os.fork()
        if not child:
            try:
                with files.claimed(folder / "out"):
                    os._exit(1)
            except OutputError as error:
                os._exit(7 if "another run" in str(error) else 2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        run_job(first)
    assert told(folder, verify=True) == {"done": 6}


def test_folder_that_vanishes_stops_the_run_and_is_not_filled_again(folder):
    with pytest.raises(OutputError, match="is gone"):
        run_job(job(folder, "p3", lambda: shutil.rmtree(folder / "out")))
    assert not list((folder / "out").glob("*.*"))


def test_attempts_at_an_image_are_counted_until_it_is_done(folder):
    for _ in range(2):
        run_job(job(folder, "p3", fail))
    assert sql(folder, "SELECT state, attempts, error FROM images WHERE label = 'p3'") == [
        ("failed", 2, "p3: odd.")
    ]
    run_job(job(folder))
    assert sql(folder, "SELECT label, attempts, error FROM images WHERE attempts > 1") == [
        ("p3", 3, None)
    ]


def test_ledger_keeps_what_was_found_and_what_it_is_made_of(folder):
    run_job(job(folder))
    columns = "state, score, objects, file, length(labels), json_extract(inputs, '$.pixels')"
    (row,) = sql(folder, f"SELECT {columns} FROM images WHERE label = 'p3'")
    pixels = read_results(folder / "out").images[3].prompts.sha256
    assert row == ("done", 0.5, 1, "p3.tif", 64, pixels)


def test_images_that_are_no_longer_expected_are_not_told(folder):
    run_job(job(folder, "p3", fail))
    (folder / "images" / "p3.png").unlink()
    run_job(job(folder))
    assert told(folder) == {"done": 5}


def test_settled_ledger_of_a_killed_run_is_one_file(folder):
    killed(folder, "p3")
    settle(folder / "out")
    assert [p.name for p in (folder / "out").glob("ledger*")] == ["ledger.sqlite"]
    assert told(folder) == {"done": 3, "unfinished": 3}


def test_job_without_label_files_leaves_no_ledger(folder):
    with closing(Ledger(folder / "out")) as ledger:
        ledger.begin({"run": {"job": "export"}})
        assert (folder / "out" / "ledger.sqlite").exists()
        ledger.end()
    assert not list((folder / "out").iterdir())


# What `status` says.


def test_status_of_a_run_that_goes_on_is_read_beside_it(folder):
    run = job(folder, "p1", fail)
    next(run), next(run), next(run)
    assert told(folder) == {"done": 2, "failed": 1, "unfinished": 3}
    figures = run_job(status(folder / "out")).figures
    assert figures["is_stopped"]
    assert [r["images"] for r in figures["runs"]] == [2]
    run_job(run)
    outcome = run_job(status(folder / "out"))
    assert outcome.failures == {"p1": "p1: odd."}
    assert not outcome.figures["is_stopped"]
    assert not hidden_files(folder / "out")


def test_status_tells_labels_that_are_edited_or_gone(folder):
    run_job(job(folder))
    (folder / "out" / "p1.tif").unlink()
    tifffile.imwrite(folder / "out" / "p2.tif", np.ones((10, 12), np.int32))
    outcome = run_job(status(folder / "out"))
    assert told(folder) == {"done": 4, "edited": 1, "missing": 1}
    assert outcome.failures.keys() == {"p1", "p2"}


def test_change_that_keeps_time_and_size_is_seen_by_verifying(folder):
    run_job(job(folder))
    path = folder / "out" / "p2.tif"
    before, content = path.stat(), path.read_bytes()
    with path.open("r+b") as file:
        file.write(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert told(folder) == {"done": 6}
    assert told(folder, verify=True) == {"done": 5, "edited": 1}


def test_copy_of_a_folder_is_as_it_was_made(folder):
    run_job(job(folder))
    shutil.copytree(folder / "out", folder / "copy" / "out", copy_function=shutil.copyfile)
    assert told(folder / "copy") == {"done": 6}


def test_status_of_a_folder_without_a_ledger_is_refused(folder):
    with pytest.raises(InputError, match="no ledger"):
        run_job(status(folder / "images"))
