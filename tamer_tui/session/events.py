"""What a sitting makes of the engine's events once it runs: answers grow, learning is followed, versions are kept, complaints are said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learners import protocol
from learners.protocol import Event
from storage.records import Prequential
from tamer_tui.session_store import SessionError
from tamer_tui.views import Change

if TYPE_CHECKING:
    from tamer_tui.session.session import Session


def take(session: Session, event: Event) -> None:
    """Everything but `loading`, `ready` and what is fatal."""
    match event:
        case protocol.Started() | protocol.Tokens() | protocol.Ended():
            session.sets.follow(event)
        case protocol.Learned() | protocol.Metrics() | protocol.Acting() | protocol.Idle():
            _learn(session, event)
        case protocol.Foreseen(seq=seq, judge=judge, log_loss=log_loss, right=right, pairs=pairs, margin=margin):
            if session.store is not None:
                session.store.keep(Prequential(seq, judge, log_loss, right, pairs, margin), session.say)
        case protocol.Appraised() if session.sets.best_of.take(event):
            pass
        case protocol.Appraised(h_epoch=_, appraisals=appraisals, by=by):
            session.appraisals, session.appraised_by = {appraisal.uid: appraisal for appraisal in appraisals}, by
            session.tell(Change.APPRAISED)
        case protocol.Trained(run=run):
            session.opened.keep(run, session.say)
        case protocol.Blob():
            _receive(session, event)
        case protocol.Gated():
            session.spawn(_publish(session, event))


def _learn(session: Session, event: protocol.Learned | protocol.Metrics | protocol.Acting | protocol.Idle) -> None:
    session.status.take(event)
    match event:
        case protocol.Learned(dropped=dropped):
            if dropped:
                session.taps.count_unlearned()
                session.say(f"not learned from: {dropped}")
            session.tell(Change.LEARNED)
        case protocol.Acting(version=version, refused=refused):
            if refused:
                session.spawn(_stay_with(session, version, refused))
            session.tell(Change.VERSION)
        case protocol.Metrics():
            session.tell(Change.METRICS)
        case protocol.Idle():
            session.evaluation.end_grant(event)


def _receive(session: Session, blob: protocol.Blob) -> None:
    try:
        session.opened.receive(blob)
    except SessionError as error:
        session.say(str(error))


async def _publish(session: Session, judged: protocol.Gated) -> None:
    """A verdict of the gate: on disk first, then the engine may act with it."""
    proposed_by = session.ready
    known = next((v.id for v in session.record.versions() if judged.published and v.published and v.sha256 == judged.sha256), None)
    store, status = session.opened, session.status
    version = known or await store.keep_version(judged, session.say, lambda: not status.held)  # known: the engine did not hear that it is on disk
    session.status.refused = "" if judged.published else f"{version} refused: {judged.reason}"
    if judged.published:
        for blob in session.opened.blobs_of(judged.sha256) if session.ready is not proposed_by else ():  # another engine by now, which lacks it
            session.engine.send(blob)
        session.engine.send(protocol.PublishAck(sha256=judged.sha256, version=version))
    session.tell(Change.VERSION)


async def _stay_with(session: Session, acting: str, refused: str) -> None:
    """The engine does not act with a version that came too late: nor does it in the record."""
    if session.opened.acts_with() == refused:
        await session.opened.activate(acting, "rollback" if session.status.held else "resumed")
