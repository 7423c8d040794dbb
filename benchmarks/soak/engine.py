"""The real engine, whose computations fail when a file asks for it: `python -m benchmarks.soak.engine FOLDER`.

| file in FOLDER | what happens |
|---|---|
| `nan` | the gradients of so many backward passes are no numbers |
| `learning-memory` | so many forwards of the learner run out of memory |
| `drawing-memory` | so many batches run out of memory after a few tokens |
| `drop` | stdout is closed, and the process lives on |
| `half` | half a line is written, and the process ends |

The product has no such hook: this module replaces four of its functions before it starts.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.soak.requests import take
from learners.engine import process

LOOK_SECONDS = 0.05
COUNTED = ("nan", "learning-memory", "drawing-memory")

_due: Counter[str] = Counter()
_streams: list[Any] = []


def _fails(name: str) -> bool:
    """Whether this one is to fail; it is counted then."""
    if _due[name] <= 0:
        return False
    _due[name] -= 1
    return True


def _watch(folder: Path) -> None:
    while True:
        time.sleep(LOOK_SECONDS)
        for name in COUNTED:
            if (n := take(folder, name)):
                _due[name] = int(n)
        if take(folder, "drop"):
            os.dup2(os.open(os.devnull, os.O_WRONLY), _streams[0].fileno())
        if take(folder, "half"):
            os.write(_streams[0].fileno(), b'{"type":"tokens","pieces":[')
            os._exit(3)


def _fail_on_request() -> None:
    """Put the failing functions in the place of the real ones. Imports torch."""
    import torch

    from learners.engine import generator
    from learners.engine.training import Learner

    backward, between_layers, decode = torch.Tensor.backward, Learner._between_layers, generator.decode

    def failing_backward(tensor: torch.Tensor, *args: Any, **named: Any) -> None:
        backward(tensor * float("nan") if _fails("nan") else tensor, *args, **named)

    def failing_between_layers(learner: Learner) -> None:
        between_layers(learner)
        if _fails("learning-memory"):
            raise torch.OutOfMemoryError("asked for by the soak")

    def failing_decode(*args: Any, **named: Any) -> Iterator[Any]:
        for n, step in enumerate(decode(*args, **named)):
            if n == 3 and _fails("drawing-memory"):
                raise torch.OutOfMemoryError("asked for by the soak")
            yield step

    torch.Tensor.backward = failing_backward  # type: ignore[assignment,method-assign]
    Learner._between_layers = failing_between_layers  # type: ignore[method-assign]
    generator.decode = failing_decode  # type: ignore[assignment]


def main() -> None:
    """Run the engine; the libraries are patched in the generator's thread, where they are loaded."""
    work, outbox = process.Engine._work, process.Outbox.__init__

    def patched_work(engine: process.Engine, load: Any) -> None:
        _fail_on_request()
        work(engine, load)

    def patched_outbox(self: process.Outbox, stream: Any) -> None:
        _streams.append(stream)
        outbox(self, stream)

    process.Engine._work = patched_work  # type: ignore[method-assign]
    process.Outbox.__init__ = patched_outbox  # type: ignore[method-assign]
    threading.Thread(target=_watch, args=(Path(sys.argv[1]),), daemon=True).start()
    process.run_over_pipes()


if __name__ == "__main__":
    main()
