"""What identifies people and machines, replaced by what it was. Patterns find the usual forms; they are no guarantee."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from msgspec.structs import replace

from storage.exchange.items import Beside, Criticised, DerivedPair, Item, Labelled, Messages, PreferencePair, Ranked, Steps, Written

PATTERNS = {
    "key": re.compile(
        r"\b(?:sk|pk|rk|ghp|gho|ghs|github_pat|glpat|hf|xox[abprs]|AKIA|ASIA|AIza|ya29)[-_A-Za-z0-9.]{12,}"
        r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
        re.DOTALL,
    ),
    "e-mail": re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b"),
    "home": re.compile(r"(?:/home/|/Users/|[A-Za-z]:\\Users\\)[^\s/\\:\"']+"),
    "phone": re.compile(r"(?<![\w.])\+?\(?\d{1,4}\)?(?:[ .-]?\(?\d{2,4}\)?){2,5}(?![\w.]*\d)"),
}
FEWEST_DIGITS = 8
"""Of what counts as a telephone number."""


class Redactor:
    """Counts what it replaced, by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def text(self, text: str) -> str:
        for kind, pattern in PATTERNS.items():
            text = pattern.sub(lambda match, kind=kind: self._instead(kind, match[0]), text)  # type: ignore[misc]
        return text

    def _instead(self, kind: str, found: str) -> str:
        if kind == "phone" and sum(map(str.isdigit, found)) < FEWEST_DIGITS:
            return found
        self.counts[kind] += 1
        return f"[{kind}]"

    def messages(self, messages: Messages) -> Messages:
        return tuple(replace(message, content=self.text(message.content)) for message in messages)

    def item(self, item: Item) -> Item:
        """The same with every text redacted."""
        messages = self.messages(item.messages)
        match item:
            case PreferencePair(_, chosen, rejected, margin, beside):
                return PreferencePair(messages, self.text(chosen), self.text(rejected), margin, self.beside(beside))
            case DerivedPair(_, chosen, rejected, why, beside):
                return DerivedPair(messages, self.text(chosen), self.text(rejected), why, self.beside(beside))
            case Labelled(_, answer, good, beside):
                return Labelled(messages, self.text(answer), good, self.beside(beside))
            case Written(_, text, beside):
                return Written(messages, self.text(text), self.beside(beside))
            case Steps(_, sentences, good):
                return Steps(messages, tuple(map(self.text, sentences)), good)
            case Criticised(_, answer, critique, scope, strength, beside):
                return Criticised(messages, None if answer is None else self.text(answer), self.text(critique), scope, strength, self.beside(beside))
            case Ranked(_, answers, ranks, beside):
                return Ranked(messages, tuple(map(self.text, answers)), ranks, self.beside(beside))

    def beside(self, beside: Beside) -> Beside:
        return beside._replace(prompt=self._all(beside.prompt), answers=self._all(beside.answers), columns=self._all(beside.columns))

    def _all(self, value: Any) -> Any:
        """Every text in it, however deep."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(name)): self._all(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._all(each) for each in value)
        return value
