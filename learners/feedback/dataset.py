"""The lessons that are live, each as answers in tokens.

A lesson arrives with token ids where the engine drew the answer, and with text alone where it was imported or written by hand; the dataset
tokenises what lacks ids, once. What this model cannot use is refused, with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from learners.feedback.corrections import changed_span
from learners.feedback.samples import Sample, original_name, over_name, silence_name, tap_name, whole_name, written_name
from learners.feedback.snapshot import Feedback
from learners.feedback.tap_credit import credit, read_after, silent, window_of
from learners.model.answer_text import words_of
from learners.model.chat_format import PromptError, fit_prompt
from learners.protocol import Answer, Lesson
from storage.records import Arm, Correction, Critique, Demonstration, Message, Ranking, Rating, Tap

LEAST_SHARE = 0.02
"""Of a tap: words that were credited less by time alone are left out."""
RAGGED_END = 20
"""Characters at the end of a cut-off answer that tell whether a correction kept it."""


class FeedbackDataset:
    """Keeps the live lessons by seq; tokenises."""

    def __init__(
        self,
        encode_prompt: Callable[[Sequence[Message], int], tuple[list[int], int]],
        encode_answer: Callable[[Sequence[Message], str], list[int]],
        pieces_of: Callable[[Sequence[int]], list[str]],
        eos_ids: frozenset[int],
        context: int,
        spoken: Callable[[Sequence[int], Sequence[int]], tuple[tuple[int, ...], tuple[int, ...]]] = lambda prompt, ids: (tuple(prompt), tuple(ids)),
        no_thought: tuple[int, ...] = (),
    ) -> None:
        """encode_prompt: messages and room in tokens -> at most as many ids, and how many were dropped for that.

        It and encode_answer raise PromptError for what the model's template does not take. spoken: a prompt and an answer -> the same with the
        answer's thought in the prompt: nothing is learned of it. no_thought: ids between a prompt and what a person writes.
        """
        self._encode_prompt = encode_prompt
        self._encode_answer = encode_answer
        self._pieces_of = pieces_of  # an answer's text by tokens
        self._eos_ids = eos_ids
        self._context = self.context = context
        self._spoken, self._no_thought = spoken, no_thought
        self._lessons: dict[int, Lesson] = {}
        self._samples: dict[int, tuple[Sample, ...]] = {}
        self._refused: dict[int, str] = {}
        self.dropped_tokens = 0  # prompt tokens cut to fit the context

    @property
    def refused(self) -> Mapping[int, str]:
        """Judgements, by seq, that cannot be used with this model, and why: they are in no snapshot."""
        return self._refused

    def add(self, lesson: Lesson) -> tuple[Sample, ...]:
        """Remember a lesson; returns its answers in tokens, none where it is refused. Adding a seq again (redo) replaces it."""
        self.remove(lesson.seq)
        try:
            samples = tuple(self._read(lesson))
        except PromptError as error:
            self._refused[lesson.seq] = str(error)
            return ()
        self._lessons[lesson.seq] = lesson
        self._samples[lesson.seq] = samples
        return samples

    def refuse(self, seq: int, why: str) -> None:
        """A lesson that was read turns out to be of no use here."""
        if self.remove(seq):
            self._refused[seq] = why

    def remove(self, seq: int) -> bool:
        """Whether it was known."""
        self._samples.pop(seq, None)
        return self._refused.pop(seq, None) is not None or self._lessons.pop(seq, None) is not None

    def samples(self, seq: int) -> tuple[Sample, ...]:
        """Of a lesson that is live."""
        return self._samples.get(seq, ())

    def snapshot(self) -> Feedback:
        """Of the judgements that are live now."""
        seqs = sorted(self._lessons)
        return Feedback(tuple(self._lessons[seq] for seq in seqs), {seq: self._samples[seq] for seq in seqs})

    def _read(self, lesson: Lesson) -> Iterator[Sample]:
        """Raises PromptError."""
        if isinstance(lesson.judgement, Tap) and not lesson.judgement.whole:
            yield from self._credited(lesson, lesson.judgement)
        elif isinstance(lesson.judgement, Arm):
            yield from self._untapped(lesson, lesson.judgement)
        elif isinstance(lesson.judgement, Critique):
            self._check_length(lesson.judgement.text, lesson)
        else:
            yield from self._answered(lesson)

    def _check_length(self, text: str, lesson: Lesson) -> None:
        """A critique stands in the context beside the prompt and the answer, to which it leaves half."""
        tokens = len(self._encode_answer(lesson.answers[0].messages if lesson.answers else (), text))
        if tokens > self._context // 2:
            raise PromptError(f"the critique takes {tokens:,} tokens, more than half of the model's context of {self._context:,}")

    def _answered(self, lesson: Lesson) -> Iterator[Sample]:
        """The answers of a ranking or a rating, or of a whole-answer tap; for a correction or a demonstration also what was written."""
        answers = self._usable([answer for answer in lesson.answers if answer.uid])
        judgement = lesson.judgement
        yield from _with_batches(answers, self._usable(lesson.beside))
        if isinstance(judgement, Ranking | Rating | Tap | Arm | Critique):
            if len(answers) < (2 if isinstance(judgement, Ranking) else 1):
                raise PromptError(self._why(lesson.answers))
        elif judgement.text.strip() and lesson.answers:
            written = list(self._corrected(lesson, judgement, answers))
            yield from written
            if lesson.over:
                whole = (0, len(written[0].token_ids))
                yield replace(written[0], name=whole_name(lesson.seq), span=whole)
        yield from self._over(lesson)

    def _over(self, lesson: Lesson) -> Iterator[Sample]:
        """Answers that the best one beats too; beside what a person wrote they say nothing of what sureness is worth (see HumanReward.add_answer)."""
        written = isinstance(lesson.judgement, Correction | Demonstration)
        for sample in _with_batches(self._usable(lesson.over), ()):
            yield replace(sample, name=over_name(lesson.seq, sample.name), span=(0, len(sample.token_ids)) if written else None)

    def _corrected(self, lesson: Lesson, judgement: Correction | Demonstration, answers: Sequence[Sample]) -> Iterator[Sample]:
        original = lesson.answers[0]
        ids = self._written(original, judgement.text)
        if len(ids) >= self._context:
            raise PromptError(f"what was written is longer than the model's context of {self._context:,} tokens")
        if not (isinstance(judgement, Correction) and answers):
            asked = answers[0] if answers else Sample("", self._unthought(original, len(ids)), (), thought=len(self._no_thought))
            yield replace(asked, name=written_name(lesson.seq), token_ids=ids, batch=())
            return
        before = answers[0].token_ids
        prompt_ids = self._fitted(answers[0].prompt_ids, max(len(ids), len(before)))
        start, stop = changed_span(before, ids)
        written = replace(answers[0], name=written_name(lesson.seq), prompt_ids=prompt_ids, token_ids=ids, span=(start, stop), batch=())
        yield written
        yield replace(written, name=original_name(lesson.seq), token_ids=before, span=(start, len(before) - (len(ids) - stop)))

    def _usable(self, answers: Sequence[Answer]) -> list[Sample]:
        """Those that have tokens, and not too many."""
        return [sample for answer in answers if 0 < len((sample := self._sample(answer)).token_ids) < self._context]

    def _why(self, answers: Sequence[Answer]) -> str:
        """Nothing can be learned from these."""
        longest = max((len(self._sample(answer).token_ids) for answer in answers), default=0)
        if longest >= self._context:
            return f"an answer is longer than the model's context of {self._context:,} tokens"
        return "none of its answers has any words" if not longest else "it speaks of one answer only"

    def _credited(self, lesson: Lesson, tap: Tap) -> Iterator[Sample]:
        """The words that a tap may be about, of the answer as it was on the screen then. None where its window lies mostly before the answer."""
        if not lesson.answers:
            return
        sample, words, shown = self._words(lesson)
        found = credit(tap.seconds, read_after(shown, words), window_of(lesson.window))
        for share, span in zip(found.shares, words, strict=True):
            if found.usable and share >= LEAST_SHARE:
                yield replace(sample, name=tap_name(lesson.seq, span[0]), span=span, word=True)

    def _untapped(self, lesson: Lesson, arm: Arm) -> Iterator[Sample]:
        """The words about which a tap would have come, had there been one."""
        if arm.since is None or not lesson.answers:
            return
        sample, words, shown = self._words(lesson)
        words = [span for span in words if shown[span[0]] >= arm.since]  # none that had begun to appear before silence counted
        for i in silent(read_after(shown, words), arm.since, arm.seconds, window_of(lesson.window)):
            yield replace(sample, name=silence_name(lesson.seq, words[i][0]), span=words[i], word=True)

    def _words(self, lesson: Lesson) -> tuple[Sample, list[tuple[int, int]], tuple[float, ...]]:
        """The answer as far as it was on the screen, its words, and when its tokens appeared. Nobody sees what ends an answer."""
        sample = self._sample(lesson.answers[0])
        shown = lesson.shown[max(0, len(lesson.answers[0].token_ids) - len(sample.token_ids)) :]  # what was thought is not what taps are about
        seen = list(takewhile(lambda token: token not in self._eos_ids, sample.token_ids[: len(shown)]))
        return sample, words_of(self._pieces_of(seen)), shown

    def _written(self, original: Answer, text: str) -> tuple[int, ...]:
        """The operator's words. Where they kept the ragged end of an answer that was cut off, its end is no ending to learn."""
        ids = self._encode_answer(original.messages, text)
        ragged = original.uid and original.stop != "eos" and text.rstrip().endswith(original.text.rstrip()[-RAGGED_END:])
        return tuple(ids[:-1] if ragged and ids and ids[-1] in self._eos_ids else ids)

    def _sample(self, answer: Answer) -> Sample:
        if answer.token_ids:
            prompt_ids, ids = self._spoken(self._prompt(answer, len(answer.token_ids)), answer.token_ids)
            return Sample(answer.uid, prompt_ids, ids, thought=len(answer.token_ids) - len(ids))
        ids = tuple(self._encode_answer(answer.messages, answer.text))
        return Sample(answer.uid, self._unthought(answer, len(ids)), ids, thought=len(self._no_thought))

    def _unthought(self, answer: Answer, length: int) -> tuple[int, ...]:
        """The prompt of what was written in so many tokens, with no thought before it."""
        return (*self._prompt(answer, length + len(self._no_thought)), *self._no_thought)

    def _prompt(self, answer: Answer, answer_length: int) -> tuple[int, ...]:
        if answer.prompt_ids:
            return self._fitted(answer.prompt_ids, answer_length)
        ids, dropped = self._encode_prompt(answer.messages, max(1, self._context - answer_length))
        self.dropped_tokens += dropped
        return tuple(ids)

    def _fitted(self, prompt_ids: tuple[int, ...], answer_length: int) -> tuple[int, ...]:
        """Ids of a prompt, cut where there is no room for them beside a longer answer."""
        ids, dropped = fit_prompt(prompt_ids, self._context, answer_length)
        self.dropped_tokens += dropped
        return tuple(ids) if dropped else prompt_ids


def _with_batches(answers: Sequence[Sample], beside: Sequence[Sample]) -> Iterator[Sample]:
    """Each with the distinct answers to the same prompt that were drawn in its set, in canonical order."""
    for sample in answers:
        together = {other.token_ids for other in (*answers, *beside) if other.prompt_ids == sample.prompt_ids}
        yield replace(sample, batch=tuple(sorted(together)))
