"""The gold reward model of a config: it judges finished runs, and no policy was trained against it.

At a local scale it is trained here, on rows that no other model learns from (scar/supervised/store.py); else it is a checkpoint
that the config names.
"""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig

from scar.build import build_task, local_models, resolve_device
from scar.models.reward import SequenceRewardModel
from scar.parts import load_reward_model


def gold_reward_model(cfg: DictConfig) -> tuple[SequenceRewardModel, Any, dict[str, Any]]:
    """The gold reward model, its tokenizer, and what a record says of it: fingerprint and quality report, or name.

    Raises FileNotFoundError with the command that trains it when it is missing, ValueError when the config names none.
    """
    device = resolve_device(cfg.device)
    name, described = _find(cfg, device)
    model, tokenizer = load_reward_model(name, rows_a_batch=cfg.models.reward.rows_a_batch, device=device)
    return model, tokenizer, described


def _find(cfg: DictConfig, device: torch.device) -> tuple[str, dict[str, Any]]:
    if cfg.models.source == "scratch":
        models = local_models(cfg, build_task(cfg), device, gold=True)
        folder = models.folder("reward")
        return str(folder), {"fingerprint": models.fingerprint("reward"), "report": models.report("reward")}
    name = cfg.models.gold.name
    own = [cfg.models[kind].get("name") for kind in ("policy", "reward")]  # None: models that are trained here
    if not isinstance(name, str) or name in own:
        raise ValueError(
            f"models.gold.name={name}; allowed: a reward model on the hub, or its folder, that no policy was trained against "
            f"(not {own[1]}): it judges the runs of task={cfg.task.name}"
        )
    return name, {"name": name}
