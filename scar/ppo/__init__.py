"""The PPO loop: sampling and scores, advantages, losses, the update, evaluation."""
