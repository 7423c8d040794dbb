"""The text of one answer as it is drawn: with its thought in tags that are the same for every model, and up to what was set to end it.

Texts of tokens are final when they are given: what may still become a mark, or the end, is held back until it is known. They concatenate to the text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import pairwise
from typing import Any

from learners.model.chat_format import UNFINISHED, Renderer
from storage.thoughts import CLOSES, OPENS


class TextStream:
    """Detokenises one answer token by token. The pieces, with `flush` at the end, concatenate to `decode` of all ids.

    special: with the text of special tokens; may be changed between tokens.
    """

    def __init__(self, renderer: Any, special: bool = False) -> None:
        self.special = special
        self._renderer: Renderer = getattr(renderer, "renderer", renderer)
        self._ids = list(self._renderer.anchor)
        self._start = 0  # of the window that is decoded again: one finished piece, then what is pending
        self._read = len(self._ids)
        self._begun = False

    def push(self, token: int) -> str:
        """The text that this token completes; '' while a character is incomplete and for end tokens."""
        if token in self._renderer.eos_ids:
            return ""
        self._ids.append(token)
        piece = self._pending()
        if not piece or piece.endswith(UNFINISHED):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return self._without_lead(piece)

    def flush(self) -> str:
        """What is pending when the answer ends, as far as it can be shown."""
        piece = self._pending()
        self._start, self._read = self._read, len(self._ids)
        return self._without_lead(piece)

    def _without_lead(self, piece: str) -> str:
        first, self._begun = bool(piece) and not self._begun, self._begun or bool(piece)
        return piece.removeprefix(self._renderer.lead) if first else piece

    def _pending(self) -> str:
        before, all_of_it = (self._renderer.decode_raw(ids, self.special) for ids in (self._ids[self._start : self._read], self._ids[self._start :]))
        return all_of_it[len(before) :]


class _Place(Enum):
    START, THOUGHT, ANSWER = range(3)


class AnswerText:
    """Feed it every token of an answer. `stopped`: a text that ends answers has come; nothing more is shown."""

    def __init__(self, renderer: Renderer, stop: Sequence[str] = (), spoken: bool = False) -> None:
        """stop: what ends the answer; a thought may hold it. spoken: its thought, if it has one, came before."""
        self.renderer, self._thoughts, self._stop = renderer, None if spoken else renderer.thoughts, tuple(stop)
        self._place = _Place.ANSWER if self._thoughts is None else _Place.START
        self._stream = TextStream(renderer, special=self._thoughts is not None)
        self._held = ""
        self.stopped = False
        self.spoke = False  # something of the answer is shown

    @property
    def thinking(self) -> bool:
        """Whether the thought goes on."""
        return self._place is _Place.THOUGHT

    def push(self, token: int) -> str:
        """The text that this token completes."""
        return self._take(self._stream.push(token))

    def flush(self) -> str:
        """What is held back when the answer ends."""
        rest = self._take(self._stream.flush())
        held, self._held = self._held, ""
        return rest + held

    def _take(self, piece: str) -> str:
        if self.stopped:
            return ""
        self._held += piece
        shown = self._begin() if self._place is _Place.START else ""
        if self._place is _Place.THOUGHT:
            shown += self._think()
        return shown + self._answer() if self._place is _Place.ANSWER else shown

    def _begin(self) -> str:
        """Whether it opens with a thought."""
        thoughts, begun = self._thoughts, self._held.lstrip()
        assert thoughts is not None
        if thoughts.prefilled or begun.startswith(thoughts.opens):
            self._place, self._held = _Place.THOUGHT, begun.removeprefix(thoughts.opens)
            return OPENS + "\n" * thoughts.prefilled
        if begun.startswith(thoughts.closes):
            self._speak(begun.removeprefix(thoughts.closes))
        elif not any(mark.startswith(begun) for mark in (thoughts.opens, thoughts.closes)):
            self._speak(self.renderer.without_special(self._held))
        return ""

    def _think(self) -> str:
        thoughts = self._thoughts
        assert thoughts is not None
        before, closing, after = self._held.partition(thoughts.closes)
        if closing:
            before = before.partition(thoughts.ends)[0]
            self._speak(after)
            return before + CLOSES + ("" if thoughts.closes == CLOSES else "\n\n")
        shown = before[: _ends_before(before, (thoughts.ends, thoughts.closes))]
        self._held = before[len(shown) :]
        return shown

    def _speak(self, begun: str) -> None:
        self._place, self._held, self._stream.special = _Place.ANSWER, begun, False

    def _answer(self) -> str:
        ends = [at for text in self._stop if (at := self._held.find(text)) >= 0]
        self.stopped = bool(ends)
        at = min(ends) if ends else _ends_before(self._held, self._stop)
        shown, self._held = self._held[:at], "" if self.stopped else self._held[at:]
        self.spoke = self.spoke or bool(shown.strip())
        return shown


def _ends_before(text: str, marks: Iterable[str]) -> int:
    """Where something begins that is one of the marks, or may become one."""
    found = [at for mark in marks if (at := text.find(mark)) >= 0]
    for mark in marks:
        found += [len(text) - n for n in range(1, min(len(mark), len(text) + 1)) if text.endswith(mark[:n])]
    return min(found, default=len(text))


def pieces_of(renderer: Renderer, ids: Sequence[int], spoken: bool = False) -> list[str]:
    """The text that each token of an answer completes, '' where it completes none."""
    text = AnswerText(renderer, (), spoken)
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
