"""A model's chat template, handed conversations in the form in which what is said arrives in the prompt.

Templates differ in what they take: contents as text or as lists of parts, system turns or none, a list of tools. Which it is, is tried once, with
words that are looked for in what comes out. A template is a program, and may raise anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

from storage.records import Message

THOUGHT = "\U0001ffff"
"""Between an answer's thought and what was said, while the template is applied: a noncharacter."""
SYSTEM_TEXTS = ("", "You are a helpful assistant.")
"""What a template that demands a system message gets where nobody gave one: the first that it takes."""
_SAID, _LED = "quagga", "okapi"
_ASKED = (Message("user", _SAID),)


class PromptError(ValueError):
    """A conversation or an answer that this model cannot take; says why in one line."""


class TemplateError(PromptError):
    """One that the chat template does not take."""


class Form(NamedTuple):
    """What a template is handed."""

    parts: bool = False  # contents are lists of parts, as models that see want them
    tools: list[Any] | None = None  # none, or an empty list


FORMS = (Form(), Form(parts=True), Form(tools=[]), Form(parts=True, tools=[]))


class ChatTemplate:
    """The template of a tokenizer that has one. `switches`: variables that it is always given."""

    def __init__(self, tokenizer: Any, switches: Mapping[str, bool]) -> None:
        self._tokenizer, self._switches = tokenizer, switches

    def text(self, messages: Sequence[Message], prompt: bool = True, **more: bool) -> str:
        """What it makes of a conversation, opened for an answer or not. Raises TemplateError.

        Where the template refuses the conversation as it is, the system message moves into the first user turn, or turns of one role that follow each
        other become one, or both. A system message that it would leave out moves at once; one that it demands is added.
        """
        if isinstance(self._form, TemplateError):
            raise TemplateError(str(self._form))
        refused: Exception | None = None
        for attempt in self._readings(messages):
            try:
                return self._apply(self._form, attempt, prompt, **more)
            except Exception as error:
                refused = refused or error
        raise _refusal(refused)

    @cached_property
    def usual_system(self) -> str | None:
        """The system message where nobody gives one, in a template that demands it; None in others."""
        if _SAID in self._tried(_ASKED):
            return None
        return next((text for text in SYSTEM_TEXTS if _SAID in self._tried(_led(text, _ASKED))), None)

    def _apply(self, form: Form, messages: Sequence[Message], prompt: bool = True, **more: bool) -> str:
        """Raises whatever the template raises."""
        turns = [_turn(m, form.parts) for m in messages]
        how = {**self._switches, **more}
        return str(self._tokenizer.apply_chat_template(turns, tools=form.tools, tokenize=False, add_generation_prompt=prompt, **how))

    def _tried(self, messages: Sequence[Message]) -> str:
        """Nothing where it is refused."""
        try:
            return "" if isinstance(self._form, TemplateError) else self._apply(self._form, messages)
        except Exception:
            return ""

    @cached_property
    def _form(self) -> Form | TemplateError:
        """The first in which what a user says arrives; else why there is none."""
        failures: list[TemplateError] = []
        for form in FORMS:
            for attempt in (_ASKED, *(_led(text, _ASKED) for text in SYSTEM_TEXTS)):
                try:
                    if _SAID in self._apply(form, attempt):
                        return form
                    failures.append(TemplateError("the model's chat template leaves out what is said"))
                except Exception as error:
                    failures.append(_refusal(error))
        return failures[0]

    @cached_property
    def _leaves_out_system(self) -> bool:
        found = self._tried(_led(_LED, _ASKED))
        return _SAID in found and _LED not in found

    def _readings(self, messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
        """The conversation as it is, then as a stricter template may take it. Where one demands a system message, what it makes of a conversation
        without may have nothing of what was said, and no word about that."""
        if self.usual_system is not None and not any(m.role == "system" for m in messages):
            led = _led(self.usual_system, messages)
            yield from (led, merged(led))
        yield from _as_asked(without_system(messages) if self._leaves_out_system else messages)


def _as_asked(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    yield messages
    yield without_system(messages)  # some templates refuse a system turn
    yield merged(messages)  # many want user and assistant to alternate
    yield merged(without_system(messages))


def _led(system: str, messages: Sequence[Message]) -> tuple[Message, ...]:
    return Message("system", system), *messages


def _refusal(error: Exception | None) -> TemplateError:
    """What a template raised, in one line."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
    return TemplateError(f"the model's chat template refuses the conversation: {line}")


def _turn(message: Message, parts: bool) -> dict[str, Any]:
    """As templates take it, with the names that families have for a thought."""
    thought, sign, answer = message.content.rpartition(THOUGHT)
    thoughts = {"reasoning_content": thought, "thinking": thought} if sign else {}
    return {"role": message.role, "content": [{"type": "text", "text": answer}] if parts else answer, **thoughts}


def merged(messages: Sequence[Message]) -> list[Message]:
    """Turns of one role that follow each other as one turn, a blank line between them."""
    return [Message(role, "\n\n".join(m.content for m in turns)) for role, turns in groupby(messages, key=lambda m: m.role)]


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The system message merged into the first user turn."""
    system = [m.content for m in messages if m.role == "system"]
    rest = [m for m in messages if m.role != "system"]
    first = next((i for i, m in enumerate(rest) if m.role == "user"), None)
    if system and first is not None:
        rest[first] = Message("user", "\n\n".join([*system, rest[first].content]))
    return rest
