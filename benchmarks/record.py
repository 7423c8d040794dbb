"""How the record does with a million events: opening it, appending to it, exporting it, and what its commands take.

    python benchmarks/record.py [--events 1000000] [--keep FILE.db]

The database is made through the journal itself: sets of four answers, each with a ranking, ratings, comments, flags and an undo; answers have eight
tokens. Then, each in a process of its own: open and what the Arena asks at its start; 2,000 appends with the write acknowledged, one after
another, while a reader looks on; export to trl-preference; and the peak memory of every command. Prints one JSON line. About fifteen minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.journal import Journal
from storage.queries import Record
from storage.records import (
    BaseModel,
    Comment,
    Flag,
    Judgement,
    Prompt,
    Ranking,
    Rating,
    Response,
    SampleSet,
    Sampling,
    Sitting,
    Undo,
)

BASE = BaseModel("b" * 64, "benchmark", "none")
SITTING = Sitting("sitting", BASE.base_hash, "0", "{}")
K, EVENTS_OF_A_SET, TOGETHER = 4, 10, 500
WORDS = "the little fox ran over a green hill and told every owl that it was glad of the long warm day".split()


def response(uid: str, set_uid: str, slot: int, n: int) -> Response:
    text = " ".join(WORDS[(n + slot * 3 + i * (1 + slot)) % len(WORDS)] for i in range(24)) + f" {n}."
    return Response(
        uid, set_uid, slot, "base" if slot == 0 else "acting", "base", 1, 0.5, n, Sampling(), (1, 2, 3), tuple(range(8)), text,
        (-1.0,) * 8, (-1.0,) * 8, (0.1,) * 8, "eos", 1.0,
    )  # fmt: skip


def one_set(n: int) -> Iterator[Any]:
    """Ten events about one set."""
    uid = f"s{n:09d}"
    answers = [f"{uid}{letter}" for letter in "abcd"]
    yield SampleSet(uid, SITTING.uid, Prompt.of(f"Tell me about number {n}"), K, "judge", answers[0], answers[1])
    for slot, answer in enumerate(answers):
        yield response(answer, uid, slot, n)
    yield Ranking(uid, {answers[(n + i) % K]: 1 + i // (1 + n % 2) for i in range(K)})
    yield Rating(uid, answers[0], 1 + n % 7)
    yield Rating(uid, answers[1], 7 - n % 7)
    yield Rating(uid, answers[0], 1 + (n + 3) % 7)  # the score was changed
    yield Rating(uid, answers[2], 4, "truthful")
    yield Comment(uid, None, f"note {n}")
    yield Flag(uid, answers[3], "refusal")
    yield Comment(uid, answers[1], "another note")
    yield Flag(uid, answers[2], "short")
    yield Undo(n * EVENTS_OF_A_SET + 5 + n % 5)


def make(path: Path, events: int) -> float:
    started = time.monotonic()
    with Journal.open(path) as journal:
        journal.bind(BASE, SITTING)
        sets = events // EVENTS_OF_A_SET
        for first in range(0, sets, TOGETHER):
            journal.together(record for n in range(first, min(first + TOGETHER, sets)) for record in one_set(n)).result()
            print(f"\r{first * EVENTS_OF_A_SET:,} events, {time.monotonic() - started:.0f} s", end="", file=sys.stderr)
    return time.monotonic() - started


def opening(path: Path) -> float:
    """Milliseconds to open for writing and to ask what the Arena asks before it shows its first set."""
    started = time.perf_counter()
    journal, record = Journal.open(path), Record(path)
    record.base(), record.acting_version(), record.held(), record.judged_prompts(), record.counts(), record.blind_count(30)
    record.last_undoable(), record.last_redoable(), record.calibrations()
    elapsed = time.perf_counter() - started
    record.close()
    journal.close()
    return 1000 * elapsed


def appending(path: Path, n: int = 2000) -> list[float]:
    """Milliseconds of each of n judgements until it is acknowledged."""
    with Journal.open(path) as journal, Record(path) as record:
        journal.bind(BASE, SITTING)
        uid = f"appended{time.time_ns()}"
        journal.write(SampleSet(uid, SITTING.uid, Prompt.of(uid), K))
        for slot in range(K):
            journal.write(response(f"{uid}{slot}", uid, slot, slot)).result()
        found = []
        for i in range(n):
            said: Judgement = Rating(uid, f"{uid}{i % K}", 1 + i % 7) if i % 3 else Comment(uid, None, f"note {i}")
            started = time.perf_counter()
            journal.append(said).result()
            found.append(1000 * (time.perf_counter() - started))
            if i % 100 == 0:
                record.counts()
    return found


def in_a_process(what: str, path: Path) -> Any:
    done = subprocess.run([sys.executable, __file__, "--measure", what, "--keep", str(path)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def command(*words: object) -> dict[str, float]:
    """Seconds and peak memory in MB of one `tamer` command; what it prints goes nowhere."""
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, sys.executable, "-m", "tamer_tui.cli", *map(str, words)], check=True, capture_output=True, text=True
    )
    return {"seconds": round(time.perf_counter() - started, 2), "peak_mb": round(int(done.stdout) / 1024, 1)}


def measure_all(path: Path, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"open_ms": [round(in_a_process("opening", path), 1) for _ in range(5)]}
    times = sorted(in_a_process("appending", path))
    found["append_ms"] = {"p50": round(statistics.median(times), 3), "p99": round(times[int(0.99 * len(times))], 3)}
    found["commands"] = {
        "verify": command("verify", path), "stats": command("stats", path), "log": command("log", path), "versions": command("versions", path),
        "log --search": command("log", path, "--search", "number 77777"), "backup": command("backup", path, folder / "copy.db"),
    }  # fmt: skip
    for format in ("trl-preference", "trl-kto", "tamer", "sqlite", "parquet"):
        found["commands"][f"export {format}"] = command("export", path, "--format", format, "--out", folder / f"out-{format}")
    found["commands"]["import tamer"] = command("import", folder / "again.db", folder / "out-tamer", "--format", "tamer")
    rows = sum(json.loads((folder / "out-trl-preference.manifest.json").read_text())["rows"].values())
    found["trl_preference_rows"] = rows
    found["trl_preference_rows_per_s"] = round(rows / found["commands"]["export trl-preference"]["seconds"])
    found["peak_mb"] = max(each["peak_mb"] for each in found["commands"].values())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="make the database here, or use the one that is here")
    parser.add_argument("--measure", choices=["opening", "appending"], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(globals()[chosen.measure](chosen.keep)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.keep or Path(folder) / "record.db"
        made = None if path.exists() else make(path, chosen.events)
        size = path.stat().st_size >> 20
        print(json.dumps({"events": chosen.events, "made_s": made and round(made), "size_mb": size, **measure_all(path, Path(folder))}))


if __name__ == "__main__":
    main()
