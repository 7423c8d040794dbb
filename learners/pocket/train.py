"""Train Pocket, the embedded model, from nothing: its tokenizer, a small Llama, its card.

  python -m learners.pocket.train                 30 million tokens
  python -m learners.pocket.train --minutes 30    as far as half an hour goes

The run is saved every minute. Interrupted, even by force, the same command goes on from there, and on a CPU ends with the weights of a run that
was never interrupted. With --minutes the learning rate follows the clock, which stands still during interruptions; such a run goes on too, but no
two of them are alike. A larger --tokens or --minutes stretches a run that is under way.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from learners.model.checkpoint import POCKET, ModelError
from learners.model.device import choose_device
from learners.pocket.card import Training, read_card, write_card
from learners.pocket.corpus import corpus_hash
from learners.pocket.measuring import measure
from learners.pocket.model import write_weights
from learners.pocket.run import PocketRun, Recipe, open_run
from learners.pocket.saving import TrainingError

SAVE_SECONDS = 60.0
REPORT_SECONDS = 10.0


def train(run: PocketRun, work: Path, say: Callable[[str], None], stopped: Callable[[], bool] = lambda: False) -> bool:
    """Until the recipe's end; whether it was reached. The run is saved every minute, and when it ends or is stopped."""
    saved = told = time.monotonic()
    tokens = run.tokens
    while run.progress < 1 and not stopped():
        loss = run.step()
        now = time.monotonic()
        if now - told >= REPORT_SECONDS:
            say(_report(run, loss, (run.tokens - tokens) / (now - told)))
            told, tokens = now, run.tokens
        if now - saved >= SAVE_SECONDS:
            run.save(work)
            saved = now
    run.save(work)
    return run.progress >= 1


def _report(run: PocketRun, loss: float, speed: float) -> str:
    left = (run.recipe.tokens - run.tokens) / speed / 60
    if run.recipe.minutes:
        left = min(left, run.recipe.minutes - run.seconds / 60)
    done = f"{run.tokens / 1e6:.2f} of {run.recipe.tokens / 1e6:g} million tokens"
    return f"step {run.steps}  {done}  loss {loss:.3f}  {speed:,.0f} tokens/s  {left:.1f} min left"


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Fills with the signals that ask for an end, which then comes between two steps."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda n, frame: received.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    print(line, flush=True)


def _trained(chosen: argparse.Namespace) -> bool:
    """Train and write the weights; whether the run came to its end."""
    recipe = Recipe(seed=chosen.seed, batch_tokens=chosen.batch_tokens, tokens=chosen.tokens, minutes=chosen.minutes)
    with _stop_signals() as received:
        run = open_run(recipe, chosen.work, choose_device(chosen.device), chosen.compile)
        _say(f"{run.model.num_parameters():,} parameters; {f'going on after {run.tokens:,} tokens' if run.steps else 'a new run'} in {chosen.work}")
        if not train(run, chosen.work, _say, lambda: bool(received)):
            _say(f"stopped after {run.tokens:,} tokens; the same command goes on from there")
            return False
    write_weights(run.model, run.tokenizer, chosen.out)
    training = Training(corpus_hash(), recipe.seed, run.tokens, run.steps, run.model.num_parameters())
    _say("measuring the model for its card")
    write_card(chosen.out, training, *measure(chosen.out))
    return True


def main(arguments: list[str] | None = None) -> int:
    """0 when weights and card are written, 1 with a line on stderr, 130 when stopped before."""
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.card_only:
            write_card(chosen.out, read_card(chosen.out)[0], *measure(chosen.out))
        elif not _trained(chosen):
            return 130
    except (TrainingError, ModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _say(f"written to {chosen.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m learners.pocket.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--out", type=Path, default=POCKET, metavar="DIR", help="where the finished model goes (default: where `--model pocket` looks for it)")
    option("--work", type=Path, default=Path(".pocket"), metavar="DIR", help="where the run is saved (default: .pocket)")
    option("--tokens", type=_count, default=Recipe.tokens, metavar="N", help="to train on, all told (default: %(default)s)")
    option("--minutes", type=float, metavar="M", help="of training at most; the learning rate is planned for what comes first")
    option("--seed", type=int, default=Recipe.seed, metavar="N", help="of the first weights and of the text (default: %(default)s)")
    option("--batch-tokens", type=_count, default=Recipe.batch_tokens, metavar="N", help="of one step (default: %(default)s)")
    option("--device", default="auto", help="auto, cpu, cuda or mps")
    option("--compile", action="store_true", help="half as fast again, after a minute or two; on a CPU it needs a C++ compiler")
    option("--card-only", action="store_true", help="measure the model in --out again and rewrite its card")
    return parser


def _count(text: str) -> int:
    """30000000 or 30_000_000."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


if __name__ == "__main__":
    sys.exit(main())
