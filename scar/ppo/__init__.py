"""PPO from scratch: masked statistics, advantages, losses, KL control, the update."""
