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


def _key(key: str, action: str, identity: str, description: str, tooltip: str, display: str | None = None) -> Binding:
    """`key` unless the operator chose another one."""
    own = chosen().get(identity)
    return Binding(own or key, action, description, id=identity, tooltip=tooltip, key_display=None if own else display, show=False)


MODES = {
    "arena": ("a", "Arena", "Answers side by side, to be ranked, scored and rewritten"),
    "tap": ("t", "tap view", "One answer at reading pace, to be praised and blamed as it comes"),
    "versions": ("v", "versions", "All versions with what they learned and why; roll back to one"),
    "chat": ("c", "chat", "One conversation with your model, turn by turn"),
    "compare": ("o", "compare", "Your model against the untouched one, blind, counted apart"),
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
    _key("M", "markdown", "show.markdown", "Markdown", "Finished answers rendered as Markdown, or plain as they were written"),
    _key("Z", "fold", "show.fold", "thoughts", "Unfold the thoughts of finished answers, and fold them again"),
    _key("D", "details", "show.details", "details", "Figures and technical names beside the answers, or plain words"),
    _key("F", "flag", "note.flag", "flag", "Mark the focused answer as a case of something: a refusal, made up, too long …"),
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
    _key("j", "app.leader", "screen.leader", "go to", "Go to another screen by its letter, where function keys do not arrive"),
    _key("ctrl+p", "app.command_palette", "screen.palette", "palette", "Find a command by its name; themes", "^p"),
    _key("ctrl+q", "app.quit", "screen.quit", "quit", "Leave; everything judged is on disk", "^q"),
)

ARENA = (*ARENA_KEYS, *COMMON)
"""Everything that works in the Arena."""

EDITOR: tuple[Binding, ...] = (
    Binding("ctrl+s,alt+enter", "save", "save", id="editor.save", tooltip="Save (also alt+enter)", key_display="^s", priority=True),
    Binding("ctrl+o", "external", "$EDITOR", id="editor.external", tooltip="Write in $EDITOR", key_display="^o", priority=True),
    Binding("escape", "leave", "keep the draft and leave", id="editor.leave", tooltip="Leave; the draft stays", key_display="esc", priority=True),
)

NUMBER: tuple[Binding, ...] = (
    Binding("enter,ctrl+s,alt+enter", "save", "save", id="number.save", tooltip="Save", key_display="enter", priority=True),
    Binding("escape", "leave", "leave", id="number.leave", tooltip="Leave it as it was", key_display="esc", priority=True),
)

CRITIQUE: tuple[Binding, ...] = (
    Binding("enter,ctrl+s,alt+enter", "save", "say it", id="critique.save", tooltip="Say it", key_display="enter", priority=True),
    Binding("tab", "scope", "scope", id="critique.scope", tooltip="For this prompt, or a standing wish for all", priority=True),
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

_BY_ID = {binding.id or "": binding for binding in ARENA}


def check_keymap() -> None:
    """Raises ConfigError where the operator's own keys name no binding, or one key has two meanings."""
    check((binding.id or "", binding.key) for binding in ARENA)


def painted(identity: str) -> tuple[str, str]:
    """How a key is shown, and what it is called: ('enter', 'commit')."""
    binding = _BY_ID[identity]
    return key_name(binding), binding.description


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
