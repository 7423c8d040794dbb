"""Every key, once: what it does, how it is painted, and what the help says.

`a`-`i` name answers, digits score, `j`-`z` act, capitals change the machine. No key that tmux, screen or flow control takes is needed.
"""

from __future__ import annotations

from textual.binding import Binding

from tamer_tui.keymap import check, chosen

LETTERS = "abcdefghi"
SECTIONS = {
    "rank": "Rank", "tap": "Tap", "score": "Score", "set": "Go on, or back", "edit": "Write", "prompt": "Prompts", "focus": "Look", "scroll": "Look",
    "show": "Look", "note": "Notes", "copy": "Take out", "learn": "Learning", "machine": "Machine", "screen": "Program",
}  # fmt: skip
"""The first part of a binding's id -> its heading on the help page."""
SCREEN_SECTIONS = {name: f"On the screen {name}" for name in ("chat", "compare", "learning", "record", "versions", "log", "settings")}
"""The same for screens of their own."""


def _key(key: str, action: str, identity: str, description: str, tooltip: str, display: str | None = None, anywhere: bool = False) -> Binding:
    """`key` unless the operator chose another one. `anywhere`: over lists and pages too, but for keys that are typed."""
    own = chosen().get(identity)
    first = anywhere and "+" in (own or key)
    return Binding(own or key, action, description, id=identity, tooltip=tooltip, key_display=None if own else display, show=False, priority=first)


MODES = {
    "arena": ("a", "Arena", "Answers side by side, to be ranked, scored and rewritten"),
    "tap": ("t", "tap view", "One answer at reading pace, to be praised and blamed as it comes"),
    "versions": ("v", "versions", "All versions with what they learned and why; roll back to one"),
    "chat": ("c", "chat", "One conversation with your model, turn by turn"),
    "compare": ("o", "compare", "Two of your versions and the untouched model, blind"),
    "learning": ("l", "learning", "Charts of what is learned, and how well"),
    "record": ("r", "record", "Everything that was said: search, comment, undo"),
    "log": ("e", "engine log", "What the engine printed"),
}
"""Screen -> its letter after the leader key, its name, and what it is for; in the order of f2 to f9."""

ARENA_KEYS: tuple[Binding, ...] = (
    *(_key(c, f"letter('{c}')", f"rank.{c}", "rank", f"Put answer {c} next in the ranking, best first (K=2: choose it)") for c in LETTERS),
    _key("t", "tie", "rank.tie", "tie", "The next letter ties with the last one (with two answers: both are equal)"),
    _key("x", "all_bad", "rank.bad", "all bad", "None is any good: every answer gets score 1 on the criterion, at enter"),
    _key("backspace", "take_back", "rank.back", "take back", "Take the last letter back"),
    *(_key(str(n), f"score({n})", f"score.{n}", "score", f"Score the focused answer {n} of 7 on the criterion, at once") for n in range(1, 8)),
    _key("0", "score(0)", "score.clear", "clear", "Take the focused answer's score on the criterion back"),
    _key("m", "criterion", "score.criterion", "criterion", "Next criterion: overall, truthful, harmless, useful"),
    _key("enter", "commit", "set.commit", "commit", "Write the ranking down and open the next prompt"),
    _key("s", "skip", "set.skip", "skip", "Pass over this prompt"),
    _key("u", "undo", "set.undo", "undo", "Take the last judgement back; its answers come back too"),
    _key("U", "redo", "set.redo", "redo", "Put back what was undone"),
    _key("r", "rewrite", "edit.rewrite", "rewrite", "Rewrite the focused answer: it is learned from and beats the original"),
    _key("w", "write", "edit.ideal", "write", "Write the ideal answer yourself"),
    _key("semicolon", "critique", "edit.critique", "in words", "Say what should be otherwise: the same prompt is answered anew, and follows it", ";"),
    _key("W", "wishes", "edit.wishes", "wishes", "Standing wishes: how strong each is, on or off"),
    _key("n", "new_prompt", "prompt.new", "prompt", "Type a prompt of your own"),
    _key("l", "continue", "prompt.continue", "go on", "Continue the conversation from the focused answer"),
    _key("o", "compare", "prompt.compare", "vs base", "This prompt now against the base, same seed; never counted"),
    _key("tab,right", "focus_answer(1)", "focus.next", "focus", "Focus the next answer", "tab"),
    _key("shift+tab,left", "focus_answer(-1)", "focus.previous", "focus back", "Focus the previous answer", "shift+tab"),
    _key("down", "scroll(1)", "scroll.down", "scroll", "Scroll the focused answer"),
    _key("up", "scroll(-1)", "scroll.up", "scroll", "Scroll the focused answer back"),
    _key("pagedown", "scroll(10)", "scroll.page_down", "page", "Scroll a page"),
    _key("pageup", "scroll(-10)", "scroll.page_up", "page back", "Scroll a page back"),
    _key("space", "freeze", "show.freeze", "freeze", "Freeze the display, and go on"),
    _key("less_than_sign", "pace(-1)", "show.slower", "slower", "Slower reading pace", "<"),
    _key("greater_than_sign", "pace(1)", "show.faster", "faster", "Faster reading pace", ">"),
    _key("k", "tap_view", "tap.view", "tap", "Tap view: one answer at reading pace, to be praised and blamed as it comes; again: the Arena"),
    _key("plus,equals_sign", "tap(1)", "tap.plus", "good", "Tap view: praise what you just read; what is not shown yet is drawn anew", "+"),
    _key("minus", "tap(-1)", "tap.minus", "bad", "Tap view: blame what you just read", "-"),
    _key("v", "tint", "show.tint", "tint", "Tint each word, once the set is committed: by Ĥ, again by the reward model, again plain"),
    _key("z", "differences", "show.differences", "differences", "The focused answer beside another, word by word; tab goes on to the next one"),
    _key("M", "markdown", "show.markdown", "Markdown", "Finished answers rendered as Markdown, or plain as they were written"),
    _key("Z", "fold", "show.fold", "thoughts", "Unfold the thoughts of finished answers, and fold them again"),
    _key("D", "details", "show.details", "details", "Figures and technical names beside the answers, or plain words"),
    _key("F", "flag", "note.flag", "flag", "Mark the focused answer, or words selected with the mouse, as a case of something: a refusal, made up …"),
    _key("C", "comment", "note.comment", "comment", "Write a note on the focused answer; nothing is learned from it"),
    _key("y", "copy", "copy.answer", "copy", "Copy the focused answer to the clipboard, also over ssh (OSC 52)"),
    _key("Y", "copy_code", "copy.code", "copy code", "Copy a code block of the focused answer; again: its next one"),
    _key("E", "export", "copy.export", "export", "Write this conversation to a Markdown file in the current folder"),
    _key("S", "silence", "learn.silence", "silence", "Tap view: silence counts, so words that pass untapped are worth 0; again: it says nothing"),
    _key("escape", "peel", "screen.peel", "back", "Peel one layer: what was typed, then frozen, then stop generation", "esc"),
)
"""What works in the Arena alone."""

COMMON: tuple[Binding, ...] = (
    _key("p", "app.pause", "learn.pause", "pause", "Pause the adapters' learning, and resume it"),
    _key("T", "app.train", "learn.now", "train now", "Train a round now"),
    _key("B", "app.bias", "learn.bias", "steering", "Steering by Ĥ on or off"),
    _key("N", "app.nats", "learn.nats", "budget", "Set the budget of nats against the base"),
    _key("V", "app.versions", "machine.versions", "versions", "List versions with their reasons; roll back"),
    _key("R", "app.restart", "machine.restart", "restart", "Restart the engine from the last version"),
    _key("question_mark,f1", "app.help", "screen.help", "help", "This page", "?"),
    *(
        _key(f"f{n}", f"app.mode('{mode}')", f"screen.{mode}", name, f"{meaning} (also j, then {letter})")
        for n, (mode, (letter, name, meaning)) in enumerate(MODES.items(), start=2)
    ),
    _key("comma", "app.settings", "screen.settings", "settings", "Each setting and where it came from; change it, write it to config.toml", ","),
    _key("j", "app.leader", "screen.leader", "go to", "Go to another screen by its letter, where function keys do not arrive"),
    _key("ctrl+p", "app.command_palette", "screen.palette", "palette", "Find a command by its name; themes", "^p"),
    _key("ctrl+q", "app.quit", "screen.quit", "quit", "Leave; everything judged is on disk", "^q", anywhere=True),
)

ARENA = (*ARENA_KEYS, *COMMON)
"""Everything that works in the Arena."""

_BACK = "Back to the Arena"
VERSIONS_KEYS: tuple[Binding, ...] = (
    _key("escape,q", "app.back", "versions.back", "Arena", _BACK, "esc"),
    _key("y", "confirm", "versions.confirm", "confirm", "Versions: yes, roll back to the version that enter chose"),
    _key("m", "mark", "versions.mark", "mark", "Versions: mark the one at the cursor, to set another beside it; again: no mark"),
    _key("c", "compare", "versions.compare", "compare", "Versions: this one against the marked one, or the untouched model, blind"),
    _key("d,z", "differences", "versions.differences", "words", "Versions: recorded answers beside another's, or the marked one's, by words"),
    _key("s", "sample", "versions.sample", "ask both", "Versions: the open prompt, to this one and the marked one, or the untouched model"),
    _key("n", "sample_prompt", "versions.prompt", "own prompt", "Versions: the same with a prompt that you type"),
)
LEARNING_KEYS: tuple[Binding, ...] = (_key("escape,q", "app.back", "learning.back", "Arena", _BACK, "esc"),)
LOG_KEYS: tuple[Binding, ...] = (
    _key("escape,q", "app.back", "log.back", "Arena", _BACK, "esc"),
    _key("down", "scroll(1)", "log.down", "scroll", "Log: a line on"),
    _key("up", "scroll(-1)", "log.up", "scroll back", "Log: a line back"),
    _key("pagedown", "scroll(20)", "log.page_down", "page", "Log: a page on"),
    _key("pageup", "scroll(-20)", "log.page_up", "page back", "Log: a page back"),
)
RECORD_KEYS: tuple[Binding, ...] = (
    _key("escape,q", "leave", "record.back", "Arena", "Record: from the search to the list, and then to the Arena", "esc"),
    _key("slash", "search", "record.search", "search", "Record: type words to search for", "/"),
    _key("k", "kind", "record.kind", "kind", "Record: only one kind of judgement, and the next kind"),
    _key("c", "comment", "record.comment", "comment", "Record: write a note on the set at the cursor"),
    _key("F", "flag", "record.flag", "flag", "Record: mark an answer of the set at the cursor as a case of something"),
    _key("E", "export", "record.export", "export", "Record: write everything as preference pairs into the current folder"),
    _key("u", "undo", "record.undo", "undo", "Record: take the last judgement back"),
    _key("U", "redo", "record.redo", "redo", "Record: put back what was undone"),
)
COMPARE_KEYS: tuple[Binding, ...] = (
    _key("escape,q", "app.back", "compare.back", "Arena", _BACK, "esc"),
    _key("a,left,1", "choose(0)", "compare.left", "left", "Compare: the left answer is better"),
    _key("b,right,2", "choose(1)", "compare.right", "right", "Compare: the right answer is better"),
    _key("t,0", "choose(-1)", "compare.neither", "neither", "Compare: neither is better"),
    _key("enter,s", "next", "compare.next", "next", "Compare: the next two answers"),
    _key("w", "who", "compare.who", "who", "Compare: choose which two: your model, the untouched one, or a version"),
    _key("u", "undo", "compare.undo", "undo", "Compare: take the last choice back"),
    _key("down", "scroll(1)", "compare.down", "scroll", "Compare: scroll both answers"),
    _key("up", "scroll(-1)", "compare.up", "scroll back", "Compare: scroll both answers back"),
)
CHAT_KEYS: tuple[Binding, ...] = (
    _key("escape", "leave", "chat.back", "keys, then Arena", "Chat: from the line to the keys, and then to the Arena", "esc"),
    _key("up", "turn(-1)", "chat.up", "turn", "Chat: the turn before"),
    _key("down", "turn(1)", "chat.down", "turn", "Chat: the next turn"),
    _key("pageup", "scroll(-10)", "chat.page_up", "page back", "Chat: a page back"),
    _key("pagedown", "scroll(10)", "chat.page_down", "page", "Chat: a page on"),
    _key("enter,i,tab", "write", "chat.write", "write", "Chat: write a message"),
    _key("plus,equals_sign", "praise", "chat.praise", "good", "Chat: praise this turn", "+"),
    _key("minus", "blame", "chat.blame", "bad", "Chat: blame this turn", "-"),
    _key("r", "rewrite", "chat.rewrite", "rewrite", "Chat: rewrite this turn and go on from it"),
    _key("semicolon", "critique", "chat.critique", "critique", "Chat: what should be otherwise in this turn; it is answered anew", ";"),
    _key("b", "branch", "chat.branch", "branch", "Chat: go on from this turn in another way"),
    _key("M", "markdown", "chat.markdown", "Markdown", "Chat: finished answers rendered as Markdown, or plain as they were written"),
    _key("Z", "fold", "chat.fold", "thoughts", "Chat: unfold the thoughts of finished answers, and fold them again"),
    _key("y", "copy", "chat.copy", "copy", "Chat: copy this turn to the clipboard"),
    _key("Y", "copy_code", "chat.code", "copy code", "Chat: copy a code block of this turn; again: its next one"),
    _key("F", "flag", "chat.flag", "flag", "Chat: mark this turn as a case of something: a refusal, made up …"),
    _key("C", "comment", "chat.comment", "comment", "Chat: write a note on this turn; nothing is learned from it"),
    _key("E", "export", "chat.export", "export", "Chat: write the conversation to a Markdown file"),
    _key("u", "undo", "chat.undo", "undo", "Chat: take the last judgement back"),
    _key("s", "stop", "chat.stop", "stop", "Chat: end the answer that is being drawn"),
)
SETTINGS_KEYS: tuple[Binding, ...] = (
    _key("escape,q", "dismiss", "settings.back", "close", "Settings: back to where you were", "esc"),
    _key("w", "write", "settings.write", "write", "Settings: write the one at the cursor to config.toml"),
)
SCREEN_KEYS = (VERSIONS_KEYS, LEARNING_KEYS, LOG_KEYS, RECORD_KEYS, COMPARE_KEYS, CHAT_KEYS)
"""Of each screen beside the Arena; those of COMMON work there too."""
ALL = (*ARENA, *(binding for keys in SCREEN_KEYS for binding in keys), *SETTINGS_KEYS)
"""Every binding that a keymap may change."""
GROUPS = (ARENA, *((*keys, *COMMON) for keys in SCREEN_KEYS), SETTINGS_KEYS)
"""Keys that work together."""

EDITOR: tuple[Binding, ...] = (
    Binding("ctrl+s,alt+enter", "save", "save", id="editor.save", tooltip="Save (also alt+enter)", key_display="^s", priority=True),
    Binding("ctrl+o", "external", "$EDITOR", id="editor.external", tooltip="Write in $EDITOR", key_display="^o", priority=True),
    Binding("escape", "leave", "keep the draft and leave", id="editor.leave", tooltip="Leave; the draft stays", key_display="esc", priority=True),
)

PROMPT: tuple[Binding, ...] = (
    *EDITOR,
    Binding(
        "ctrl+r",
        "recent",
        "recent",
        id="editor.recent",
        tooltip="A prompt that you typed before; again: the one before it",
        key_display="^r",
        priority=True,
    ),
)

NUMBER: tuple[Binding, ...] = (
    Binding("enter,ctrl+s,alt+enter", "save", "save", id="number.save", tooltip="Save", key_display="enter", priority=True),
    Binding("escape", "leave", "leave", id="number.leave", tooltip="Leave it as it was", key_display="esc", priority=True),
)

CRITIQUE: tuple[Binding, ...] = (
    Binding("enter,ctrl+s,alt+enter", "save", "say it", id="critique.save", tooltip="Say it", key_display="enter", priority=True),
    Binding("tab", "about", "about", id="critique.scope", tooltip="About this answer, about all of them, or a standing wish", priority=True),
    Binding("escape", "leave", "leave", id="critique.leave", tooltip="Leave; the draft stays", key_display="esc", priority=True),
)

WISHES: tuple[Binding, ...] = (
    Binding("down", "choose(1)", "next", id="wishes.next", tooltip="The next wish"),
    Binding("up", "choose(-1)", "previous", id="wishes.previous", tooltip="The previous wish"),
    Binding("right,plus", "strength(1)", "stronger", id="wishes.stronger", tooltip="Stronger, up to +3"),
    Binding("left,minus", "strength(-1)", "weaker", id="wishes.weaker", tooltip="Weaker, down to -3: the opposite"),
    Binding("space", "switch", "off, on", id="wishes.switch", tooltip="Off, and on again"),
    Binding("escape,enter,W", "leave", "leave", id="wishes.leave", tooltip="Leave", key_display="esc"),
)

_BY_ID = {binding.id or "": binding for binding in ALL}


def check_keymap() -> None:
    """Raises ConfigError where the operator's own keys name no binding, or one key has two meanings."""
    check([[(binding.id or "", binding.key) for binding in group] for group in GROUPS])


def painted(identity: str) -> tuple[str, str]:
    """How a key is shown, and what it is called: ('enter', 'commit')."""
    binding = _BY_ID[identity]
    return key_name(binding), binding.description


def painted_all(*identities: str) -> list[tuple[str, str]]:
    """Of several; keys in one string, as 'chat.up chat.down', are shown together under the first one's name."""
    found = []
    for together in identities:
        keys = [painted(identity) for identity in together.split()]
        found.append((" ".join(key for key, _ in keys), keys[0][1]))
    return found


def action_of(identity: str) -> str:
    """What a key does, as an action."""
    return _BY_ID[identity].action


def key_name(binding: Binding) -> str:
    """As it is painted."""
    return binding.key_display or binding.key.split(",")[0]


def sections() -> dict[str, list[tuple[str, str]]]:
    """For the help page: heading -> keys and what they do; keys of one kind together."""
    spans = {"rank.a": ("a-i", "Rank: letters of answers, best first (with two answers: choose one)"),
             "score.1": ("1-7", "Score the focused answer on the criterion; on disk at once")}  # fmt: skip
    alike = {f"rank.{c}" for c in LETTERS} | {f"score.{n}" for n in range(1, 8)}
    found: dict[str, list[tuple[str, str]]] = {}
    for binding in ARENA:
        identity = binding.id or ""
        if identity in alike and identity not in spans:
            continue
        row = spans.get(identity) or (key_name(binding), binding.tooltip)
        found.setdefault(SECTIONS[identity.split(".")[0]], []).append(row)
    return found
