"""What a link is made of, without one: numbered lines, framing, and how much of a version may be under way."""

from __future__ import annotations

import heapq
import random
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from learners import protocol
from learners.link import BulkWindow, Framing, LinkError, Unacknowledged, runs_of
from storage.records import Message, Sampling

LINES = st.lists(st.binary(max_size=200).map(lambda line: line.replace(b"\n", b" ") + b"\n"), max_size=10)


@given(st.integers(0, 10_000))
def test_whatever_is_lost_with_a_link_is_sent_again_once_and_in_order(seed: int) -> None:
    """A model of the other side, which takes a part of what is sent, forgets nothing, and acknowledges late."""
    drawn = random.Random(seed)
    lines = [b"%d\n" % i for i in range(drawn.randrange(40))]
    said, taken = Unacknowledged(), list[bytes]()
    left = list(lines)
    while left or said.waiting():
        for line in said.waiting()[: drawn.randrange(30)]:  # over a new link, which may break
            taken.append(line)
        fresh = drawn.randint(0, len(left))
        if len(taken) == said.last:  # all of the old is there: the new follows over the same link
            taken += left[:fresh]
        for line in left[:fresh]:
            said.add(line)
        left = left[fresh:]
        said.acknowledge(len(taken))  # as `attach` or `received` says
    assert taken == lines


def test_lines_that_were_never_sent_cannot_be_acknowledged() -> None:
    said = Unacknowledged()
    assert [said.add(b"a\n"), said.add(b"b\n")] == [1, 2]
    said.acknowledge(1)
    said.acknowledge(0)
    assert said.waiting() == [b"b\n"] and said.acknowledged == 1
    with pytest.raises(LinkError, match="line 3 was acknowledged, and 2 were sent"):
        said.acknowledge(3)


@given(LINES, st.sampled_from(["", "zlib"]), st.integers(1, 64), st.integers(0, 64))
def test_lines_come_out_as_they_went_in_however_the_bytes_are_cut(lines: list[bytes], compression: str, cut: int, early: int) -> None:
    there = Framing(compression)
    data = b"".join(there.pack(line) for line in lines)
    back, found = Framing(compression, data[:early]), []
    data = data[early:]
    found += back.unpack(b"")
    for start in range(0, len(data), cut):
        found += back.unpack(data[start : start + cut])
    assert [line + b"\n" for line in found] == lines
    assert there.said == back.heard == sum(map(len, lines))


@pytest.mark.parametrize("compression", ["", "zlib"])
def test_a_line_without_end_is_refused_before_it_fills_the_memory(compression: str) -> None:
    there, back = Framing(compression), Framing(compression)
    with pytest.raises(LinkError, match="longer than"):
        for _ in range(3):
            back.unpack(there.pack(b"x" * (protocol.MAX_LINE // 2)))


@pytest.mark.parametrize("damaged", [b"\xff" * 40, zlib.compress(b"other")])
def test_what_is_not_compressed_as_agreed_is_refused(damaged: bytes) -> None:
    with pytest.raises(LinkError, match="damaged"):
        Framing("zlib").unpack(damaged)


@given(st.sets(st.integers(0, 60)))
def test_runs_hold_the_same_numbers(numbers: set[int]) -> None:
    runs = runs_of(numbers)
    assert {n for first, last in runs for n in range(first, last + 1)} == numbers
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(runs)), "none touches the next"


class Line:
    """A simulated line of a rate and a delay, both ways, on which blobs are sent as a window allows."""

    def __init__(self, bytes_per_second: float, seconds: float) -> None:
        self.now, self.rate, self.seconds = 0.0, bytes_per_second, seconds
        self.free = 0.0
        self.window = BulkWindow(now=lambda: self.now)
        self.acknowledgements: list[tuple[float, int]] = []
        self.number, self.arrived = 0, 0

    def run(self, until: float, size: int = 5600) -> list[float]:
        """Seconds that one more byte would have to wait in the queue, at each sending."""
        waits = []
        while self.now < until:
            while self.window.open:
                waits.append(max(0.0, self.free - self.now))
                self.free = max(self.free, self.now) + size / self.rate
                self.number += 1
                self.window.sent(self.number, size)
                heapq.heappush(self.acknowledgements, (self.free + 2 * self.seconds, self.number))
            self.now, number = heapq.heappop(self.acknowledgements)
            self.window.acknowledged(number)
            self.arrived = number * size
        return waits


def test_a_version_leaves_room_for_tokens_and_uses_most_of_a_slow_line() -> None:
    line = Line(125_000, 0.1)
    line.run(20.0)
    before = line.arrived
    waits = line.run(60.0)
    assert max(waits) < 0.1, "what a token would wait for beside the line's own delay"
    assert line.arrived - before > 0.6 * 40 * 125_000


def test_a_version_is_not_held_up_by_a_fast_line() -> None:
    line = Line(125_000_000, 0.005)
    line.run(3.0)
    assert line.arrived > 10_000_000


def test_half_of_a_surrogate_pair_crosses_as_a_replacement_character() -> None:
    request = protocol.AnswerRequest(uid="a", seed=1, messages=(Message("user", "a\ud800b \ud83d\udc69"),))
    read = protocol.decode_command(protocol.encode(protocol.Generate(requests=(request,), sampling=Sampling(1.0, 8))))
    assert read == protocol.Generate(requests=(replace(request, messages=(Message("user", "a\ufffdb \U0001f469"),)),), sampling=Sampling(1.0, 8))
