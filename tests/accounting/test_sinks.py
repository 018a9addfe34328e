"""Lines reach the file, or are counted; the caller never waits."""

import os
import threading
from pathlib import Path

import pytest

from trioproxy.accounting import LineSink, NullSink


def test_lines_are_written_in_order(tmp_path: Path) -> None:
    """One line each, in their order, and all of them when the sink closes."""
    sink = LineSink.to_file(tmp_path / "records")
    for number in range(2_000):
        sink.write(b"%d" % number)
    sink.close()
    assert (tmp_path / "records").read_text().split() == [str(number) for number in range(2_000)]
    assert sink.dropped == 0


def test_file_is_private(tmp_path: Path) -> None:
    """Who talked to whom is for the owner of the file alone."""
    LineSink.to_file(tmp_path / "records").close()
    assert (tmp_path / "records").stat().st_mode & 0o777 == 0o600


def test_unusable_file_is_an_error_at_once(tmp_path: Path) -> None:
    """A file that cannot be opened is told when the server starts, not later."""
    with pytest.raises(FileNotFoundError):
        LineSink.to_file(tmp_path / "missing" / "records")


def test_case_107_full_disk_is_counted_and_survived() -> None:
    """Case 107: the disk is full: lines are lost and counted, nothing raises."""
    sink = LineSink(lambda: os.open("/dev/full", os.O_WRONLY))
    sink.write(b"lost")
    sink.write(b"lost as well")
    sink.close()
    assert sink.dropped == 2


def test_case_107_reader_gone(tmp_path: Path) -> None:
    """Case 107: nobody reads the pipe any more."""
    reading, writing = os.pipe()
    os.close(reading)
    sink = LineSink(lambda: writing)
    sink.write(b"lost")
    sink.close()
    assert sink.dropped == 1


def test_case_107_stalled_reader_does_not_block(tmp_path: Path) -> None:
    """Case 107: nobody reads, the pipe and the queue are full: the caller goes on, the rest is counted."""
    reading, writing = os.pipe()
    sink = LineSink(lambda: writing, queue_max=10)
    sink.CLOSE_WAIT_S = 0.01  # nobody will read
    line = b"x" * 65_536
    for _ in range(100):
        sink.write(line)
    assert sink.dropped >= 100 - 10 - 1 - 10  # in the queue, in the pipe, in a batch on its way
    sink.close()
    os.close(reading)


def test_line_after_a_torn_one_begins_anew(tmp_path: Path) -> None:
    """What is written after a failed write starts on a line of its own."""
    state = threading.Event()
    path = tmp_path / "records"
    descriptors = iter([os.open("/dev/full", os.O_WRONLY), os.open(path, os.O_WRONLY | os.O_CREAT)])
    sink = LineSink(lambda: next(descriptors))
    sink.write(b"lost")
    while not sink.dropped:
        state.wait(0.001)
    sink.reopen()
    sink.write(b"kept")
    sink.close()
    assert path.read_bytes() == b"\nkept\n"


def test_reopen_follows_a_rotated_file(tmp_path: Path) -> None:
    """After a rotation the new file is written."""
    path = tmp_path / "records"
    sink = LineSink.to_file(path)
    sink.write(b"before")
    wait = threading.Event()
    while not path.read_bytes():
        wait.wait(0.001)
    path.rename(tmp_path / "records.1")
    sink.reopen()
    sink.write(b"after")
    sink.close()
    assert (tmp_path / "records.1").read_bytes() == b"before\n"
    assert path.read_bytes() == b"after\n"


def test_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    """A folder that has gone away loses no line."""
    folder = tmp_path / "folder"
    folder.mkdir()
    sink = LineSink.to_file(folder / "records")
    (folder / "records").rename(tmp_path / "kept")
    folder.rmdir()
    sink.reopen()
    sink.write(b"line")
    sink.close()
    assert (tmp_path / "kept").read_bytes() == b"line\n"


def test_null_sink_keeps_nothing() -> None:
    """`records = "none"`."""
    sink = NullSink()
    sink.write(b"line")
    sink.reopen()
    sink.close()
    assert sink.dropped == 0
