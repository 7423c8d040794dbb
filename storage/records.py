"""The vocabulary of the record: everything that is ever written down, as frozen structs without I/O.

Identifiers are strings that the terminal assigns; a judgement's number in the log (`seq`) is assigned by the journal.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

Role = Literal["system", "user", "assistant"]
Policy = Literal["acting", "adapter", "base"]
"""Who wrote an answer: adapter and Ĥ together, the adapter without Ĥ, or the untouched base model."""
StopReason = Literal["eos", "length", "stopped"]
CRITERIA = ("overall", "truthful", "harmless", "useful")
BASE_VERSION = "base"
DRAWN = "drawn"
"""Origin of an answer that the engine drew."""


def new_uid() -> str:
    """A sortable unique name: 12 hex digits of milliseconds, then 16 random ones."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"


def unicode(text: str) -> str:
    """Pairs of surrogates joined, and U+FFFD for half of one, or for a byte of a file that was no text: neither JSON nor a tokenizer takes them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Message(Struct, frozen=True):
    """One turn of a conversation."""

    role: Role
    content: str


class Prompt(Struct, frozen=True):
    """What is answered: a conversation that ends with the user's turn."""

    messages: tuple[Message, ...]
    source: str = "set"  # 'set' from the prompt file, 'typed' by the operator, 'continued' from an answer

    @property
    def uid(self) -> str:
        """Content address: the same conversation has the same name wherever it came from."""
        parts = [part.encode("utf-8", "surrogatepass") for message in self.messages for part in (message.role, message.content)]
        return hashlib.sha256(b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "little"), part)])).hexdigest()[:32]

    @property
    def fraction(self) -> float:
        """A number in [0, 1) drawn from the content: the held-out, gate and training splits are ranges of it."""
        return int(self.uid[:8], 16) / 2**32

    @property
    def text(self) -> str:
        """The last turn, which is what a person reads as the prompt."""
        return self.messages[-1].content

    @staticmethod
    def of(text: str, system: str | None = None, source: str = "set") -> Prompt:
        """A one-turn prompt, with an optional system message before it."""
        before = (Message("system", system),) if system else ()
        return Prompt((*before, Message("user", text)), source)


class Sampling(Struct, frozen=True):
    """How answers are drawn. By itself plain sampling at the temperature; else in the order and with the meaning of transformers' `generate`."""

    temperature: float = 1.0
    max_new_tokens: int = 256
    top_p: float = 1.0  # of the probability, the likeliest tokens first; 1 for all
    top_k: int = 0  # likeliest tokens; 0 for all
    min_p: float = 0.0  # of the likeliest token's probability
    repetition_penalty: float = 1.0  # by which logits of tokens that were said are divided, where they are positive, else multiplied
    stop: tuple[str, ...] = ()  # texts that end an answer, and are no part of what is shown of it
    max_thinking_tokens: int | None = None  # then a thought is closed, and `max_new_tokens` are the answer's alone; None: both together

    @property
    def plain(self) -> Sampling:
        """The same without truncation and penalties, as learners draw."""
        return Sampling(self.temperature, self.max_new_tokens, stop=self.stop, max_thinking_tokens=self.max_thinking_tokens)


class BaseModel(Struct, frozen=True):
    """Which model a database belongs to. `base_hash` covers weights, tokenizer and chat template, not quantization."""

    base_hash: str
    name: str
    quantize: str  # 'none', 'nf4' or 'int8', as it was loaded
    parameters: int = 0
    layers: int = 0
    weights_sha256: str | None = None  # what base_hash is made of, where the engine tells it
    tokenizer_sha256: str | None = None
    template_sha256: str | None = None


class Sitting(Struct, frozen=True):
    """One run of the program over a database, from start to quit."""

    uid: str
    base_hash: str  # '' for an import, for which no model is loaded
    app_version: str
    settings: str  # JSON of the options it ran with
    operator: str = "operator"  # or the path and function of a simulated one
    quantize: str = "none"


class SampleSet(Struct, frozen=True):
    """K answers to one prompt that are shown together. The blind comparison is drawn before anything is shown."""

    uid: str
    sitting_uid: str
    prompt: Prompt
    k: int
    purpose: str = "judge"  # 'judge', 'evaluate' (simulation's end), 'compare' (`o`, never counted), 'tap', 'chat', 'duel' (counted apart), 'repeat'
    blind_base: str | None = None  # response uid of the slot answered by the base, if there is one
    blind_acting: str | None = None  # response uid of the acting slot it is compared with


class Response(Struct, frozen=True):
    """One finished answer, with what is needed to score it, learn from it and draw it again. What an imported one lacks is None or empty."""

    uid: str
    set_uid: str
    slot: int  # 0 is shown as 'a'
    policy: Policy | None
    version: str | None  # version id of the adapter, BASE_VERSION for none
    h_epoch: int | None  # which fit of Ĥ biased it, 0 for none
    beta: float | None  # strength of that bias
    seed: int | None
    sampling: Sampling | None
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]  # per token, under the distribution it was drawn from, truncated or not; 0 for one that was forced
    unbiased_logprobs: tuple[float, ...]  # per token, under the same policy at the temperature without Ĥ and without truncation
    times: tuple[float, ...]  # seconds from the request to each token, engine clock
    stop: StopReason | None
    kl: float | None  # nats of the acting policy against the base, exact at each visited state, summed over tokens
    origin: str = DRAWN  # or 'shown' (made up from what was on the screen), or where an imported one came from, e.g. 'hh'
    thought_tokens: int | None = None  # the first so many are a thought and its marks, not the answer
    forced_tokens: int = 0  # the last so many of those were drawn by nobody: the thought was closed at its longest

    @staticmethod
    def written_elsewhere(uid: str, set_uid: str, slot: int, text: str, origin: str) -> Response:
        """An answer of which only the text is known."""
        return Response(uid, set_uid, slot, None, None, None, None, None, None, (), (), text, (), (), (), None, None, origin)


class Shown(Struct, frozen=True):
    """Consecutive tokens of an answer as they appeared on the screen. What was shown never changes, even where the rest is drawn again."""

    set_uid: str
    response_uid: str
    start: int  # position of the first one
    token_ids: tuple[int, ...]
    texts: tuple[str, ...]
    seconds: tuple[float, ...]  # when each appeared, on the terminal's monotonic clock
    h_epochs: tuple[int, ...]  # the fit of Ĥ that biased each
    betas: tuple[float, ...]  # the strength of that bias


# --- Judgements: what the operator said. Each is one event of the log. -------------------------------------------------


class Ranking(Struct, frozen=True, tag="ranking"):
    """An order over the answers of one set, best first. Ties share a rank; ranked beat unranked, which are not compared."""

    set_uid: str
    ranks: dict[str, int]  # response uid -> rank, 1 is best, dense
    seconds: float = 0.0  # from the last answer's end to the commit
    keys: str = ""  # what was typed, e.g. 'ba=c'
    strength: int | None = None  # how much better: 0 unsure, 1 slightly, 2 better, 3 significantly; None where it was not said


class Rating(Struct, frozen=True, tag="rating"):
    """A score from 1 (worst) to 7 (best) for one answer on one criterion."""

    set_uid: str
    response_uid: str
    value: int
    criterion: str = "overall"


class Correction(Struct, frozen=True, tag="correction"):
    """One answer as the operator rewrote it: a demonstration that also beats the original."""

    set_uid: str
    response_uid: str
    text: str


class Demonstration(Struct, frozen=True, tag="demonstration"):
    """The ideal answer to the set's prompt, written by the operator."""

    set_uid: str
    text: str


class Critique(Struct, frozen=True, tag="critique"):
    """What should be otherwise, in words: of one answer or of the whole set. With scope 'all' it is a standing wish, for every prompt."""

    set_uid: str
    response_uid: str | None
    text: str
    scope: Literal["prompt", "all"] = "prompt"
    strength: int = 1  # -3 (the opposite) to 3; 0 is off. Said again with another strength it replaces the earlier one

    def holds_for(self, of: Sequence[Message], messages: Sequence[Message]) -> bool:
        """Whether it holds for a conversation, said of a set whose prompt was `of`: for that one, and for what goes on from it."""
        return self.scope == "all" or tuple(messages[: len(of)]) == tuple(of)


def criticised(messages: tuple[Message, ...], texts: Sequence[str], chat: bool) -> tuple[Message, ...]:
    """A conversation with critiques in its context: behind the user's turn, where small models heed them more than in a system message
    (docs/decisions.md). A model without a chat template (`chat` False) reads them as a line before the text."""
    *before, last = messages
    said = "\n".join(texts)
    if not chat:
        return (Message("user", said), *messages)
    return (*before, Message(last.role, f"{last.content}\n\n{said}"))


class Tap(Struct, frozen=True, tag="tap"):
    """Praise or blame while an answer appears, raw: which words it was about is computed."""

    set_uid: str
    response_uid: str
    value: float  # -10 to 10, not 0
    key: str
    seconds: float  # the terminal's monotonic clock, on which tokens are shown too
    wall: str = ""  # the same moment by the calendar, ISO 8601: the clocks differ after a suspend
    repeat: int = 1  # key presses that a held key made of it
    whole: bool = False  # it came too late to be about single words: it counts for the answer


class Calibration(Struct, frozen=True, tag="calibration"):
    """How long this operator's taps come after what they are about, as measured; later taps are credited by it."""

    family: Literal["uniform", "gamma"] = "uniform"
    low: float = 0.2  # seconds; uniform
    high: float = 0.8
    shape: float | None = None  # gamma
    scale: float | None = None  # seconds
    connection: str = "local"  # or 'ssh': the network's delay is in it
    delays: tuple[float, ...] = ()  # as they were measured


class Skip(Struct, frozen=True, tag="skip"):
    """The operator passed over a set without judging it."""

    set_uid: str


class Peek(Struct, frozen=True, tag="peek"):
    """Something that is hidden until the commit was looked at before it: the set does not count in the blind count."""

    set_uid: str


class Arm(Struct, frozen=True, tag="arm"):
    """Silence counts from here on (on), or no longer (off). Off with `since` teaches: what appeared in between and was not tapped was worth 0."""

    set_uid: str
    response_uid: str
    on: bool
    seconds: float  # the terminal's monotonic clock
    since: float | None = None  # when the stretch began that ends here


class Pace(Struct, frozen=True, tag="pace"):
    """From here on words appear at another speed."""

    set_uid: str
    tokens_per_second: float
    seconds: float  # the terminal's monotonic clock


class Span(Struct, frozen=True, tag="span"):
    """A stretch of an answer, marked."""

    set_uid: str
    response_uid: str
    start: int  # characters
    stop: int  # the first character after it
    label: str
    value: float | None = None


class Comment(Struct, frozen=True, tag="comment"):
    """A note on a set, or on one of its answers. Nothing is learned from it."""

    set_uid: str
    response_uid: str | None
    text: str


class Flag(Struct, frozen=True, tag="flag"):
    """An answer marked as a case of something, e.g. 'refusal'. Nothing is learned from it."""

    set_uid: str
    response_uid: str
    label: str


class Present(Struct, frozen=True, tag="present"):
    """Answers were put on the screen, in this order."""

    set_uid: str
    order: tuple[str, ...]  # response uids, first to last
    seconds: float  # the terminal's monotonic clock


class Undo(Struct, frozen=True, tag="undo"):
    """Takes an earlier judgement back."""

    target: int


class Redo(Struct, frozen=True, tag="redo"):
    """Puts an undone judgement back."""

    target: int


Teaching = Ranking | Rating | Correction | Demonstration | Critique | Tap | Arm
"""The judgements that learners learn from."""
Judgement = Teaching | Skip | Peek | Span | Comment | Flag | Pace | Calibration | Present | Undo | Redo


class Logged(Struct, frozen=True):
    """A judgement as it stands in the log."""

    seq: int
    judgement: Judgement
    utc: str  # ISO 8601, milliseconds
    sitting_uid: str = ""


# --- Training ------------------------------------------------------------------------------------------------------


class Run(Struct, frozen=True):
    """One stretch of training of one stage, with the exact judgements it learned from."""

    uid: str
    stage: str  # 'sft', 'reward', 'distill', 'ppo'
    seqs: tuple[int, ...]
    seed: int
    steps: int
    seconds: float
    settings: str  # JSON of the stage's settings


class Canary(Struct, frozen=True):
    """What a candidate's answers are like besides what the judge likes: each figure, then the base's own."""

    perplexity: tuple[float, float]  # of the answers, under the base
    repetition: tuple[float, float]  # share of four-grams of tokens that the same answer had said before
    refusals: tuple[float, float]  # share of answers
    length: tuple[float, float]  # mean, in tokens
    neutral_kl: float  # of answers to neutral prompts, nats per 64 tokens
    neutral_loss: tuple[float, float]  # of those under the base, nats a token

    def in_words(self) -> str:
        """'perplexity 4.3 (4.1), repeats 3 % (2 %), …', the base's own in brackets."""
        (perplexity, of_base), (length, base_length), (loss, base_loss) = self.perplexity, self.length, self.neutral_loss
        shares = (
            f"{what} {100 * share:.0f} % ({100 * base:.0f} %)" for what, (share, base) in (("repeats", self.repetition), ("refuses", self.refusals))
        )
        neutral = f"on neutral prompts {self.neutral_kl:.1f} nats, loss {loss:.2f} ({base_loss:.2f})"
        return ", ".join((f"perplexity {perplexity:.1f} ({of_base:.1f})", *shares, f"{length:.0f} tokens ({base_length:.0f})", neutral))


class Version(Struct, frozen=True):
    """A candidate policy that met the gate: published or refused, and why."""

    id: str  # 'v1', 'v2', … assigned by the journal's owner; refused ones have numbers too
    sha256: str  # of the files in <DB>.versions/<sha256>/; empty for refused ones, whose bytes are not kept
    parent: str  # version id, BASE_VERSION for none
    stage: str  # the last stage that changed it
    published: bool
    reason: str  # in words, e.g. 'better on 12 prompts: 0.71' or 'worse on 12 prompts: 0.38'
    reason_code: str  # 'published', 'not finite', 'over budget', 'worse', 'worse elsewhere'
    runs: tuple[str, ...]  # uids of the runs since the parent
    seed: int
    kl: float | None = None  # nats per 64 tokens of the adapter alone against the base
    win_rate: float | None = None  # of the gate
    h_epoch: int = 0
    utc: str = ""
    canary: Canary | None = None  # of those that the judge did not refuse


class Activation(Struct, frozen=True):
    """Which version acts from here on. The last one is where the program resumes; after a rollback learning is held until it is resumed."""

    version: str
    why: Literal["published", "rollback", "resumed"]


class Prequential(Struct, frozen=True):
    """What a learner thought of a judgement before it learned from it."""

    seq: int
    judge: str  # 'human_reward' for Ĥ, 'reward' for the reward model
    log_loss: float | None  # nats
    right: float | None = None  # compared pairs in the operator's order, a tie being half of one
    pairs: int | None = None  # compared pairs, ties left out
    margin: float | None = None  # mean score difference of those pairs, the preferred answer's first


class LeftOut(Struct, frozen=True):
    """An answer that was drawn and not shown."""

    seed: int
    score: float
    token_ids: tuple[int, ...]
    text: str


class Selection(Struct, frozen=True):
    """Best-of-n: what the acting policy drew for a set that shows the best of it. The base's answer is never chosen from several."""

    set_uid: str
    drawn: int  # answers of the acting policy
    judge: str  # 'human_reward', 'reward', or both with a '+' between
    scores: dict[str, float]  # uid of each shown answer that was chosen
    left_out: tuple[LeftOut, ...]


# --- Imports -------------------------------------------------------------------------------------------------------


class Import(Struct, frozen=True):
    """A file whose judgements were taken over. Written before its items."""

    uid: str
    sha256: str  # of the file
    format: str
    name: str  # of the file, without its folder
    rows: int  # items that were used
    skipped: int = 0  # items that were not


class ImportedItem(Struct, frozen=True):
    """One judged item of a file, by its content: it is not imported again, from whatever file."""

    sha256: str  # of its content
    import_uid: str
    set_uid: str | None = None  # what it became


class KeptRow(Struct, frozen=True):
    """What an imported set has beside its texts and judgements: JSON of exchange.items.Kept."""

    set_uid: str
    content: str
    teaches: bool = True  # False: the set is shown and kept, and nothing learns from it
