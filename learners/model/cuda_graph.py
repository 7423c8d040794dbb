"""The only CUDA code of the sampler: a step captured as one graph, and the stream that drawing has before training.

What torch.cuda.graphs asks of a captured step, and where it is kept: tensors that it reads and writes are the same at each replay (static_decoder.py
makes them once); a few warm-up runs on the capturing stream come first, so that kernels are chosen and workspaces made before; nothing in it waits
for the device or reads from the host; random numbers are not drawn in it but read from a tensor that was filled before. Other threads allocate
meanwhile, so only this thread's calls are checked ("thread_local"). The kernels keep the priority of the stream that this thread works on.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_ONE = threading.RLock()
"""Held by the thread that captures: what begins a capture waits for the whole device, which fails while another thread is within one; so does what
gives memory back."""
_own = threading.local()
WARM_UPS = 3
HIGH_PRIORITY = -1
"""Of CUDA's streams; 0 is the usual one."""


def capture(step: Callable[[], T], restore: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], T]:
    """What replays `step` as one graph and gives what it gave, in the same tensors each time. `restore` takes back what running the step changed.
    RuntimeError where it cannot be captured. One thread at a time: within the step nothing may wait for another."""
    with _alone():
        return _captured(step, restore, changed[0].device)


def capturing() -> bool:
    """Whether this thread is within `capture`."""
    return getattr(_own, "capturing", False)


def empty_cache() -> None:
    """Give memory that torch keeps and nothing uses back to the device. torch refuses to while any thread is within a capture."""
    with _ONE:
        torch.cuda.empty_cache()


def kept_in_graphs(device: torch.device) -> int:
    """Bytes that are set aside for graphs: free between replays, and of no use to anything else."""
    return sum([*_kept.get(device, {}).values()])


_kept: dict[torch.device, dict[int, int]] = {}


@contextmanager
def _alone() -> Iterator[None]:
    with _ONE:
        _own.capturing = True
        try:
            yield
        finally:
            _own.capturing = False


def _captured(step: Callable[[], T], restore: Callable[[], None], device: torch.device) -> Callable[[], T]:
    stream = _capturing_stream(device, torch.cuda.current_stream(device).priority)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                step()
                restore()
    finally:  # after one that failed too: what it launched may still write to tensors that others read and free
        torch.cuda.current_stream(device).wait_stream(stream)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    graph = torch.cuda.CUDAGraph()
    with _left_as_it_was(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        outputs = step()  # is recorded, not run
    grown = max(0, torch.cuda.memory_reserved(device) - before)  # also by what other threads took meanwhile: rather too much than too little

    def replay() -> T:
        graph.replay()
        return outputs

    kept = _kept.setdefault(device, {})
    kept[id(replay)] = grown
    weakref.finalize(replay, kept.pop, id(replay), 0)
    return replay


def _capturing_stream(device: torch.device, priority: int) -> torch.cuda.Stream:
    """Of this thread, the same each time: cuBLAS keeps a workspace for each stream that it was used on, of 8 MB or 32, for good."""
    streams: dict[tuple[torch.device, int], torch.cuda.Stream] = _own.__dict__.setdefault("streams", {})
    if (device, priority) not in streams:
        streams[device, priority] = torch.cuda.Stream(device, priority=priority)
    return streams[device, priority]


@contextmanager
def _left_as_it_was(device: torch.device) -> Iterator[None]:
    """A capture that fails would leave this thread on its stream, and the device's random numbers to replays alone."""
    with torch.cuda.stream(torch.cuda.current_stream(device)):
        try:
            yield
        except BaseException:
            generator = torch.cuda.default_generators[torch.device(device).index or 0]
            generator.graphsafe_set_state(generator.clone_state())
            raise


@contextmanager
def priority_stream(device: torch.device) -> Iterator[None]:
    """What this thread launches while the block runs goes before other threads' work, where the device can do that."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)  # what was loaded on the usual stream is there
    with torch.cuda.stream(torch.cuda.Stream(device, priority=HIGH_PRIORITY)):
        yield
