"""How long an import of many rows takes, and how much memory: `python -m benchmarks.importing [ROWS] [--shape preference|tools|flat]`.

Rows are made up: a prompt of 20 words and two answers of 60. Told are seconds of wall and of CPU (the wall of a busy machine says little), peak
memory, the size of the database, and how long it takes to ask what the Arena asks first.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from learners.protocol import encode
from storage.exchange.importing import take
from storage.exchange.sources import Source
from storage.exchange.survey import Reading, Survey
from storage.journal import Journal
from storage.queries import Record
from tamer_tui.told_lessons import ToldLessons


def rows(n: int, shape: str) -> Iterator[dict[str, Any]]:
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 9))) for _ in range(5000)]

    def text(length: int) -> str:
        return " ".join(chance.choices(words, k=length))

    for i in range(n):
        yield {"id": i, "source": "benchmark", "prompt": text(20), **_sides(shape, text)}


def _sides(shape: str, text: Callable[[int], str]) -> dict[str, Any]:
    prompt = {"role": "user", "content": text(20)}
    sides = {side: [prompt, {"role": "assistant", "content": text(60)}] for side in ("chosen", "rejected")}
    if shape == "flat":
        return {side: text(60) for side in sides}
    if shape == "tools":
        sides["chosen"][1:1] = [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
                                {"role": "tool", "content": "42"}]  # fmt: skip
    return {"prompt": prompt["content"], **sides, "score_chosen": 7.5, "score_rejected": 3.0}


def timed(what: str, work: Callable[[], Any]) -> Any:
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:40} {time.perf_counter() - wall:7.2f} s, {time.process_time() - cpu:7.2f} s of CPU, peak {peak:.0f} MB")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=100_000)
    parser.add_argument("--shape", choices=["preference", "tools", "flat"], default="preference")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file, database = Path(folder) / "rows.jsonl", Path(folder) / "tamer.db"
        with file.open("w", encoding="utf-8") as out:
            for row in rows(chosen.rows, chosen.shape):
                out.write(json.dumps(row) + "\n")
        print(f"{chosen.rows:,} rows, {file.stat().st_size / 2**20:.0f} MB")
        survey = timed("look", lambda: Survey(Reading(Source(file))))
        with Journal.open(database) as journal:
            print(timed("write", lambda: take(journal, survey, "0")))
        print(f"database {database.stat().st_size / 2**20:.0f} MB")
        with Record(database) as record:
            timed("counts, base, last judgement", lambda: (record.counts(), record.base(), record.last_undoable(), record.judged_prompts()))
            seqs = timed("what teaches", record.teaching)
            timed("the first 256 lessons", lambda: record.lessons_of([each.seq for each in seqs[:256]]))
            timed("what the engine gets before the first answer", lambda: [encode(line) for line in ToldLessons(record).begin(whole=False)])
            timed("all of it, which it got before", lambda: sum(len(encode(line)) for line in ToldLessons(record).begin(whole=True)))


if __name__ == "__main__":
    main()
