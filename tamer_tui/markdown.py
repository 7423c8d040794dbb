"""Answers as people read them: Markdown as lines to paint, thoughts folded, code blocks to copy. The text is a model's: nothing in it becomes a link,
an action or a control of the terminal, and HTML is shown as it is written.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from storage.thoughts import NAMES
from tamer_tui.text import plain

if TYPE_CHECKING:
    from rich.markdown import Markdown
    from rich.segment import Segment

LONGEST = 100_000
"""Characters; what is longer stays plain."""
_SIGNS = re.compile(r"^ {0,3}(#{1,6} \S|```|~~~|[-*+] \S|\d{1,3}[.)] \S|> |\|.*\|)|\*\*\S|`[^`\n]+`|\]\(", re.MULTILINE)
_THOUGHT = re.compile(rf"<({NAMES})>(.*?)(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_END = re.compile(rf"\A(.*?)</({NAMES})>", re.DOTALL | re.IGNORECASE)
_END_TAG = re.compile(rf"</({NAMES})>", re.IGNORECASE)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*\n(.*?)(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


def has_markdown(text: str) -> bool:
    """Whether rendering would change how it looks."""
    return len(text) <= LONGEST and _SIGNS.search(text) is not None


def has_thoughts(text: str) -> bool:
    """Whether a part of it was written to think."""
    return _THOUGHT.search(text) is not None or _unopened(text) is not None


def fold_thoughts(text: str) -> str:
    """With one line for each thought that says how long it is."""
    return _with_thoughts_as(_folded, text).strip("\n")


def without_thoughts(text: str) -> str:
    """What is said alone."""
    return _with_thoughts_as(lambda thought: "", text).strip()


def _with_thoughts_as(told: Callable[[str], str], text: str) -> str:
    """Chat templates may open the first one in the prompt; the last may have been cut."""
    first = _unopened(text)
    rest = told(first[1]) + text[first.end() :] if first is not None else text
    return _THOUGHT.sub(lambda found: told(found[2]), rest)


def code_blocks(text: str) -> list[str]:
    """The insides of fenced blocks."""
    return [found[2].rstrip("\n") for found in _FENCE.finditer(text)]


def markdown_lines(text: str, width: int, dark: bool) -> list[list[Segment]]:
    """The text as painted lines of at most `width` cells. Takes a moment for a long one: not for the loop."""
    from rich.console import Console
    from rich.theme import Theme

    theme = Theme({"markdown.code": "bold cyan" if dark else "bold blue"})  # rich's own stands on black
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor", legacy_windows=False, theme=theme)
    return console.render_lines(_parsed(_END_TAG.sub(r"\g<0>\n\n", plain(text)), dark), pad=False)


def _unopened(text: str) -> re.Match[str] | None:
    found = _END.match(text)
    return found if found is not None and f"<{found[2]}>".lower() not in found[1].lower() else None


def _folded(thought: str) -> str:
    words = len(thought.split())
    return f"▸ thought, {words} word{'s' if words != 1 else ''} (Z unfolds)\n\n" if words else ""


def _parsed(text: str, dark: bool) -> Markdown:
    """Without HTML, which rich would leave out."""
    from markdown_it import MarkdownIt

    found = _markdown_class()("", code_theme="ansi_dark" if dark else "ansi_light", hyperlinks=False)
    found.markup = text
    found.parsed = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).parse(text)
    for token in found.parsed:
        for each in (token, *(token.children or ())):
            each.content = plain(each.content)  # once more: an entity may stand for any character
    return found


@cache
def _markdown_class() -> type[Markdown]:
    """Rich's, with headings at the left and without boxes around them."""
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.markdown import Heading, Markdown

    class LeftHeading(Heading):
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            self.text.justify = "left"
            yield self.text

    class LeftMarkdown(Markdown):
        elements = Markdown.elements | {"heading_open": LeftHeading}

    return LeftMarkdown
