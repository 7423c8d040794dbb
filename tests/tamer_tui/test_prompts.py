"""Prompt files as people write them, and what is said about those that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.pocket import corpus
from storage.records import Message, Prompt
from tamer_tui.prompts import LONGEST_PROMPT, PromptFileError, pocket_prompts, read_prompts, starter_prompts

LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Zs"]), min_size=1).filter(
    lambda line: not line.startswith(("{", "\ufeff"))
)


def written(folder: Path, content: str | bytes, name: str = "prompts.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(path: Path, system: str | None = None) -> list[str]:
    return [prompt.text for prompt in read_prompts(path, system)]


def test_each_line_is_a_prompt_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    assert texts(written(tmp_path, "  one \n\n\t\ntwo\r\nthree")) == ["one", "two", "three"]


def test_a_prompt_that_stands_twice_is_kept_once(tmp_path: Path) -> None:
    assert texts(written(tmp_path, "one\ntwo\none\n")) == ["one", "two"]


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path: Path) -> None:
    assert texts(written(tmp_path, b"\xef\xbb\xbfone\n")) == ["one"]


def test_a_line_separator_inside_a_line_does_not_break_it(tmp_path: Path) -> None:
    assert texts(written(tmp_path, "one\u2028still one\x0cand one\ntwo")) == ["one\u2028still one\x0cand one", "two"]


@given(lines=st.lists(LINES, min_size=1, unique=True))
def test_whatever_is_written_on_lines_is_read_back(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = written(tmp_path_factory.mktemp("prompts"), "\n".join(lines))
    assert texts(path) == lines


def test_json_lines_hold_prompts_or_conversations(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Why?"}]
    path = written(tmp_path, "\n".join([json.dumps({"prompt": "two\nlines"}), "", json.dumps({"messages": turns})]), "prompts.jsonl")
    first, second = read_prompts(path)
    assert first.messages == (Message("user", "two\nlines"),)
    assert second.messages == tuple(Message(**turn) for turn in turns)  # type: ignore[arg-type]


def test_json_lines_are_known_by_their_first_brace_whatever_the_file_is_called(tmp_path: Path) -> None:
    assert texts(written(tmp_path, '{"prompt": "one", "id": 7}\n')) == ["one"], "other fields are passed over"


def test_a_system_message_goes_before_every_prompt_that_has_none(tmp_path: Path) -> None:
    own = {"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "b"}]}
    bare = {"messages": [{"role": "user", "content": "c"}]}
    path = written(tmp_path, "\n".join(map(json.dumps, [{"prompt": "a"}, own, bare])))
    assert [prompt.messages[0].content for prompt in read_prompts(path, "be kind")] == ["be kind", "own", "be kind"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no prompts"),
        (" \n\t\n", "has no prompts"),
        (b"fine\n\xff\xfe", ":2: not UTF-8"),
        ('{"prompt": "a"}\n\n{"prompt": ', ":3: "),
        ('{"prompt": "a"}\nplain', ":2: "),
        ('{"prompt": 7}', ":1: "),
        ('{"prompt": "  "}', ":1: neither `prompt` nor `messages`"),
        ('{"text": "a"}', ":1: neither `prompt` nor `messages`"),
        ('{"messages": []}', ":1: neither `prompt` nor `messages`"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', ":1: the last message must be the user's"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', ":1: "),
        ('{"messages": [{"role": "user", "content": " "}]}', ":1: the last message is empty"),
        ("short\n" + "x" * (LONGEST_PROMPT + 1), ":2: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_the_file_and_the_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(PromptFileError) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value) and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match=r"missing\.txt cannot be read"):
        read_prompts(tmp_path / "missing.txt")
    with pytest.raises(PromptFileError, match="cannot be read"):
        read_prompts(tmp_path)


@pytest.mark.parametrize("shipped", [lambda: starter_prompts(True), lambda: starter_prompts(False), pocket_prompts])
def test_starter_prompts_are_many_varied_and_fill_every_split(shipped: Callable[[], tuple[Prompt, ...]]) -> None:
    prompts = shipped()
    assert len(prompts) >= 60
    assert len({prompt.text.lower() for prompt in prompts}) == len(prompts)
    assert all(len(prompt.text) < 200 and prompt.text == prompt.text.strip() for prompt in prompts)
    shares = [sum(low <= prompt.fraction < high for prompt in prompts) for low, high in ((0, 0.2), (0.2, 0.3), (0.3, 1))]
    assert shares[0] and shares[2] > len(prompts) / 2


def test_the_prompts_of_the_embedded_model_are_those_that_its_corpus_makes() -> None:
    assert [prompt.text for prompt in pocket_prompts()] == corpus.starter_prompts()


def test_openings_leave_a_sentence_open_and_questions_do_not() -> None:
    assert not any(prompt.text[-1] in ".!?" for prompt in starter_prompts(False))
    assert all(prompt.text[-1] in ".!?" for prompt in starter_prompts(True))


def test_starter_prompts_take_the_system_message() -> None:
    assert all(prompt.messages[0] == Message("system", "be kind") for prompt in starter_prompts(True, "be kind"))
