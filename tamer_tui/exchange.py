"""`tamer export`, and the one kind of item that takes credit to make: answers in steps, from taps."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from learners.feedback.tap_credit import credit, window_of
from storage.exchange.exporting import ExportManifest, Options, export, prompts
from storage.exchange.items import Messages, Steps
from storage.journal import JournalError
from storage.lessons import Taught
from storage.progress import Step, unwatched
from storage.queries import Record
from storage.records import Prompt, Span, Tap
from tamer_tui.session_store import SessionError

_SENTENCE = re.compile(r"""(?:[^\n]*?(?:(?<![.!?])[.!?]++["')\]]*+(?=\s|\Z)|\n)|[^\n]+\Z)\s*""")


Answering = Callable[[Sequence[Prompt]], Mapping[str, str]]
"""What a version says to prompts, by their uids."""


def export_to(database: Path, out: Path, options: Options, force: bool, answer: Answering | None = None, step: Step = unwatched) -> str:
    """What was written, in words. `step` is told judgements that were read, of how many. Raises SessionError."""
    try:
        said = answer(prompts(database, options)) if answer is not None else {}
        with Record(database) as record:
            items = steps(record, options.since, step) if options.format == "trl-stepwise" else ()
            manifest = export(database, out, options, items, force, said, step)
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error
    return in_words(manifest, out)


def in_words(manifest: ExportManifest, out: Path) -> str:
    files = ", ".join(f"{n:,} rows in {name}" for name, n in manifest.rows.items())
    lines = [f"{out}: {files}"]
    if manifest.left_out:
        lines.append(f"{manifest.left_out:,} left out: {manifest.format} cannot tell them")
    for why, n in manifest.dropped.items():
        lines.append(f"{n:,} left out: {why}")
    if manifest.redacted:
        lines.append("redacted: " + ", ".join(f"{n} {kind}" for kind, n in manifest.redacted.items()))
    return "\n".join(lines)


# --- steps -----------------------------------------------------------------------------------------------------------------


def sentences(text: str) -> tuple[str, ...]:
    """They make up the text. Each ends before white space: a number or an address is no end."""
    return tuple(_SENTENCE.findall(text)) or (text,)


def steps(record: Record, since: int | str | None = None, step: Step = unwatched) -> Iterator[Steps]:
    """Answers with live taps or valued spans: a sentence is fine unless their credited sum is below 0."""
    told: defaultdict[str, list[float]] = defaultdict(list)  # by answer: what was said of each character
    texts: dict[str, Taught] = {}
    lessons = record.lessons()
    for place, taught in enumerate(lessons):
        step(place, len(lessons))
        tap = taught.logged.judgement
        if not isinstance(tap, Tap) or taught.shown is None or not _counts(taught, since):
            continue
        text = "".join(taught.shown.texts)
        values = told.setdefault(tap.response_uid, [0.0] * len(text))
        texts[tap.response_uid] = taught
        _add(values, taught, tap)
    spans = _spans(record, since)
    for uid, taught in texts.items():
        assert taught.shown is not None
        text, values = "".join(taught.shown.texts), told[uid]
        for span in spans.pop(uid, []):
            _mark(values, span)
        yield _steps(taught.sample_set.prompt.messages, text, values)
    for marked in spans.values():
        set_uid, uid = marked[0].set_uid, marked[0].response_uid
        text = next(answer.text for answer in record.responses(set_uid) if answer.uid == uid)
        values = [0.0] * len(text)
        for span in marked:
            _mark(values, span)
        yield _steps(record.sample_set(set_uid).prompt.messages, text, values)


def _counts(taught: Taught, since: int | str | None) -> bool:
    logged = taught.logged
    return logged.utc >= since if isinstance(since, str) else logged.seq >= (since or 0)


def _add(values: list[float], taught: Taught, tap: Tap) -> None:
    """A tap's value on the letters of the tokens that it is credited to; the space before a word may belong to another sentence."""
    assert taught.shown is not None
    texts = taught.shown.texts
    whole = (1 / len(texts),) * len(texts)
    shares = whole if tap.whole else credit(tap.seconds, taught.shown.seconds, window_of(taught.window)).shares
    start = 0
    for text, share in zip(texts, shares, strict=True):
        letters = [i for i, character in enumerate(text, start) if not character.isspace()]
        for i in letters:
            values[i] += tap.value * share / len(letters)
        start += len(text)


def _mark(values: list[float], span: Span) -> None:
    for i in range(span.start, min(span.stop, len(values))):
        values[i] += (span.value or 0.0) / (span.stop - span.start)


def _spans(record: Record, since: int | str | None) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for logged in record.live():
        span = logged.judgement
        late = logged.utc >= since if isinstance(since, str) else logged.seq >= (since or 0)
        if isinstance(span, Span) and span.value is not None and late:
            found.setdefault(span.response_uid, []).append(span)
    return found


def _steps(messages: Messages, text: str, values: list[float]) -> Steps:
    parts, good, start = sentences(text), [], 0
    for part in parts:
        good.append(math.fsum(values[start : start + len(part)]) >= -1e-9)
        start += len(part)
    return Steps(messages, parts, tuple(good))
