"""docs/data.md and Datasette's metadata know every table, view and format, and their queries run."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.exchange.formats import FORMATS, WHOLE
from storage.exchange.shapes import SHAPES

from .dump import lived_in

ROOT = Path(__file__).parents[2]
INNER = re.compile(r"sqlite_|search_|_sqlite_migrations")


@pytest.fixture(scope="module")
def names(empty_database: Path) -> set[str]:
    with closing(sqlite3.connect(empty_database)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        return {name for (name,) in found if not INNER.match(name)}


def test_every_table_view_and_format_is_described_with_an_example(names: set[str]) -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    described = dict(re.findall(r"^\*\*`([\w-]+)`\*\* (.*?)(?=^\*\*`|^## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert names | FORMATS.keys() | WHOLE.keys() | {shape.name for shape in SHAPES} <= described.keys()
    for name in names:
        example = re.search(r"```json\n(.*)\n```", described[name])
        assert example and json.loads(example[1]), name


def test_the_examples_have_the_columns_of_their_tables(names: set[str], empty_database: Path) -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    with closing(sqlite3.connect(empty_database)) as connection:
        for name in names:
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')]
            example = re.search(rf"^\*\*`{name}`\*\*.*?```json\n(.*?)\n```", text, re.DOTALL | re.MULTILINE)
            assert example is not None and list(json.loads(example[1])) == columns, name


def test_datasettes_metadata_knows_every_table_and_its_queries_run(names: set[str], tmp_path: Path) -> None:
    text = (ROOT / "metadata.yaml").read_text(encoding="utf-8")
    assert names <= set(re.findall(r"^      (\w+):$", text, re.MULTILINE))
    lived_in(tmp_path / "tamer.db")
    queries = re.findall(r"sql: \|-\n          (.*)", text)
    assert len(queries) == 3
    with closing(sqlite3.connect(tmp_path / "tamer.db")) as connection:
        assert all(connection.execute(query).fetchall() for query in queries)
        for name, label in re.findall(r"^      (\w+):\n        description: .*\n        label_column: (\w+)$", text, re.MULTILINE):
            assert label in [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
