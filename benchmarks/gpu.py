"""Decoding on one GPU, with random models of real shapes that this script makes: the captured step beside ordinary forwards and `generate` with PEFT.

    python benchmarks/gpu.py [--shapes 135m,1.5b,7b] [-k 4] [--tokens 64] [--anywhere]

Milliseconds of a step (medians), ratios within one run, and a PPO's rollouts and updates in episodes a second. Prints one JSON line a model; without
a GPU it says "no GPU: not run". `--anywhere` runs it on a CPU all the same (--shapes tiny), to see that it runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from decoding import stir, theirs
from torch import nn

from learners.human_reward.features import Features
from learners.human_reward.head import RewardHead
from learners.human_reward.logit_bias import LogitBias
from learners.model import static_rows
from learners.model.base import Backbone
from learners.model.loading import load_backbone
from learners.model.sampling import Row, decode
from learners.rlhf.ppo import PPO, PPOSettings
from storage.records import Sampling

TOKENIZER = Path(__file__).resolve().parents[2] / "shared" / "data" / "gpt2_tokenizer"
SHAPES = {"tiny": (64, 128, 2, 4, 2, 50_304), "135m": (576, 1536, 30, 9, 3, 50_304), "1.5b": (1536, 8960, 28, 12, 2, 151_936),
          "7b": (3584, 18_944, 28, 28, 4, 152_064)}  # fmt: skip
"""Width, width of the MLP, layers, heads, heads of keys, vocabulary."""
NAMES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")


def random_model(sizes: dict[str, Any], directory: Path) -> None:
    """A Qwen 2 of these sizes with GPT-2's tokenizer, in bfloat16."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(
            Qwen2Config(max_position_embeddings=8192, rope_theta=1e6, bos_token_id=None, eos_token_id=50256, tie_word_embeddings=True, **sizes)
        )
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(directory)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, directory)


def step_seconds(backbone: Backbone, tree: nn.Module, k: int, tokens: int, **how: Any) -> float:
    """Median of a step's seconds, after the first few; the second batch counts, since the first captures."""
    steer = how.get("steer")
    rows = [Row(str(i), tuple(range(100, 143)), i, steer=steer is not None) for i in range(k)]
    for _ in range(2):
        times = [time.perf_counter() for _ in decode(tree, rows, Sampling(1.0, tokens), (), backbone.pad_id, **how)]
    return statistics.median(b - a for a, b in itertools.pairwise(times[2:]))


def eagerly(work: Callable[[], float]) -> float:
    """The same without graphs."""
    found, static_rows.StaticRows._settle = static_rows.StaticRows._settle, lambda self: setattr(self, "_settled", True)  # type: ignore[method-assign]
    try:
        return work()
    finally:
        static_rows.StaticRows._settle = found  # type: ignore[method-assign]


def steering(backbone: Backbone) -> LogitBias:
    """A head with rows for 3000 tokens."""
    features = Features(torch.zeros(backbone.width), torch.randn(backbone.width, 256) / backbone.width**0.5)
    return LogitBias(RewardHead(1, torch.randperm(backbone.vocabulary)[:3000].sort().values, 0.01 * torch.randn(3000, 257), features, 0.1), 1.0)


def ppo_of(backbone: Backbone, tokens: int) -> PPO:
    policy, reference = (backbone.adapter_tree(seed=i) for i in range(2))
    reward = lambda prompts, answers: torch.tensor([float(len(set(a))) for a in answers]) / tokens  # noqa: E731
    return PPO(policy, reference, reward, PPOSettings(), 0, backbone=backbone, sampling=Sampling(1.0, tokens))  # type: ignore[arg-type]


def measure(shape: str, k: int, tokens: int) -> dict[str, object]:
    from peft import LoraConfig, get_peft_model

    sizes, quantize = dict(zip(NAMES, SHAPES[shape], strict=True)), "none" if shape in ("tiny", "135m") else "nf4"
    with tempfile.TemporaryDirectory() as folder:
        random_model(sizes, Path(folder))
        backbone = load_backbone(folder, quantize)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    actor = stir(backbone.adapter_tree())
    steer, cuda = steering(backbone), backbone.device.type == "cuda"
    ways: dict[str, Callable[[], float]] = {
        "bare": lambda: step_seconds(backbone, backbone.model, k, tokens),
        "adapter": lambda: step_seconds(backbone, actor, k, tokens),
        "twin": lambda: step_seconds(backbone, actor, k, tokens, twin=True),
        "twin_steered": lambda: step_seconds(backbone, actor, k, tokens, twin=True, steer=steer),
    }
    found = {name: way() for name, way in ways.items()} | {f"{name}_eager": eagerly(way) for name, way in ways.items()}
    ppo = ppo_of(backbone, tokens)
    prompts = [tuple(range(100 + i, 143 + i)) for i in range(4)]
    ppo.step(ppo.rollout(prompts, 8))
    began = time.perf_counter()
    rollouts = ppo.rollout(prompts, 8)
    drawn = time.perf_counter()
    ppo.step(rollouts)
    done = time.perf_counter()
    halt = threading.Event()
    training = threading.Thread(target=lambda: [ppo.step(rollouts) for _ in iter(halt.is_set, True)])
    training.start()
    found["adapter_while_training"] = ways["adapter"]()
    halt.set()
    training.join()
    plain = stir(get_peft_model(backbone.tree(), LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))).eval()  # type: ignore[arg-type]
    found["generate"] = statistics.median(theirs(plain, prompts[0], k, tokens, backbone.pad_id, str(backbone.device), time.perf_counter)[2:])
    return {
        "shape": shape, "quantize": quantize, "k": k, "tokens": tokens, "device": torch.cuda.get_device_name() if cuda else "cpu",
        "graphs": cuda and actor.__dict__.get("_static_decoder") is not None,
        **{f"{name}_ms": round(1e3 * seconds, 2) for name, seconds in found.items()},
        "over_generate": round(found["generate"] / found["adapter"], 2), "steering_adds": round(found["twin_steered"] / found["twin"] - 1, 3),
        "while_training": round(found["adapter"] / found["adapter_while_training"], 2),
        "ppo_rollout_s": round(drawn - began, 2), "ppo_update_s": round(done - drawn, 2), "ppo_episodes_per_s": round(32 / (done - began), 1),
        "peak_GB": round(torch.cuda.max_memory_allocated() / 1e9, 2) if cuda else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="135m,1.5b,7b")
    parser.add_argument("-k", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--anywhere", action="store_true")
    options = parser.parse_args()
    if not (torch.cuda.is_available() or options.anywhere):
        print("no GPU: not run")
        return
    torch.set_num_threads(1)
    for shape in options.shapes.split(","):
        print(json.dumps(measure(shape, options.k, options.tokens)), flush=True)


if __name__ == "__main__":
    main()
