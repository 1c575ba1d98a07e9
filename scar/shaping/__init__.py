"""Reward shaping: how a method splits the score (methods), and how the split becomes PPO's reward (rewards)."""
