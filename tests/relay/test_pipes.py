"""Pipes for splice: reused when empty, never with somebody's bytes in them, and never more than allowed."""

import os
from pathlib import Path

import pytest

from tests.wires import open_descriptors
from trioproxy.relay.pipes import PIPE_BYTES, PipePool


def test_an_empty_one_is_used_again() -> None:
    """And holds a MiB; without privilege it may be less, but never nothing."""
    pool = PipePool(4, lambda: 100_000)
    first = pool.take()
    assert first is not None
    assert 4_096 <= first.capacity <= PIPE_BYTES
    pool.give_back(first, empty=True)
    assert pool.take() is first
    pool.give_back(first, empty=True)
    pool.close()


def test_one_with_bytes_in_it_is_closed() -> None:
    """What was for one target must never reach another."""
    before = open_descriptors()
    pool = PipePool(4, lambda: 100_000)
    pipe = pool.take()
    assert pipe is not None
    os.write(pipe.write_end, b"for somebody who is gone")
    pool.give_back(pipe, empty=False)
    assert open_descriptors() == before
    again = pool.take()
    assert again is not None
    with pytest.raises(BlockingIOError):
        os.read(again.read_end, 1)
    pool.give_back(again, empty=True)
    pool.close()
    assert open_descriptors() == before


def test_no_more_than_allowed() -> None:
    """Then there is none, until one comes back."""
    pool = PipePool(2, lambda: 100_000)
    one, two = pool.take(), pool.take()
    assert one is not None
    assert two is not None
    assert pool.take() is None
    pool.give_back(one, empty=True)
    assert pool.take() is one
    for pipe in (one, two):
        pool.give_back(pipe, empty=True)
    pool.close()


def test_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE is no error: the relay copies."""

    def fail(_flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", fail)
    pool = PipePool(2, lambda: 100_000)
    assert pool.take() is None
    assert pool.in_use == 0


def test_reserve_of_descriptors_is_kept() -> None:
    """A pipe whose descriptors would eat into the reserve is not used."""
    before = open_descriptors()
    pool = PipePool(2, lambda: 2)
    assert pool.take() is None
    assert pool.in_use == 0
    assert open_descriptors() == before


def test_spare_ones_are_few() -> None:
    """After a rush not all are kept open."""
    before = open_descriptors()
    pool = PipePool(40, lambda: 100_000)
    pipes = [pool.take() for _ in range(40)]
    for pipe in pipes:
        assert pipe is not None
        pool.give_back(pipe, empty=True)
    assert open_descriptors() - before == 2 * 16
    pool.close()
    assert open_descriptors() == before


def test_smaller_pipe_where_the_kernel_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user's pipes share 64 MiB: beyond that they stay as they are."""
    real = __import__("fcntl").fcntl

    def fcntl(descriptor: int, command: int, argument: int = 0) -> int:
        if argument == PIPE_BYTES:
            raise PermissionError
        result: int = real(descriptor, command, argument)
        return result

    monkeypatch.setattr("trioproxy.relay.pipes.fcntl.fcntl", fcntl)
    pool = PipePool(1, lambda: 100_000)
    pipe = pool.take()
    assert pipe is not None
    default = 65_536 if Path("/proc/sys/fs/pipe-max-size").exists() else pipe.capacity
    assert 4_096 <= pipe.capacity <= default
    pool.give_back(pipe, empty=True)
    pool.close()
