"""One GPU, with random models of real shapes that this script makes: decoding, training, and the memory of both.

    python benchmarks/gpu.py [--plan 1.5b:decoding,…] [--seconds 345] [--card-gb 16] [-k 4] [--tokens 64] [--smollm2 DIR] [--anywhere]

Prints a JSON line as soon as a figure is there, what matters most first, so that a run that is cut off still tells; a part that no time is left for
says so. decoding: milliseconds of a step (medians), captured and by ordinary forwards, beside `generate` with PEFT. training: PPO in episodes a
second, decoding beside it. trl: pairs a second of a reward model, of rankings of four, beside TRL's RewardTrainer on the same pairs. memory: every
stage at prompts of 512 and answers of 256 tokens, the process held to a card of 16 GB (24 for 14B). sitting: 25 rankings and 40 s of training through
`tamer simulate`, on the model in --smollm2; without one on a random model of its shape, which nothing can be taught to. Without a GPU it says
"no GPU: not run"; `--anywhere` runs on a CPU all the same (--plan tiny:decoding,…), to see that it runs.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import shutil
import statistics
import subprocess
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
from learners.human_reward.critique_bias import BiasWithCritiques, CritiqueBias
from learners.human_reward.features import Features
from learners.human_reward.head import RewardHead
from learners.human_reward.logit_bias import LogitBias
from learners.model import static_decoder, static_rows
from learners.model.base import Backbone
from learners.model.forward import LMHead
from learners.model.loading import load_backbone
from learners.model.lora import draw_in
from learners.model.sampling import Context, Row, decode
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
CARDS = {"7b": 16.0, "14b": 24.0}
"""Gigabytes of the card that a process with such a model is held to."""
PLAN = "1.5b:decoding,1.5b:training,1.5b:trl,135m:decoding,135m:sitting,7b:decoding,7b:memory,135m:training,14b:memory"
SHORTEST = 20.0
"""Seconds that are left, without which no part begins."""
Figures = Iterator[dict[str, object]]
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


def step_seconds(backbone: Backbone, tree: nn.Module, k: int, tokens: int, contexts: tuple[Context, ...] = (), **how: Any) -> float:
    """Median of a step's seconds, after the first few; the second batch counts, since the first captures."""
    steer = how.get("steer")
    rows = [Row(str(i), ids(PROMPT, 0), i, steer=steer is not None, contexts=contexts) for i in range(k)]
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


def decoding(backbone: Backbone, folder: str, options: Any) -> Figures:
    k, tokens = options.k, options.tokens
    actor, steer = stir(backbone.adapter_tree()), steering(backbone)
    draw_in(actor, backbone.dtype)  # as the engine does
    found: dict[str, float] = {}

    def step(name: str, tree: nn.Module, count: int = tokens, **how: Any) -> dict[str, object]:
        found[name] = step_seconds(backbone, tree, k, count, **how)
        return {"k": k, "tokens": tokens, f"{name}_ms": round(1e3 * found[name], 2)}

    yield step("adapter", actor) | {"graphs": (decoder := static_decoder.known_decoder(actor)) is not None and decoder.usable}
    plain = stir(peft_tree(backbone)).eval()
    generate = statistics.median(theirs(plain, ids(PROMPT, 0), k, 24, backbone.pad_id, str(backbone.device), time.perf_counter)[4:])
    yield {"generate_ms": round(1e3 * generate, 2), "over_generate": round(generate / found["adapter"], 2)}
    yield step("twin", actor, twin=True)
    steered = step("twin_steered", actor, twin=True, steer=steer)
    yield steered | {"steering_adds": round(found["twin_steered"] / found["twin"] - 1, 3)}
    said = {"steer": BiasWithCritiques(steer, CritiqueBias()), "contexts": (Context(1.0, ids(PROMPT + 12, 1)),)}
    criticised = step("twin_criticised", actor, twin=True, **said)
    yield criticised | {"a_critique_adds": round(found["twin_criticised"] / found["twin_steered"] - 1, 3)}
    yield step("bare", backbone.model)
    with without_graphs():
        yield step("adapter_eager", actor, 16)
        yield step("twin_eager", actor, 16, twin=True)


# --- training -----------------------------------------------------------------------------------------------------------


def ppo_of(backbone: Backbone, tokens: int) -> PPO:
    policy, reference = (backbone.adapter_tree(seed=i) for i in range(2))
    reward = lambda prompts, answers: torch.tensor([float(len(set(a))) for a in answers]) / tokens  # noqa: E731
    return PPO(policy, reference, reward, PPOSettings(), 0, backbone=backbone, sampling=Sampling(1.0, tokens))  # type: ignore[arg-type]


def training(backbone: Backbone, folder: str, options: Any) -> Figures:
    k, tokens = options.k, options.tokens
    ppo, prompts = ppo_of(backbone, tokens), [ids(PROMPT, i) for i in range(4)]
    ppo.step(ppo.rollout(prompts, 8))
    drawing = seconds(lambda: ppo.rollout(prompts, 8))
    rollouts = ppo.rollout(prompts, 8)
    updating = statistics.median(seconds(lambda: ppo.step(rollouts)) for _ in range(3))
    rate = round(32 / (drawing + updating), 1)
    yield {"rollout_s": round(drawing, 2), "update_s": round(updating, 2), "episodes_per_s": rate, "tokens": tokens}
    actor, halt, updates = stir(backbone.adapter_tree()), threading.Event(), [0]
    draw_in(actor, backbone.dtype)
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
    yield {"idle_ms": round(1e3 * idle, 2), "while_training_ms": round(1e3 * busy, 2), "while_training": round(idle / busy, 2), "updates": updates[0]}


def comparisons(prompt: int, answer: int, count: int = RANKINGS) -> list[Comparison]:
    return [Comparison(ids(prompt, i), tuple(ids(answer, 100 * i + j) for j in range(RANKED)), tuple(range(1, RANKED + 1)), i) for i in range(count)]


def trl(backbone: Backbone, folder: str, options: Any) -> Figures:
    """The same pairs through TRL's trainer: a head on the same base, a LoRA of the same size, all 48 in one optimizer step."""
    batch = comparisons(PROMPT, ANSWER)
    pairs = [(c.prompt_ids + c.answers[i], c.prompt_ids + c.answers[j]) for c in batch for i, j in itertools.combinations(range(RANKED), 2)]
    ours = RewardModel(backbone.adapter_tree(), backbone.width, memory=backbone.memory_budget)
    ours.step(batch)
    mine = statistics.median(seconds(lambda: ours.step(batch)) for _ in range(4))
    yield {"pairs": len(pairs), "ours_pairs_per_s": round(len(pairs) / mine, 1)}

    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, TrainerCallback
    from trl import RewardConfig, RewardTrainer

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
    yield {"trl_pairs_per_s": round(len(pairs) / peer, 1), "times_faster": round(peer / mine, 2)}


# --- memory -------------------------------------------------------------------------------------------------------------


def memory(backbone: Backbone, folder: str, options: Any, prompt: int = 512, answer: int = 256) -> Figures:
    """Peak bytes that torch allocated, four adapters and their optimizers included, and how long each stage took."""
    distinct = [ids(prompt, i) for i in range(4)]
    prompts, answers = [p for p in distinct for _ in range(2)], [ids(answer, 50 + i) for i in range(8)]
    peaks: list[float] = []
    made: list[Any] = []

    def stage(name: str, work: Callable[[], Any]) -> dict[str, object]:
        free()
        took = seconds(lambda: made.append(work()))
        peaks.append(round(torch.cuda.max_memory_allocated() / 1e9, 2) if torch.cuda.is_available() else 0.0)
        return {"stage": name, "stage_GB": peaks[-1], "stage_s": round(took, 2), "peak_GB": max(peaks), "prompt": prompt, "answer": answer}

    policy, _, reward, base = backbone.adapter_trees(4)
    budget = backbone.memory_budget
    sft = SFT(policy, backbone.width, memory=budget)
    yield stage("sft", lambda: sft.step([Target(p, a) for p, a in zip(prompts, answers, strict=True)]))
    model = RewardModel(reward, backbone.width, memory=budget)
    yield stage("reward", lambda: model.step(comparisons(prompt, answer)))
    frozen, head, bias = FrozenStates(base), LMHead(base), 0.01 * torch.randn(backbone.vocabulary, device=backbone.device)

    def teacher(prompts: Any, answers: Any) -> Callable[[slice], torch.Tensor]:
        hidden = frozen.before(prompts, answers)
        return lambda rows: head(hidden[rows]) + bias

    distill = Distill(policy, teacher, backbone.width, memory=budget)
    yield stage("distill", lambda: distill.step(DistillBatch(prompts, answers)))
    ppo = PPO(policy, base, model.token_shares, PPOSettings(), backbone=backbone, sampling=Sampling(1.0, answer))
    yield stage("rollout", lambda: ppo.rollout(distinct[:2], 8))
    yield stage("ppo", lambda: ppo.step(made[-1]))
    rows = [Row(str(i), distinct[0], i) for i in range(options.k)]
    yield stage("set", lambda: [None for _ in decode(policy, rows, Sampling(1.0, answer), (), backbone.pad_id, twin=True)])


# --- a sitting ----------------------------------------------------------------------------------------------------------


def sitting(backbone: Backbone, folder: str, options: Any) -> Figures:
    """In processes of its own, as an operator would have it."""
    model = options.smollm2 or folder
    judge = f"{Path(__file__).parent / 'tastes.py'}:short_sentences"
    with tempfile.TemporaryDirectory() as place:
        command = [
            sys.executable, "-m", "tamer_tui.cli", "simulate", f"{place}/a.db", "--model", model, "--quantize", "nf4", "--device",
            backbone.device.type, "--operator", judge, "--rounds", "25", "--train-seconds", "40", "--max-new-tokens", str(options.tokens),
        ]  # fmt: skip
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = {"sitting_s": round(time.perf_counter() - began, 1), "random_model": model == folder}
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}")
    yield took | {"report": json.loads(done.stdout.strip().splitlines()[-1])}


PARTS: dict[str, Callable[[Backbone, str, Any], Figures]] = {
    "decoding": decoding, "training": training, "trl": trl, "memory": memory, "sitting": sitting,
}  # fmt: skip


@contextmanager
def loaded(shape: str, card: float | None) -> Iterator[tuple[Backbone, str]]:
    """A random model of this shape, the process held to so many gigabytes, and where its files are."""
    cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        random_model(shape, Path(folder))
        free()
        if cuda and card:
            torch.cuda.set_per_process_memory_fraction(min(1.0, card * 1e9 / torch.cuda.mem_get_info()[1]))
        try:
            yield load_backbone(folder, "none" if shape in UNQUANTIZED else "nf4"), folder
        finally:
            if cuda:
                torch.cuda.set_per_process_memory_fraction(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", default=PLAN, help="shape:part, in this order")
    parser.add_argument("--seconds", type=float, default=345.0, help="in all; parts that begin later are left out")
    parser.add_argument("--card-gb", type=float, help="of the card that a process is held to")
    parser.add_argument("-k", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--smollm2", help="a directory with SmolLM2-135M-Instruct, for the sitting")
    parser.add_argument("--anywhere", action="store_true")
    options = parser.parse_args()
    if not (torch.cuda.is_available() or options.anywhere):
        print("no GPU: not run")
        return
    torch.set_num_threads(1)
    began = time.perf_counter()
    steps = [tuple(step.split(":")) for step in options.plan.split(",")]
    for shape, parts in ((shape, [part for _, part in some]) for shape, some in itertools.groupby(steps, key=lambda step: step[0])):
        card = options.card_gb or CARDS.get(shape)

        def tell(part: str, found: dict[str, object], shape: str = shape, card: float | None = card) -> None:
            device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
            common = {"shape": shape, "part": part, "device": device, "card_GB": card, "at_s": round(time.perf_counter() - began, 1)}
            print(json.dumps(common | found), flush=True)

        left = options.seconds - (time.perf_counter() - began)
        if left < SHORTEST:
            tell(",".join(parts), {"left_out": "no time"})
            continue
        try:
            measure(shape, parts, card, options, began, tell)
        except Exception as error:  # the next shape may do
            tell("loading", {"error": f"{type(error).__name__}: {str(error)[:300]}"})
        free()


def measure(shape: str, parts: list[str], card: float | None, options: Any, began: float, tell: Callable[..., None]) -> None:
    with loaded(shape, card) as (backbone, folder):
        tell("loading", {"quantize": backbone.quantize})
        for part in parts:
            free()
            if options.seconds - (time.perf_counter() - began) < SHORTEST:
                tell(part, {"left_out": "no time"})
                continue
            try:
                for found in PARTS[part](backbone, folder, options):
                    tell(part, found)
            except Exception as error:
                tell(part, {"error": f"{type(error).__name__}: {str(error)[:300]}"})


if __name__ == "__main__":
    main()
