"""Processes that train together over gloo: children of the test, which see what it has loaded."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed


def in_processes(work: Callable[[], Any], folder: Path, n: int = 2) -> list[Any]:
    """What each of them finds."""
    context = multiprocessing.get_context("fork")

    def run(rank: int) -> None:
        torch.set_num_threads(1)
        distributed.init_process_group("gloo", f"file://{folder}/group", timedelta(seconds=60), n, rank)
        torch.save(work(), folder / f"{rank}.pt")
        distributed.barrier()
        os._exit(0)

    processes = [context.Process(target=run, args=(rank,)) for rank in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(n)]
