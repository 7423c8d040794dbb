"""What a few minutes of teaching do to the embedded model, by ground truth: each judge of learners/pocket/operators.py in the operator's place.

    python benchmarks/pocket_teaching.py [--judges helpful,truthful,…] [--quantize none,nf4] [--seeds 1] [--out pocket_teaching.jsonl]
    python benchmarks/pocket_teaching.py --transcript          the first ten held-out prompts before and after, as Markdown
    python benchmarks/pocket_teaching.py --judges taps         20 taps by the `harmless` judge, no adapter

30 rankings of four answers to prompts that the model never saw in training, 60 s of training in all (`--seconds`), the rest as `tamer` starts. Then
four answers of the base and of the acting policy to prompts that were not judged, and to those judged prompts that ask for a fact. Untrue, rude and
evasive are shares of the answers for which that can be decided (learners/pocket/labels.py). One JSON line for each run; what is finished is in --out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from learners.pocket.corpus import held_out_prompts
from learners.pocket.labels import label
from learners.pocket.reading import Fact, read_prompt
from learners.pocket.recogniser import Recogniser
from storage.queries import Record
from storage.records import Policy, Prompt, Sampling
from tamer_tui.headless import with_session
from tamer_tui.operators import load_function
from tamer_tui.options import NATS
from tamer_tui.session import Session
from tamer_tui.simulate import ANSWERS, HELD_OUT, Plan, Simulation
from tamer_tui.views import CandidateView, SessionSettings

JUDGES = ("helpful", "truthful", "harmless", "useful", "brief", "pirate")
OPERATORS = Path(__file__).resolve().parents[1] / "learners" / "pocket" / "operators.py"
TAPPERS = Path(__file__).with_name("pocket_tappers.py")
PROMPTS, ROUNDS, SHOWN = 250, 30, 10
AXES = {"untrue": "truthful", "rude": "harmless", "evasive": "useful"}
_recogniser = Recogniser(seed=0)


def shares(prompts: Sequence[str], views: Sequence[CandidateView]) -> dict[str, float | None]:
    """Faults among ANSWERS to each prompt, by the ground truth."""
    asked = [prompt for prompt in prompts for _ in range(ANSWERS)]
    labels = [label(prompt, view.text) for prompt, view in zip(asked, views, strict=True)]
    found: dict[str, float | None] = {}
    for fault, axis in AXES.items():
        known = [value for one in labels if (value := getattr(one, axis)) is not None]
        found[fault] = round(known.count(False) / len(known), 4) if known else None
    good = [view.ended == "eos" and _recogniser.well_formed(view.text) for view in views]
    return found | {"well_formed": round(sum(good) / len(good), 4) if good else None}


def is_fact(prompt: str) -> bool:
    return isinstance(read_prompt(prompt), Fact)


class Teaching:
    """One run."""

    def __init__(self, judge: str, quantize: str, seed: int, model: str, seconds: float) -> None:
        self.judge, self.seed, self.seconds = judge, seed, seconds
        taps = judge == "taps"
        name = f"{OPERATORS}:{'harmless' if taps else judge}"
        operator = f"{TAPPERS}:harmless" if taps else name
        prompts = tuple(map(Prompt.of, held_out_prompts(PROMPTS, seed)))
        self.settings = SessionSettings(
            model, prompts, sampling=Sampling(1.0, 80), quantize=quantize, seed=seed, metered=True, held_out=HELD_OUT, autostart=False,
            operator=operator, nats=NATS,
        )  # fmt: skip
        self.plan = Plan(
            400 if taps else ROUNDS, "taps" if taps else "ranking", operator, load_function(operator), load_function(name), name,
            None if taps else seconds, None, seed, taps=20 if taps else None,
        )  # fmt: skip
        self.transcript: list[tuple[str, str, str]] = []

    def run(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            self._database = Path(folder) / "pocket.db"
            return asyncio.run(with_session(self.settings, self._database, None, self._teach))

    async def _teach(self, session: Session) -> dict[str, Any]:
        outcome = await Simulation(session, self.plan, lambda line: None).run()
        held = list(session.split.held_out)
        with Record(self._database) as record:
            judged = [record.sample_set(uid).prompt for uid in dict.fromkeys(logged.judgement.set_uid for logged in record.live())]  # type: ignore[union-attr]
        facts = [prompt for prompt in judged if is_fact(prompt.text)]
        row: dict[str, Any] = {"outcome": msgspec.to_builtins(outcome), "judged_facts": len(facts)}
        for name, prompts in (("held_out", held), ("judged_facts", facts), ("other_facts", [p for p in held if is_fact(p.text)])):
            for when, policy in (("before", "base"), ("after", "acting")):
                views = await self._answers(session, prompts, policy)
                row[f"{name}_{when}"] = shares([prompt.text for prompt in prompts], views)
                if name == "held_out":
                    self._keep(when, prompts, views)
        return row

    def _keep(self, when: str, prompts: Sequence[Prompt], views: Sequence[CandidateView]) -> None:
        first = [view.text for view in views[::ANSWERS]][:SHOWN]
        if when == "before":
            self.transcript = [(prompt.text, text, "") for prompt, text in zip(prompts, first, strict=False)]
        else:
            self.transcript = [(prompt, before, text) for (prompt, before, _), text in zip(self.transcript, first, strict=True)]

    async def _answers(self, session: Session, prompts: Sequence[Prompt], policy: Policy) -> list[CandidateView]:
        asked = [prompt for prompt in prompts for _ in range(ANSWERS)]
        rng = random.Random(f"{self.seed}/shares/{policy}")
        return await session.evaluation.draw(asked, [policy] * len(asked), [rng.getrandbits(31) for _ in asked]) if asked else []


def markdown(transcript: Sequence[tuple[str, str, str]]) -> str:
    def cell(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*") or "(nothing)"

    rows = "\n".join(f"| {' | '.join(map(cell, row))} |" for row in transcript)
    return f"| asked | before | after |\n|---|---|---|\n{rows}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    names = ["judge", "weights", "won", "of decided", "nats", "rude", "evasive", "untrue, judged facts", "untrue, other facts", "well-formed"]
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for row in rows:
        out = row["outcome"]
        asked = [("held_out", "rude"), ("held_out", "evasive"), ("judged_facts", "untrue"), ("other_facts", "untrue"), ("held_out", "well_formed")]
        decided = out["wins"] / max(1, out["wins"] + out["losses"])
        won = [f"{out['win_rate']:.2f}", f"{decided:.2f}", f"{out['kl_per_response']:.1f}"]
        cells = [row["judge"], row["quantize"], *won, *(_change(row, *what) for what in asked)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _change(row: dict[str, Any], where: str, what: str) -> str:
    values = (row[f"{where}_{when}"][what] for when in ("before", "after"))
    return " → ".join("–" if value is None else f"{value:.2f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judges", default=",".join(JUDGES))
    parser.add_argument("--quantize", default="none,nf4")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, from seed 1 on")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training")
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--out", default="pocket_teaching.jsonl", help="where finished runs are kept")
    parser.add_argument("--transcript", action="store_true")
    chosen = parser.parse_args()
    if chosen.transcript:
        teaching = Teaching("helpful", chosen.quantize.split(",")[0], 1, chosen.model, chosen.seconds)
        print(json.dumps(teaching.run()), file=sys.stderr)
        print(markdown(teaching.transcript))
        return
    out = Path(chosen.out)
    done = {row["key"]: row for row in map(json.loads, out.read_text().splitlines())} if out.exists() else {}
    keys = [(j, q, s) for j in chosen.judges.split(",") for q in chosen.quantize.split(",") for s in range(1, chosen.seeds + 1)]
    for judge, quantize, seed in keys:
        key = f"{judge}/{quantize}/{seed}"
        if key not in done:
            done[key] = {"key": key, "judge": judge, "quantize": quantize, **Teaching(judge, quantize, seed, chosen.model, chosen.seconds).run()}
            with out.open("a") as file:
                file.write(json.dumps(done[key]) + "\n")
            print(json.dumps(done[key]), flush=True)
    print(table([done[f"{j}/{q}/{s}"] for j, q, s in keys]))


if __name__ == "__main__":
    main()
