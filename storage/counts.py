"""How much of everything there is in a database, as `tamer stats` tells it."""

from __future__ import annotations

import sqlite3

from msgspec import Struct

from storage import state


class Refusals(Struct, frozen=True):
    """How many candidate versions the gate refused for one reason."""

    reason_code: str
    count: int


class Counts(Struct, frozen=True):
    """Judgements as they are live."""

    rankings: int
    ratings: int
    corrections: int
    demonstrations: int
    taps: int
    critiques: int
    skips: int
    peeks: int
    undone: int
    sittings: int
    sets: int  # shown to be judged
    responses: int
    tokens: int
    runs: int
    published: int
    refused: tuple[Refusals, ...]

    @property
    def judged(self) -> int:
        """Live judgements that teach."""
        return self.rankings + self.ratings + self.corrections + self.demonstrations + self.taps + self.critiques

    @property
    def versions(self) -> int:
        """Versions in all, published and refused."""
        return self.published + sum(refusals.count for refusals in self.refused)


def counts(connection: sqlite3.Connection) -> Counts:
    def count(of: str) -> int:
        return int(connection.execute(f"SELECT count(*) FROM {of}").fetchone()[0])

    tallies = state.tallies(connection)
    kinds = ("ranking", "rating", "correction", "demonstration", "tap", "critique", "skip", "peek")
    refused = connection.execute("SELECT reason_code, count(*) FROM versions WHERE NOT published GROUP BY 1 ORDER BY 1")
    return Counts(
        **{f"{kind}s": tallies.get(f"live {kind}", 0) for kind in kinds},
        undone=tallies.get("undone", 0),
        sittings=count("sittings"),
        sets=count("sample_sets WHERE purpose = 'judge'"),
        responses=count("responses"),
        tokens=tallies.get("tokens", 0),
        runs=count("runs"),
        published=count("versions WHERE published"),
        refused=tuple(Refusals(*row) for row in refused),
    )
