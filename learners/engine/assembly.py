"""From a `load` command to everything the engine works with: the base, a tree for each role, Ĥ's features, the generator, the learner's inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from learners.curriculum.inputs import LearnerInputs, TokenIds
from learners.curriculum.weights import LearnerTrees
from learners.engine.generator import Generator
from learners.feedback.dataset import FeedbackDataset
from learners.human_reward.features import Features, token_similarity
from learners.human_reward.head import RewardHead
from learners.human_reward.online import OnlineHumanReward
from learners.model.base import Backbone
from learners.model.chat_format import continued, fit_prompt, pieces_of
from learners.model.loading import load_backbone
from learners.model.lora import LoraSettings
from learners.model.replicas import distinct_bytes
from learners.protocol import Event, Load, Loading, Ready
from learners.rlhf.rollouts import Trace, draw_answers, states_before
from storage.records import Message, Sampling

CALIBRATION_PROMPTS = ("Once upon a time", "Tell me something.", "What is it?", "I think that", "Hello!", "How do I", "The", "Why")
"""What the base answers to these fixes the scale of Ĥ's features: the same for every database over one base."""
CALIBRATION_ANSWERS = 4  # to each
CALIBRATION_TOKENS = 48
CALIBRATION_SEED = 1


@dataclass(frozen=True)
class Parts:
    """What the workers need. The generator and live_reward belong to one thread, the trees to the other."""

    backbone: Backbone
    generator: Generator
    live_reward: OnlineHumanReward
    trees: LearnerTrees
    inputs: LearnerInputs
    sampling: Sampling  # of the learners' own answers
    ready: Ready


def assemble(load: Load, emit: Callable[[Event], None]) -> Parts:
    """Raises ModelError."""
    torch.set_num_threads(1)  # one a working thread: faster for all on few cores, see docs/decisions.md
    backbone = load_backbone(load.model, load.quantize, load.device, emit, load.trust_remote_code)
    emit(Loading(what="trees"))
    settings = LoraSettings()
    actor, policy, reference, reward_tree = (backbone.adapter_tree(settings, load.seed) for _ in range(4))
    base = backbone.tree()  # the learner's own; the generator has backbone.model
    sampling = within(load.sampling, backbone.context)
    calibration = _calibration(backbone)
    features = Features.fit(torch.cat([trace.visited(1.0).seen.hidden for trace in calibration]))
    similarity = token_similarity(backbone.model.get_output_embeddings().weight.detach())  # type: ignore[operator, union-attr]
    if load.unigram:
        features, similarity = replace(features, basis=features.basis[:, :0]), similarity[:, :0]
    head = RewardHead.empty(features)
    generator = Generator(backbone, actor, head, load.nats, load.bias, emit)
    generator.budget.calibrate([trace.visited(1.0) for trace in calibration])
    dataset = FeedbackDataset(
        lambda messages, room: fit_prompt(backbone.encode(messages), room, 0),
        lambda messages, text: encode_answer(backbone, messages, text),
        lambda ids: pieces_of(backbone.renderer, ids),
        backbone.eos_ids,
        backbone.context,
    )
    live_reward = OnlineHumanReward(dataset, features, lambda p, a: states_before(backbone, backbone.model, p, a), similarity)
    inputs = LearnerInputs(
        head,
        nats=load.nats,
        bias=load.bias,
        train_prompts=encode_prompts(backbone, load.train_prompts, sampling),
        gate_prompts=encode_prompts(backbone, load.gate_prompts, sampling),
    )
    trees = LearnerTrees(base, policy, reference, reward_tree)
    ready = Ready(
        base_hash=backbone.base_hash,
        model=load.model,
        layers=backbone.layers,
        parameters=backbone.parameters,
        vocabulary=backbone.vocabulary,
        width=backbone.width,
        device=str(backbone.device),
        quantize=backbone.quantize,
        memory_bytes=distinct_bytes(backbone.model, base, actor, policy, reference, reward_tree),
        base_bytes=distinct_bytes(backbone.model),
        context=backbone.context,
        chat_template=backbone.chat_template,
        version=load.version,
        weights_sha256=backbone.hashes.weights,
        tokenizer_sha256=backbone.hashes.tokenizer,
        template_sha256=backbone.template_sha256,
    )
    return Parts(backbone, generator, live_reward, trees, inputs, sampling, ready)


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
