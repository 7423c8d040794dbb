"""From a `load` command to everything the engine works with: the base, a tree for each role, Ĥ's features, the generator and the workshop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from learners.adapters import LoraSettings
from learners.backbone import Backbone, fit_prompt
from learners.features import Features, likeness
from learners.generator import Generator
from learners.human_reward import RewardHead
from learners.lessons import LessonBook
from learners.live_reward import LiveReward
from learners.protocol import Event, Load, Loading, Ready
from learners.rendering import continued, pieces_of
from learners.rollouts import Trace, draw_answers, states_before
from learners.trees import distinct_bytes
from learners.workshop import Inputs, TokenIds, Workshop
from storage.records import Message, Sampling

CALIBRATION_PROMPTS = ("Once upon a time", "Tell me something.", "What is it?", "I think that", "Hello!", "How do I", "The", "Why")
"""What the base answers to these fixes the scale of Ĥ's features: the same for every database over one base."""
CALIBRATION_ANSWERS = 4  # to each
CALIBRATION_TOKENS = 48
CALIBRATION_SEED = 1


@dataclass(frozen=True)
class Parts:
    """What the workers need. The generator and live_reward belong to one thread, the workshop and the reward tree to the other."""

    backbone: Backbone
    generator: Generator
    live_reward: LiveReward
    shop: Workshop
    reward_tree: nn.Module
    ready: Ready


def assemble(load: Load, emit: Callable[[Event], None]) -> Parts:
    """Raises ModelError."""
    torch.set_num_threads(1)  # one a working thread: faster for all on few cores, see docs/decisions.md
    backbone = Backbone.load(load.model, load.quantize, load.device, emit, load.trust_remote_code)
    emit(Loading("trees"))
    settings = LoraSettings()
    actor, policy, reference, reward_tree = (backbone.adapter_tree(settings, load.seed) for _ in range(4))
    base = backbone.tree()  # the learner's own; the generator has backbone.model
    sampling = within(load.sampling, backbone.context)
    calibration = _calibration(backbone)
    features = Features.fit(torch.cat([trace.visited(1.0).seen.hidden for trace in calibration])).to(backbone.device)
    alike = likeness(backbone.model.get_output_embeddings().weight.detach())  # type: ignore[operator, union-attr]
    if load.unigram:
        features, alike = replace(features, basis=features.basis[:, :0]), alike[:, :0]
    head = RewardHead.empty(features)
    generator = Generator(backbone, actor, head, load.nats, load.bias, emit)
    generator.budget.calibrate([trace.visited(1.0) for trace in calibration])
    book = LessonBook(
        backbone.encode,
        lambda messages, text: encode_answer(backbone, messages, text),
        lambda ids: pieces_of(backbone.renderer, ids),
        backbone.eos_ids,
        backbone.context,
    )
    live_reward = LiveReward(book, features, lambda p, a: states_before(backbone, backbone.model, p, a), alike)
    inputs = Inputs(
        head,
        nats=load.nats,
        bias=load.bias,
        train_prompts=encode_prompts(backbone, load.train_prompts, sampling),
        gate_prompts=encode_prompts(backbone, load.gate_prompts, sampling),
    )
    shop = Workshop(backbone, base, policy, reference, inputs, sampling, load.seed, emit)
    trees = (backbone.model, base, actor, policy, reference, reward_tree)
    ready = Ready(
        backbone.base_hash, load.model, backbone.layers, backbone.parameters, backbone.vocabulary, backbone.width,
        str(backbone.device), backbone.quantize, distinct_bytes(*trees), distinct_bytes(backbone.model),
        backbone.context, backbone.chat_template, load.version,
        backbone.hashes.weights, backbone.hashes.tokenizer, backbone.template_sha256,
    )  # fmt: skip
    return Parts(backbone, generator, live_reward, shop, reward_tree, ready)


def encode_prompts(backbone: Backbone, prompts: Sequence[tuple[Message, ...]], sampling: Sampling) -> list[TokenIds]:
    """In tokens, cut on the left to leave room for an answer."""
    return [tuple(fit_prompt(backbone.encode(p), backbone.context, sampling.max_new_tokens)[0]) for p in prompts]


def encode_answer(backbone: Backbone, messages: Sequence[Message], text: str) -> list[int]:
    """A written answer in tokens. Where the model only continues a text, people leave out the space before their words."""
    if not backbone.chat_template and messages:
        text = continued(messages[-1].content, text)
    return backbone.encode_completion(text)


def within(sampling: Sampling, context: int) -> Sampling:
    """An answer leaves the prompt at least one token of the context."""
    return Sampling(sampling.temperature, min(sampling.max_new_tokens, context - 1))


def _calibration(backbone: Backbone) -> list[Trace]:
    prompts = [tuple(backbone.encode((Message("user", text),))) for text in CALIBRATION_PROMPTS for _ in range(CALIBRATION_ANSWERS)]
    sampling = Sampling(1.0, min(CALIBRATION_TOKENS, backbone.context // 2))
    return draw_answers(backbone, backbone.model, prompts, sampling, CALIBRATION_SEED, adapter=False, keep_states=True)
