"""The model card of an exported version: what it is, what it learned from, what it was measured by, how it is run."""

from __future__ import annotations

from storage.blind import BlindCount
from tamer_tui.published import Published

KINDS = {
    "ranking": ("comparison or ranking", "comparisons and rankings"), "rating": ("score", "scores"),
    "correction": ("rewritten answer", "rewritten answers"),
    "demonstration": ("answer written by hand", "answers written by hand"), "tap": ("tap while reading", "taps while reading"),
    "arm": ("stretch of silence that counted", "stretches of silence that counted"),
}  # fmt: skip
STAGES = {"sft": "supervised fine-tuning", "distill": "distillation of the human reward", "ppo": "PPO", "reward": "reward model"}


def card(found: Published, hub_id: str | None, learned_from: dict[str, int], duels: BlindCount, form: str) -> str:
    """Markdown with the hub's heading. `learned_from` counts events by kind, and under 'imported' those about answers from elsewhere."""
    version, base = found.version, found.base
    assert version is not None and base is not None
    heading = ["---", *([f"base_model: {hub_id}"] if hub_id else []), "library_name: transformers", "tags: [tamer, rlhf, lora]", "---"]
    where = hub_id or ("the model that comes with tamer" if base.name == "pocket" else "a local model")
    lines = [
        *heading, "", f"# {where}, taught by hand", "",
        f"Version {version.id} of one teaching log, made with tamer: {form}.", "",
        f"- base: {where}, {base.parameters:,} parameters, SHA-256 of weights, tokenizer and chat template `{base.base_hash}`",
        f"- taught with the base {'in full precision' if base.quantize == 'none' else 'in ' + base.quantize}",
        f"- last stage: {STAGES.get(version.stage, version.stage)}; parent: {version.parent}",
    ]  # fmt: skip
    if version.kl is not None:
        lines.append(f"- distance from the base: {version.kl:.2f} nats per 64 tokens")
    lines += ["", "## What it learned from", ""]
    lines += [f"- {n:,} {KINDS[kind][n != 1]}" for kind, n in learned_from.items() if kind in KINDS] or ["- nothing that was counted"]
    if learned_from.get("imported"):
        lines.append(f"- {learned_from['imported']:,} of them about answers that came from elsewhere")
    lines += ["", "## What is known of it", ""]
    if version.win_rate is not None:
        lines.append(f"- the publish gate: it won {100 * version.win_rate:.0f} % against the policy before it, by the learned judge")
    lines.append(f"- blind duels of the taught model against the base, by the operator: {duels.in_words()}")
    if version.stale:
        lines.append("- some of what it learned from was taken back since")
    lines += [
        "",
        "The adapter is all that was exported: while it was taught, answers were also steered by a fitted reward (Ĥ), which is not part of it.",
        "",
    ]
    return "\n".join(lines)
