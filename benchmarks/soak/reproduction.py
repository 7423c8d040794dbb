"""Is every published version what it was? Two new engines act with each, and have to draw the same tokens; so should the answers of the record."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from benchmarks.soak.terminal import settings_of
from storage.queries import Record
from storage.records import Prompt, Response
from tamer_tui.headless import with_session
from tamer_tui.session import Session
from tamer_tui.session_store import SessionStore

ANSWERS = 4
"""Of each version: by the adapter alone, and steered by its Ĥ."""
RECORDED = 3
"""Recorded answers of each version's adapter that are drawn again."""

Drawn = dict[str, list[tuple[int, ...]]]
"""Version -> tokens of its answers, in a fixed order."""


def reproduced(database: Path, work: Path, model: str) -> dict[str, object]:
    """Versions, how many two engines agree on, and how many recorded answers came again to the last token."""
    with Record(database) as record:
        versions = {version.id: version.sha256 for version in record.versions() if version.published}
        recorded = adapters_answers(record, set(versions))
    if not versions:
        return {"versions": 0, "alike": 0, "unlike": [], "recorded": 0, "same": 0}
    first, second = (asyncio.run(draw(database, work / f"again{n}.db", model, versions, recorded)) for n in range(2))
    alike = [version for version in versions if first[version] == second[version]]
    found = [(answer, tokens) for v in versions for (_, answer), tokens in zip(recorded[v], first[v][2 * ANSWERS :], strict=True)]
    same = sum(tokens[: len(answer.token_ids)] == answer.token_ids for answer, tokens in found)
    return {"versions": len(versions), "alike": len(alike), "unlike": [v for v in versions if v not in alike], "recorded": len(found), "same": same}


def adapters_answers(record: Record, versions: set[str]) -> dict[str, list[tuple[Prompt, Response]]]:
    """Some answers that a version's adapter drew alone: they depend on nothing else."""
    found: dict[str, list[tuple[Prompt, Response]]] = defaultdict(list)
    for logged in record.log():
        uid = getattr(logged.judgement, "set_uid", "")
        if not uid:
            continue
        for response in record.responses(uid):
            known = found[response.version] if response.policy == "adapter" and response.version in versions else None
            if known is not None and len(known) < RECORDED and all(other.uid != response.uid for _, other in known):
                known.append((record.sample_set(uid).prompt, response))
    return found


async def draw(database: Path, scratch: Path, model: str, versions: dict[str, str], recorded: dict[str, list[tuple[Prompt, Response]]]) -> Drawn:
    """By an engine of its own."""

    async def work(session: Session) -> Drawn:
        drawn: Drawn = {}
        for version, sha256 in versions.items():
            await session.machine.act_with(version, sha256, SessionStore.root_of(database))
            prompts = [session.settings.prompts[i] for i in range(ANSWERS)]
            views = []
            for policy in ("adapter", "acting"):
                views += await session.evaluation.draw(prompts, [policy] * ANSWERS, range(ANSWERS))
            asked = recorded[version]
            if asked:
                views += await session.evaluation.draw([p for p, _ in asked], ["adapter"] * len(asked), [r.seed or 0 for _, r in asked])
            drawn[version] = [tuple(view.token_ids) for view in views]
        return drawn

    settings = replace(settings_of(model, 0), metered=True, autostart=False)
    return await with_session(settings, scratch, None, work)
