"""What teaching costs at scale, on paper: tokens, memory and network of 1 to 64 GPUs, beside what was measured; a database of ten million judgements.

    python -m benchmarks.scale                    the model of GPUs: a roofline, no GPU is needed
    python -m benchmarks.scale --database 100000  makes databases of a fifth of so many rows and of all of them, and extrapolates what they took

Prints the tables of docs/scale.md. Times of the model are lower bounds at the shares of peaks below, which are those that published runs reach; where
a figure was measured on a GPU, it stands beside what the model says of the same piece of work.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any, NamedTuple

GB = 1e9
COUNTS = (1, 2, 4, 8, 16, 32, 64)
PROMPT, ANSWER, ANSWERS = 512, 256, 1024
"""Tokens, tokens, and answers in one iteration of PPO, over all GPUs."""
MICROBATCH = 8
"""Answers in one forward of training."""
MFU = 0.4
"""Share of peak FLOP/s that products reach in forwards and in training."""
BANDWIDTH_SHARE = 0.7
"""Of peak memory bandwidth, while tokens are drawn; of the network's, in collectives."""
RESERVE = 6 * GB
"""Memory for the CUDA context, work spaces and fragments."""
PASSES = {"bf16 LoRA": 6, "NF4 LoRA": 6, "all weights": 8}
"""FLOPs for a parameter and a token of an update: forward 2, forward again for what was not kept 2, gradients of states 2, of weights 2."""


@dataclass(frozen=True)
class GPU:
    name: str
    memory: float  # bytes
    flops: float  # of bfloat16 a second, dense
    bandwidth: float  # bytes a second of its memory
    link: float  # bytes a second and direction to others of its machine …
    network: float  # … and to other machines, for each GPU
    of_machine: int = 8


H100 = GPU("H100 80 GB", 80 * GB, 989e12, 3.35e12, 450 * GB, 50 * GB)
H200 = GPU("H200 141 GB", 141 * GB, 989e12, 4.8e12, 450 * GB, 50 * GB)


@dataclass(frozen=True)
class Shape:
    name: str
    parameters: float
    width: int
    layers: int
    kv_width: int  # heads of keys times their size
    vocabulary: int
    linear: float  # parameters that carry a LoRA: those of linear layers without the LM head
    sides: int  # sum over those layers of a block of inputs and outputs: what a LoRA of rank 1 has
    tensor_parallel: int = 1  # GPUs that draw together

    @property
    def kv_bytes(self) -> float:
        """Of one token."""
        return 2 * self.layers * self.kv_width * 2.0

    @property
    def lora(self) -> float:
        """Parameters at rank 16."""
        return 16.0 * self.layers * self.sides


def shape(name: str, width: int, mlp: int, layers: int, kv_width: int, vocabulary: int, tied: bool = False, tensor_parallel: int = 1) -> Shape:
    block = 2 * width * width + 2 * width * kv_width + 3 * width * mlp
    sides = 2 * 2 * width + 2 * (width + kv_width) + 3 * (width + mlp)
    total = layers * block + vocabulary * width * (1 if tied else 2)
    return Shape(name, float(total), width, layers, kv_width, vocabulary, float(layers * block), sides, tensor_parallel)


EIGHT = shape("8B", 4096, 14_336, 32, 1024, 128_256)
SEVENTY = shape("70B", 8192, 28_672, 80, 1024, 128_256, tensor_parallel=4)
SMALL = shape("1.5B", 1536, 8960, 28, 256, 151_936, tied=True)
SEVEN = shape("7.6B", 3584, 18_944, 28, 512, 152_064)


def bytes_of_weights(of: Shape, kind: str) -> float:
    """As they are kept: NF4 with its scales takes 4.127 bits, and embeddings and LM head stay in bfloat16."""
    return of.linear * 4.127 / 8 + (of.parameters - of.linear) * 2 if kind == "NF4 LoRA" else of.parameters * 2


class Cost(NamedTuple):
    """Of one iteration of PPO on `gpus`; seconds, and bytes for each GPU. None: it does not fit."""

    gpus: int
    memory: float  # of training
    draw: float
    score: float
    train: float
    sent: float  # by scoring and training
    bound: dict[str, str]

    @property
    def tokens(self) -> float:
        """Answer tokens a second and GPU, all stages."""
        return ANSWERS * ANSWER / (self.draw + self.score + self.train) / self.gpus


def iteration(of: Shape, gpu: GPU, gpus: int, kind: str) -> Cost | None:
    """Draw, score by reference and reward model (and critic where all weights are trained), train once on every answer."""
    memory, sharded = _memory(of, gpu, gpus, kind)
    draw = _draw(of, gpu, gpus, kind) if kind == "all weights" else _draw_alone(of, gpu, gpus, kind, sharded)
    if memory > gpu.memory or draw is None:
        return None
    tokens = ANSWERS * (PROMPT + ANSWER) / gpus
    line = (gpu.link if gpus <= gpu.of_machine else gpu.network) * BANDWIDTH_SHARE
    judges = 3 if kind == "all weights" else 2
    if sharded and kind != "all weights":
        return _in_shards(of, gpu, gpus, kind, memory, draw)
    score, by_score = _with_network(2 * of.parameters * tokens * judges / (gpu.flops * MFU), _gathered(of, gpus, kind, judges) * sharded, line)
    steps = 1 if gpus >= 8 else 8 // gpus  # gradients are summed over eighths of a round
    heads = 2 if kind == "all weights" else 1  # policy and critic
    sent = (_gathered(of, gpus, kind, 3 * heads) * sharded * steps + _gradients(of, gpus, kind) * heads) * (gpus > 1)
    train, by_train = _with_network(PASSES[kind] * of.parameters * tokens * heads / (gpu.flops * MFU), sent, line)
    told = bytes_told(of, kind) * (gpus > 1)
    return Cost(gpus, memory, draw[0], score, train + told / line, sent + told, {"draw": draw[1], "score": by_score, "train": by_train})


def _in_shards(of: Shape, gpu: GPU, gpus: int, kind: str, memory: float, draw: tuple[float, str]) -> Cost:
    """This program over shards: each pass of each micro-batch gathers all layers inside the machine, and products wait for it."""
    tokens, batches = ANSWERS * (PROMPT + ANSWER) / gpus, max(1.0, ANSWERS / gpus / MICROBATCH)
    gathered, inside = _gathered(of, _shards(gpu, gpus), kind, 1), gpu.link * BANDWIDTH_SHARE
    products = 2 * of.parameters * tokens * 2 / (gpu.flops * MFU), PASSES[kind] * of.parameters * tokens / (gpu.flops * MFU)
    waits = 2 * batches * gathered / inside, 3 * batches * gathered / inside  # reference, reward model; forward, forward again, backward
    gradients = _gradients(of, gpus, kind)
    summed = gradients / ((gpu.link if gpus <= gpu.of_machine else gpu.network) * BANDWIDTH_SHARE)
    bounds = ["network" if wait > product else "FLOPs" for wait, product in zip(waits, products, strict=True)]
    return Cost(
        gpus, memory, draw[0], products[0] + waits[0], products[1] + waits[1] + summed, 5 * batches * gathered + gradients,
        {"draw": draw[1], "score": bounds[0], "train": bounds[1]},
    )  # fmt: skip


def _shards(gpu: GPU, gpus: int) -> int:
    """GPUs that keep one copy of a base: those of a machine."""
    return min(gpus, gpu.of_machine)


def bytes_told(of: Shape, kind: str) -> float:
    """What drawing gets after an update."""
    return of.parameters * 2 if kind == "all weights" else of.lora * 2


def _memory(of: Shape, gpu: GPU, gpus: int, kind: str) -> tuple[float, bool]:
    """Bytes on each GPU while training, and whether the base is sharded for that."""
    tokens = MICROBATCH * (PROMPT + ANSWER)  # of one micro-batch
    states = tokens * of.width * 2 * of.layers + 48e6 * 4 + 34 * tokens * of.width  # between layers; logits by chunks; one layer again
    if kind == "all weights":  # weights and gradients in bf16, Adam's moments and a copy in float32; policy and critic; the reference's weights
        return (2 * 16 + 2) * of.parameters / gpus + states + RESERVE, gpus > 1
    base, trained = bytes_of_weights(of, kind), 16 * of.lora * 2  # policy, reward model
    fits = base + trained + states + RESERVE <= gpu.memory * 0.9
    shard = base / _shards(gpu, gpus) + base / of.layers  # and one layer whole
    return (base if fits else shard) + trained + states + RESERVE, not fits and gpus > 1


def _draw(of: Shape, gpu: GPU, gpus: int, kind: str) -> tuple[float, str] | None:
    """Seconds to draw all answers: each step reads the weights once and the keys and values of all answers that are drawn together."""
    together = min(of.tensor_parallel, gpus)
    weights = bytes_of_weights(of, kind)
    room = gpu.memory * 0.9 * together - weights - RESERVE * together
    most = int(room // (of.kv_bytes * (PROMPT + ANSWER)))
    if most < 1:
        return None
    answers = ANSWERS * together / gpus  # of one group
    at_once = min(answers, most, 256)
    read = weights + at_once * of.kv_bytes * (PROMPT + ANSWER / 2)
    by_memory = read / (gpu.bandwidth * together * BANDWIDTH_SHARE)
    by_products = 2 * of.parameters * at_once / (gpu.flops * together * MFU)
    exchanged = 2 * 2 * of.layers * at_once * of.width * 2 / (gpu.link * BANDWIDTH_SHARE) if together > 1 else 0.0
    prefill = 2 * of.parameters * PROMPT * answers / (gpu.flops * together * MFU)
    step = max(by_memory, by_products) + exchanged
    return step * ANSWER * answers / at_once + prefill, "memory bandwidth" if by_memory > by_products else "FLOPs"


def _draw_alone(of: Shape, gpu: GPU, gpus: int, kind: str, sharded: bool) -> tuple[float, str] | None:
    """Seconds where each GPU draws its own answers, as this program does: over shards each step gathers the layers."""
    weights = bytes_of_weights(of, kind)
    kept = weights / _shards(gpu, gpus) + weights / of.layers if sharded else weights
    most = int((gpu.memory * 0.9 - kept - 16 * of.lora * 2 - RESERVE) // (of.kv_bytes * (PROMPT + ANSWER)))
    if most < 1:
        return None
    answers = ANSWERS / gpus
    at_once = min(answers, most, 256)
    by_memory = (weights + at_once * of.kv_bytes * (PROMPT + ANSWER / 2)) / (gpu.bandwidth * BANDWIDTH_SHARE)
    by_products = 2 * of.parameters * at_once / (gpu.flops * MFU)
    by_network = _gathered(of, _shards(gpu, gpus), kind, 1) / (gpu.link * BANDWIDTH_SHARE) if sharded else 0.0
    prefill = 2 * of.parameters * PROMPT * answers / (gpu.flops * MFU)
    bounds = {"memory bandwidth": by_memory, "FLOPs": by_products, "network": by_network}
    return (max(by_memory, by_products) + by_network) * ANSWER * answers / at_once + prefill, max(bounds, key=bounds.__getitem__)


def _gathered(of: Shape, gpus: int, kind: str, times: float) -> float:
    return bytes_of_weights(of, kind) * (gpus - 1) / gpus * times


def _gradients(of: Shape, gpus: int, kind: str) -> float:
    """A ring sends twice what is summed; sharded weights send it once, among what is gathered."""
    return 0.0 if kind == "all weights" else 2 * of.lora * 4 * (gpus - 1) / gpus


def _with_network(products: float, sent: float, line: float) -> tuple[float, str]:
    """Collectives run beside products: the longer of the two."""
    network = sent / line
    return max(products, network), "network" if network > products else "FLOPs"


# --- tables ----------------------------------------------------------------------------------------------------------------


def table(heading: str, rows: list[list[str]]) -> str:
    names = heading.split("|")
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows))


def gpu_tables() -> Iterator[str]:
    for of in (EIGHT, SEVENTY):
        for kind in PASSES:
            rows = [_row(gpus, iteration(of, H100, gpus, kind)) for gpus in COUNTS]
            heading = "GPUs|memory each, GB|draw, s|score, s|train, s|answer tokens/s and GPU|sent by each, GB|bound by: draw, score, train"
            yield f"**{of.name}, {kind}, {H100.name}**\n\n{table(heading, rows)}"


def _row(gpus: int, cost: Cost | None) -> list[str]:
    if cost is None:
        return [str(gpus), "does not fit", *[""] * 6]
    seconds = [f"{each:.1f}" for each in (cost.draw, cost.score, cost.train)]
    return [str(gpus), f"{cost.memory / GB:.0f}", *seconds, f"{cost.tokens:,.0f}", f"{cost.sent / GB:.2f}", ", ".join(cost.bound.values())]


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.2g}"


def measured_table() -> str:
    """What ran on one H200, and what the roofline says of the same work on it."""
    step = bytes_of_weights(SMALL, "NF4 LoRA") / (H200.bandwidth * BANDWIDTH_SHARE)
    adapter = (bytes_of_weights(SMALL, "NF4 LoRA") + SMALL.lora * 2) / (H200.bandwidth * BANDWIDTH_SHARE)
    update = 2 * 6 * SMALL.parameters * 32 * (43 + 64) / (H200.flops * MFU)
    rankings = 6 * SMALL.parameters * 32 * (43 + 64) / (H200.flops * MFU)
    peak = bytes_of_weights(SEVEN, "NF4 LoRA") + 16 * SEVEN.lora
    rows = [
        ("a step of 4 answers, 1.5B NF4, ms", 1e3 * step, 6.1, "launches of 28 layers; weights unpacked at each step"),
        ("the same with an adapter, ms", 1e3 * adapter, 10.0, "launches"),
        ("PPO's update of 32 answers of 64 tokens, 1.5B NF4, ms", 1e3 * update, 1750.0, "launches; two passes in the model too"),
        ("reward model, 8 rankings of 4, 1.5B NF4, ms", 1e3 * rankings, 1e3 * 48 / 82.5, "launches, LoRA products in float32"),
        ("7.6B NF4, SFT, prompts 512, answers 256, peak GB", peak / GB, 7.0, "weights, adapter and moments in both; a batch in the second"),
    ]  # fmt: skip
    told = [[what, _short(model), _short(measured), f"{measured / model:.1f}", why] for what, model, measured, why in rows]
    return table("work on one H200|model|measured|times the model|what the difference is", told)


# --- the database ----------------------------------------------------------------------------------------------------------


def database_table(rows: int, to: int = 10_000_000) -> str:
    small, large = (_measured(n) for n in (rows // 5, rows))
    told = []
    for what, (before, unit) in small.items():
        now = large[what][0]
        exponent = log(now / before) / log(5) if before > 0 and now > 0 else 0.0
        grows = max(exponent, 1.0) if exponent > 0.3 else 0.0  # what does not grow with the log stays
        told.append([what, f"{before:.3g} {unit}", f"{now:.3g} {unit}", f"{exponent:.2f}", f"{now * (to / rows) ** grows:,.3g} {unit}"])
    return table(f"imported comparisons|{rows // 5:,}|{rows:,}|exponent|{to:,}, extrapolated", told)


def _measured(rows: int) -> dict[str, tuple[float, str]]:
    """Seconds are of the processor."""
    import json

    from benchmarks.importing import rows as made_up
    from storage.exchange.importing import import_file
    from storage.journal import Journal
    from storage.queries import Record
    from storage.verification import problems

    found: dict[str, tuple[float, str]] = {}

    def timed(what: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        done = work()
        found[what] = (time.process_time() - started, "s")
        return done

    with tempfile.TemporaryDirectory() as folder:
        file, path = Path(folder) / "rows.jsonl", Path(folder) / "tamer.db"
        with file.open("w", encoding="utf-8") as out:
            for row in made_up(rows, "preference"):
                out.write(json.dumps(row) + "\n")
        with Journal.open(path) as journal:
            timed("import", lambda: import_file(journal, file))
        found["size"] = (path.stat().st_size / GB, "GB")
        timed("`tamer verify`: chain, rows, counts", lambda: list(problems(path)))
        with Record(path) as record:
            timed("what the Arena asks first", lambda: (record.counts(), record.base(), record.last_undoable()))
            listed = timed("what teaches, for the sample", record.teaching)
            chunks = [[each.seq for each in listed[start : start + 512]] for start in range(0, len(listed), 512)]
            timed("to read all of it, as an engine is told", lambda: [len(record.lessons_of(chunk)) for chunk in chunks])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", type=int, metavar="ROWS", help="measure databases instead")
    options = parser.parse_args()
    if options.database:
        print(database_table(options.database))
        return
    for each in (*gpu_tables(), measured_table()):
        print(f"{each}\n")


if __name__ == "__main__":
    main()
