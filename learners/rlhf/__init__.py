"""The stages of RLHF: SFT, reward model, distillation, PPO, and their mathematics."""
