"""From a `load` command to everything the engine works with: the base, a tree for each role, Ĥ's features, the generator, the learner's inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from msgspec.structs import replace as replaced

from learners.curriculum.inputs import LearnerInputs
from learners.curriculum.weights import LearnerTrees
from learners.engine.calibration import BaseCalibration
from learners.engine.generator import Generator
from learners.feedback.critiques import Conversation
from learners.feedback.dataset import FeedbackDataset
from learners.human_reward.head import RewardHead
from learners.human_reward.online import OnlineHumanReward
from learners.model.answer_text import pieces_of
from learners.model.base import Backbone
from learners.model.batches import TokenIds
from learners.model.chat_format import PromptError, continued
from learners.model.checkpoint import Progress
from learners.model.cpu_weights import copied_bytes
from learners.model.loading import load_backbone
from learners.model.lora import LoraSettings, draw_in
from learners.model.replicas import distinct_bytes
from learners.protocol import Error, Event, Load, Loading, Notice, Ready
from learners.rlhf.rollouts import states_before
from storage.records import Message, Sampling
from storage.thoughts import split_thought


@dataclass(frozen=True)
class Parts:
    """What the workers need. The generator and live_reward belong to one thread, the trees to the other."""

    backbone: Backbone
    generator: Generator
    live_reward: OnlineHumanReward
    trees: LearnerTrees
    inputs: LearnerInputs
    sampling: Sampling  # of the learners' own answers, which are drawn plainly
    ready: Ready
    complaints: tuple[Error | Notice, ...] = ()  # to be told once the model is there


def assemble(load: Load, emit: Callable[[Event], None]) -> Parts:
    """Raises ModelError."""
    torch.set_num_threads(1)  # one a working thread: faster for all on few cores, see docs/decisions.md
    backbone = load_backbone(
        load.model, load.quantize, load.device, emit, load.trust_remote_code, load.peft_adapter, load.thinking, load.learn_thoughts
    )
    emit(Loading(what="adapters"))
    settings = LoraSettings()
    actor, policy, reference, reward_tree = backbone.adapter_trees(4, settings, load.seed)
    draw_in(actor, backbone.dtype)
    base = backbone.tree()  # the learner's own; the generator has backbone.model
    shown = sampling_of(load, backbone)
    sampling = shown.plain
    calibration = BaseCalibration.of(backbone, report=Progress(emit))
    features, similarity = calibration.features, calibration.similarity
    if load.unigram:
        features, similarity = replace(features, basis=features.basis[:, :0]), similarity[:, :0]
    head = RewardHead.empty(features)
    generator = Generator(backbone, actor, head, load.nats, load.bias, emit)
    generator.budget.calibrate(calibration.answers)
    dataset = FeedbackDataset(
        backbone.renderer.fit,
        lambda messages, text: encode_answer(backbone, messages, text),
        lambda ids: pieces_of(backbone.renderer, ids, spoken=not load.learn_thoughts),
        backbone.eos_ids,
        backbone.context,
        backbone.spoken,
        backbone.renderer.no_thought,
    )
    live_reward = OnlineHumanReward(dataset, features, lambda p, a: states_before(backbone, backbone.model, p, a), similarity)
    complaints: list[Error | Notice] = [Notice(what=note) for note in backbone.notes]
    train, gate = (usable_prompts(backbone, prompts, sampling, complaints.append) for prompts in (load.train_prompts, load.gate_prompts))
    inputs = LearnerInputs(head, nats=load.nats, bias=load.bias, train_prompts=list(train), gate_prompts=list(gate), conversations=train)
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
        memory_bytes=distinct_bytes(backbone.model, base, actor, policy, reference, reward_tree) + copied_bytes(backbone.model),
        base_bytes=distinct_bytes(backbone.model),
        context=backbone.context,
        chat_template=backbone.chat_template,
        version=load.version,
        weights_sha256=backbone.hashes.weights,
        tokenizer_sha256=backbone.hashes.tokenizer,
        template_sha256=backbone.template_sha256,
        sampling=shown,
        from_model=tuple(name for name in load.unset if name in backbone.drawing),
    )
    return Parts(backbone, generator, live_reward, trees, inputs, sampling, ready, tuple(complaints))


def usable_prompts(
    backbone: Backbone, prompts: Sequence[tuple[Message, ...]], sampling: Sampling, complain: Callable[[Error], None] = lambda error: None
) -> dict[TokenIds, Conversation]:
    """In tokens, with room for an answer. Those that the model cannot read are left out; how many, and why, is told once."""
    found: dict[TokenIds, Conversation] = {}
    refused: list[PromptError] = []
    for prompt in prompts:
        try:
            found[tuple(backbone.fit(prompt, backbone.most_tokens(sampling))[0])] = prompt
        except PromptError as error:
            refused.append(error)
    if refused:
        complain(Error(what=f"{len(refused):,} of {len(prompts):,} prompts cannot be used: {refused[0]}", hint="the others are"))
    return found


def encode_answer(backbone: Backbone, messages: Sequence[Message], text: str) -> list[int]:
    """A written answer in tokens. Where the model only continues a text, people leave out the space before their words."""
    if backbone.renderer.thoughts is not None:
        text = split_thought(text).answer
    if not backbone.chat_template and messages:
        text = continued(messages[-1].content, text)
    return backbone.encode_completion(text)


def sampling_of(load: Load, backbone: Backbone) -> Sampling:
    """Of what the operator sees: as it was asked for, else as the model's own generation settings say. An answer leaves the prompt at least one
    token of the context."""
    by_model = {name: value for name, value in backbone.drawing.items() if name in load.unset}
    return replaced(load.sampling, **by_model, max_new_tokens=min(load.sampling.max_new_tokens, backbone.context - 1))
