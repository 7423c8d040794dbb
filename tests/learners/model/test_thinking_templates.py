"""How templates are told to think or not, what they say again of past thoughts, and what stands before an answer that was written without one."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken

from learners.model.chat_format import Renderer
from storage.records import Message
from storage.thoughts import with_thought
from tests.learners.model.families import FAMILIES, VOCABULARY, tokenizer_of
from tests.learners.model.templates import CHATML, DISTILLED, R1, V3_1
from tests.learners.model.test_answer_text import CHANNELS

QWEN = """{%- set ns = namespace(last=0) -%}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor -%}
{%- for m in messages %}{{ m.role + ': ' }}
{%- if m.reasoning_content and loop.index0 > ns.last %}{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{% endif -%}
{{ m.content + '<|end|>' }}{% endfor -%}
{%- if add_generation_prompt %}{{ 'assistant: ' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif -%}"""
"""As Qwen 3 has it."""
OPENED = QWEN.replace(" and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}", " %}{% endif %}{{ '<think>\\n' }}{% if false %}")
SELDOM = QWEN.replace("is defined and enable_thinking is false", "is not defined or enable_thinking is false")
"""Thinks where it is asked to."""
HARMONY = """{%- for m in messages %}<|start|>{{ m.role }}
{%- if m.thinking and loop.last %}{{ '<|channel|>analysis<|message|>' + m.thinking + '<|end|><|start|>assistant' }}{% endif -%}
{%- if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}<|end|>{% endfor -%}
{%- if add_generation_prompt %}<|start|>assistant{% endif -%}"""
"""As gpt-oss has it."""
ASKED = [Message("user", "Why?")]
CHAT = [Message("user", "Hi"), Message("assistant", with_thought("hm", "Hello.")), Message("user", "Why?")]


def renderer_of(template: str, thinking: str = "auto") -> Renderer:
    tokenizer: Any = tokenizer_of(FAMILIES["qwen3"])
    tokenizer.chat_template = template
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in ("<think>", "</think>")])  # as models of one house share a tokenizer
    special = CHANNELS if template == HARMONY else ()
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return Renderer(tokenizer, VOCABULARY + 2 + len(special), thinking=thinking)


def text(renderer: Renderer, ids: object) -> str:
    return renderer.decode_raw(list(ids), special=True)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("template", "thinking", "ends", "before_written"),
    [
        (QWEN, "auto", "assistant: ", "<think>\n\n</think>\n\n"),
        (QWEN, "on", "assistant: ", "<think>\n\n</think>\n\n"),
        (QWEN, "off", "</think>\n\n", ""),
        (OPENED, "auto", "<think>\n", "\n</think>\n\n"),
        (SELDOM, "auto", "</think>\n\n", ""),
        (SELDOM, "on", "assistant: ", "<think>\n\n</think>\n\n"),
        (HARMONY, "auto", "<|start|>assistant", "<|channel|>final<|message|>"),
        (R1, "auto", "<think>\n", "\n</think>\n\n"),
        (R1, "on", "<think>\n", "\n</think>\n\n"),
        (DISTILLED, "auto", "<|Assistant|>", "<think>\n\n</think>\n\n"),
        (V3_1, "auto", "</think>", ""),
        (V3_1, "on", "<think>", "\n</think>\n\n"),
        (V3_1, "off", "</think>", ""),
        (CHATML, "auto", "<|im_start|>assistant\n", ""),
        (CHATML, "off", "<|im_start|>assistant\n", ""),
    ],
)
def test_the_templates_own_switch_decides_and_what_is_written_follows_no_thought(
    template: str, thinking: str, ends: str, before_written: str
) -> None:
    renderer = renderer_of(template, thinking)
    assert text(renderer, renderer.encode(ASKED)).endswith(ends)
    assert text(renderer, renderer.no_thought) == before_written


@pytest.mark.parametrize(("template", "thinking", "said"), [(HARMONY, "off", "off"), (R1, "off", "off"), (CHATML, "on", "on")])
def test_what_has_no_switch_says_so(template: str, thinking: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^the model's template has no switch that turns thinking {said}$"):
        renderer_of(template, thinking)
    assert not renderer_of(template, "off" if thinking == "on" else "on")._switches


def test_of_past_thoughts_a_template_says_again_what_it_says() -> None:
    for template in (QWEN, HARMONY):
        renderer = renderer_of(template)
        prompt = text(renderer, renderer.encode(CHAT))
        assert "Hello." in prompt and "hm" not in prompt and "think>" not in prompt
    kept = renderer_of(HARMONY)
    told = kept.encode(CHAT[:2])  # its last turn
    assert "<|channel|>analysis<|message|>hm<|end|>" in text(kept, told)


def test_a_thought_that_is_closed_ends_as_its_family_ends_it() -> None:
    assert text(renderer_of(QWEN), renderer_of(QWEN).closing) == "\n</think>\n\n"
    harmony = renderer_of(HARMONY)
    assert text(harmony, harmony.closing) == "<|end|><|start|>assistant<|channel|>final<|message|>"
    assert harmony.tokenizer.convert_tokens_to_ids("<|end|>") not in harmony.eos_ids


def test_a_model_that_only_has_the_tokens_is_taught_on_no_thought() -> None:
    renderer = renderer_of(CHATML)  # as Qwen3-4B-Instruct-2507
    assert renderer.thoughts is None and renderer.no_thought == renderer.closing == ()
    prompt, written = renderer.encode(ASKED), renderer.encode_completion("So.")
    assert renderer.spoken(prompt, written) == (tuple(prompt), tuple(written))


def test_to_a_model_without_thoughts_tags_are_text() -> None:
    renderer = renderer_of("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert "<think>\nhm\n</think>" in text(renderer, renderer.encode(CHAT))
