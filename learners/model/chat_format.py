"""Conversations to token ids, and token ids to the text of an answer.

With a chat template, an answer is the assistant's turn. Without one, the model only continues: the answer is whatever follows the prompt's last
character, so its text keeps a leading space, and prompt + text reads right.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from storage.records import Message

UNFINISHED = "\ufffd"
"""What a tokenizer writes for the bytes of a character that is not complete yet."""

_ANCHOR = ":"
"""One character that merges with nothing and is no byte token: an answer is read as if it stood behind it."""
_SHIELD = re.compile("([\ufdd0-\ufddf][\ufde0-\ufdef])")
"""What stands for a special token that somebody wrote, while the template is applied: two noncharacters."""


class PromptError(ValueError):
    """A conversation or an answer that this model cannot take; says why in one line."""


class Renderer:
    """A tokenizer with the conventions of its model. `vocabulary` is the number of logits, which may differ from the tokenizer's size."""

    def __init__(self, tokenizer: Any, vocabulary: int, configured_eos: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.chat_template = bool(tokenizer.chat_template)
        self._lock = threading.Lock()  # a fast tokenizer keeps its options: two threads would change them under each other
        special = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special_ids = frozenset(special)
        self._special = re.compile("|".join(re.escape(t) for t in sorted(special.values(), key=len, reverse=True)) or "(?!)")
        end = self._turn_end() if self.chat_template else None
        known = [end, *configured_eos, tokenizer.eos_token_id]
        known = [i for i in known if i is not None and 0 <= i < vocabulary]
        self.eos_ids: frozenset[int] = frozenset(known)
        self.eos_id: int | None = known[0] if end is not None and known else self._own_eos(known)
        self.pad_id = next((i for i in (tokenizer.pad_token_id, *known) if i is not None and 0 <= i < vocabulary), 0)
        self._anchor = [] if self.chat_template else self._find_anchor()

    def _own_eos(self, known: list[int]) -> int | None:
        own = self.tokenizer.eos_token_id
        return own if own in known else min(known, default=None)

    # --- prompts ---------------------------------------------------------------------------------------------------------

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Prompt ids, never empty. Without a chat template: the contents, joined by newlines.

        What is written in a message is text: `<|im_end|>` in it does not end the turn.
        """
        if not self.chat_template:
            return self._opened("\n".join(m.content for m in messages))
        shielded, said = self._shield(messages)
        ids: list[int] = []
        for i, part in enumerate(_SHIELD.split(self._templated(shielded))):
            if i % 2:
                ids += self._literal(said[_number(part)])
            elif part:
                ids += self._ids(part, special=True)
        return ids

    def _shield(self, messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
        """The messages with two noncharacters for each special token that somebody wrote, and what was written."""
        said = list(dict.fromkeys(found for m in messages for found in self._special.findall(m.content)))[:256]
        signs = {text: chr(0xFDD0 + i // 16) + chr(0xFDE0 + i % 16) for i, text in enumerate(said)}
        plain = [_SHIELD.sub("", m.content) for m in messages]
        return [Message(m.role, self._special.sub(lambda found: signs.get(found[0], ""), p)) for m, p in zip(messages, plain)], said

    def _templated(self, messages: Sequence[Message]) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return self._apply(messages)
        except TemplateError:
            return self._apply(without_system(messages))  # some templates refuse a system turn

    def _apply(self, messages: Sequence[Message], prompt: bool = True) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))

    def _opened(self, text: str) -> list[int]:
        """Ids of `text` with what the tokenizer opens a sequence with."""
        with self._lock:
            ids = list(self.tokenizer(text, split_special_tokens=True).input_ids)
        while len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id:
            ids.pop()  # some tokenizers close what they encode
        start = self.tokenizer.bos_token_id
        return ids or [self.pad_id if start is None else start]

    def _literal(self, text: str) -> list[int]:
        """Ids of `text` and nothing else, none of them special."""
        return self._ids(text, special=False)

    def _ids(self, text: str, special: bool) -> list[int]:
        with self._lock:
            return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=not special).input_ids)

    # --- answers -----------------------------------------------------------------------------------------------------

    def encode_completion(self, text: str) -> list[int]:
        """Ids of a whole answer, closed by the end token if the model has one.

        Without a chat template `text` goes right behind the prompt's last character: see `continued` for text written by hand.
        """
        ids = self._continuation(text) if self._anchor else self._literal(text)
        return ids if self.eos_id is None else [*ids, self.eos_id]

    def _continuation(self, text: str) -> list[int]:
        """Ids of `text` in the middle of a line: some tokenizers put a space before whatever they encode."""
        ids = self._literal(_ANCHOR + text)
        if ids[: len(self._anchor)] == self._anchor:
            return ids[len(self._anchor) :]
        return self._literal(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of answer ids; special tokens are not shown."""
        shown = [i for i in ids if i not in self.eos_ids]
        if not self._anchor:
            return self.decode_raw(shown)
        return self.decode_raw([*self._anchor, *shown])[len(_ANCHOR) :]

    def decode_raw(self, ids: Sequence[int]) -> str:
        """The tokenizer's own decoding, without special tokens."""
        with self._lock:
            return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @property
    def anchor(self) -> list[int]:
        """Ids before an answer that keep its leading space; empty where there is none to keep."""
        return self._anchor

    def _find_anchor(self) -> list[int]:
        ids = self._literal(_ANCHOR)
        return ids if self.decode_raw(ids) == _ANCHOR else []

    def _turn_end(self) -> int | None:
        """The token with which the template closes an assistant's turn."""
        marker = "marker"
        try:
            text = self._apply([Message("user", marker), Message("assistant", marker)], prompt=False)
        except Exception:  # a template may be any program; without this hint the configured tokens remain
            return None
        rest = self._ids(text[text.rindex(marker) + len(marker) :].lstrip(), special=True) if marker in text else []
        return rest[0] if rest and rest[0] in self._special_ids else None


def _number(sign: str) -> int:
    return (ord(sign[0]) - 0xFDD0) * 16 + ord(sign[1]) - 0xFDE0


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The system message merged into the first user turn."""
    system = [m.content for m in messages if m.role == "system"]
    rest = [m for m in messages if m.role != "system"]
    first = next((i for i, m in enumerate(rest) if m.role == "user"), None)
    if system and first is not None:
        rest[first] = Message("user", "\n\n".join([*system, rest[first].content]))
    return rest


def continued(prompt: str, text: str) -> str:
    """`text` as it continues `prompt` in a model without a chat template: a person who writes an answer leaves out the space before it."""
    opens_word = text[:1] in "\"'“‘([" or text[:1].isdigit() or text[:1].lower() != text[:1].upper()
    return f" {text}" if text and opens_word and prompt and not prompt[-1].isspace() else text


def fit_prompt(ids: Sequence[int], context: int, max_new_tokens: int) -> tuple[list[int], int]:
    """Prompt ids that leave room for the answer, and how many were dropped.

    The first id stays (it opens the sequence in every model that has such a token), then the oldest go. An answer that may be longer than the
    context leaves the prompt one id.
    """
    room = max(1, context - max_new_tokens)
    dropped = max(0, len(ids) - room)
    return ([*ids[:1], *ids[1 + dropped :]] if dropped else list(ids)), dropped


class TextStream:
    """Detokenises one answer token by token. The pieces, with `flush` at the end, concatenate to `decode` of all ids."""

    def __init__(self, renderer: Any) -> None:
        self._renderer: Renderer = getattr(renderer, "renderer", renderer)
        self._ids = list(self._renderer.anchor)
        self._start = 0  # of the window that is decoded again: one finished piece, then what is pending
        self._read = len(self._ids)

    def push(self, token: int) -> str:
        """The text that this token completes; '' while a character is incomplete and for end tokens."""
        if token in self._renderer.eos_ids:
            return ""
        self._ids.append(token)
        piece = self._pending()
        if not piece or piece.endswith(UNFINISHED):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return piece

    def flush(self) -> str:
        """What is pending when the answer ends, as far as it can be shown."""
        piece = self._pending()
        self._start, self._read = self._read, len(self._ids)
        return piece

    def _pending(self) -> str:
        decode = self._renderer.decode_raw
        return decode(self._ids[self._start :])[len(decode(self._ids[self._start : self._read])) :]


def pieces_of(renderer: Any, ids: Sequence[int]) -> list[str]:
    """The text that each token of an answer completes, '' where it completes none; they concatenate to `decode` of all ids."""
    text = TextStream(renderer)
    pieces = [text.push(token) for token in ids]
    if pieces:
        pieces[-1] += text.flush()
    return pieces


def words_of(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """The words of an answer as spans [start, stop) of its tokens, by the text that each token completes.

    Letters, digits and apostrophes that touch are a word, with the space that opens it. All else stands alone, and so does each token of a script
    that leaves no space between its words.
    """
    starts: list[int] = []
    before, begun = "", 0  # the last character, and the first token of the text that comes next: a character may take several
    for i, piece in enumerate(pieces):
        if not piece:
            continue
        if not starts or not (before.isspace() or (_in_word(before) and _in_word(piece[0]))):
            starts.append(begun)
        before, begun = piece[-1], i + 1
    return list(pairwise([*starts, len(pieces)]))


def _in_word(character: str) -> bool:
    return character in ("'", "’") or (character.isalnum() and unicodedata.category(character) != "Lo")
