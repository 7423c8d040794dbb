"""Conversations to token ids, and token ids to the text of an answer.

With a chat template, an answer is the assistant's turn. Without one, the model only continues: the answer is whatever follows the prompt's last
character, so its text keeps a leading space, and prompt + text reads right.

Whatever text comes in, what comes out are ids that the model has, or a PromptError that says in one line why there are none.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from learners.model.chat_template import THOUGHT, ChatTemplate, PromptError, merged, without_system
from learners.model.thoughts import BOOLEAN, Thoughts, switches
from storage.records import Message, unicode
from storage.thoughts import split_thought

__all__ = ["GAP", "UNFINISHED", "PromptError", "Renderer", "continued", "fit_prompt", "merged", "without_system"]

UNFINISHED = "\ufffd"
"""What a tokenizer writes for the bytes of a character that is not complete yet."""

GAP = " … "
"""Stands in a message for what was cut out of its middle."""

_ANCHOR = ":"
"""One character that merges with nothing and is no byte token: an answer is read as if it stood behind it."""
_SHIELD = re.compile("([\ufdd0-\ufddf][\ufde0-\ufdef])")
"""What stands for a special token that somebody wrote, while the template is applied: two noncharacters."""


class Renderer:
    """A tokenizer with the conventions of its model. `vocabulary` is the number of logits, which may differ from the tokenizer's size."""

    def __init__(
        self, tokenizer: Any, vocabulary: int, configured_eos: Sequence[int] = (), thinking: str = "auto", learn_thoughts: bool = False
    ) -> None:
        """thinking: 'on', 'off' or 'auto', by the template's own switch; ValueError where it has none. learn_thoughts: to learners, thoughts are a
        part of the answer."""
        self.thinking, self._learn_thoughts, self._switches = thinking, learn_thoughts, switches(tokenizer, thinking)
        self.tokenizer, self._vocabulary = tokenizer, vocabulary
        self.chat_template, self._template = bool(tokenizer.chat_template), ChatTemplate(tokenizer, self._switches)
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
        self._anchor, self.lead = self._opening()

    @cached_property
    def thoughts(self) -> Thoughts | None:
        """How this model writes what it thinks before it answers; None where it is not known to think."""
        try:
            prompt = self._template.text([Message("user", "Hello!")]) if self.chat_template else ""
        except Exception:  # a template is a program: what it refuses is told where it is used
            prompt = ""
        return Thoughts.of(self.tokenizer, prompt)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how conversations are written, in a line each."""
        system = self._template.usual_system if self.chat_template else None
        if system is None:
            return ()
        return (f"the model's chat template demands a system message: where none is given it gets {system or 'an empty one'}",)

    def answer_start(self, ids: Sequence[int]) -> int:
        """The index of an answer's first token that is no thought; the number of tokens while the thought goes on."""
        if self.thoughts is None:
            return 0
        return self.thoughts.answer_begins([self.decode_raw([i], special=True) for i in ids])

    def spoken(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A prompt and an answer to it as learners take them: what was thought before it stands with what was asked."""
        start = 0 if self._learn_thoughts else self.answer_start(ids)
        return (*prompt_ids, *ids[:start]), tuple(ids[start:])

    @cached_property
    def closing(self) -> tuple[int, ...]:
        """What is put behind a thought that is to end."""
        return tuple(self._ids(self.thoughts.closing, special=True)) if self.thoughts is not None else ()

    @cached_property
    def no_thought(self) -> tuple[int, ...]:
        """What stands between a prompt and an answer that was written without a thought, in a model that would begin with one."""
        thoughts = self.thoughts
        if thoughts is None or self.thinking == "off":
            return ()
        try:
            prompt = self._template.text([Message("user", "Hello!")])
            by_default = thoughts.switch in BOOLEAN and not self._switches
            unthinking = [self._template.text([Message("user", "Hello!")], **{str(thoughts.switch): False})] if by_default else []
        except Exception:  # as above
            return ()
        if prompt.rstrip().endswith(thoughts.closes) or (prompt in unthinking and not thoughts.prefilled):
            return ()
        if thoughts.ends != thoughts.closes:
            return tuple(self._ids(thoughts.closes, special=True))  # the channel of the answer
        opening = "" if thoughts.prefilled else f"{thoughts.opens}\n"
        return tuple(self._ids(opening + thoughts.closing, special=True))

    def _own_eos(self, known: list[int]) -> int | None:
        own = self.tokenizer.eos_token_id
        return own if own in known else min(known, default=None)

    # --- prompts ---------------------------------------------------------------------------------------------------------

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Prompt ids, never empty. Without a chat template: the contents, joined by newlines.

        What is written in a message is text: `<|im_end|>` in it does not end the turn. A lone surrogate is read as U+FFFD. Where the template
        refuses the conversation as it is, the system message moves into the first user turn, or turns of one role that follow each other become
        one, or both. Raises PromptError where that does not help either.
        """
        messages = [Message(m.role, self._as_template_has_it(unicode(m.content), m.role)) for m in messages]
        if not self.chat_template:
            return self._known(self._opened("\n".join(m.content for m in messages)))
        shielded, said = self._shield(messages)
        ids: list[int] = []
        for i, part in enumerate(_SHIELD.split(self._template.text(shielded))):
            if i % 2:
                ids += self._literal(said[_number(part)])
            elif part:
                ids += self._ids(part, special=True)
        return self._known(ids or self._opened(""))

    def fit(self, messages: Sequence[Message], room: int) -> tuple[list[int], int]:
        """Prompt ids, at most `room` (1 or more), and how many were dropped for that. Raises PromptError.

        With a chat template whole turns go, the oldest first, down to the newest that the user wrote; that one is cut in its middle if it must be;
        the system message stays. What is still too long, and every prompt of a model without a template, keeps its first id and its last ones.
        """
        ids = self.encode(messages)
        if len(ids) <= room or not self.chat_template:
            return fit_prompt(ids, room, 0)
        try:
            kept = self._fit_turns(messages, room)
        except PromptError:  # it takes the whole conversation, and not a part of it
            kept = None
        kept = kept or fit_prompt(ids, room, 0)[0]
        return kept, max(1, len(ids) - len(kept))

    def _fit_turns(self, messages: Sequence[Message], room: int) -> list[int] | None:
        system = [m for m in messages if m.role == "system"]
        turns = [m for m in messages if m.role != "system"]
        starts = [i for i, m in enumerate(turns) if m.role == "user"][1:] or [len(turns) - 1]
        fitting = bisect_left(starts, True, key=lambda i: len(self.encode([*system, *turns[i:]])) <= room)
        if fitting < len(starts):
            return self.encode([*system, *turns[starts[fitting] :]])
        return self._fit_middle(system, turns[starts[-1] :], room) if turns else None

    def _fit_middle(self, system: Sequence[Message], turns: Sequence[Message], room: int) -> list[int] | None:
        """The newest user turn (and what follows it) with as much of both its ends as fits; None where not even the rest does."""
        first, *rest = turns

        def cut(removed: int) -> list[int]:
            kept = len(first.content) - removed
            content = first.content[: (kept + 1) // 2] + GAP + first.content[len(first.content) - kept // 2 :]
            return self.encode([*system, Message(first.role, content), *rest])

        fewest = bisect_left(range(len(first.content) + 1), True, key=lambda removed: len(cut(removed)) <= room)
        return cut(fewest) if fewest <= len(first.content) else None

    def _known(self, ids: list[int]) -> list[int]:
        """A tokenizer may have tokens that its model has no row for."""
        if any(not 0 <= i < self._vocabulary for i in ids):
            raise PromptError("its tokenizer gives tokens that the model does not have")
        return ids

    def _shield(self, messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
        """The messages with two noncharacters for each special token that somebody wrote, and what was written."""
        said = list(dict.fromkeys(found for m in messages for found in self._special.findall(m.content)))[:256]
        signs = {text: chr(0xFDD0 + i // 16) + chr(0xFDE0 + i % 16) for i, text in enumerate(said)}
        plain = [_SHIELD.sub("", m.content) for m in messages]
        return [Message(m.role, self._special.sub(lambda found: signs.get(found[0], ""), p)) for m, p in zip(messages, plain)], said

    def _as_template_has_it(self, content: str, role: str) -> str:
        """With a sign behind the thought of an answer: what of past thoughts is said again is for the template to say, and so is the lead."""
        content = content.replace(THOUGHT, "")
        if role != "assistant" or self.thoughts is None:
            return content.removeprefix(self.lead) if role == "assistant" else content
        thought, answer = split_thought(content)
        return f"{thought}{THOUGHT}{answer}" if thought else answer

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

        Without a chat template `text` goes right behind the prompt's last character: see `continued` for text written by hand. Raises PromptError.
        """
        text = unicode(text)
        text = f"{self.lead}{text}" if text and not text[0].isspace() else text
        ids = self._continuation(text, self._anchor)
        return self._known(ids if self.eos_id is None else [*ids, self.eos_id])

    def _continuation(self, text: str, anchor: list[int]) -> list[int]:
        """Ids of `text` in the middle of a line: some tokenizers put a space before whatever they encode."""
        ids = self._literal(_ANCHOR + text) if anchor else []
        if anchor and ids[: len(anchor)] == anchor:
            return ids[len(anchor) :]
        return self._literal(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of answer ids; special tokens are not shown."""
        shown = [i for i in ids if i not in self.eos_ids]
        text = self.decode_raw([*self._anchor, *shown])[len(_ANCHOR) :] if self._anchor else self.decode_raw(shown)
        return text.removeprefix(self.lead)

    def decode_raw(self, ids: Sequence[int], special: bool = False) -> str:
        """The tokenizer's own decoding, with special tokens or without."""
        with self._lock:
            return str(self.tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False))

    @property
    def anchor(self) -> list[int]:
        """Ids before an answer that keep its leading space; empty where there is none to keep."""
        return self._anchor

    def without_special(self, text: str) -> str:
        """Text as decoded with special tokens, as it would be without."""
        return self._special.sub("", text)

    def _opening(self) -> tuple[list[int], str]:
        """What an answer's text stands behind in tokens, and the space that the template writes before each answer and leaves to the model in the one
        that is to come: as in the turns that a template writes for answers of the past. Some tokenizers put a space there by themselves."""
        if not self.chat_template:
            return self._find_anchor(), ""
        asked, answer = Message("user", "Hello!"), "marker"
        try:
            prompt, past = self._template.text([asked]), self._template.text([asked, Message("assistant", answer)], prompt=False)
        except PromptError:
            return [], ""
        lead, _, _ = past.removeprefix(prompt).partition(answer)
        if self.thoughts is not None or not past.startswith(prompt) or len(lead) > 1 or lead.strip():
            return [], ""
        whole, before, anchor = self._ids(past, special=True), self._ids(prompt, special=True), self._find_anchor()
        ways = [([], "", self._literal(answer)), ([], lead, self._literal(lead + answer)), (anchor, lead, self._continuation(lead + answer, anchor))]
        return next(((a, b) for a, b, ids in ways if whole[: len(before) + len(ids)] == [*before, *ids]), ([], ""))

    def _find_anchor(self) -> list[int]:
        ids = self._literal(_ANCHOR)
        return ids if self.decode_raw(ids) == _ANCHOR else []

    def _turn_end(self) -> int | None:
        """The token with which the template closes an assistant's turn."""
        marker = "marker"
        try:
            text = self._template.text([Message("user", marker), Message("assistant", marker)], prompt=False)
        except Exception:  # a template may be any program; without this hint the configured tokens remain
            return None
        rest = self._ids(text[text.rindex(marker) + len(marker) :].lstrip(), special=True) if marker in text else []
        thoughts = Thoughts.of(self.tokenizer)
        of_channel = [] if thoughts is None or thoughts.ends == thoughts.closes else self._ids(thoughts.ends, special=True)
        return rest[0] if rest and rest[0] in self._special_ids and rest[:1] != of_channel else None  # a channel's end is not the turn's


def _number(sign: str) -> int:
    return (ord(sign[0]) - 0xFDD0) * 16 + ord(sign[1]) - 0xFDE0


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
