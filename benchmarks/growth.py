"""Does a sitting's memory grow? The engine's two threads over a random model of a large vocabulary, with thousands of judged sets.

    python benchmarks/growth.py [--sets 2000] [--drawn 100] [--tokens 64]

The model is a random Qwen2 of V = 151,936, 32 wide with 2 layers, on Pocket's tokenizer. `--drawn` sets of four answers are drawn by the engine and
ranked, the rest are four random answers of `--tokens` ids each, ranked as if they came from another engine. Prints one JSON line: resident memory
beyond what it was when the model had been loaded, at every tenth of the way.
"""

from __future__ import annotations

import argparse
import json
import queue
import random
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import torch

from learners import protocol
from learners.engine.serving import Workers
from learners.model.checkpoint import POCKET
from learners.protocol import Answer, AnswerRequest, Ended, Event, Learned, Lesson, Load, Ready, Started, Tokens
from storage.records import Message, Ranking, Sampling

VOCABULARY = 151_936
PROMPT = (Message("user", "What is the opposite of hot?"),)


def random_model(directory: Path) -> Path:
    """A random model with Pocket's tokenizer, saved."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(8)  # far from uniform, so that some tokens are likely
    model.save_pretrained(directory)
    for file in POCKET.iterdir():
        if "token" in file.name or "template" in file.name:
            shutil.copy(file, directory)
    return directory


class Engine:
    """The working threads, driven as the terminal drives them."""

    def __init__(self, model: Path) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.commands: queue.SimpleQueue[protocol.Command] = queue.SimpleQueue()
        load = Load(model=str(model), quantize="none", device="cpu", sampling=Sampling(1.0, 64), paused=True)
        workers = Workers.load(load, self.events.put, self.commands, threading.Event())
        for work in (workers.generator.run, workers.learner.run):
            threading.Thread(target=work, daemon=True).start()
        self.commands.put(protocol.Replay(lessons=(), last=True))
        self.context = self.until(Ready).context

    def until(self, kind: type) -> Event:  # type: ignore[type-arg]
        while True:
            event = self.events.get(timeout=300)
            if isinstance(event, protocol.Error):
                print("engine:", event.what, flush=True)
            if isinstance(event, kind):
                return event

    def draw(self, n: int, tokens: int) -> list[Answer]:
        requests = tuple(AnswerRequest(uid=f"{n}/{i}", seed=4 * n + i, messages=PROMPT) for i in range(4))
        self.commands.put(protocol.Generate(requests=requests, sampling=Sampling(1.0, tokens)))
        ids: dict[str, list[int]] = {request.uid: [] for request in requests}
        prompts: dict[str, tuple[int, ...]] = {}
        ended: dict[str, Ended] = {}
        while len(ended) < 4:
            match self.events.get(timeout=300):
                case Tokens(pieces=pieces):
                    for piece in pieces:
                        ids[piece.uid][piece.start :] = piece.ids
                case Started(uid=uid, prompt_ids=prompt_ids):
                    prompts[uid] = prompt_ids
                case Ended() as event:
                    ended[event.uid] = event
        return [Answer(uid=u, messages=PROMPT, text=ended[u].text, prompt_ids=prompts[u], token_ids=tuple(ids[u]), stop=ended[u].reason) for u in ids]

    def rank(self, seq: int, answers: list[Answer]) -> None:
        ranking = Ranking("s", {answer.uid: i + 1 for i, answer in enumerate(answers)})
        self.commands.put(protocol.AddJudgement(lesson=Lesson(seq=seq, judgement=ranking, answers=tuple(answers))))
        self.until(Learned)


def invented(n: int, tokens: int, choice: random.Random, prompt_ids: tuple[int, ...]) -> list[Answer]:
    drawn = [tuple(int(choice.paretovariate(0.6)) * 7 % VOCABULARY for _ in range(tokens)) for _ in range(4)]
    return [Answer(uid=f"{n}/{i}", messages=PROMPT, text="x", prompt_ids=prompt_ids, token_ids=ids, stop="length") for i, ids in enumerate(drawn)]


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--drawn", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    choice, grown = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(random_model(Path(folder)))
        before = resident_mb()
        first = engine.draw(0, options.tokens)
        engine.rank(1, first)
        for n in range(1, options.sets):
            answers = engine.draw(n, options.tokens) if n < options.drawn else invented(n, options.tokens, choice, first[0].prompt_ids)
            engine.rank(n + 1, answers)
            if n % max(1, options.sets // 10) == 0:
                grown.append(round(resident_mb() - before))
                print(f"{n} sets: {grown[-1]} MB", file=sys.stderr, flush=True)
    print(json.dumps({"sets": options.sets, "vocabulary": VOCABULARY, "mb_beyond_load": [*grown, round(resident_mb() - before)]}))


if __name__ == "__main__":
    main()
