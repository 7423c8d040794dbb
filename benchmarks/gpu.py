"""One GPU, with random models of real shapes that this script makes: decoding, training, and the memory of both.

    python benchmarks/gpu.py [--shapes 135m,1.5b,7b] [--parts decoding,training,trl,memory] [--card-gb 16] [-k 4] [--tokens 64] [--anywhere]

decoding: milliseconds of a step (medians), captured and by ordinary forwards, beside `generate` with PEFT. training: PPO in episodes a second,
decoding beside it. trl: pairs a second of a reward model, of rankings of four, beside TRL's RewardTrainer on the same pairs. memory: every stage at
prompts of 512 and answers of 256 tokens, the process held to --card-gb. Prints a JSON line for each shape and part. Without a GPU it says
"no GPU: not run"; `--anywhere` runs on a CPU all the same (--shapes tiny), to see that it runs.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from decoding import stir, theirs
from torch import nn

from learners.feedback.samples import Comparison, Target
from learners.human_reward.features import Features
from learners.human_reward.head import RewardHead
from learners.human_reward.logit_bias import LogitBias
from learners.model import static_rows
from learners.model.base import Backbone
from learners.model.forward import LMHead
from learners.model.loading import load_backbone
from learners.model.lora import draw_in
from learners.model.sampling import Row, decode
from learners.rlhf.distillation import Distill, DistillBatch
from learners.rlhf.frozen_states import FrozenStates
from learners.rlhf.ppo import PPO, PPOSettings
from learners.rlhf.reward_model import RewardModel
from learners.rlhf.sft import SFT
from storage.records import Sampling

TOKENIZER = Path(__file__).resolve().parents[2] / "shared" / "data" / "gpt2_tokenizer"
SHAPES = {"tiny": (64, 128, 2, 4, 2, 50_304), "135m": (576, 1536, 30, 9, 3, 50_304), "1.5b": (1536, 8960, 28, 12, 2, 151_936),
          "7b": (3584, 18_944, 28, 28, 4, 152_064), "14b": (5120, 13_824, 48, 40, 8, 152_064)}  # fmt: skip
"""Width, width of the MLP, layers, heads, heads of keys, vocabulary."""
NAMES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
IN_MEMORY = Path("/dev/shm")
UNQUANTIZED = ("tiny", "135m")
RANKINGS, RANKED, PROMPT, ANSWER = 8, 4, 43, 64
"""Of the reward model's batch: 8 rankings of 4 answers, 48 pairs."""


def random_model(shape: str, directory: Path) -> None:
    """A Qwen 2 of these sizes with GPT-2's tokenizer, in bfloat16."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes: dict[str, Any] = dict(zip(NAMES, SHAPES[shape], strict=True))
    tied = shape not in ("7b", "14b")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(
            Qwen2Config(max_position_embeddings=8192, rope_theta=1e6, bos_token_id=None, eos_token_id=50256, tie_word_embeddings=tied, **sizes)
        )
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(directory)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, directory)


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def ids(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(10, 50_000, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


# --- decoding -----------------------------------------------------------------------------------------------------------


def step_seconds(backbone: Backbone, tree: nn.Module, k: int, tokens: int, **how: Any) -> float:
    """Median of a step's seconds, after the first few; the second batch counts, since the first captures."""
    steer = how.get("steer")
    rows = [Row(str(i), ids(PROMPT, 0), i, steer=steer is not None) for i in range(k)]
    for _ in range(2):
        times = [time.perf_counter() for _ in decode(tree, rows, Sampling(1.0, tokens), (), backbone.pad_id, **how)]
    return statistics.median(b - a for a, b in itertools.pairwise(times[2:]))


@contextmanager
def without_graphs() -> Iterator[None]:
    found, static_rows.StaticRows._settle = static_rows.StaticRows._settle, lambda self: setattr(self, "_settled", True)  # type: ignore[method-assign]
    try:
        yield
    finally:
        static_rows.StaticRows._settle = found  # type: ignore[method-assign]


def steering(backbone: Backbone) -> LogitBias:
    """A head with rows for 3000 tokens."""
    features = Features(torch.zeros(backbone.width), torch.randn(backbone.width, 256) / backbone.width**0.5)
    tokens = torch.randperm(backbone.vocabulary)[:3000].sort().values
    return LogitBias(RewardHead(1, tokens, 0.01 * torch.randn(3000, 257), features, 0.1), 1.0)


def peft_tree(backbone: Backbone) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(backbone.tree(), LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))  # type: ignore[arg-type]


def decoding(backbone: Backbone, folder: str, k: int, tokens: int) -> dict[str, object]:
    actor, steer = stir(backbone.adapter_tree()), steering(backbone)
    draw_in(actor, backbone.dtype)  # as the engine does
    found = {
        "bare": step_seconds(backbone, backbone.model, k, tokens),
        "adapter": step_seconds(backbone, actor, k, tokens),
        "twin": step_seconds(backbone, actor, k, tokens, twin=True),
        "twin_steered": step_seconds(backbone, actor, k, tokens, twin=True, steer=steer),
    }
    with without_graphs():
        found["adapter_eager"] = step_seconds(backbone, actor, k, 16)
        found["twin_eager"] = step_seconds(backbone, actor, k, 16, twin=True)
    plain = stir(peft_tree(backbone)).eval()
    found["generate"] = statistics.median(theirs(plain, ids(PROMPT, 0), k, 24, backbone.pad_id, str(backbone.device), time.perf_counter)[4:])
    return {
        "k": k, "tokens": tokens, "graphs": (decoder := static_rows.known_decoder(actor)) is not None and decoder.usable,
        **{f"{name}_ms": round(1e3 * each, 2) for name, each in found.items()},
        "over_generate": round(found["generate"] / found["adapter"], 2), "steering_adds": round(found["twin_steered"] / found["twin"] - 1, 3),
    }  # fmt: skip


# --- training -----------------------------------------------------------------------------------------------------------


def ppo_of(backbone: Backbone, tokens: int) -> PPO:
    policy, reference = (backbone.adapter_tree(seed=i) for i in range(2))
    reward = lambda prompts, answers: torch.tensor([float(len(set(a))) for a in answers]) / tokens  # noqa: E731
    return PPO(policy, reference, reward, PPOSettings(), 0, backbone=backbone, sampling=Sampling(1.0, tokens))  # type: ignore[arg-type]


def training(backbone: Backbone, folder: str, k: int, tokens: int) -> dict[str, object]:
    ppo, prompts = ppo_of(backbone, tokens), [ids(PROMPT, i) for i in range(4)]
    ppo.step(ppo.rollout(prompts, 8))
    drawing, updating = seconds(lambda: ppo.rollout(prompts, 8)), 0.0
    rollouts = ppo.rollout(prompts, 8)
    updating = seconds(lambda: ppo.step(rollouts))
    actor, halt, updates = stir(backbone.adapter_tree()), threading.Event(), [0]
    idle = step_seconds(backbone, actor, k, tokens)

    def train() -> None:
        while not halt.is_set():
            ppo.step(rollouts)
            updates[0] += 1

    thread = threading.Thread(target=train)
    thread.start()
    busy = step_seconds(backbone, actor, k, tokens)
    halt.set()
    thread.join()
    return {
        "rollout_s": round(drawing, 2), "update_s": round(updating, 2), "episodes_per_s": round(32 / (drawing + updating), 1), "tokens": tokens,
        "idle_ms": round(1e3 * idle, 2), "while_training_ms": round(1e3 * busy, 2), "while_training": round(idle / busy, 2), "updates": updates[0],
    }  # fmt: skip


def comparisons(prompt: int, answer: int, count: int = RANKINGS) -> list[Comparison]:
    return [Comparison(ids(prompt, i), tuple(ids(answer, 100 * i + j) for j in range(RANKED)), tuple(range(1, RANKED + 1)), i) for i in range(count)]


def trl(backbone: Backbone, folder: str, k: int, tokens: int) -> dict[str, object]:
    """The same pairs through TRL's trainer: a head on the same base, a LoRA of the same size, all 48 in one optimizer step."""
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    batch = comparisons(PROMPT, ANSWER)
    pairs = [(c.prompt_ids + c.answers[i], c.prompt_ids + c.answers[j]) for c in batch for i, j in itertools.combinations(range(RANKED), 2)]
    ours = RewardModel(backbone.adapter_tree(), backbone.width, memory=backbone.memory_budget)
    ours.step(batch)
    mine = statistics.median(seconds(lambda: ours.step(batch)) for _ in range(4))

    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)
    how = {"quantization_config": nf4} if backbone.quantize == "nf4" else {}
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.bfloat16, device_map={"": backbone.device}, **how)
    model.config.pad_token_id = backbone.pad_id
    data = Dataset.from_list([{"chosen_ids": list(a), "rejected_ids": list(b)} for a, b in pairs] * 5)
    times: list[float] = []

    class Note(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as output:
        config = RewardConfig(
            output_dir=output, per_device_train_batch_size=16, gradient_accumulation_steps=3, max_steps=5, report_to=[], save_strategy="no",
            bf16=torch.cuda.is_available(), gradient_checkpointing=False, disable_tqdm=True, logging_steps=1000, learning_rate=1e-5, max_length=None,
        )  # fmt: skip
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type=TaskType.SEQ_CLS)
        trainer = RewardTrainer(
            model=model, args=config, train_dataset=data, processing_class=backbone.tokenizer, peft_config=lora, callbacks=[Note()]
        )
        trainer.train()
    peer = statistics.median(b - a for a, b in itertools.pairwise(times))
    return {
        "pairs": len(pairs),
        "ours_pairs_per_s": round(48 / mine, 1),
        "trl_pairs_per_s": round(48 / peer, 1),
        "times_faster": round(peer / mine, 2),
    }


# --- memory -------------------------------------------------------------------------------------------------------------


def memory(backbone: Backbone, folder: str, k: int, tokens: int, prompt: int = 512, answer: int = 256) -> dict[str, object]:
    """Peak bytes that torch allocated, four adapters and their optimizers included, and how long each stage took."""
    distinct = [ids(prompt, i) for i in range(4)]
    prompts, answers = [p for p in distinct for _ in range(2)], [ids(answer, 50 + i) for i in range(8)]
    peaks: dict[str, float] = {}

    def stage(name: str, work: Callable[[], Any]) -> Any:
        free()
        made: list[Any] = []
        took = seconds(lambda: made.append(work()))
        peaks[f"{name}_GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2) if torch.cuda.is_available() else 0.0
        peaks[f"{name}_s"] = round(took, 2)
        print(f"{name}: {peaks[f'{name}_GB']} GB, {took:.1f} s", file=sys.stderr, flush=True)
        return made[0]

    policy, _, reward, base = backbone.adapter_trees(4)
    budget = backbone.memory_budget
    sft = SFT(policy, backbone.width, memory=budget)
    stage("sft", lambda: sft.step([Target(p, a) for p, a in zip(prompts, answers, strict=True)]))
    model = RewardModel(reward, backbone.width, memory=budget)
    stage("reward", lambda: model.step(comparisons(prompt, answer)))
    frozen, head, bias = FrozenStates(base), LMHead(base), 0.01 * torch.randn(backbone.vocabulary, device=backbone.device)

    def teacher(prompts: Any, answers: Any) -> Callable[[slice], torch.Tensor]:
        hidden = frozen.before(prompts, answers)
        return lambda rows: head(hidden[rows]) + bias

    distill = Distill(policy, teacher, backbone.width, memory=budget)
    stage("distill", lambda: distill.step(DistillBatch(prompts, answers)))
    ppo = PPO(policy, base, model.token_shares, PPOSettings(), backbone=backbone, sampling=Sampling(1.0, answer))
    rollouts = stage("rollout", lambda: ppo.rollout(distinct[:2], 8))
    stage("ppo", lambda: ppo.step(rollouts))
    rows = [Row(str(i), distinct[0], i) for i in range(k)]
    stage("set", lambda: list(decode(policy, rows, Sampling(1.0, answer), (), backbone.pad_id, twin=True)))
    return {"prompt": prompt, "answer": answer, "peak_GB": max(v for n, v in peaks.items() if n.endswith("_GB")), **peaks}


PARTS: dict[str, Callable[[Backbone, str, int, int], dict[str, object]]] = {"decoding": decoding, "training": training, "trl": trl, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="135m,1.5b,7b")
    parser.add_argument("--parts", default="decoding,training,memory")
    parser.add_argument("--card-gb", type=float, help="of the card that memory is measured for")
    parser.add_argument("-k", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--anywhere", action="store_true")
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    if not (cuda or options.anywhere):
        print("no GPU: not run")
        return
    torch.set_num_threads(1)
    for shape in options.shapes.split(","):
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
            random_model(shape, Path(folder))
            free()
            if cuda and options.card_gb:
                torch.cuda.set_per_process_memory_fraction(options.card_gb * 1e9 / torch.cuda.mem_get_info()[1])
            backbone = load_backbone(folder, "none" if shape in UNQUANTIZED else "nf4")
            common = {"shape": shape, "quantize": backbone.quantize, "device": torch.cuda.get_device_name() if cuda else "cpu"}
            print(json.dumps(common | {"part": "loading", "s": round(time.perf_counter() - began, 1), "card_GB": options.card_gb}), flush=True)
            for part in options.parts.split(","):
                free()
                try:
                    found = PARTS[part](backbone, folder, options.k, options.tokens)
                except Exception as error:
                    found = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
                print(json.dumps(common | {"part": part} | found), flush=True)
        del backbone
        free()
        if cuda:
            torch.cuda.set_per_process_memory_fraction(1.0)


if __name__ == "__main__":
    main()
