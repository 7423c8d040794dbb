"""Keys of one's own, themes, and where settings come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from storage.records import Comment, Flag
from tamer_tui import keymap
from tamer_tui.app import theme_of
from tamer_tui.cli import main
from tamer_tui.config import ConfigError, config_file, tables
from tamer_tui.external_editor import ExternalEditorError, edited
from tamer_tui.keys import ALL, GROUPS, check_keymap
from tests.tamer_tui.table import table


def configure(text: str) -> Path:
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text(text)
    return config_file()


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ('nats = 8\n[keymap]\n"set.nothing" = "q"\n', 3, "there is no binding set.nothing"),
        ('[keymap]\nset.undo = "s"\n', 2, "s is the key of set.skip already"),
        ('keys = "emacs"\n', 1, "keys is one of default, vim, left-hand, azerty"),
        ('[keymap]\n"set.undo" = 3\n', 2, "keys are text"),
    ],
)
def test_what_is_wrong_with_keys_is_said_with_its_line(text: str, line: int, why: str) -> None:
    path = configure(text)
    done = subprocess.run([sys.executable, "-c", "from tamer_tui.keys import *; check_keymap()"], capture_output=True, text=True, check=False)
    assert f"{path}:{line}: {why}" in done.stderr or f"{path}: {why}" in done.stderr


@pytest.mark.parametrize("preset", sorted(keymap.PRESETS))
def test_no_preset_gives_a_key_two_meanings(preset: str) -> None:
    configure(f'keys = "{preset}"\n')
    keymap.check([[(binding.id or "", keymap.PRESETS[preset].get(binding.id or "", binding.key)) for binding in group] for group in GROUPS])


def test_chosen_keys_are_bound_painted_and_explained() -> None:
    configure('keys = "vim"\n[keymap]\n"set.commit" = "enter,q"\n')
    script = "from tamer_tui.keys import *; check_keymap(); print(painted('screen.leader'), painted('scroll.down'), painted('set.commit'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "('backslash', 'go to') ('down', 'scroll') ('enter', 'commit')"


def test_the_keys_as_they_ship_are_right_and_settings_of_screens_are_no_options() -> None:
    check_keymap()
    configure('theme = "ansi-light"\nkeys = "vim"\nnats = 9\n')
    assert theme_of(tables()) == "ansi-light"
    shown = CliRunner().invoke(main, ["config"], env={"TAMER_SEED": "5"}).output
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[1:]}
    assert rows["--nats"] == ["9.0", "config.toml"] and rows["--seed"] == ["5", "environment", "TAMER_SEED"] and rows["-k"] == ["4", "default"]
    configure('theme = "nothing"\n')
    with pytest.raises(ConfigError, match="there is no theme nothing"):
        theme_of(tables())


def test_completion_is_printed_and_every_binding_is_listed() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_TAMER_COMPLETE" in CliRunner().invoke(main, ["completion", shell]).output
    listed = CliRunner().invoke(main, ["config", "--keys"]).output
    assert all(binding.id and binding.id in listed for binding in ALL)


async def test_flags_and_notes_are_on_disk_and_can_be_undone(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("tab", "F", "m")
        await t.press("C", *"odd", "ctrl+s")
        (flag, comment) = t.live()
        uid = t.session.current.candidates[1].uid  # type: ignore[union-attr]
        assert isinstance(flag, Flag) and (flag.response_uid, flag.label) == (uid, "made up")
        assert isinstance(comment, Comment) and (comment.response_uid, comment.text) == (uid, "odd")
        await t.press("u", "u", "F", "escape", "enter")
        assert t.live() == [] and "Nothing judged yet" in t.line("said"), "a note is no judgement"


def test_the_page_of_keys_is_what_the_keys_are() -> None:
    from tamer_tui.key_page import page

    assert (Path(__file__).parents[2] / "docs" / "keys.md").read_text() == page(), "python -m tamer_tui.key_page > docs/keys.md"


def test_a_text_goes_through_the_editor_of_the_operator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "my editor.sh"
    script.write_text('#!/bin/sh\n[ -n "$FAIL" ] && exit 3\nprintf "%s\\n" "$(cat "$1") indeed" > "$1"\n')
    script.chmod(0o700)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"'{script}'")
    assert edited("Yes é") == "Yes é indeed"
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(ExternalEditorError, match="ended with 3"):
        edited("Yes")
    monkeypatch.setenv("EDITOR", "/nonexistent/editor")
    with pytest.raises(ExternalEditorError, match="cannot be used"):
        edited("Yes")


async def test_ctrl_c_leaves_when_it_is_pressed_twice(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("ctrl+c")
        assert t.pilot.app.is_running and "ctrl+c again leaves" in t.line("said")
        await t.pilot.press("ctrl+c")
        await t.pilot.pause()
        assert not t.pilot.app.is_running
