"""`tamer import`: looks at a source, shows what it understood, asks, and takes it over."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from storage.database import remove
from storage.exchange.importing import Imported, import_file, is_whole, restore, take
from storage.exchange.items import Judged
from storage.exchange.lossless import NAME as TAMER
from storage.exchange.shapes import SHAPES
from storage.exchange.shapes.mapping import TARGETS
from storage.exchange.shapes.pieces import CONVERSATION, NO_JSON, PICTURES, TOOLS
from storage.exchange.sources import Source
from storage.exchange.survey import MOST_PEOPLE, SHOWN, Reading, Survey
from storage.journal import Journal, JournalError
from storage.merging import Merged, merge
from tamer_tui import __version__
from tamer_tui.progress import Progress
from tamer_tui.session_store import SessionError
from tamer_tui.text import one_line

WIDTH = 110
"""Characters of a text that is shown."""


class Wanted(Struct, frozen=True):
    """What is imported, and how. With a format nothing is asked, and a malformed row stops everything unless `skip_bad`."""

    database: Path
    source: str
    format: str = ""
    mapping: Mapping[str, str] = {}
    operator: str = ""
    skip_bad: bool = False
    dry_run: bool = False


def parsed_map(words: Sequence[str]) -> dict[str, str]:
    """Of 'prompt=question' and 'chosen=answers.0', or of both in one. Raises SessionError."""
    found: dict[str, str] = {}
    for word in (part for each in words for part in _PAIR.split(each) if part):
        target, _, path = word.partition("=")
        if target not in TARGETS or not path:
            raise SessionError(f"--map does not understand {word}", f"say {', '.join(f'{name}=…' for name in TARGETS[:5])} with dotted paths")
        found[target] = path
    return found


_PAIR = re.compile(rf"\s+(?=(?:{'|'.join(TARGETS)})=)")


def run(wanted: Wanted, say: Callable[[str], None], agree: Callable[[], bool]) -> None:
    """Look, say, ask, write. Raises SessionError."""
    try:
        source = Source(wanted.source)
        if source.is_database():
            _merge(wanted, source, say)
        elif wanted.format or is_whole(source):
            _without_asking(wanted, source, say)
        else:
            _after_asking(wanted, source, say, agree)
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error


def _after_asking(wanted: Wanted, source: Source, say: Callable[[str], None], agree: Callable[[], bool]) -> None:
    survey = Survey(Reading(source, "", wanted.mapping))
    if not survey.items:
        raise survey.unknown()
    for line in preview(survey):
        say(line)
    if wanted.dry_run or not agree():
        say("nothing was imported")
        return
    with _opened(wanted.database) as journal, Progress("writing") as step:
        done = take(journal, survey, __version__, wanted.operator, step)
    say(in_words(done, told=True))


def _without_asking(wanted: Wanted, source: Source, say: Callable[[str], None]) -> None:
    if wanted.dry_run and wanted.format not in ("", TAMER):
        survey = Survey(Reading(source, wanted.format))
        if not survey.items:
            raise survey.unknown()
        for line in preview(survey):
            say(line)
        say("nothing was imported")
        return
    with _opened(wanted.database, wanted.dry_run) as journal, Progress("writing") as step:
        if wanted.format in ("", TAMER):
            done = restore(journal, source, wanted.dry_run)
        else:
            done = import_file(journal, Path(wanted.source), wanted.format, __version__, wanted.skip_bad, wanted.operator, step=step)
    say(in_words(done, dry_run=wanted.dry_run))


def _merge(wanted: Wanted, source: Source, say: Callable[[str], None]) -> None:
    with _opened(wanted.database, wanted.dry_run) as journal:
        say(merged_in_words(merge(journal, source.path, __version__, wanted.operator, wanted.dry_run), wanted.dry_run))


@contextmanager
def _opened(database: Path, dry_run: bool = False) -> Iterator[Journal]:
    """For writing. A database that was made for nothing is not left behind; a dry run that needs a new one has it elsewhere."""
    new = not database.expanduser().exists()
    if new and dry_run:
        with tempfile.TemporaryDirectory(prefix="tamer-import-") as folder, Journal.open(Path(folder) / database.name) as journal:
            yield journal
        return
    with Journal.open(database) as journal:
        path = journal.path
        try:
            yield journal
        except BaseException:
            if new:
                journal.close()
                remove(path)
            raise


# --- in words --------------------------------------------------------------------------------------------------------------


def preview(survey: Survey) -> Iterator[str]:
    """What was recognised, the first judgements as they were understood, and how much there is."""
    what = {shape.name: shape.what for shape in SHAPES}
    yield f"{survey.reading.source.name}: " + "; ".join(
        what[name] + (f" ({n:,})" if len(survey.shapes) > 1 else "") for name, n in survey.shapes.most_common(4)
    )
    for place, (_, judged) in enumerate(survey.shown, 1):
        yield from ((f"  {place}. " if not line else "     ") + text for line, text in enumerate(_judged_in_words(judged, survey)))
    yield f"{_counted(survey)} in {survey.rows:,} row{'s' if survey.rows != 1 else ''}"
    if n := len(survey.people):
        yield f"judged by {'1 person' if n == 1 else f'{n} people' if n <= MOST_PEOPLE else f'more than {MOST_PEOPLE} people'}"
    for criterion, (low, high) in survey.ranges.items():
        if low < high:
            low, high = survey.scale(criterion)
            yield f"scores from {low:g} to {high:g} ({criterion}) become ratings from 1 to 7"
    for what_, n in survey.not_used.items():
        yield f"{n:,} {'has' if n == 1 else 'have'} {what_}: {_WHAT_BECOMES.get(what_, 'kept; the rest is learned from')}"
    if survey.columns:
        yield f"kept beside them: {', '.join(one_line(name)[:40] for name in list(survey.columns)[:8])}" + (
            " and others" if len(survey.columns) > 8 else ""
        )
    if survey.bad:
        rows = f"{survey.bad:,} row{'s' if survey.bad != 1 else ''} left out"
        yield f"{rows}: {one_line('; '.join(survey.complaints))}" + ("; …" if survey.bad > SHOWN else "")


_WHAT_BECOMES = {
    **dict.fromkeys((TOOLS, PICTURES, CONVERSATION), "shown and kept, not learned from"),
    NO_JSON: "what comes closest is kept; the rest is learned from",
}


def _counted(survey: Survey) -> str:
    return ", ".join(f"{n:,} {kind}{'s' if n != 1 else ''}" for kind, n in survey.said.most_common()) or "nothing"


def _judged_in_words(judged: Judged, survey: Survey) -> Iterator[str]:
    before = len(judged.messages) - 1
    after = f"  (after {before} turn{'s' if before > 1 else ''})" if before else ""
    yield f"{judged.messages[-1].role}: {_short(judged.messages[-1].content)}{after}"
    strength = f", by {judged.strength} of 3" if judged.strength is not None else ""
    for slot, text in enumerate(judged.answers):
        marks = []
        if judged.ranks and (rank := judged.ranks[slot]) is not None:
            two = len(judged.ranks) == 2
            marks.append("tied" if len(set(judged.ranks)) == 1 else ("better" + strength if rank == 1 else "worse") if two else f"rank {rank}")
        marks += [f"{criterion} {value} of 7" for place, criterion, value in judged.ratings if place == slot]
        for criterion, score in ((criterion, score) for place, criterion, score in judged.scored if place == slot):
            low, high = survey.scale(criterion)
            marks.append(f"{criterion} {score:g} of {low:g} to {high:g}")
        marks += [f"rewritten: {_short(rewritten)}" for place, rewritten in judged.corrections if place == slot]
        marks += [f"{sum(fine for _, fine in judged.steps)} of {len(judged.steps)} steps fine"] if judged.steps else []
        yield f"{'; '.join(marks) or 'answer'}: {_short(text)}"
    if judged.written is not None:
        yield f"to imitate: {_short(judged.written)}"
    for about, said, scope, dial in judged.critiques:
        of = "for every prompt" if scope == "all" else "of the answer" if about is not None else "of any answer"
        yield f"critique {of}{'' if dial == 1 else f' (strength {dial:+d})'}: {_short(said)}"


def _short(text: str) -> str:
    line = one_line(text[: 4 * WIDTH])
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def in_words(done: Imported, told: bool = False, dry_run: bool = False) -> str:
    """`told`: what was left out was said before."""
    added = "would be added" if dry_run else "added"
    lines = [f"{done.added:,} judgement{'s' if done.added != 1 else ''} {added}" + _known(done.known)]
    if done.skipped and not told:
        lines.append(f"{done.skipped:,} lines left out: {'; '.join(done.complaints)}" + ("; …" if done.skipped > len(done.complaints) else ""))
    return "\n".join(lines)


def _known(n: int) -> str:
    return f", {n:,} {'was' if n == 1 else 'were'} there before" if n else ""


def merged_in_words(done: Merged, dry_run: bool) -> str:
    people = ", ".join(f"{n:,} of {one_line(name)}" for name, n in done.by.items())
    line = f"{done.added:,} judgement{'s' if done.added != 1 else ''} {'would be added' if dry_run else 'added'}" + (f" ({people})" if people else "")
    line += _known(done.known)
    return line + (f"; {done.left:,} that were not about answers were left out" if done.left else "")
