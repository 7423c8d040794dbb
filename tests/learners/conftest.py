"""On a GPU the tests compute in float32 too, and share prompts: they compare with other ways of computing the same."""

from __future__ import annotations

import pytest
import torch

from learners.model import loading, memory
from tests.learners.models import DEVICE


@pytest.fixture(autouse=True, scope="session")
def as_on_a_cpu() -> None:
    if DEVICE != "cpu":
        loading.compute_dtype = lambda device: torch.float32
        memory.WORTH_SHARING = 0
