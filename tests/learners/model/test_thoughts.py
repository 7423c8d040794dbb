"""Thoughts of the families: recognised by template and tokens, and where the answer begins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from learners.model.chat_format import Renderer
from learners.model.thoughts import Thoughts
from tests.learners.model.families import FAMILIES, TEMPLATE, VOCABULARY, tokenizer_of
from tests.learners.model.templates import CHATML

QWEN = "{% if enable_thinking is false %}<think>\\n\\n</think>{% endif %}"


def tokenizer(template: str, *tokens: str) -> Any:
    return SimpleNamespace(chat_template=template, added_tokens_decoder=dict(enumerate(tokens)))


@pytest.mark.parametrize(
    ("template", "tokens", "written", "thought", "answer"),
    [
        (QWEN, ("<think>", "</think>"), "<think>\nhm\n</think>\n\nHi", "hm", "Hi"),
        ("[THINK]", ("[THINK]", "[/THINK]"), "[THINK]hm[/THINK]Hi", "hm", "Hi"),
        ("'<|channel|>' + m.channel", ("<|channel|>", "<|message|>", "<|end|>"),
         "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hi", "hm", "Hi"),
        ("thinking_budget <seed:think>", (), "<seed:think>hm</seed:think>Hi", "hm", "Hi"),
        ("<|START_THINKING|>", ("<|START_THINKING|>", "<|END_THINKING|>"), "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Hi<|END_RESPONSE|>",
         "hm", "Hi"),
        ("{{ enable_thinking }}", ("<|channel>", "<channel|>"), "<|channel>thought\nhm\n<channel|>Hi", "hm", "Hi"),
        ("{{ thinking }} <think>", (), "<think>hm</think><response>Hi</response>", "hm", "Hi"),
        ("◁think▷", (), "◁think▷hm◁/think▷Hi", "hm", "Hi"),
        ("<thought>", (), "<thought>\nhm</thought>\n\nHi", "hm", "Hi"),
        (QWEN, (), "Hi, no thought", "", "Hi, no thought"),
        (QWEN, (), "<think>\n\n</think>\n\nHi", "", "Hi"),
        (QWEN, (), "</think>Hi", "", "Hi"),
        (QWEN, (), "Hi</think>\n\nyou", "", "Hi</think>\n\nyou"),
    ],
)  # fmt: skip
def test_a_familys_thought_and_answer_are_told_apart(template: str, tokens: tuple[str, ...], written: str, thought: str, answer: str) -> None:
    thoughts = Thoughts.of(tokenizer(template, *tokens))
    assert thoughts is not None
    assert thoughts.split(written) == (thought, answer, True)
    pieces = list(written)
    begins = thoughts.answer_begins(pieces)
    assert "".join(pieces[begins:]).startswith((answer, "<response>", "<|START_RESPONSE|>"))


def test_a_model_that_marks_no_thoughts_has_none() -> None:
    assert Thoughts.of(tokenizer(TEMPLATE, "<|end|>")) is None
    assert Thoughts.of(tokenizer("", "<|channel|>")) is None


@pytest.mark.parametrize(
    "tokens",
    [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|START_THINKING|>", "<|END_THINKING|>"), ("<|channel|>", "<|message|>"),
     ("<|channel>", "<channel|>")],
)  # fmt: skip
def test_tokens_that_no_template_speaks_of_make_no_thinker(tokens: tuple[str, ...]) -> None:
    for template in (CHATML, "{# no <think> here #}" + CHATML, None, ""):
        assert Thoughts.of(tokenizer(template, *tokens)) is None  # type: ignore[arg-type]


def test_of_several_templates_the_one_for_conversations_says_it() -> None:
    assert Thoughts.of(SimpleNamespace(chat_template={"default": CHATML, "tool_use": QWEN}, added_tokens_decoder={})) is None
    assert Thoughts.of(SimpleNamespace(chat_template={"default": QWEN, "tool_use": CHATML}, added_tokens_decoder={})) is not None


def test_a_thought_that_the_template_begins_is_a_thought_from_the_first_token() -> None:
    prefilled = Thoughts.of(tokenizer("<think>"), "user: Hello!<think>\n")
    assert prefilled is not None and prefilled.prefilled
    assert prefilled.split("hm") == ("hm", "", False) and prefilled.answer_begins(["h", "m"]) == 2
    assert prefilled.split("hm</think>Hi") == ("hm", "Hi", True)
    switched_off = Thoughts.of(tokenizer("<think>"), "user: Hello!<think>\n\n</think>\n\n")
    assert switched_off is not None and not switched_off.prefilled
    assert switched_off.split("Hi") == ("", "Hi", True) and switched_off.answer_begins(["Hi"]) == 0


def test_the_switch_is_the_templates_own() -> None:
    for template, switch in ((QWEN, "enable_thinking"), ("{{ reasoning_effort }}<think>", "reasoning_effort"), ("<think>", None)):
        thoughts = Thoughts.of(tokenizer(template))
        assert thoughts is not None and thoughts.switch == switch


def test_tokens_of_a_real_tokenizer_are_told_apart_special_or_not() -> None:
    fast = tokenizer_of(FAMILIES["llama"])
    fast.chat_template = TEMPLATE + "{% if add_generation_prompt %}<think>{% endif %}"
    renderer = Renderer(fast, VOCABULARY)
    assert renderer.thoughts is not None and renderer.thoughts.prefilled
    ids = fast("hm é</think>\n\nÄh, so", add_special_tokens=False).input_ids
    assert fast.decode(ids[renderer.answer_start(ids) :]) == "Äh, so"
    assert renderer.answer_start(ids[:4]) == 4
    fast.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    ids = fast("hm</think>Hi", add_special_tokens=False).input_ids
    assert fast.decode(ids[Renderer(fast, VOCABULARY).answer_start(ids) :]) == "Hi"
    plain = Renderer(tokenizer_of(FAMILIES["llama"]), VOCABULARY)
    assert plain.thoughts is None and plain.answer_start(ids) == 0
