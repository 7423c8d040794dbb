"""Conversations that do not fit, that a template refuses, and text that no tokenizer expects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.model.chat_format import GAP, PromptError, Renderer, merged
from storage.records import Message, unicode
from tests.learners.models import GPT2_TOKENIZER, needs_gpt2

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate\nuser and assistant') }}{% endif %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
)
SCRIPTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
TURNS = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), SCRIPTS), min_size=1, max_size=7)


def renderer(template: str | None) -> Renderer:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(GPT2_TOKENIZER)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return Renderer(tokenizer, len(tokenizer))


@pytest.fixture(scope="module")
def chatml() -> Renderer:
    return renderer(CHATML)


@pytest.fixture(scope="module")
def strict() -> Renderer:
    return renderer(STRICT)


@pytest.fixture(scope="module")
def plain() -> Renderer:
    return renderer(None)


pytestmark = needs_gpt2


def said(of: Renderer, ids: list[int]) -> str:
    return str(of.tokenizer.decode(ids))


# --- what a template refuses -------------------------------------------------------------------------------------------


def test_a_refused_conversation_is_one_clear_line(strict: Renderer) -> None:
    with pytest.raises(PromptError) as caught:
        strict.encode((Message("assistant", "Hello."), Message("user", "Hello!")))
    assert str(caught.value) == "the model's chat template refuses the conversation: roles must alternate"


def test_a_template_that_fails_in_any_way_refuses(chatml: Renderer) -> None:
    broken = renderer("{{ messages[7].content + 1 }}")
    with pytest.raises(PromptError):
        broken.encode((Message("user", "Hello!"),))


def test_turns_of_one_role_become_one_where_the_template_wants_them_to_alternate(strict: Renderer) -> None:
    turns = (
        Message("system", "Be kind."),
        Message("user", "One."),
        Message("user", "Two."),
        Message("assistant", "Three."),
        Message("user", "Four."),
    )
    assert said(strict, strict.encode(turns)) == "[user] Be kind.\n\nOne.\n\nTwo.\n[assistant] Three.\n[user] Four.\n"
    assert merged(turns[1:3]) == [Message("user", "One.\n\nTwo.")]


def test_what_a_template_takes_as_it_is_stays_as_it_is(chatml: Renderer) -> None:
    turns = (Message("user", "One."), Message("user", "Two."))
    assert said(chatml, chatml.encode(turns)).count("<|im_start|>user") == 2


# --- what does not fit -------------------------------------------------------------------------------------------------


def talk(pairs: int) -> list[Message]:
    turns = [Message(role, f"{role} number {i} says some words here.") for i in range(pairs) for role in ("user", "assistant")]
    return [Message("system", "Be brief."), *turns, Message("user", "And now?")]  # type: ignore[list-item]


@pytest.mark.parametrize("room", [40, 60, 90, 120, 200])
def test_whole_oldest_turns_go_and_the_system_message_stays(chatml: Renderer, room: int) -> None:
    turns = talk(12)
    ids, dropped = chatml.fit(turns, room)
    # derived another way: the longest rest of the conversation from a user's turn on that fits
    rests = [[turns[0], *turns[i:]] for i in range(1, len(turns), 2)]
    longest = next(rest for rest in rests if len(chatml.encode(rest)) <= room)
    assert ids == chatml.encode(longest)
    assert dropped == len(chatml.encode(turns)) - len(ids) > 0
    assert said(chatml, ids).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")


def test_what_fits_is_whole(chatml: Renderer, plain: Renderer) -> None:
    for of in (chatml, plain):
        ids = of.encode(talk(3))
        assert of.fit(talk(3), len(ids)) == (ids, 0)


def test_a_newest_turn_that_is_too_long_alone_loses_its_middle(chatml: Renderer) -> None:
    words = [f"word{i}" for i in range(400)]
    turns = [Message("system", "Be brief."), Message("user", "Old."), Message("assistant", "Older."), Message("user", " ".join(words))]
    ids, dropped = chatml.fit(turns, 100)
    text = said(chatml, ids)
    assert len(ids) <= 100 and dropped == len(chatml.encode(turns)) - len(ids)
    assert len(ids) > 90, "as much of it stays as fits"
    assert "Be brief." in text and "Old" not in text and GAP in text
    assert "word0 word1 " in text and text.endswith("word399<|im_end|>\n<|im_start|>assistant\n")


def test_a_system_message_that_leaves_no_room_is_cut_too(chatml: Renderer) -> None:
    ids, dropped = chatml.fit([Message("system", "law " * 500), Message("user", "Hello!")], 30)
    assert len(ids) == 30 and dropped > 400


def test_without_a_template_the_opening_token_and_the_end_stay(plain: Renderer) -> None:
    ids = plain.encode([Message("user", "one two three four five six")])
    assert plain.fit([Message("user", "one two three four five six")], 4) == ([ids[0], *ids[-3:]], len(ids) - 4)


# --- any text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "read"), [("a\ud800b", "a�b"), ("\udfff", "�"), ("\ud83d\ude00", "😀"), ("naïve 日本 ﷺ", "naïve 日本 ﷺ")])
def test_a_lone_surrogate_is_a_replacement_character_and_a_pair_is_what_it_means(text: str, read: str) -> None:
    assert unicode(text) == read


@settings(max_examples=60, deadline=None)
@given(turns=TURNS, room=st.integers(1, 80))
def test_whatever_is_said_gives_ids_that_the_model_has_or_a_prompt_error(
    chatml: Renderer, strict: Renderer, plain: Renderer, turns: list[Message], room: int
) -> None:
    for of in (chatml, strict, plain):
        try:
            ids, dropped = of.fit(turns, room)
        except PromptError as error:
            assert of is strict and "\n" not in str(error)
            continue
        assert 0 < len(ids) <= room and all(0 <= i < len(of.tokenizer) for i in ids)
        assert (dropped == 0) == (len(of.encode(turns)) <= room)
        of.encode_completion(turns[-1].content)


def test_tokens_that_the_model_has_no_row_for_are_refused() -> None:
    known = renderer(CHATML)
    smaller = Renderer(known.tokenizer, 50257)  # without <|im_start|> and <|im_end|>
    with pytest.raises(PromptError, match="tokens that the model does not have"):
        smaller.encode((Message("user", "Hello!"),))
