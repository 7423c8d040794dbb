"""One teaching sitting, without a screen: screens and commands alike drive it. A part for each duty; `session.py` puts them together."""

from tamer_tui.session.session import Session
from tamer_tui.session_store import SessionError
from tamer_tui.views import CandidateView, Change, EngineState, Observer, SessionSettings, SetView, StageView, conversation

__all__ = [
    "CandidateView", "Change", "EngineState", "Observer", "Session", "SessionError", "SessionSettings", "SetView", "StageView", "conversation",
]  # fmt: skip
