"""Capturing a step on a real GPU: what cannot be captured leaves everything as it was, and what can be replayed computes the same."""

from __future__ import annotations

import pytest
import torch

from learners.model.cuda_graph import capture

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


def test_a_step_that_reads_from_the_device_is_refused_and_nothing_is_stuck() -> None:
    x = torch.ones(4, device="cuda")

    def reads() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return x * float(x.sum()), x, x

    stream = torch.cuda.current_stream()
    with pytest.raises(RuntimeError):
        capture(reads, lambda: None, [x])
    assert torch.cuda.current_stream() == stream
    torch.nn.init.kaiming_uniform_(torch.empty(4, 4, device="cuda"))  # draws random numbers
    torch.cuda.synchronize()

    def adds() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return x.add_(1), x, x

    replay = capture(adds, lambda: x.fill_(1.0), [x])  # type: ignore[arg-type, return-value]
    assert [float(replay()[0][0]) for _ in range(3)] == [2.0, 3.0, 4.0]
