"""What was understood of a source, in a temporary file between looking and writing: a source is read once, and memory does not grow with it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from storage import kept
from storage.exchange.items import Judged, Kept
from storage.exchange.shapes.pieces import NO_JSON
from storage.records import unicode

_encode = msgspec.msgpack.Encoder().encode


class Spooled(NamedTuple):
    """A judged set, ready to be written."""

    shape: str
    judged: Judged  # without what is kept beside it
    kept: str | None  # as JSON
    teaches: bool
    content: str  # its address: see content_of


class Spool:
    """Written first, then read any number of times. Raises OSError where there is no room."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="tamer-import-")  # gone with its last reader  # noqa: SIM115

    def add(self, shape: str, judged: Judged) -> Judged:
        """The same as it is kept: beside its texts nothing is in it that JSON does not have."""
        if judged.by is not None:
            judged = judged._replace(by=unicode(judged.by))
        beside = told = None
        if judged.kept is not None:
            beside, changed = kept.told(judged.kept._asdict())
            if changed:
                judged = judged._replace(kept=Kept(**msgspec.json.decode(beside))._replace(besides=(*judged.kept.besides, NO_JSON)))
        told = Spooled(shape, judged._replace(kept=None), beside, judged.kept is None or not judged.kept.why, content_of(judged))
        record = _encode(told)
        self._file.write(len(record).to_bytes(4, "little"))
        self._file.write(record)
        return judged

    def __iter__(self) -> Iterator[Spooled]:
        decode = msgspec.msgpack.Decoder(Spooled).decode
        self._file.seek(0)
        while head := self._file.read(4):
            yield decode(self._file.read(int.from_bytes(head, "little")))


def content_of(judged: Judged) -> str:
    """What was judged and how, and by whom where the row says it, whatever shape it came in. Columns and margins are not part of it."""
    texts, ranks = judged.answers, judged.ranks
    simple = not (judged.ratings or judged.scored or judged.corrections or judged.comments or judged.critiques or judged.steps)
    what: list[object]
    if simple and judged.written is None and ranks in ((1, 2), (2, 1)):
        better, worse = texts if ranks[0] == 1 else texts[::-1]
        what = ["PreferencePair", [judged.messages, better, worse, 1.0]]
    elif simple and judged.written is not None and not texts:
        what = ["Written", [judged.messages, judged.written]]
    elif judged.ratings in (((0, "overall", 6),), ((0, "overall", 2),)) and judged == judged._replace(
        ranks=(), written=None, corrections=(), comments=(), critiques=()
    ):
        what = ["Labelled", [judged.messages, texts[0], judged.ratings[0][2] == 6]]
    elif judged.steps:
        what = ["Steps", [judged.messages, *zip(*judged.steps, strict=True)]]
    elif simple and judged.written is None:
        what = ["Ranked", [judged.messages, texts, ranks]]
    else:
        what = ["Judged", judged._replace(by=None, kept=None)]
    if judged.kept is not None and (judged.kept.prompt or judged.kept.answers):
        what.append(kept.told([judged.kept.prompt, judged.kept.answers]).json)
    return by(hashlib.sha256(msgspec.json.encode(what)).hexdigest(), judged.by)


def by(content: str, who: str | None) -> str:
    """The same, said by somebody: two people may say it."""
    return hashlib.sha256(f"{content}/{who}".encode("utf-8", "replace")).hexdigest() if who else content
