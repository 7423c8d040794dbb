"""The keys of the Arena as commands of the palette, found by what they are called or do."""

from __future__ import annotations

from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tamer_tui.keys import ARENA, LETTERS, key_name

_ALIKE = {f"rank.{c}" for c in LETTERS} | {f"score.{n}" for n in range(1, 8)} | {"screen.palette", "screen.leader", "machine.versions"}


class ArenaCommands(Provider):
    """One command for each key, but for letters and scores."""

    async def discover(self) -> Hits:
        for title, text, action in self._commands():
            yield DiscoveryHit(title, partial(self.screen.run_action, action), help=text)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for title, text, action in self._commands():
            if (score := max(matcher.match(title), matcher.match(text) / 2)) > 0:
                yield Hit(score, matcher.highlight(title), partial(self.screen.run_action, action), help=text)

    def _commands(self) -> list[tuple[str, str, str]]:
        chosen = [binding for binding in ARENA if binding.id not in _ALIKE]
        keyed = [(f"{binding.description}  ({key_name(binding)})", binding.tooltip, binding.action) for binding in chosen]
        tour = ("tour", "The tour of a first sitting, from its beginning", "tour")
        return [*keyed, tour, ("calibrate taps", "Measure how late your taps come: later ones are credited by it", "calibrate")]
