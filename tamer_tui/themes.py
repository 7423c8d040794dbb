"""Colours: Textual's themes, and one in black and white for eyes or screens that need it."""

from __future__ import annotations

from textual.theme import BUILTIN_THEMES, Theme

HIGH_CONTRAST = Theme(
    name="high-contrast",
    primary="#ffffff",
    secondary="#ffffff",
    accent="#ffff00",
    warning="#ffff00",
    error="#ff9f9f",
    success="#9fff9f",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#000000",
    boost="#000000",
    dark=True,
)
PLAIN_LINES = """
App.-high-contrast CandidatePane, App.-high-contrast Rail, App.-high-contrast PromptBox, App.-high-contrast Plot { border: round $foreground; }
App.-high-contrast CandidatePane.focused { border: heavy $accent; }
App.-high-contrast Rail.narrow { border: none; }
"""
"""Frames that are as bright as the text, and one for the answer in focus that is told apart by its weight."""


def names() -> list[str]:
    """All that there are."""
    return sorted([*BUILTIN_THEMES, HIGH_CONTRAST.name])
