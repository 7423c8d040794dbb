"""What a learner thinks of every token of some answers, for the eyes of the operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from learners.model.answer_text import pieces_of
from learners.model.base import Backbone
from learners.model.batches import TokenIds
from learners.model.chat_format import PromptError
from learners.protocol import Answer, Appraisal


def appraise(backbone: Backbone, answers: Sequence[Answer], rewards: Callable[[TokenIds, TokenIds], Sequence[float]]) -> tuple[Appraisal, ...]:
    """`rewards` gives one number for each token of an answer to a prompt. Answers without token ids, and those that the model cannot read, are
    passed over."""
    return tuple(found for answer in answers if answer.token_ids and (found := _of_answer(backbone, answer, rewards)) is not None)


def _of_answer(backbone: Backbone, answer: Answer, rewards: Callable[[TokenIds, TokenIds], Sequence[float]]) -> Appraisal | None:
    try:
        prompt_ids = answer.prompt_ids or tuple(backbone.fit(answer.messages, len(answer.token_ids))[0])
    except PromptError:
        return None
    if len(prompt_ids) + len(answer.token_ids) > backbone.context:
        return None
    thought, said = backbone.spoken(prompt_ids, answer.token_ids)
    unjudged = (0.0,) * (len(answer.token_ids) - len(said))
    found = (*unjudged, *rewards(thought, said)) if said else unjudged
    return Appraisal(uid=answer.uid, texts=tuple(pieces_of(backbone.renderer, answer.token_ids)), rewards=found)
