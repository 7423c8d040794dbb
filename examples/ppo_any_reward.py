"""PPO against any reward you can write as a function: `python examples/ppo_any_reward.py MODEL_DIRECTORY [ITERATIONS]`."""

import sys

import torch

from learners.model.loading import load_backbone
from learners.rlhf.ppo import PPO
from storage.records import Message, Sampling

backbone = load_backbone(sys.argv[1])
openings = ("a little dog", "a brave girl", "an old king", "a shy mouse")
prompts = [tuple(backbone.encode((Message("user", f"Once upon a time, there was {x}"),))) for x in openings]


def reward(prompts, answers):
    """One score for each answer, scaled to a deviation of about 1: here, how often somebody is happy or plays."""
    texts = [backbone.decode(answer) for answer in answers]
    return torch.tensor([1.0 * (text.count("happy") + text.count("play")) for text in texts])


policy, reference = backbone.adapter_tree(seed=0), backbone.tree()
ppo = PPO(policy, reference, reward, seed=0, backbone=backbone, sampling=Sampling(max_new_tokens=64))
for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 30):
    batch = ppo.rollout(prompts, 8)
    stats = ppo.step(batch)
    print(f"reward {stats.reward:.2f}   {stats.kl:.1f} nats from the reference")
