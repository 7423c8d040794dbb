"""`tamer generate`: answers of the base or of a version, as JSON lines."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import msgspec
from msgspec import UNSET, Struct, UnsetType

from storage.records import Policy, Prompt, StopReason
from storage.thoughts import split_thought
from tamer_tui.headless import with_session
from tamer_tui.published import Published, find
from tamer_tui.session import Session
from tamer_tui.session_store import SessionError, SessionStore
from tamer_tui.views import CandidateView, SessionSettings


class Generated(Struct, frozen=True):
    """One line."""

    prompt: str
    response: str
    version: str
    logprob: float  # summed over the tokens
    n_tokens: int
    stop: StopReason
    reasoning_content: str | UnsetType = UNSET  # what was thought before it
    prompt_tokens_cut: int | UnsetType = UNSET  # where the prompt did not fit the context


def answers(
    settings: SessionSettings,
    database: Path | None,
    version: str,
    n: int,
    command: tuple[str, ...] | None,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[str]:
    """JSON lines; `tell` takes what was cut or left out. Raises click.ClickException with one line."""
    try:
        lines = generated(settings, settings.prompts, database, version, n, command, tell)
    except SessionError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("stopped") from None
    yield from (msgspec.json.encode(line).decode() for _, line in lines)


def generated(
    settings: SessionSettings,
    prompts: Sequence[Prompt],
    database: Path | None,
    version: str,
    n: int,
    command: tuple[str, ...] | None,
    tell: Callable[[str], None],
) -> list[tuple[Prompt, Generated]]:
    """Answers to these prompts, without those that the model cannot read. Raises SessionError. The database is only read: a program may have it
    open."""
    found = find(database, version) if database is not None else Published(None, None, {})
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "generate.db"  # the database that is asked about stays untouched
        return asyncio.run(_draw(settings, prompts, scratch, found, database, n, command, tell))


async def _draw(
    settings: SessionSettings,
    prompts: Sequence[Prompt],
    scratch: Path,
    found: Published,
    database: Path | None,
    n: int,
    command: tuple[str, ...] | None,
    tell: Callable[[str], None],
) -> list[tuple[Prompt, Generated]]:
    version, base = found.id, found.base
    policy: Policy = "adapter" if found.version is not None else "base"

    async def work(session: Session) -> list[tuple[Prompt, Generated]]:
        if found.version is not None and base is not None and session.ready is not None and base.base_hash != session.ready.base_hash:
            raise SessionError(f"{version} of {database} adapts {base.name}, not {settings.model}", f"pass --model {base.name}")
        if found.version is not None and database is not None:
            await session.machine.act_with(version, found.version.sha256, SessionStore.root_of(database))
        asked = [prompt for prompt in prompts for _ in range(n)]
        rng = random.Random(settings.seed)
        views = await session.evaluation.draw(asked, [policy] * len(asked), [rng.getrandbits(31) for _ in asked])
        _tell_what_did_not_fit(views[::n], tell)
        return [
            (p, Generated(p.text, said, version, sum(v.logprobs), len(v.token_ids), v.ended or "stopped", thought or UNSET, v.cut or UNSET))
            for p, v in zip(asked, views, strict=True)
            if not v.refused
            for thought, said in [split_thought(v.text)]
        ]

    return await with_session(settings, scratch, command, work, tell)


def _tell_what_did_not_fit(views: Sequence[CandidateView], tell: Callable[[str], None]) -> None:
    """One answer of each prompt. Raises SessionError where the model can read none of them."""
    refused = [view.refused for view in views if view.refused]
    if refused and len(refused) == len(views):
        raise SessionError(f"none of the prompts can be used: {refused[0]}")
    if refused:
        tell(f"{len(refused):,} of {len(views):,} prompts were left out: {refused[0]}")
    if cut := [view.cut for view in views if view.cut]:
        tell(f"{len(cut):,} of {len(views):,} prompts were longer than the context: {sum(cut):,} tokens of them were cut")
