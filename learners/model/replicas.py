"""Module trees that share every tensor of one frozen base model.

One thread, one tree: `set_adapter` or `disable_adapter` on a tree that two threads use corrupts answers and gradients without an error. A tree
costs Python objects only, because the copy's memo maps every parameter, buffer and bitsandbytes quantization state to itself.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from learners.model.cuda_graph import capturing

ENTERING = "_entering_head"
"""Where the LM head of a tree keeps the tensor that last entered it, until `forward` takes it."""
FIRST_POSITION = "_first_position"
"""While it stands there, the head computes the first position of the first row alone."""
DECODER = "_static_decoder"
"""Where a tree keeps buffers and graphs that it draws with: its own, over its own tensors."""


def replicate(tree: nn.Module, base: nn.Module | None = None) -> nn.Module:
    """Another tree of modules over the tensors of `base`, which are all of the tree's own unless it carries an adapter; hooks are copied too. What
    is not the base's is copied, and so are rotations that each forward rewrites by how long its text is; what it draws with is not."""
    model = tree if base is None else base
    own = {id(t) for module in model.modules() if "longrope" in str(getattr(module, "rope_type", "")) for t in module.buffers(recurse=False)}
    memo: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in own}
    for module in model.modules():
        for state in _quantization_states(module):
            memo[id(state)] = state
    # A module has eleven tables of hooks, nearly always empty; copying each by way of `copy.deepcopy` takes most of the time of a tree.
    tables = (table for module in tree.modules() for table in vars(module).values() if type(table) in (OrderedDict, set))
    memo |= {id(table): type(table)() for table in tables if not table}
    decoder = tree.__dict__.get(DECODER)
    memo[id(decoder)] = decoder  # its buffers are not copied; and what replays graphs over one tree's tensors is of no use to another
    made = copy.deepcopy(tree, memo)
    made.__dict__.pop(DECODER, None)
    return made


def freeze(model: nn.Module) -> None:
    """Make a base fit to be shared: no gradients, eval mode, and nothing that rewrites its weights in a forward."""
    model.requires_grad_(False).eval()
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes would repack the shared 4-bit weights in place at the first forward without gradients; every tree that trains would
            # then get gradients of a wrong matrix, without an error.
            module.support_avx512bf16_for_cpu = False


def watch_head(model: nn.Module) -> None:
    """Let the LM head remember what entered it. The hook holds no reference, so copies of the tree watch their own heads."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    head.register_forward_pre_hook(_remember)  # type: ignore[union-attr]


def _remember(head: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    head.__dict__[ENTERING] = arguments[0]  # past nn.Module.__setattr__, which is slow and keeps books
    return (arguments[0][:1, :1], *arguments[1:]) if FIRST_POSITION in head.__dict__ else None


def distinct_bytes(*modules: nn.Module) -> int:
    """Bytes of the distinct storages under these trees, quantization states included."""
    storages: dict[int, int] = {}
    for module in modules:
        for tensor in tensors_of(module):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def tensors_of(tree: nn.Module) -> Iterator[Tensor]:
    for module in tree.modules():
        yield from module.parameters(recurse=False)
        yield from module.buffers(recurse=False)
        for state in _quantization_states(module):
            yield from _tensors_of_state(state)


def _quantization_states(module: nn.Module) -> Iterator[Any]:
    """What bitsandbytes keeps beside a weight: a QuantState (4 bit), or scale and weight tensors (8 bit)."""
    weight = vars(module).get("_parameters", {}).get("weight")  # not by getattr, which is slow where there is none: in most modules
    if weight is None:
        return
    for owner in (module, weight, getattr(module, "state", None)):
        for name in ("quant_state", "CB", "SCB"):
            state = vars(owner).get(name) if owner is not None else None
            if state is not None:
                yield state


def _tensors_of_state(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
        return
    for value in vars(state).values():
        if isinstance(value, Tensor):
            yield value
    if getattr(state, "state2", None) is not None:  # the scales of the scales
        yield from _tensors_of_state(state.state2)


class _DequantizedLinear(torch.autograd.Function):
    """x · dequantize(W)ᵀ. The float weight is made anew in the backward pass instead of being kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return nn.functional.linear(x, _dequantized(weight, scale, x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        weight, scale = ctx.saved_tensors
        return gradients[0] @ _dequantized(weight, scale, gradients[0].dtype), None, None


def _dequantized(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """int8 (out, in) with row maxima (out,) -> float (out, in), rounded once: a rounded scale would shift whole rows. In one kernel, without the
    float32 numbers in between; for what keeps no graph."""
    return torch.mul(weight, (scale.float() / 127.0).unsqueeze(1), out=torch.empty(weight.shape, dtype=dtype, device=weight.device))


def dequantize_in_forward(model: nn.Module) -> None:
    """Make every 8-bit layer compute with its weights alone quantized, the same with and without gradients.

    bitsandbytes' own forward quantizes activations too and picks outlier columns over the whole batch, so that an answer would depend on
    what is drawn beside it; on CPU it computes something else in train mode, and it writes to shared state at each forward.
    """
    from bitsandbytes.nn import Linear8bitLt

    for module in model.modules():
        if isinstance(module, Linear8bitLt):
            if module.state.CB is None:
                module.init_8bit_state()
            module.__class__ = _weight_only_class()


def _weight_only_class() -> type:
    from bitsandbytes.nn import Linear8bitLt

    global _WeightOnly
    if _WeightOnly is None:

        class WeightOnlyLinear8bit(Linear8bitLt):
            """An 8-bit layer without shared mutable state."""

            def forward(self, x: Tensor) -> Tensor:
                y = _DequantizedLinear.apply(x, self.weight.data, self.state.SCB)
                return y if self.bias is None else y + self.bias.to(y.dtype)

            def float_weight(self, dtype: torch.dtype) -> Tensor:
                return _dequantized(self.weight.data, self.state.SCB, dtype)

        _WeightOnly = WeightOnlyLinear8bit
    return _WeightOnly


_WeightOnly: type | None = None


def between_layers(tree: nn.Module, call: Callable[[], None]) -> None:
    """Have `call` called before each layer of every forward of the tree, and before the backward of each; but not while this thread captures a
    step, for which others wait."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    def called(layer: nn.Module, args: Any, output: Any) -> None:
        if not capturing():
            call()
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.requires_grad:
            hidden.register_hook(lambda _: call())

    for module in tree.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.register_forward_hook(called)
