"""Shared fixtures: tiny models, built here from a seed; no downloads, no network, no W&B account."""

import os

# Read when huggingface_hub and wandb are imported, so they are set before anything else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
