"""Peak memory of training steps at a vocabulary of 151,936, this tree beside an earlier commit, in one run.

    python benchmarks/training_memory.py [--before ce5d47c] [--large]

Prints one JSON line for each step: the peak beyond the base and what stood there before it (adapters), in both trees, and the ratio. Steps, with
prompts of 43 and answers of 64 tokens: a reward step on 8 rankings of 4 answers, and a PPO step on 32 answers, 4 to a prompt, 2 epochs. Gradients and
Adam's moments are in the peak. The model is random and of Qwen2's kind, 256 wide with 4 layers; with --large, or where there is a GPU, it has the
shape of a 1.5B model in NF4.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from before_and_after import BEFORE, ROOT, Child, extracted

VOCABULARY = 151_936
SMALL: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
LARGE: dict[str, Any] = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
}  # fmt: skip
TOKENIZER = ROOT.parent / "shared" / "data" / "gpt2_tokenizer"
WORK = {"reward": (32, 4), "ppo": (32, 4)}


def save(directory: Path, shape: dict[str, Any], device: str) -> None:
    """A random model, with GPT-2's tokenizer beside it."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(vocab_size=VOCABULARY, tie_word_embeddings=True, max_position_embeddings=8192, bos_token_id=1, eos_token_id=2, **shape)
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    with torch.device(device):
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(directory)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, directory)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", default=BEFORE, help="the commit to compare with")
    parser.add_argument("--large", action="store_true", help="the 1.5B shape on a CPU too")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    large = options.large or device == "cuda"
    with extracted(options.before) as tree, tempfile.TemporaryDirectory() as model:
        save(Path(model), LARGE if large else SMALL, device)
        shape = "1.5B, NF4" if large else "256 wide, 4 layers"
        for work, (answers, each) in WORK.items():
            peaks = []
            for place in (tree, ROOT):
                child = Child(place, model, "nf4" if large else "none", device)  # a fresh one: what was freed stays resident
                peaks.append(child.measure(work, 43, 64, answers, each)["bytes"])
                child.close()
            figures = {"before_mb": round(peaks[0] / 1e6), "after_mb": round(peaks[1] / 1e6), "ratio": round(peaks[0] / peaks[1], 1)}
            print(json.dumps({"work": work, "model": shape, "device": device, **figures}), flush=True)


if __name__ == "__main__":
    main()
