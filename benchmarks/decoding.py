"""Decoding on this machine against transformers' `generate` with PEFT: K answers with an adapter, their steps taken in turns.

    python benchmarks/decoding.py [--models DIR,DIR] [--quantize none,nf4] [-k 4] [--tokens 48] [--rounds 3]

One thread, CPU seconds of a step: the lower quartile over all steps after the first of each answer, so that the prefill is left out and what else
runs here disturbs least. `generate` runs on a model of its own that transformers loads as people load it, with a LoRA of the same size. Prints one
JSON line a model and quantization. Where `generate` does not run, that line says why, and has our own figures alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learners.model.base import Backbone
from learners.model.checkpoint import first_line
from learners.model.cpu_weights import copied_bytes
from learners.model.loading import load_backbone
from learners.model.lora import LoraSettings, lora_parameters
from learners.model.sampling import Row, decode
from learners.model.static_decoder import WORTH_PREPARING, StaticDecoder
from learners.model.traced_step import traced_decoder
from storage.records import Message, Sampling

STORIES = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260k"
OVER = {"": "adapter", "twin_": "twin"}
ASK = (Message("user", "Tell me a story about a dog who went for a walk and met a friend."),)


def stir(tree: nn.Module) -> nn.Module:
    """An adapter that changes something."""
    for name, parameter in tree.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.01)
    return tree


def peft_model(directory: str, quantize: str) -> Any:
    """As somebody would set it up."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **({"quantization_config": nf4} if quantize == "nf4" else {}))
    settings = LoraSettings()
    return stir(get_peft_model(model, LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear"))).eval()


class Clock:
    """A stopping criterion that stops nothing and notes when each token comes; streamers take one answer only."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.times: list[float] = []
        self._now = now

    def __call__(self, ids: torch.Tensor, scores: Any, **named: Any) -> torch.Tensor:
        self.times.append(self._now())
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


def theirs(
    model: Any, ids: tuple[int, ...], k: int, tokens: int, pad: int, device: str = "cpu", now: Callable[[], float] = time.process_time
) -> list[float]:
    """Seconds of each step of `generate`."""
    clock, batch = Clock(now), torch.tensor([ids] * k, device=device)
    how = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "min_new_tokens": tokens, "max_new_tokens": tokens}
    with torch.no_grad():
        model.generate(input_ids=batch, attention_mask=torch.ones_like(batch), pad_token_id=pad, stopping_criteria=[clock], **how)
    return [b - a for a, b in itertools.pairwise(clock.times)]


def ours(
    backbone: Backbone, tree: nn.Module, ids: tuple[int, ...], k: int, tokens: int, decoder: StaticDecoder | None = None, **how: Any
) -> list[float]:
    """Of ours; what the generator prepares between answers is prepared before them."""
    rows = [Row(str(i), ids, i) for i in range(k)]
    if decoder is not None and (shape := decoder.due()):
        decoder.prepare(shape)
    times = [time.process_time() for _ in decode(tree, rows, Sampling(1.0, tokens), (), backbone.pad_id, decoder=decoder, **how)]
    return [b - a for a, b in itertools.pairwise(times)]


def why_not(way: Callable[[], object]) -> str:
    """What keeps the other side from drawing here, in one line; "" where nothing does. On some processors bitsandbytes packs weights once more under
    PEFT's own layers, which asserts widths that many a model does not have."""
    try:
        way()
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        return first_line(error)
    return ""


def measure(directory: str, quantize: str, k: int, tokens: int, rounds: int) -> dict[str, object]:
    backbone = load_backbone(directory, quantize, "cpu")
    tree, other, bare = stir(backbone.adapter_tree()), peft_model(directory, quantize), backbone.model
    assert lora_parameters(tree)
    ids = tuple(backbone.encode(ASK))
    refused = why_not(lambda: theirs(other, ids, k, 2, backbone.pad_id))
    by_tree = [traced_decoder(each, backbone.layers) for each in (tree, bare)]
    ways = {
        "generate": lambda: theirs(other, ids, k, tokens, backbone.pad_id),
        "adapter": lambda: ours(backbone, tree, ids, k, tokens, by_tree[0]),
        "twin": lambda: ours(backbone, tree, ids, k, tokens, by_tree[0], twin=True),
        "bare": lambda: ours(backbone, bare, ids, k, tokens, by_tree[1]),
    }
    if refused:
        del ways["generate"]
    found: dict[str, list[float]] = {name: [] for name in ways}
    warm = 1 + (WORTH_PREPARING // tokens if any(by_tree) else 0)
    for round_ in range(warm + rounds):
        for name, way in ways.items():
            seconds = way()
            found[name] += seconds if round_ >= warm else []
    steps = {name: statistics.quantiles(seconds, n=4)[0] for name, seconds in found.items()}
    return {
        "model": Path(directory).name, "quantize": quantize, "k": k, "prompt": len(ids), "tokens": tokens,
        **({"generate": f"not run: {refused}"} if refused else {}),
        **{f"{name}_ms": round(1e3 * seconds, 2) for name, seconds in steps.items()},
        **({} if refused else {f"{said}over_generate": round(steps["generate"] / steps[name], 2) for said, name in OVER.items()}),
        "copies_MB": round(copied_bytes(backbone.model) / 1e6, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=str(STORIES))
    parser.add_argument("--quantize", default="none,nf4")
    parser.add_argument("-k", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for directory in options.models.split(","):
        for quantize in options.quantize.split(","):
            print(json.dumps(measure(directory, quantize, options.k, options.tokens, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
