"""What the terminal and the engine say to each other: one JSON object a line, commands one way, events the other.

Torch-free, so that the terminal can import it. Every struct is tagged by its lower-case name. Bytes travel as base64. What is said besides to an
engine elsewhere, over a link that may break, is in `link.py`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from storage.records import Calibration, Canary, Message, Policy, Run, Sampling, StopReason, Teaching, unicode

MAX_LINE = 8 * 1024 * 1024
"""Bytes of the longest line either side accepts."""
BLOB_CHUNK = 256 * 1024
"""Bytes of adapter in one `blob` line."""
LINK_BLOB_CHUNK = 4 * 1024
"""The same over a link, where a token must not wait behind a long line: 33 ms at 1 Mbit/s."""
TOKEN_FLUSH_SECONDS = 0.04
"""Tokens cross in batches, at most this often."""

Stage = Literal["sft", "reward", "distill", "ppo"]
RewardLearner = Literal["human_reward", "reward"]  # Ĥ, or the reward model
Thinking = Literal["auto", "on", "off"]
STAGES: tuple[Stage, ...] = ("sft", "reward", "distill", "ppo")


class _Line(Struct, frozen=True, kw_only=True, tag=str.lower, tag_field="type", omit_defaults=True):
    pass


# --- commands --------------------------------------------------------------------------------------------------------


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A judged answer, complete enough to learn from in an engine that has never seen it."""

    uid: str
    messages: tuple[Message, ...]
    text: str
    prompt_ids: tuple[int, ...] = ()  # empty when imported: the engine tokenises
    token_ids: tuple[int, ...] = ()
    stop: StopReason | None = None


class Lesson(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One live judgement and the answers that it speaks of. A demonstration carries one answer, without a uid: its prompt.

    A tap, or a stretch of silence, carries one answer as far as it was on the screen, when each token appeared, and the window for credit.
    A judgement about one answer of a set names the others in `beside`: states are computed for a whole set at once, and their bits depend on it.
    Answers to the same prompt that its best one, or what was written, beats beside what it says are `over`: see storage/derived.py.
    """

    seq: int
    judgement: Teaching
    answers: tuple[Answer, ...]
    beside: tuple[Answer, ...] = ()
    over: tuple[Answer, ...] = ()
    shown: tuple[float, ...] = ()  # seconds, the clock of the tap
    window: Calibration | None = None


class Load(_Line, frozen=True, kw_only=True):
    """Load a base model and build its trees. Blobs of `adapter` must have been sent before."""

    model: str  # directory, GGUF file, hub id or 'pocket'
    peft_adapter: str | None = None  # directory or hub id of an adapter that becomes part of the base
    quantize: str = "auto"
    device: str = "auto"
    adapter: str | None = None  # sha256 of the version to resume from
    version: str = "base"  # its id
    seed: int = 0
    nats: float = 6.0  # budget of the acting policy against the base, per 64 tokens
    bias: bool = True  # steering by Ĥ
    stages: tuple[Stage, ...] = STAGES
    paused: bool = False  # adapters' learning
    metered: bool = False  # train only what `set train_seconds` grants
    sampling: Sampling = Sampling()  # as it was asked for; learners draw plainly, at its temperature
    unset: tuple[str, ...] = ()  # fields of it that the model's own generation settings may set
    train_prompts: tuple[tuple[Message, ...], ...] = ()
    gate_prompts: tuple[tuple[Message, ...], ...] = ()
    trust_remote_code: bool = False
    thinking: Thinking = "auto"  # by the template's own switch
    learn_thoughts: bool = False  # learn of thoughts as of answers
    unigram: bool = False  # for comparison: Ĥ sees no state, only the token (benchmarks)
    frozen_ppo: bool = False  # for comparison: PPO runs with its policy loss weighted 0 (benchmarks)
    blob_bytes: int = BLOB_CHUNK  # of adapter in one line of a version that is published


class Replay(_Line, frozen=True, kw_only=True):
    """Live judgements of the log, in order, in chunks; `last` ends them, also where there are none. Ĥ learns from them beside what is asked for.

    Of a log that is long, or was imported, a `sample` comes first, in the order in which it should be learned from: `last` ends it, and answers may
    be drawn. More follows in chunks, each when the one before was `read`, without what came before: perhaps another sample, then the log. Adapters
    are trained once all of it is there.
    """

    lessons: tuple[Lesson, ...]
    last: bool = False
    sample: bool = False
    of: int = 0  # judgements in the whole log; 0 where only its end tells
    stale: bool = False  # of what comes first: the version that acts learned from what is not live any more


class AddJudgement(_Line, frozen=True, kw_only=True):
    """A new judgement, already on disk."""

    lesson: Lesson


class Retract(_Line, frozen=True, kw_only=True):
    """The judgement `seq` was undone. (A redo is a `judge` with the old seq.)"""

    seq: int


class AnswerRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer to draw. `prefix_ids` are tokens already fixed (resume). With `sha256` it is drawn by the adapter of this version alone, whether it
    acts or not; its blobs must have been sent, and the engine keeps those of the last two."""

    uid: str
    seed: int
    messages: tuple[Message, ...]
    policy: Policy = "acting"
    prefix_ids: tuple[int, ...] = ()
    temperature: float | None = None  # None: as that of all
    version: str = ""  # its id
    sha256: str | None = None  # None: by the version that acts


class Generate(_Line, frozen=True, kw_only=True):
    """Draw answers, all of one version in one batch; prompts may differ."""

    requests: tuple[AnswerRequest, ...]
    sampling: Sampling


class Stop(_Line, frozen=True, kw_only=True):
    """End these answers now with reason `stopped`; empty means all."""

    uids: tuple[str, ...] = ()


class ResumeFrom(_Line, frozen=True, kw_only=True):
    """Drop an answer's tokens from index `n_tokens` on and draw them again with Ĥ as it is now."""

    uid: str
    n_tokens: int


class Set(_Line, frozen=True, kw_only=True):
    """Change how the engine works; None leaves a setting as it is."""

    nats: float | None = None
    bias: bool | None = None
    paused: bool | None = None
    train_now: bool = False  # start a round of training, even with little new to learn
    train_seconds: float | None = None  # metered: grant this much learner time, then an `idle` event follows
    train_steps: int | None = None  # metered: grant this many optimizer steps
    flush: bool = False  # metered: bring what has been trained to the gate now; an `idle` event follows
    train_prompts: tuple[tuple[Message, ...], ...] | None = None
    gate_prompts: tuple[tuple[Message, ...], ...] | None = None


class Rollback(_Line, frozen=True, kw_only=True):
    """Act with this version and with the Ĥ that it was published with; hold learning until `set paused=False`."""

    version: str  # 'base' for none
    sha256: str | None = None


class Appraise(_Line, frozen=True, kw_only=True):
    """Tell what a learner thinks of every token of these answers; those without token ids are passed over."""

    answers: tuple[Answer, ...]
    by: RewardLearner = "human_reward"
    whole: bool = False  # of Ĥ: rewards whose mean tells whole answers apart, where there are such; else what each token adds, which steers


class Blob(_Line, frozen=True, kw_only=True):
    """A piece of one file of a version's directory. Both a command (what the engine lacks) and an event (what it publishes)."""

    sha256: str  # of the version
    name: str  # file name, no directories
    index: int
    count: int  # pieces of this file
    data: bytes


class PublishAck(_Line, frozen=True, kw_only=True):
    """The version is on disk and recorded under this id: act with it."""

    sha256: str
    version: str


class Teaches(_Line, frozen=True, kw_only=True):
    """To an engine that terminals leave and come back to: the judgements are of this database. It takes those of no other."""

    database: str  # uid of its first sitting
    place: str = ""  # where it lies, for people


class Shutdown(_Line, frozen=True, kw_only=True):
    """Finish and exit."""


Command = Load | Replay | AddJudgement | Retract | Generate | Stop | ResumeFrom | Set | Rollback | Appraise | Blob | PublishAck | Teaches | Shutdown


# --- events ----------------------------------------------------------------------------------------------------------


class Loading(_Line, frozen=True, kw_only=True):
    """Progress of `load`, in bytes where known."""

    what: str  # 'libraries', 'download', 'weights', 'convert', 'quantize', 'adapters'
    done: float = 0.0
    total: float = 0.0  # 0 when unknown
    seconds_left: float | None = None


class Ready(_Line, frozen=True, kw_only=True):
    """The model is loaded and answers can be asked for."""

    base_hash: str
    model: str
    layers: int
    parameters: int
    vocabulary: int
    width: int
    device: str
    quantize: str  # what 'auto' came to
    memory_bytes: int  # base and all roles
    base_bytes: int
    context: int  # tokens
    chat_template: bool
    version: str = "base"
    weights_sha256: str | None = None  # what base_hash is made of
    tokenizer_sha256: str | None = None
    template_sha256: str | None = None
    sampling: Sampling | None = None  # of what the operator sees
    from_model: tuple[str, ...] = ()  # fields of it that the model's own generation settings have set
    database: str = ""  # an engine that taught before: uid of that database's first sitting,
    place: str = ""  # where it lies, for people,
    taught: tuple[tuple[int, int], ...] | None = None  # and the live judgements that it knows, as runs from … to; None where it knows of no log


class Started(_Line, frozen=True, kw_only=True):
    """An answer is being drawn: under which policy."""

    uid: str
    prompt_ids: tuple[int, ...]
    version: str
    h_epoch: int
    beta: float
    policy: Policy
    truncated: int = 0  # prompt tokens dropped to fit the context: the oldest turns, then the middle of the newest


class Piece(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Consecutive new tokens of one answer. Concatenated texts of an answer are its text."""

    uid: str
    start: int  # index of the first token
    ids: tuple[int, ...]
    texts: tuple[str, ...]  # one per token; '' while a character is incomplete
    logprobs: tuple[float, ...]
    unbiased_logprobs: tuple[float, ...]
    times: tuple[float, ...]


class Tokens(_Line, frozen=True, kw_only=True):
    """New tokens of any number of answers."""

    pieces: tuple[Piece, ...]


class Ended(_Line, frozen=True, kw_only=True):
    """An answer is complete."""

    uid: str
    reason: StopReason
    text: str  # authoritative
    n_tokens: int
    kl: float  # nats against the base, exact at each visited state, summed over tokens
    seconds: float
    thought_tokens: int = 0  # the first so many are a thought and its marks
    forced_tokens: int = 0  # the last so many of those were put there to close it


class Learned(_Line, frozen=True, kw_only=True):
    """Ĥ was refitted on the live judgements; the next answer is drawn with it."""

    seq: int  # of the judgement that caused it, 0 for those of the log
    h_epoch: int
    milliseconds: float  # fit and β
    beta: float
    rankings: int
    ratings: int
    corrections: int
    taps: int = 0
    critiques: int = 0
    log_loss: float | None = None  # prequential: of this judgement, before learning from it
    accuracy: float | None = None  # prequential pair accuracy so far
    dropped: str = ""  # what of the judgement could not be used, in words


class Foreseen(_Line, frozen=True, kw_only=True):
    """How a learner would have judged, before it learned from the judgement; told once for each."""

    seq: int
    judge: RewardLearner
    log_loss: float  # nats, mean over pairs
    right: float  # compared pairs in the operator's order, a tie being half of one
    pairs: int
    margin: float | None = None  # mean score difference of those pairs, the preferred answer's first


class Read(_Line, frozen=True, kw_only=True):
    """A chunk of the log was read: the next may come."""


class Appraisal(Struct, frozen=True, kw_only=True):
    """What is thought of one answer. One entry per token; '' where a token shows nothing, as the one that ends an answer."""

    uid: str
    texts: tuple[str, ...]
    rewards: tuple[float, ...]  # of Ĥ, 0 where it has no evidence; of the reward model, its normalised value after each token


class Appraised(_Line, frozen=True, kw_only=True):
    """The answers of an `appraise`, by Ĥ as it acts now or by the reward model; none where that has learned nothing yet."""

    h_epoch: int
    appraisals: tuple[Appraisal, ...]
    by: RewardLearner = "human_reward"


class Metrics(_Line, frozen=True, kw_only=True):
    """How a stage is doing. Dropped under pressure."""

    stage: str  # a Stage, 'human_reward' (judgements of the log that Ĥ has learned from, of all), 'gate' or 'idle'
    step: int = 0
    of: int = 0
    seconds_left: float | None = None
    loss: float | None = None
    accuracy: float | None = None  # prequential pair accuracy of the reward model
    reward: float | None = None
    kl: float | None = None  # nats per 64 tokens against the reference
    kl_coefficient: float | None = None
    entropy: float | None = None
    clip_fraction: float | None = None
    explained_variance: float | None = None
    grad_norm: float | None = None
    note: str = ""


class Trained(_Line, frozen=True, kw_only=True):
    """A run ended: the exact judgements it trained on, for the record."""

    run: Run


class Gated(_Line, frozen=True, kw_only=True):
    """The gate's verdict on a candidate version; its blobs, if published, came before."""

    sha256: str  # empty when refused
    parent: str
    stage: str
    published: bool
    reason: str
    reason_code: str  # 'published', 'not finite', 'over budget', 'worse', 'worse elsewhere'
    runs: tuple[str, ...]
    seed: int
    kl: float | None = None
    win_rate: float | None = None
    h_epoch: int = 0
    canary: Canary | None = None


class Acting(_Line, frozen=True, kw_only=True):
    """Which version acts from here on, with how much bias."""

    version: str
    beta: float
    h_epoch: int
    refused: str = ""  # the version that was to act, and does not


class Idle(_Line, frozen=True, kw_only=True):
    """Metered training: the grant is used up, or there is nothing to learn."""

    trained_seconds: float  # in all, since `load`
    reason: str = ""
    reward_seconds: float = 0.0  # of which the reward model
    human_reward_seconds: float = 0.0  # Ĥ's fits, not part of trained_seconds


class Error(_Line, frozen=True, kw_only=True):
    """Something went wrong: what, and what to do. After a fatal one the engine exits."""

    what: str
    hint: str = ""
    fatal: bool = False
    uid: str = ""  # of the answer it concerns


class Notice(_Line, frozen=True, kw_only=True):
    """What a person should know of how the model was loaded, or computes; nothing went wrong."""

    what: str


class Asked(_Line, frozen=True, kw_only=True):
    """For terminals that watch: what the judging one wants drawn."""

    requests: tuple[AnswerRequest, ...]


Event = (
    Loading | Ready | Started | Tokens | Ended | Learned | Foreseen | Read | Appraised | Metrics | Trained | Blob
    | Gated | Acting | Idle | Error | Notice | Asked
)  # fmt: skip


_encoder = msgspec.json.Encoder()
_command_decoder = msgspec.json.Decoder(Command)
_event_decoder = msgspec.json.Decoder(Event)


class LineTooLongError(ValueError):
    """No line of the protocol is as long."""


def encode_command(command: Command) -> bytes:
    """One line for the engine. Raises LineTooLongError."""
    line = encode(command)
    if len(line) > MAX_LINE:
        raise LineTooLongError
    return line


def encode(line: _Line) -> bytes:
    """One line, newline included. Half of a surrogate pair is told as U+FFFD: JSON has no other way."""
    try:
        return _encoder.encode(line) + b"\n"
    except UnicodeEncodeError:
        return _encoder.encode(_in_unicode(msgspec.to_builtins(line))) + b"\n"


def _in_unicode(value: Any) -> Any:
    match value:
        case str():
            return unicode(value)
        case dict():
            return {_in_unicode(key): _in_unicode(each) for key, each in value.items()}
        case list() | tuple():
            return [_in_unicode(each) for each in value]
    return value


def decode_command(line: bytes) -> Command:
    """Raises msgspec.DecodeError (ValidationError for a wrong shape)."""
    return _command_decoder.decode(line)


def decode_event(line: bytes) -> Event:
    """Raises msgspec.DecodeError (ValidationError for a wrong shape)."""
    return _event_decoder.decode(line)
