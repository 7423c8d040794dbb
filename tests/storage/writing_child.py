"""A program that teaches without end and says what was acknowledged: `s SEQ` a judgement, `r UID` an answer. See test_kill.py."""

from __future__ import annotations

import itertools
import os
import sys
from concurrent.futures import Future
from pathlib import Path

from storage.journal import Journal
from storage.records import Judgement, Prompt, Ranking, Rating, Response, SampleSet, Undo, new_uid
from tests.storage.conftest import BASE, SITTING, answer


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")  # one write: the parent never reads half a line


def acknowledge(journal: Journal, response: Response) -> Future[None]:
    future = journal.write(response)
    future.add_done_callback(lambda done: say(f"r {response.uid}") if done.exception() is None else None)
    return future


def teach(journal: Journal) -> None:
    for n in itertools.count():
        uid = new_uid()
        journal.write(SampleSet(uid, SITTING.uid, Prompt.of(f"prompt {n % 7}"), 3))
        for slot in range(3):
            acknowledge(journal, answer(uid, slot, token_ids=tuple(range(40)), logprobs=(), unbiased_logprobs=(), times=()))
        judgements: list[Judgement] = [
            Ranking(uid, {f"{uid}a": 1, f"{uid}b": 2, f"{uid}c": 2}),
            Rating(uid, f"{uid}a", 1 + n % 7),
        ]
        for future in [journal.append(judgement) for judgement in judgements]:
            future.add_done_callback(lambda done: say(f"s {done.result()}"))
        journal.append(Undo(future.result())).add_done_callback(lambda done: say(f"s {done.result()}"))


if __name__ == "__main__":
    journal = Journal.open(Path(sys.argv[1]))
    journal.bind(BASE, SITTING)
    teach(journal)
