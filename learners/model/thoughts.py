"""Thoughts that a model writes before its answer: how its family marks them, whether its template has begun one already, and where the answer begins.

Recognised by what the chat template says, not by a model's name: it begins a thought, drops or writes those of past turns, or has a switch. Tokens
alone say nothing: models that never think have them from models that do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MARKS = (
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss: the answer is a channel of its own
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<thought>", "</thought>"),  # EXAONE Deep
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("<think>", "</think>"),  # Qwen 3, DeepSeek R1, SmolLM3, GLM, Granite, Phi-4, Nemotron …
)
"""What opens a thought and what closes it, by family; the first pair that a template speaks of is the model's."""
SWITCHES = ("enable_thinking", "thinking", "reasoning_effort", "thinking_mode")
"""Variables by which templates turn thinking on and off, or up and down."""
BOOLEAN = SWITCHES[:2]
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_OF_TRAINING = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
"""Tags of transformers' own."""
RESPONSES = (("<response>", "</response>"), ("<|START_RESPONSE|>", "<|END_RESPONSE|>"))
"""Granite and Command A wrap their answer, too."""


class Split(NamedTuple):
    """An answer taken apart."""

    thought: str
    answer: str
    closed: bool  # False while the thought still goes on


@dataclass(frozen=True)
class Thoughts:
    """How one model writes its thoughts."""

    opens: str
    closes: str
    prefilled: bool = False  # the template's prompt ends within a thought
    switch: str | None = None  # the template's variable

    @property
    def ends(self) -> str:
        """What ends the text of a thought: where the answer is a channel of its own, more follows before that opens."""
        return "<|end|>" if self.closes.startswith("<|channel|>final") else self.closes

    @property
    def closing(self) -> str:
        """What is put behind a thought that is to end."""
        return f"\n{self.closes}\n\n" if self.ends == self.closes else f"{self.ends}<|start|>assistant{self.closes}"

    @staticmethod
    def of(tokenizer: Any, prompt: str = "") -> Thoughts | None:
        """Of a model's tokenizer, and the text of some prompt as its template renders it; None where it is not known to think."""
        template = _template_of(tokenizer)
        own = {str(token) for token in tokenizer.added_tokens_decoder.values()}
        switch = next((name for name in SWITCHES if name in _variables(template)), None)
        found = next(((a, b) for a, b in MARKS if _speaks_of(template, own, switch is not None, a, b)), None)
        if found is None:
            return None
        return Thoughts(*found, prompt.rfind(found[0]) > prompt.rfind(found[1]), switch)

    def split(self, text: str) -> Split:
        """The thought and the answer of a whole text, or of one that is still being written, with the model's marks kept as text.

        A text that does not open with one of them is an answer, whatever marks come later, unless the template has opened a thought.
        """
        if not self._begins(text):
            return Split("", text, True)
        thought, closing, answer = text.lstrip().removeprefix(self.opens).partition(self.closes)
        thought = thought.partition(self.ends)[0]
        return Split(thought.strip(), _unwrapped(answer).lstrip(), bool(closing))

    def _begins(self, text: str) -> bool:
        return self.prefilled or text.lstrip().startswith((self.opens, self.closes))

    def answer_begins(self, pieces: Sequence[str]) -> int:
        """The index of the first token of the answer, by the text of each token, special ones included; their number while the thought goes on."""
        text = "".join(pieces)
        if not self._begins(text):
            return 0
        if self.closes not in text:
            return len(pieces)
        at = text.index(self.closes) + len(self.closes)
        while at < len(text) and text[at].isspace():
            at += 1
        read = 0
        for i, piece in enumerate(pieces):
            if read + len(piece) > at:
                return i
            read += len(piece)
        return len(pieces)


def switches(tokenizer: Any, thinking: str) -> dict[str, bool]:
    """What the template is told so that the model thinks ('on'), or does not ('off'); nothing for 'auto'. ValueError, in words, where it has no
    switch for that."""
    known = Thoughts.of(tokenizer)
    if thinking == "auto":
        return {}
    if known is not None and known.switch in BOOLEAN:
        return {str(known.switch): thinking == "on"}
    if (thinking == "on") != (known is not None):
        raise ValueError(f"the model's template has no switch that turns thinking {thinking}")
    return {}


def _template_of(tokenizer: Any) -> str:
    """As it is used where no tools are; without comments."""
    found = tokenizer.chat_template
    if isinstance(found, dict):
        found = found.get("default")
    return _COMMENT.sub("", str(found or ""))


def _variables(template: str) -> set[str]:
    """What a template asks of whoever applies it; nothing where it is none."""
    from jinja2 import Environment, TemplateError, meta

    try:
        return meta.find_undeclared_variables(Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_OF_TRAINING.sub("", template)))
    except TemplateError:
        return set()


def _speaks_of(template: str, tokens: set[str], switched: bool, opens: str, closes: str) -> bool:
    """gpt-oss' marks are several tokens, and a template may build them from parts."""
    if opens in template or closes in template:
        return True
    if opens.startswith("<|channel|>"):
        return {"<|channel|>", "<|message|>"} <= tokens and "<|channel|>" in template
    return switched and closes in tokens and any(token and opens.startswith(token) for token in tokens)  # what opens it may be a token and a word


def _unwrapped(answer: str) -> str:
    inner = answer.strip()
    for opening, closing in RESPONSES:
        if inner.startswith(opening):
            return inner[len(opening) :].removesuffix(closing).strip()
    return answer
