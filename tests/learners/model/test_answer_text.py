"""What is shown of an answer as it is drawn: the same tags for every family's thoughts, and nothing from a text that ends it on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from learners.model.answer_text import AnswerText, pieces_of
from learners.model.chat_format import Renderer
from storage.thoughts import split_thought, with_thought
from tests.learners.model.families import FAMILIES, TEMPLATE, VOCABULARY, tokenizer_of

OPENED = TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}"
THINKS = "{% set drops = '</think>' %}" + TEMPLATE
HARMONY = "{% set drops = '<|channel|>analysis' %}" + TEMPLATE
CHANNELS = ("<|channel|>", "<|message|>", "<|start|>")


def renderer_of(template: str = TEMPLATE, *special: str) -> Renderer:
    tokenizer: Any = tokenizer_of(FAMILIES["llama"])
    tokenizer.chat_template = template
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return Renderer(tokenizer, VOCABULARY + len(special))


def ids_of(renderer: Renderer, text: str) -> list[int]:
    return list(renderer.tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize(
    ("renderer", "written", "shown"),
    [
        (renderer_of(THINKS), "<think>\nhm é\n</think>\n\nÄh", "<think>\nhm é\n</think>\n\nÄh"),
        (renderer_of(THINKS, "<think>", "</think>"), "<think>hm</think>Hi", "<think>hm</think>Hi"),
        (renderer_of(OPENED), "hm\n</think>\n\nHi", "<think>\nhm\n</think>\n\nHi"),
        (renderer_of(OPENED), "hm, and", "<think>\nhm, and"),
        (renderer_of("{% set drops = '[THINK]' %}" + TEMPLATE, "[THINK]", "[/THINK]"), "[THINK]hm[/THINK]Hi", "<think>hm</think>\n\nHi"),
        (renderer_of(THINKS), "Hi <think>", "Hi <think>"),
        (renderer_of(THINKS), "<thi", "<thi"),
        (renderer_of(HARMONY, *CHANNELS), "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hi",
         "<think>hm</think>\n\nHi"),
        (renderer_of(HARMONY, *CHANNELS), "<|channel|>final<|message|>Hi", "Hi"),
        (renderer_of(), "Hi <think>", "Hi <think>"),
    ],
)  # fmt: skip
def test_thoughts_of_every_family_stand_in_the_same_tags(renderer: Renderer, written: str, shown: str) -> None:
    ids = ids_of(renderer, written)
    assert "".join(pieces_of(renderer, ids)) == shown
    parts, begins = split_thought(shown), renderer.answer_start(ids)
    assert parts.answer.strip() == renderer.without_special(renderer.decode(ids[begins:])).strip()


MARKED = st.lists(st.sampled_from(["<think>", "</think>", "\n\n", "Hi", " é", "<th", "<"]), max_size=6).map("".join)


@settings(max_examples=150, deadline=None)
@given(MARKED, st.booleans(), st.booleans())
def test_what_is_shown_as_the_answer_is_what_is_learned(written: str, prefilled: bool, special: bool) -> None:
    """However the marks stand in it."""
    renderer = RENDERERS[prefilled, special]
    assume(not written.lstrip().removeprefix("</think>").lstrip().startswith("<think>") or written.lstrip().startswith("<think>"))
    ids = ids_of(renderer, written)
    thought, learned = renderer.spoken((), ids)
    shown = "".join(pieces_of(renderer, ids))
    thinks = prefilled or written.lstrip().startswith("<think>")
    answer = shown[len("<think>") :].partition("</think>")[2] if thinks else shown
    assert answer.strip() == renderer.without_special(renderer.decode(learned)).strip()
    assert thinks or not thought or written.lstrip().startswith("</think>")


RENDERERS = {(p, s): renderer_of(OPENED if p else THINKS, *(("<think>", "</think>") if s else ())) for p in (False, True) for s in (False, True)}


def test_a_channels_end_does_not_end_the_answer() -> None:
    assert renderer_of(HARMONY, *CHANNELS).eos_ids != renderer_of(TEMPLATE).eos_ids


@settings(max_examples=80, deadline=None)
@given(st.text("ab<|>. ü", max_size=24), st.lists(st.text("ab<|>ü.", min_size=1, max_size=3), min_size=1, max_size=3))
def test_an_answer_is_shown_up_to_the_first_text_that_ends_it(written: str, stop: list[str]) -> None:
    renderer = PLAIN
    ids = ids_of(renderer, written)
    text = AnswerText(renderer, stop)
    pieces, n = [], 0
    while n < len(ids) and not text.stopped:
        pieces.append(text.push(ids[n]))
        n += 1
    shown = "".join(pieces) + text.flush()
    read = renderer.decode(ids[:n])  # as far as was drawn
    found = [read.index(each) for each in stop if each in read]
    assert shown == read[: min(found)] if found else shown == read
    assert text.stopped == bool(found)


PLAIN = renderer_of()


def test_a_thought_may_hold_what_ends_answers() -> None:
    renderer = renderer_of(THINKS)
    text = AnswerText(renderer, ["\n\n"])
    shown = "".join(text.push(i) for i in ids_of(renderer, "<think>a\n\nb</think>so\n\nmore"))
    assert shown == "<think>a\n\nb</think>so" and text.stopped and text.flush() == ""


def test_thoughts_and_answers_are_put_together_as_they_are_taken_apart() -> None:
    for thought, answer in (("hm", "Hi"), ("", "Hi"), ("two\n\nlines", "Hi\n\nyou")):
        assert split_thought(with_thought(thought, answer)) == (thought, answer)
    assert split_thought("hm</think>Hi") == ("", "hm</think>Hi") and split_thought("<reasoning>cut") == ("cut", "")
