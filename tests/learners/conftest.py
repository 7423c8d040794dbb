"""On a GPU the tests compute in float32 too: they compare with other ways of computing the same."""

from __future__ import annotations

import pytest
import torch

from learners.model import loading
from tests.learners.models import DEVICE


@pytest.fixture(autouse=True, scope="session")
def float32_everywhere() -> None:
    if DEVICE != "cpu":
        loading.compute_dtype = lambda device: torch.float32
