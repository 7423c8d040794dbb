"""The reward model in the folder `reward` beside this file, as a service for trainers: `python reward.py [--host 127.0.0.1] [--port 5001]`.

An answer's score is the mean, over its tokens, of the value after each of them, plus `reward_offset` of the model's config. A plain
sequence-classification model gives the value after the last token alone, which is not what was learned: so trainers ask this service.

It takes a POST of {"query": [prompt and answer as one text], "prompts": [prompt as a text]}, or of {"answer_ids": [tokens], "prompts": …}, and says
{"rewards": [score], "scores": [score], "extra_logs": {}}: OpenRLHF's --reward.remote_url speaks the first. `score` is the reward function for TRL and
`compute_score` the one for verl; they ask the service at REWARD_URL (http://127.0.0.1:5001). This file needs torch and transformers and nothing else.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

MOST_AT_ONCE = 16
"""Answers in one forward."""
HERE = Path(__file__).resolve().parent


class Rewards:
    """Scores texts; on a GPU where there is one."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._torch, self._lock = torch, Lock()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
        self._model.to(device).eval()

    def of_texts(self, queries: list[str], prompts: list[str]) -> list[float]:
        """Of each query, which begins with its prompt."""
        split = [self._split(query, len(prompt)) for query, prompt in zip(queries, prompts, strict=True)]
        return self.of_tokens([prompt for prompt, _ in split], [answer for _, answer in split])

    def of_ids(self, answers: list[list[int]], prompts: list[str]) -> list[float]:
        """Of answers in tokens."""
        return self.of_tokens([self._split(prompt, len(prompt))[0] for prompt in prompts], answers)

    def of_tokens(self, prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
        found: list[float] = []
        with self._lock, self._torch.inference_mode():
            for start in range(0, len(answers), MOST_AT_ONCE):
                found += self._scores(prompts[start : start + MOST_AT_ONCE], answers[start : start + MOST_AT_ONCE])
        return found

    def _scores(self, prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
        torch, model = self._torch, self._model
        rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
        mask, judged = torch.zeros_like(ids), torch.zeros_like(ids)
        for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
            judged[i, len(prompt) : len(row)] = 1
        ids, mask, judged = (each.to(model.device) for each in (ids, mask, judged))
        states = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        values = model.score(states)[..., 0].float()
        lengths = judged.sum(1)
        scores = (values * judged).sum(1) / lengths.clamp_min(1) + model.config.reward_offset
        return [float(score) if length else 0.0 for score, length in zip(scores, lengths, strict=True)]

    def _split(self, query: str, prompt_length: int) -> tuple[list[int], list[int]]:
        """Tokens of a prompt and of what follows it, as they are in one text."""
        found = self._tokenizer(query, add_special_tokens=self._tokenizer.chat_template is None, return_offsets_mapping=True)
        ids, ends = list(found.input_ids), [end for _, end in found.offset_mapping]
        start = next((i for i, end in enumerate(ends) if end > prompt_length), len(ids))
        return ids[:start], ids[start:]


# --- what trainers call ----------------------------------------------------------------------------------------------------


def score(prompts: list[Any], completions: list[Any], completion_ids: list[list[int]] | None = None, **columns: Any) -> list[float]:
    """TRL's reward function."""
    asked = [_rendered(prompt) for prompt in prompts]
    if completion_ids is not None:
        return _ask(answer_ids=completion_ids, prompts=asked)
    said = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
    return _ask(query=[a + b + (_tokenizer().eos_token or "") for a, b in zip(asked, said, strict=True)], prompts=asked)


def compute_score(data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None, **more: Any) -> float:
    """verl's reward function: the prompt is in `extra_info`."""
    asked = _rendered(json.loads((extra_info or {})["messages"]))
    return _ask(query=[asked + solution_str + (_tokenizer().eos_token or "")], prompts=[asked])[0]


@functools.cache
def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(HERE / "reward")


def _rendered(prompt: Any) -> str:
    """A prompt of messages as the text that the model continues."""
    if isinstance(prompt, str):
        return prompt
    if _tokenizer().chat_template is None:
        return "\n".join(message["content"] for message in prompt)
    return str(_tokenizer().apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))


def _ask(**what: Any) -> list[float]:
    body = json.dumps(what).encode()
    request = urllib.request.Request(os.environ.get("REWARD_URL", "http://127.0.0.1:5001"), body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return list(json.load(answer)["rewards"])


# --- the service -----------------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    rewards: Rewards

    def do_POST(self) -> None:
        status, said = 200, dict[str, Any]()
        try:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            rewards, prompts = self.rewards, asked["prompts"]
            scores = rewards.of_ids(asked["answer_ids"], prompts) if "answer_ids" in asked else rewards.of_texts(asked["query"], prompts)
            said = {"rewards": scores, "scores": scores, "extra_logs": {}}
        except (KeyError, TypeError, ValueError) as error:
            status, said = 400, {"error": f"not a query: {error!r}"}
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: there is a request for every answer."""


def service(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """Ready to serve; port 0 takes a free one."""
    return ThreadingHTTPServer((host, port), type("Handler", (_Handler,), {"rewards": Rewards(folder)}))


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the reward model to trainers.")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 where trainers are on other machines of a private network")
    parser.add_argument("--port", type=int, default=5001)
    options = parser.parse_args()
    with service(HERE / "reward", options.host, options.port) as server:
        print(f"rewards at http://{options.host}:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
