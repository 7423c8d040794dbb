"""A step of decoding on a CPU as TorchScript: recorded once, then run by an interpreter that is not Python's, which gives its lock back meanwhile.

For small models, whose kernels take less time than the Python between them: a step of stories260k takes a third. Recording takes half a second and
more, so it is done when nobody waits. Nothing is optimised: that would take ten times as long, and gains nothing that could be measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from learners.model.memory import out_of_memory
from learners.model.static_decoder import Outputs, StaticDecoder

MOST_LAYERS = 12
"""Of models for which it is worth it."""


def traced_decoder(tree: nn.Module, layers: int) -> StaticDecoder | None:
    """Of a tree on the CPU, which draws by shapes that were prepared; None where ordinary forwards are as good, or must do."""
    if layers > MOST_LAYERS or next(tree.parameters()).device.type != "cpu":
        return None

    def capture(step: Callable[[], Outputs], restore: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], Outputs]:
        """What a recording changes is its input: writes to anything else would be taken for useless, and left out."""
        with _without_gradients(tree), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated, and that sizes are taken for constants, which they are
            recorded = torch.jit.trace(lambda *inputs: step(), tuple(changed), check_trace=False)
        restore()

        def replay() -> Outputs:
            with torch.jit.optimized_execution(False):
                return tuple(recorded(*changed))

        return replay

    try:
        return StaticDecoder(tree, capture, prepared=True)
    except Exception as error:  # whatever a family's own code makes of these tensors: it draws by ordinary forwards
        if out_of_memory(error):
            raise
        return None


@contextmanager
def _without_gradients(tree: nn.Module) -> Iterator[None]:
    """A recording holds tensors as constants, which may not ask for gradients."""
    trained = [parameter for parameter in tree.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
