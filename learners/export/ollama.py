"""A Modelfile for Ollama: chat template, stop words, system prompt and sampling as the version was taught with.

Ollama's templates are Go's, the model's is Jinja's. What stands between two turns is read off a conversation that Jinja rendered; the Go template is
written only if it renders other conversations to the same text. https://github.com/ollama/ollama/blob/main/docs/modelfile.md
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from learners.export.gguf_vocabulary import opens
from learners.export.request import ExportRequest
from learners.model.chat_format import Renderer
from learners.model.chat_template import ChatTemplate
from learners.model.checkpoint import read_config
from learners.model.drawing_settings import drawing_settings
from learners.model.tokenizers import load_tokenizer
from storage.records import Message, Role

LARGEST_CONTEXT = 8192
"""Tokens that are asked for, however many the model could read: Ollama reserves memory for all of them."""
QUOTE = '"""'
PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
"""What is drawn by where neither the sitting nor the model says it; Ollama's own defaults are others."""
Turns = Sequence[tuple[Role, str]]
"""Role and content."""


class GoTemplate(NamedTuple):
    """Texts around the turns of a conversation. A user's turn opens the answer to it."""

    opening: str  # where there is no system message
    system: tuple[str, str] | None  # None where system messages are left out
    user: tuple[str, str]
    after_answer: str

    def render(self, turns: Turns) -> str:
        """What Ollama makes of a conversation."""
        around = {"system": self.system, "user": self.user, "assistant": ("", self.after_answer)}
        text = "".join(found[0] + content + found[1] for role, content in turns if (found := around[role]) is not None)
        return text if turns[0][0] == "system" else self.opening + text

    def __str__(self) -> str:
        around = {"system": self.system, "user": self.user, "assistant": ("", self.after_answer)}
        roles = (f'if eq .Role "{role}" }}}}{found[0]}{{{{ .Content }}}}{found[1]}' for role, found in around.items() if found is not None)
        opening = f"{{{{ if not .System }}}}{self.opening}{{{{ end }}}}" if self.opening else ""
        return opening + "{{ range .Messages }}{{ " + "{{ else ".join(roles) + "{{ end }}{{ end }}"


def modelfile(directory: Path, file: str, request: ExportRequest) -> tuple[str, tuple[str, ...]]:
    """Its text, and what a person should know of it. `directory` holds the model that `file` was made of."""
    from transformers import GenerationConfig

    tokenizer, config = load_tokenizer(directory, request.trust_remote_code), read_config(directory)
    generation = GenerationConfig.from_pretrained(directory) if (directory / "generation_config.json").is_file() else None
    eos = getattr(generation, "eos_token_id", None) or config.get("eos_token_id")
    renderer = Renderer(tokenizer, int(config["vocab_size"]), [eos] if isinstance(eos, int) else eos or [])
    notes = []
    lines = [f"FROM ./{file}"]
    template, whole = go_template(tokenizer) if renderer.chat_template else (None, True)
    if renderer.chat_template and template is None:
        notes.append("the chat template cannot be told in Ollama's language: it goes by the one in the GGUF, if it knows it")
    else:
        lines.append(f"TEMPLATE {QUOTE}{template or '{{ .Prompt }}'}{QUOTE}")
        if not whole:
            notes.append("the chat template cuts long conversations, which Ollama's does not")
    if request.system and QUOTE in request.system:
        notes.append("the system prompt has three quotation marks in a row and is not in the Modelfile")
    elif request.system:
        apart = " " if request.system.endswith('"') else ""
        lines.append(f"SYSTEM {QUOTE}{request.system}{apart}{QUOTE}")
    ends = [*map(tokenizer.convert_ids_to_tokens, sorted(renderer.eos_ids)), *(text for text in request.stop if QUOTE not in text)]
    lines += [f"PARAMETER stop {QUOTE}{text}{QUOTE}" for text in ends]
    context = min(int(config.get("max_position_embeddings") or LARGEST_CONTEXT), LARGEST_CONTEXT)
    own = drawing_settings(vars(generation) if generation is not None else {})
    drawing = PLAIN | own | request.drawing | {"num_predict": request.max_new_tokens, "num_ctx": context}
    drawing["repeat_penalty"] = drawing.pop("repetition_penalty")
    lines += [f"PARAMETER {name} {value:g}" for name, value in drawing.items()]
    return "\n".join(lines) + "\n", tuple(notes)


def go_template(tokenizer: Any) -> tuple[GoTemplate | None, bool]:
    """None where the chat template is no sequence of turns with fixed texts around them; and whether long conversations come out the same too."""
    try:
        found = _read_off(tokenizer)
        same = [found.render(turns) == _rendered(tokenizer, turns) for turns in TRIED]
    except Exception:  # a template is a program: it may raise anything, or leave out what it is given
        return None, False
    texts = [*(found.system or ()), *found.user, found.opening, found.after_answer]
    told = all(same[:-1]) and not any("{{" in text or QUOTE in text for text in texts)
    return (found if told else None), same[-1]


TRIED: tuple[Turns, ...] = (
    (("user", "Hello!"),),
    (("system", "Be brief.\nBe kind."), ("user", "Why?")),
    (("user", "One"), ("assistant", "Two.\n\nThree."), ("user", "Four?")),
    (("system", "S"), ("user", "a b"), ("assistant", "c"), ("user", "d"), ("assistant", "e"), ("user", "f")),
)


def _read_off(tokenizer: Any) -> GoTemplate:
    """Raises ValueError where a text is missing."""
    plain = _between(_rendered(tokenizer, (("user", "UUU"), ("assistant", "AAA"), ("user", "VVV"))), ("UUU", "AAA", "VVV"))
    led = _rendered(tokenizer, (("system", "SSS"), ("user", "UUU")))
    before_system, after_system, _ = _between(led, ("SSS", "UUU")) if "SSS" in led else ("", plain[0], "")
    before_user = _common_ending(plain[0], plain[2], after_system)
    return GoTemplate(
        plain[0].removesuffix(before_user),
        (before_system, after_system.removesuffix(before_user)) if "SSS" in led else None,
        (before_user, plain[3]),
        plain[2].removesuffix(before_user),
    )


def _rendered(tokenizer: Any, turns: Turns) -> str:
    """As a sitting writes it, without the token that opens a sequence where a GGUF's reader puts it there itself."""
    text = ChatTemplate(tokenizer, {}).text([Message(role, content) for role, content in turns])
    return text.removeprefix(tokenizer.bos_token) if opens(tokenizer) else text


def _between(text: str, marks: Sequence[str]) -> list[str]:
    """What is before, between and after the marks."""
    found = []
    for mark in marks:
        before, there, text = text.partition(mark)
        if not there:
            raise ValueError(f"{mark} is not there")
        found.append(before)
    return [*found, text]


def _common_ending(*texts: str) -> str:
    same = takewhile(lambda ends: len(set(ends)) == 1, zip(*(reversed(text) for text in texts), strict=False))
    return "".join(ends[0] for ends in same)[::-1]
