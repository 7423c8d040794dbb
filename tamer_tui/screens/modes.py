"""Which screen a mode has."""

from __future__ import annotations

from typing import Any

from textual.screen import Screen

from tamer_tui.session import Session


def make(mode: str, session: Session) -> Screen[Any]:
    """Raises KeyError for what is none. Each import waits for the screen that needs it."""
    match mode:
        case "versions":
            from tamer_tui.screens.versions import VersionsScreen

            return VersionsScreen(session)
        case "learning":
            from tamer_tui.screens.learning import LearningScreen

            return LearningScreen(session)
        case "record":
            from tamer_tui.screens.record import RecordScreen

            return RecordScreen(session)
        case "log":
            from tamer_tui.screens.log import LogScreen

            return LogScreen(session)
        case "chat":
            from tamer_tui.screens.chat import ChatScreen

            return ChatScreen(session)
        case "compare":
            from tamer_tui.screens.compare import CompareScreen

            return CompareScreen(session)
    raise KeyError(mode)
