"""What is learned of an answer is what the template writes for it when the conversation goes on, or the difference is known."""

from __future__ import annotations

from typing import Any

import pytest

from learners.model.answer_text import pieces_of
from learners.model.chat_format import Renderer
from storage.records import Message
from tests.learners.model import templates
from tests.learners.model.families import FAMILIES, tokenizer_of
from tests.learners.models import GPT2_TOKENIZER, STORIES, needs_gpt2, needs_stories

ASKED, SAID, MORE = Message("user", "What is a dog?"), Message("assistant", "Yes, an animal."), Message("user", "And a cat?")
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<end_of_utterance>")
WITHOUT_THOUGHT = "older answers have no thought, and this one has an empty one"
NO_END = "its turns end by a space or nothing: the model's own end token is learned instead"
DIFFERENCES = {"R1": WITHOUT_THOUGHT, "DISTILLED": WITHOUT_THOUGHT, "QWEN3": WITHOUT_THOUGHT, "LLAVA": NO_END}
SAME = ("CHATML", "SMOLVLM", "LLAVA_NEXT", "INTERNVL", "PHI3", "GEMMA", "MISTRAL", "DEMANDS_SYSTEM", "V3_1")


def renderer_of(tokens: str, template: str) -> Renderer:
    from transformers import AutoTokenizer

    tokenizer: Any = tokenizer_of(FAMILIES["llama"]) if tokens == "bytes" else AutoTokenizer.from_pretrained(tokens)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = getattr(templates, template)
    return Renderer(tokenizer, len(tokenizer))


TOKENIZERS = [
    "bytes",
    pytest.param(str(GPT2_TOKENIZER), marks=needs_gpt2, id="gpt2"),
    pytest.param(str(STORIES), marks=needs_stories, id="sentencepiece"),
]


@pytest.mark.parametrize("tokens", TOKENIZERS)
@pytest.mark.parametrize("family", [*SAME, *DIFFERENCES])
def test_what_is_learned_of_an_answer_is_what_the_template_writes_for_it(tokens: str, family: str) -> None:
    renderer = renderer_of(tokens, family)
    learned = [*renderer.encode([ASKED]), *renderer.no_thought, *renderer.encode_completion(SAID.content)]
    written = renderer.encode([ASKED, SAID, MORE])
    known = family in DIFFERENCES or (family == "V3_1" and tokens == str(STORIES))  # whose tokens for thoughts no such tokenizer has
    assert (written[: len(learned)] == learned) != known
    if DIFFERENCES.get(family) == NO_END:
        assert written[: len(learned) - 1] == learned[:-1]


def test_of_a_thinkers_newest_answer_an_empty_thought_is_written_as_it_is_learned() -> None:
    renderer = renderer_of("bytes", "QWEN3")
    learned = [*renderer.encode([ASKED]), *renderer.no_thought, *renderer.encode_completion(SAID.content)]
    assert renderer._ids(renderer._template.text([ASKED, SAID], prompt=False), special=True)[: len(learned)] == learned


@pytest.mark.parametrize("tokens", TOKENIZERS)
@pytest.mark.parametrize("family", ["MISTRAL", "LLAVA", "SMOLVLM"])
def test_a_space_before_answers_is_the_templates_and_neither_shown_nor_written_twice(tokens: str, family: str) -> None:
    renderer = renderer_of(tokens, family)
    for text in ("Yes.", "Yes", "¡Sí!", ""):
        ids = renderer.encode_completion(text)
        assert renderer.decode(ids) == "".join(pieces_of(renderer, ids)) == text
    drawn = renderer._ids(f"{renderer.lead}Yes.", special=False)
    said = Message("assistant", renderer.decode(drawn))
    assert renderer.encode([ASKED, said, MORE])[len(renderer.encode([ASKED])) :][: len(drawn)] == drawn
    assert renderer.encode([ASKED, Message("assistant", f"{renderer.lead}Yes."), MORE]) == renderer.encode([ASKED, said, MORE])
    assert (renderer.lead == "") == (tokens == str(STORIES))


def test_templates_without_one_are_as_they_were() -> None:
    for family in ("CHATML", "GEMMA", "QWEN3", "DEMANDS_TOOLS"):
        assert renderer_of("bytes", family).lead == ""
