"""Makes docs/taming.svg: one taming of a real model, played by keys in tmux, as an animated SVG that shows what the terminal showed.

    python docs/record.py MODEL_DIR [--sets 7] [--out docs/taming.svg]

The operator of the recording has one taste, short answers. It says so once, in words, and then types the letter of the shorter answer. Waits in which
nothing changes are cut to a second, and all of it is shown four times as fast; nothing else is altered. Needs tmux.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from html import escape
from itertools import groupby
from pathlib import Path

from rich.style import Style
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

COLUMNS, ROWS = 120, 30
FRAMES_PER_SECOND = 5
LONGEST_STILL, SPEED = 1.0, 4.0
"""Seconds of a frame, and how much faster than life all of it is shown."""
LAST_SECONDS = 3.0
"""Of the last frame."""
CELL, LINE, SIZE = 7.23, 15.0, 12.0
"""Pixels."""
PATIENCE = 300.0
"""Seconds to wait for words."""
Row = tuple[tuple[str, Style], ...]


class Recording:
    """A tmux session of its own, its frames, and when they were seen."""

    def __init__(self, command: str, folder: Path) -> None:
        self.frames: list[tuple[float, tuple[str, ...]]] = []
        self._tmux = ["tmux", "-L", f"record{os.getpid()}"]
        self._run("-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), "-c", str(folder), command)
        self._run("set-option", "status", "off")

    def _run(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], check=True, capture_output=True, text=True).stdout

    def look(self) -> str:
        """Take a frame; its text without colours."""
        time.sleep(1 / FRAMES_PER_SECOND)
        lines = self._run("capture-pane", "-e", "-N", "-p").split("\n")
        self.frames.append((time.monotonic(), tuple(lines[:ROWS])))
        return "\n".join(Text.from_ansi(line).plain.ljust(COLUMNS) for line in lines[:ROWS])

    def until(self, *words: str, seconds: float = PATIENCE) -> str:
        """The screen, as soon as one of these is on it. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            screen = self.look()
            if any(word in screen for word in words):
                return screen
        raise TimeoutError(f"none of {words} came:\n{screen}")

    def rest(self, seconds: float) -> str:
        """Let it be seen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            screen = self.look()
        return screen

    def press(self, *keys: str) -> None:
        """As tmux names them."""
        for key in keys:
            self._run("send-keys", key)
            self.look()

    def type(self, text: str) -> None:
        """Letter by letter."""
        for letter in text:
            self._run("send-keys", "-l", letter)
            self.look()

    def close(self) -> None:
        self._run("kill-server")


def letter_of_the_shorter(screen: str) -> str:
    """Of two answers side by side."""
    lines = screen.split("\n")
    top = next(n for n, line in enumerate(lines) if "╮╭" in line)
    bottom = next(n for n, line in enumerate(lines) if n > top and "╯╰" in line)
    first, second = lines[top].index("╮") + 1, lines[top].index("╮", lines[top].index("╮") + 1) + 1
    panes = ((0, first), (first, second))
    written = [sum(len("".join(row[start + 1 : stop - 1].split())) for row in lines[top + 1 : bottom]) for start, stop in panes]
    return "ab"[written[1] < written[0]]


def play(recording: Recording, sets: int, version_seconds: float) -> None:
    """The taming: a wish in words, rankings, and whatever version comes of it."""
    recording.until("Which is better")
    recording.press(">", ">", ">")
    _until_complete(recording)
    recording.rest(2.0)
    recording.press(r"\;")
    recording.type("answer in one short sentence")
    recording.rest(1.0)
    recording.press("Tab")
    recording.rest(1.0)
    recording.press("Enter")
    recording.until("on disk")
    for _ in range(sets):
        screen = _until_complete(recording)
        recording.rest(1.0)
        recording.press(letter_of_the_shorter(screen))
        recording.rest(0.6)
        recording.press("Enter")
        recording.until("on disk")
    _until_complete(recording)
    with suppress(TimeoutError):
        recording.until("your version v", seconds=version_seconds)
    recording.rest(2.0)
    recording.press("F4")
    recording.rest(2.0)
    recording.press("F7")
    recording.rest(2.0)


def _until_complete(recording: Recording) -> str:
    """Both answers are there."""
    while True:
        screen = recording.until("done ─", "cut at the limit ─")
        if screen.count("done ─") + screen.count("cut at the limit ─") == 2:
            return screen


# --- as an SVG ---------------------------------------------------------------------------------------------------------------


def timed(frames: list[tuple[float, tuple[str, ...]]]) -> list[tuple[float, tuple[str, ...]]]:
    """Seconds that each different screen is shown."""
    runs = [(lines, next(times)[0]) for lines, times in groupby(frames, key=lambda frame: frame[1])]
    ends = [began for _, began in runs[1:]] + [frames[-1][0]]
    return [(min(LONGEST_STILL, end - began) / SPEED, lines) for (lines, began), end in zip(runs, ends)]


def svg(frames: list[tuple[float, tuple[str, ...]]]) -> str:
    """Each row once for as long as it stays the same."""
    shown = timed(frames)
    seconds = sum(duration for duration, _ in shown) + LAST_SECONDS
    parts = []
    for y in range(ROWS):
        began = 0.0
        for line, same in groupby(shown, key=lambda frame: frame[1][y]):
            ended = began + sum(duration for duration, _ in same)
            if line.strip():
                parts.append(_row(line, y, began / seconds, 1.0 if ended > seconds - LAST_SECONDS - 0.01 else ended / seconds, seconds))
            began = ended
    width, height = COLUMNS * CELL + 16, ROWS * LINE + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">'
        f"<style>text{{font:{SIZE}px Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}}</style>"
        f'<rect width="100%" height="100%" rx="6" fill="#121212"/><g transform="translate(8 8)">{"".join(parts)}</g></svg>\n'
    )


def _row(line: str, y: int, start: float, stop: float, seconds: float) -> str:
    """A row that is there from one share of the whole to another."""
    parts = list(_painted(line, y))
    if start <= 0 and stop >= 1:
        return "".join(parts)
    times = [0.0, *([start] if start > 0 else []), *([stop] if stop < 1 else [])]
    values = [*(["hidden"] if start > 0 else []), "visible", *(["hidden"] if stop < 1 else [])]
    keys, said = ";".join(f"{time:.5f}" for time in times), ";".join(values)
    when = f'values="{said}" keyTimes="{keys}" dur="{seconds:.2f}s" calcMode="discrete" repeatCount="indefinite"'
    return f'<g visibility="hidden"><animate attributeName="visibility" {when}/>{"".join(parts)}</g>'


def _painted(line: str, y: int) -> Iterator[str]:
    text = Text.from_ansi(line)
    at = 0
    for segment in text.render(_console()):
        style, cells = segment.style or Style.null(), len(segment.text)
        fore, back = (_hex(color) for color in ((style.bgcolor, style.color) if style.reverse else (style.color, style.bgcolor)))
        if style.reverse:
            fore, back = fore or "#121212", back or "#e0e0e0"
        if back and back != "#121212":
            yield f'<rect x="{at * CELL:.1f}" y="{y * LINE:.1f}" width="{cells * CELL:.1f}" height="{LINE}" fill="{back}"/>'
        if segment.text.strip():
            looks = "".join((' font-weight="bold"' if style.bold else "", ' font-style="italic"' if style.italic else "",
                             ' text-decoration="underline"' if style.underline else ""))  # fmt: skip
            lead = len(segment.text) - len(segment.text.lstrip())
            words = segment.text.strip()
            place = f'x="{(at + lead) * CELL:.1f}" y="{(y + 0.78) * LINE:.1f}" textLength="{len(words) * CELL:.1f}"'
            yield f'<text {place} fill="{fore or "#e0e0e0"}"{looks}>{escape(words)}</text>'
        at += cells


def _console() -> object:
    from rich.console import Console

    return Console(width=COLUMNS, color_system="truecolor", force_terminal=True, file=sys.stderr)


def _hex(color: object) -> str:
    return color.get_truecolor(SVG_EXPORT_THEME).hex if color is not None and not color.is_default else ""  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--name", default="SmolLM2-135M-Instruct", help="What the model is called on the screen.")
    parser.add_argument("--sets", type=int, default=7)
    parser.add_argument("--version-seconds", type=float, default=900.0, help="To wait for a version of one's own.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "taming.svg")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / options.name).symlink_to(options.model.resolve())
        tree = Path(__file__).resolve().parents[1]
        environment = shlex.join(["env", f"HOME={home}", f"PYTHONPATH={tree}", "TERM=xterm-256color", "COLORTERM=truecolor"])
        chosen = ["--model", options.name, "-k", "2", "--max-new-tokens", "48", "--temperature", "0.4", "--nats", "8"]
        tamer = shlex.join([sys.executable, "-m", "tamer_tui.cli", "taming.db", *chosen])
        recording = Recording(f"{environment} {tamer}", Path(home))
        try:
            play(recording, options.sets, options.version_seconds)
        finally:
            options.out.write_text(svg(recording.frames), encoding="utf-8")
            recording.close()
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, {len(recording.frames)} frames")


if __name__ == "__main__":
    main()
