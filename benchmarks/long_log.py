"""After an import of many rows: when the first answer comes and when the reward model takes its first step.

    python -m benchmarks.long_log [--rows 20000] [--model ../shared/data/stories260k]

Three engines over one database, each told otherwise: nothing of the log, as a sitting tells it, and all of it first. As in a sitting more is told
once the first answer has ended. Seconds are from the moment at which the model is loaded. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.importing import rows
from learners.protocol import AnswerRequest, Command, Ended, Event, Generate, Load, Metrics, Read, Ready, Replay, Tokens
from storage.exchange.importing import import_file
from storage.journal import Journal
from storage.queries import Record
from storage.records import Message, Sampling
from tamer_tui.engine_client import EngineClient
from tamer_tui.told_lessons import ToldLessons

PROMPT = (Message("user", "Once upon a time"),)


async def measured(model: str, begin: list[Command], rest: Iterator[Command], patience: float) -> dict[str, float | str | None]:
    """Seconds from Ready to the first token, and to the first step of the reward model; None where it did not come."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    client = EngineClient()
    await client.start(events.put_nowait, print)
    client.send(Load(model=model, quantize="none", device="cpu", stages=("reward",), sampling=Sampling(1.0, 16)))
    found: dict[str, float | str | None] = {"first_token": None, "first_reward_step": None, "told": ""}
    started, asked, ended = 0.0, 0, False
    while None in found.values() and (not started or time.monotonic() - started < patience):
        try:
            event = await asyncio.wait_for(events.get(), 5)
        except TimeoutError:
            continue
        if isinstance(event, Ready):
            started = time.monotonic()
            for command in (*begin, Generate(requests=(AnswerRequest(uid="a", seed=1, messages=PROMPT),), sampling=Sampling(1.0, 16))):
                client.send(command)
        asked += isinstance(event, Read)
        ended |= isinstance(event, Ended)
        while ended and asked and (more := next(rest, None)) is not None:
            client.send(more)
            asked -= 1
        if isinstance(event, Tokens) and found["first_token"] is None:
            found["first_token"] = round(time.monotonic() - started, 2)
        elif isinstance(event, Metrics) and event.stage == "reward":
            found["first_reward_step"], found["told"] = round(time.monotonic() - started, 2), event.note
    await client.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--model", default="../shared/data/stories260k")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds after which an engine is given up")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file, database = Path(folder) / "rows.jsonl", Path(folder) / "tamer.db"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(options.rows, "preference")), encoding="utf-8")
        with Journal.open(database) as journal:
            import_file(journal, file)
        found: dict[str, object] = {"rows": options.rows}
        for name, whole in (("no log", None), ("as a sitting", False), ("all of it first", True)):
            with Record(database) as record:
                told = ToldLessons(record)
                begin = [Replay(lessons=(), last=True)] if whole is None else list(told.begin(whole))
                rest = iter(()) if whole is None else told.rest()
                found[name] = asyncio.run(measured(options.model, begin, rest, 20 if whole is None else options.patience))
        print(json.dumps(found))


if __name__ == "__main__":
    main()
