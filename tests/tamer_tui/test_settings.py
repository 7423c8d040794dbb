"""Settings: where each came from, changed for a sitting, and written to config.toml without harm to what stands there."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click
import pytest

from tamer_tui.cli import main, run
from tamer_tui.config import ConfigError, config_file, file_defaults
from tamer_tui.settings import Setting, described, write
from tamer_tui.themes import HIGH_CONTRAST
from tests.tamer_tui.table import Table, table

WORN = """# mine
nats = 3  # careful
max-new-tokens = 40

[keymap]
"set.undo" = "z"
nats = "not this one"
"""
HOSTILE = 'A "quoted" \\ line\nand\x7f another é'


def settings(*arguments: str) -> list[Setting]:
    parent = click.Context(main, info_name="tamer", default_map={"run": file_defaults()})
    with parent, run.make_context("run", list(arguments), parent=parent) as made:
        return described(made)


def test_a_line_takes_the_place_of_the_old_one_and_the_rest_stays() -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text(WORN)
    for name, value in {"nats": 8.0, "max_new_tokens": 64, "theme": "high-contrast", "system": HOSTILE, "no_bias": True}.items():
        write(name, value)
    found = tomllib.loads(config_file().read_text())
    assert found == {
        "nats": 8.0, "max_new_tokens": 64, "theme": "high-contrast", "system": HOSTILE, "no_bias": True,
        "keymap": {"set.undo": "z", "nats": "not this one"},
    }  # fmt: skip
    assert config_file().read_text().startswith("# mine\n") and list(config_file().parent.iterdir()) == [config_file()]


def test_a_file_that_cannot_be_read_is_not_written_over() -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text("nats = [")
    with pytest.raises(ConfigError):
        write("nats", 8.0)
    assert config_file().read_text() == "nats = ["


def test_what_the_program_would_not_take_is_refused() -> None:
    by_name = {each.name: each for each in settings("--nats", "3")}
    assert (by_name["nats"].value, by_name["nats"].source) == ("3.0", "flag") and by_name["theme"].source == "default"
    assert by_name["nats"].parsed("8") == 8.0 and by_name["no_bias"].parsed("true") is True
    for name, text in (("nats", "nan"), ("nats", "much"), ("k", "10"), ("device", "tpu"), ("theme", "pink")):
        with pytest.raises(ConfigError):
            by_name[name].parsed(text)


def test_every_setting_that_is_written_is_read_at_the_next_start() -> None:
    """Also those that are given several times, and those that a program looks at more closely."""
    begun = settings("--stop", "END", "--stop", "a\\nb", "--temperatures", "0.5,1.0", "--name", "jo", "--nats", "4", "--no-bias")
    values = {each.name: each.value for each in begun if each.value and each.option is not None and each.name not in ("engine", "adapter", "prompts")}
    for each in begun:
        if each.name in values:
            write(each.name, each.parsed(each.value))
    again = {each.name: each for each in settings()}
    assert {name: again[name].value for name in values} == values
    assert {again[name].source for name in values} == {"config.toml"}
    for name, text in (("name", "a:b"), ("temperatures", "0.5,hot")):
        with pytest.raises(ConfigError):
            again[name].parsed(text)
    assert again["stop"].parsed("END, STOP") == ["END", "STOP"]


async def change(t: Table, name: str, text: str) -> None:
    """On the settings screen."""
    t.pilot.app.screen.query_one("Rows").move_cursor(row=[each.name for each in t.pilot.app.settings].index(name))  # type: ignore[attr-defined]
    await t.press("enter")
    t.pilot.app.screen.query_one("WritingArea").text = text  # type: ignore[attr-defined]
    await t.press("enter")


async def test_the_screen_changes_this_sitting_and_config_toml(tmp_path: Path) -> None:
    async with table(tmp_path, size=(120, 36)) as t:
        t.pilot.app.settings = settings("--nats", "3")  # type: ignore[attr-defined]
        await t.press("comma")
        assert "flag" in t.shown() and "--nats" in t.shown()
        await change(t, "nats", "8.5")
        assert t.session.status.nats == 8.5 and "this sitting" in t.shown()
        await t.press("w")
        await t.until(lambda: config_file().exists())
        assert tomllib.loads(config_file().read_text()) == {"nats": 8.5}
        await change(t, "nats", "nonsense")
        assert t.session.status.nats == 8.5 and "not a valid float" in t.shown()
        await change(t, "theme", "high-contrast")
        assert t.pilot.app.theme == HIGH_CONTRAST.name and t.pilot.app.has_class("-high-contrast")
        await change(t, "k", "3")
        assert "typed, for the next start" in t.shown()
        await t.press("escape")
        assert t.pilot.app.screen is t.arena
