"""What a database holds, for people and programs: `tamer versions`, `tamer stats`, `tamer rollback`."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from msgspec import Struct

from storage.blind import BlindCount
from storage.counts import Counts
from storage.journal import Journal, JournalError
from storage.people import People
from storage.queries import Record
from storage.records import BASE_VERSION, Activation, BaseModel, Calibration, Sitting, new_uid
from storage.statistics import Habits
from storage.verdict import Rate, Verdict
from tamer_tui import __version__
from tamer_tui.session_store import SessionError
from tamer_tui.text import one_line
from tamer_tui.wins import chosen, in_words


class StatsReport(Struct, frozen=True):
    """What `tamer stats --json` prints."""

    database: str
    base: BaseModel | None
    acting: str
    counts: Counts
    blind_last_30: BlindCount
    blind_all: BlindCount
    blind_adapter_alone: BlindCount
    verdict: Verdict
    habits: Habits
    people: People
    kept_alone: int  # sets that are shown and kept, and not learned from


def versions_report(database: Path, as_json: bool) -> str:
    """Every version, newest first. Raises SessionError."""
    with _reading(database) as record:
        versions = record.versions()
    if as_json:
        return msgspec.json.encode(versions).decode()
    if not versions:
        return "no version yet: nothing was trained"
    rows = [("", "version", "from", "stage", "verdict", "KL", "won", "when", "reason")]
    for v in versions:
        verdict = ("published" if v.published else "refused") + (", stale" if v.stale else "")
        figures = (f"{v.kl:.1f}" if v.kl is not None else "", f"{v.win_rate:.0%}" if v.win_rate is not None else "")
        rows.append(("*" if v.acting else "", v.id, v.parent, v.stage, verdict, *figures, v.utc[:16].replace("T", " "), v.reason))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    watched = [f"{v.id}: {v.canary.in_words()}" for v in versions if v.canary is not None]
    return "\n".join([*lines, *(["", "what else their answers are like, the untouched model's in brackets:", *watched] if watched else [])])


def stats_report(database: Path, as_json: bool) -> str:
    """Counts and the blind count. Raises SessionError."""
    with _reading(database) as record:
        acting = record.acting_version()
        stats = StatsReport(
            str(database), record.base(), acting.id if acting else BASE_VERSION, record.counts(),
            record.blind_count(30), record.blind_count(), record.blind_count(policy="adapter"), record.verdict(), record.habits(),
            record.people(), record.kept_alone(),
        )  # fmt: skip
    if as_json:
        return msgspec.json.encode(stats).decode()
    counts = stats.counts
    judged = {"ranking": counts.rankings, "rating": counts.ratings, "correction": counts.corrections, "demonstration": counts.demonstrations}
    judged |= {"critique": counts.critiques, "tap": counts.taps}
    lines = [
        f"{database}: {stats.base.name if stats.base else 'no model yet'}, acting: {stats.acting}",
        "judged: " + (", ".join(f"{n} {kind}{'s' if n != 1 else ''}" for kind, n in judged.items() if n) or "nothing yet"),
        f"sets: {counts.sets}, answers: {counts.responses}, versions: {counts.published} published of {counts.versions}",
        f"won against the base, blind, last 30: {_counted(stats.blind_last_30)}; all: {_counted(stats.blind_all)}",
    ]
    if stats.blind_adapter_alone.n:
        lines.append(f"the adapter alone: {_counted(stats.blind_adapter_alone)}")
    lines += _verdict_in_words(stats.verdict)
    if stats.kept_alone:
        lines.append(f"{stats.kept_alone:,} imported sets are shown and kept, and not learned from")
    return "\n".join([*lines, *_habits_in_words(stats.habits), *_people_in_words(stats.people)])


def _counted(count: BlindCount) -> str:
    """With how many of its answers were chosen from several: a choice wins more than what was simply drawn."""
    return ", ".join(part for part in (count.in_words(), chosen(count)) if part)


def _verdict_in_words(verdict: Verdict) -> list[str]:
    """Nothing before anything was counted; strengths where there is more than one version to compare."""
    if verdict.at_equal_length is None:
        return []
    sure = in_words(verdict.word, verdict.odds, verdict.flips or 0)
    lines = [f"your model: {sure}", f"won at equal length: {verdict.at_equal_length.in_words()}"]
    if len(verdict.strengths) > 2:
        strengths = (f"{one_line(each.version)} {each.strength:+.2f} ({each.low:+.2f} to {each.high:+.2f})" for each in verdict.strengths)
        lines.append("strengths in log-odds: " + ", ".join(strengths))
    return lines


def _people_in_words(people: People) -> list[str]:
    """Nothing where one person judged everything."""
    if len(people.operators) < 2:
        return []
    lines = []
    for each in people.operators:
        said = ", ".join(f"{n:,} {kind}{'s' if n != 1 else ''}" for kind, n in sorted(each.judgements.items(), key=lambda item: -item[1]))
        shares = (
            ("ranked what stood first first in", each.first_place),
            ("preferred the longer answer in", each.longer_won),
            ("called good", each.good),
        )
        told = [f"{what} {share:.0%}" for what, share in shares if share is not None]
        lines.append(f"{one_line(each.name)}: {'; '.join([said, *told])}")
    for two in people.between:
        for n, alike, kappa, what in (
            (two.comparisons, two.compared_alike, two.comparisons_kappa, "compared"), (two.labels, two.labelled_alike, two.labels_kappa, "labelled"),
        ):  # fmt: skip
            if alike is not None:
                chance = f", kappa {kappa:.2f}" if kappa is not None else ""
                lines.append(f"{one_line(two.one)} and {one_line(two.other)} {what} {n:,} alike in {alike:.0%}{chance}")
    return lines


def _habits_in_words(habits: Habits) -> list[str]:
    """Only what there is something to say of."""
    lines = []
    if habits.pace.per_hour is not None:
        lines.append(f"pace: {habits.pace.per_hour:g} judgements an hour over {habits.pace.hours:.1f} h, longer pauses left out")
    if len(habits.places) > 1:
        shares = ", ".join(f"{chr(ord('a') + p.slot)} {p.first:.0%} (chance {p.by_chance:.0%})" for p in habits.places)
        lines.append(f"ranked first, by place: {shares}")
    if habits.length.longer_won is not None:
        lines.append(f"the longer answer won {habits.length.longer_won:.0%} of {habits.length.pairs:,} pairs of unequal length")
    found = habits.agreement
    if found.agree is not None:
        often = Rate(found.agree, found.low, found.high, found.comparisons).in_words()
        lines.append(f"with yourself you agree in {often} of {found.comparisons:,} repeated comparisons")
    if habits.lapses is not None and habits.lapses.high < 0.5:
        lines.append(f"your slips, by what Ĥ had expected: {habits.lapses.in_words()} of {habits.lapses.n:,} rankings")
    names = {"human_reward": "Ĥ", "reward": "the reward model"}
    for each in habits.foresight:
        if each.accuracy is not None:
            ceiling = f"; you yourself would {habits.agreement.ceiling:.0%}" if habits.agreement.ceiling is not None else ""
            late = f"{each.recent_accuracy:.0%} of late{ceiling}"
            lines.append(f"{names[each.judge]} foresaw {each.accuracy:.0%} of pairs before learning from them, {late}")
    return lines


def roll_back(database: Path, version: str) -> str:
    """Let the next sitting act with another version. Raises SessionError, also while a program has the database open."""
    with _reading(database) as record:
        known = {v.id for v in record.versions() if v.published}
    if version != BASE_VERSION and version not in known:
        raise SessionError(f"there is no published version {version} in {database}", "see tamer versions")
    try:
        with Journal.open(database, create=False) as journal:
            journal.write(Activation(version, "rollback")).result()
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error
    return f"the next sitting acts with {version}, and learns on when it is told to (p)"


def keep_calibration(database: Path, found: Calibration | None, name: str = "operator") -> str:
    """Write a window down for later taps; None only looks whether that is possible. Raises SessionError."""
    with _reading(database) as record:
        base, settings = record.base(), record.settings()
    if base is None:
        raise SessionError(f"{database} belongs to no model yet", "open it once with tamer")
    try:
        with Journal.open(database, create=False) as journal:
            if found is None:
                return ""
            journal.bind(base, Sitting(new_uid(), base.base_hash, __version__, json.dumps(settings), name, base.quantize))
            journal.append(found).result()
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error
    return f"your taps come {found.low:.2f} to {found.high:.2f} s after the word ({len(found.delays)} measured, {found.connection})"


def _reading(database: Path) -> Record:
    try:
        return Record(database)
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error
