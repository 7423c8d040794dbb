"""Shapes of rows: what people's files look like, and what each row means. Each is a pure function from a row to what was judged.

The table is read from the top: the first shape that fits a row is the row's. To add one, write a function and add a line, with a row in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from storage.exchange.items import Judged, Row
from storage.exchange.shapes import lists, tools, trainers, trees, votes
from storage.exchange.shapes.pieces import BadRow

__all__ = ["NAMED", "SHAPES", "BadRow", "Shape", "shape_of"]


class Shape(NamedTuple):
    """`needs`: columns without which it cannot fit. `group`: rows that follow each other with the same value there are read together."""

    name: str
    what: str  # for people
    needs: str
    fits: Callable[[Row], bool]
    read: Callable[[Row], Iterator[Judged]]
    group: str = ""


CRITIQUES = "what should be otherwise, in words"
SHAPES = (
    Shape("open-webui", "Open WebUI feedback: thumbs in chats", "data meta snapshot", trees.is_open_webui, trees.open_webui),
    Shape("label-studio", "Label Studio: tasks with annotations", "data annotations", tools.is_label_studio, tools.label_studio),
    Shape("argilla", "Argilla: records with responses", "fields responses", tools.is_argilla, tools.argilla),
    Shape("argilla-table", "Argilla: a table of fields and responses", "", tools.is_argilla_table, tools.argilla_table),
    Shape("prodigy", "Prodigy: choices, and answers accepted or rejected", "", tools.is_prodigy, tools.prodigy),
    Shape("oasst", "OpenAssistant: message trees", "prompt", trees.is_tree, trees.tree),
    Shape(
        "oasst-flat",
        "OpenAssistant: message trees, a message a row",
        "message_id parent_id text role",
        trees.is_flat_tree,
        trees.flat_tree,
        trees.GROUP,
    ),
    Shape("hh", "Anthropic's transcripts: chosen and rejected", "chosen rejected", trees.is_hh, trees.hh),
    Shape("arena", "arena votes: two conversations and a winner", "conversation_a conversation_b", votes.is_arena, votes.arena),
    Shape(
        "arena-table",
        "arena votes: two responses and a winner in ones and zeros",
        "winner_model_a response_a",
        votes.is_arena_table,
        votes.arena_table,
    ),
    Shape("webgpt", "WebGPT: two answers with scores", "question answer_0 answer_1", votes.is_webgpt, votes.webgpt),
    Shape("summaries", "two summaries and a choice", "summaries choice", votes.is_summary_pair, votes.summary_pair),
    *(
        Shape(pair.name, pair.what, " ".join((*pair.answers, pair.verdict)), lambda row, name=pair.name: _pair_is(row, name), votes.two_answers)  # type: ignore[misc]
        for pair in votes.KNOWN
    ),
    Shape("two-answers", "two answers and which is better", "", lambda row: _pair_is(row, "two-answers"), votes.two_answers),
    Shape("preference", "comparisons: chosen and rejected", "", trainers.is_preference, trainers.preference),
    Shape("ultrafeedback", "UltraFeedback: completions rated by aspect", "completions", lists.is_ultrafeedback, lists.ultrafeedback),
    Shape(
        "helpsteer3-edit",
        "HelpSteer 3: answers as they were rewritten",
        "original_response edited_response",
        lists.is_helpsteer3_edit,
        lists.helpsteer3_edit,
    ),
    Shape(
        "helpsteer3-feedback",
        "HelpSteer 3: answers with remarks",
        "context response feedback",
        lists.is_helpsteer3_feedback,
        lists.helpsteer3_feedback,
    ),
    Shape("critiques", CRITIQUES, "critique scope", trainers.are_critiques, trainers.critique),
    Shape("steps", "answers in steps, each right or wrong", "completions labels", trainers.are_steps, trainers.steps),
    Shape("labelled", "single answers, good or bad", "", trainers.is_labelled, trainers.labelled),
    Shape("nectar", "several answers with ranks", "answers", lists.is_nectar, lists.nectar),
    Shape("scored-list", "several answers with scores", "", lists.is_scored_list, lists.scored_list),
    Shape("helpsteer", "HelpSteer: answers rated by aspect", "helpfulness response", lists.is_helpsteer, lists.helpsteer),
    Shape("beavertails", "BeaverTails: answers, safe or not", "is_safe response", lists.is_beavertails, lists.beavertails),
    Shape("rated", "single answers with a score", "", trainers.is_rated, trainers.rated),
    Shape("critiques", CRITIQUES, "critique", trainers.has_critique, trainers.critique),
    Shape("demonstration", "answers to imitate", "", trainers.is_demonstration, trainers.demonstration),
)


def _pair_is(row: Row, name: str) -> bool:
    found = votes.pair_of(row)
    return found is not None and found.name == name


def shape_of(row: Row, among: tuple[Shape, ...] = SHAPES) -> Shape | None:
    return next((shape for shape in _possible(tuple(row), among) if shape.fits(row)), None)


@lru_cache(maxsize=256)
def _possible(columns: tuple[str, ...], among: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """The rows of a file mostly have the same columns."""
    return tuple(shape for shape in among if set(shape.needs.split()) <= set(columns))


def _of(*names: str) -> tuple[Shape, ...]:
    return tuple(shape for shape in SHAPES if shape.name in names)


_TRAINER = _of("preference", "critiques", "steps", "nectar", "labelled", "demonstration")
NAMED: dict[str, tuple[Shape, ...]] = {
    **dict.fromkeys(("trl-preference", "trl-kto", "trl-sft", "trl-stepwise", "llamafactory", "openrlhf", "axolotl"), _TRAINER),
    **dict.fromkeys(("openai-dpo", "openai-sft", "parquet"), _TRAINER),
    **{shape.name: (shape,) for shape in SHAPES},
}
"""What `--format` may say: only these shapes are then looked for, and a single one is taken to fit."""
