"""The engine of several processes: DeepSpeed's ZeRO shards optimizer, gradients and weights over them.

Stage 1 shards the optimizer's state, stage 2 the gradients too, stage 3 the weights too (Rajbhandari et al. 2020). The
reference policy and the reward model learn nothing; `frozen_zero_stage=3` shards their weights (ZeRO inference).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from scar.config import PPOConfig, require
from scar.engine.ranks import Ranks, name_this_process
from scar.engine.sharded import SMALL, ZeroLearner, base_config
from scar.engine.spread import SpreadPolicy, SpreadRewardModel, SpreadScorer
from scar.interfaces import CoalitionScorer, Policy
from scar.packages import require_installed


def start(*, cuda: bool) -> Any:
    """Join the other processes; returns the deepspeed package."""
    require_installed("deepspeed", extra="deepspeed", why="engine=deepspeed")
    name_this_process(cuda=cuda)
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module="torch.distributed"
    )  # its use of older collectives
    import deepspeed
    import deepspeed.ops

    if not cuda:
        # DeepSpeed would compile a shared-memory operation for a minute, which training does not use. The table is its own.
        getattr(deepspeed.ops, "__compatible_ops__", {})["deepspeed_shm_comm"] = False
    deepspeed.logger.setLevel("ERROR")
    deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", verbose=False)
    return deepspeed


class DeepSpeedEngine:
    """ZeRO `zero_stage` for policy and value, 0 or 3 (`frozen_zero_stage`) for reference policy and reward model.

    `offload_optimizer`: optimizer state in the host's memory; `offload_parameters`: sharded weights too (stage 3).
    """

    def __init__(
        self,
        *,
        zero_stage: int,
        frozen_zero_stage: int,
        offload_optimizer: bool,
        offload_parameters: bool,
        device: str,
    ) -> None:
        require(zero_stage in (1, 2, 3), f"engine.zero_stage={zero_stage}", "1, 2 or 3")
        require(frozen_zero_stage in (0, 3), f"engine.frozen_zero_stage={frozen_zero_stage}", "0 or 3")
        needs = not offload_parameters or zero_stage == 3
        require(needs, f"engine.offload_parameters=true with zero_stage={zero_stage}", "zero_stage=3")
        self._settings = {"zero_stage": zero_stage, "frozen_zero_stage": frozen_zero_stage}
        self._settings |= {"offload_optimizer": offload_optimizer, "offload_parameters": offload_parameters}
        self._deepspeed = start(cuda=device != "cpu" and torch.cuda.is_available())
        self._ranks = Ranks()
        self.processes, self.is_main = self._ranks.count, self._ranks.rank == 0
        self._unsettled: list[nn.Module] = []

    def _zero(self, stage: int) -> dict[str, Any]:
        host, settings = {"device": "cpu"}, self._settings
        offload = {"offload_optimizer": host} if settings["offload_optimizer"] else {}
        return {"stage": stage} | offload | ({"offload_param": host} if settings["offload_parameters"] else {})

    def _gathered(self, parameters: Iterable[nn.Parameter]) -> Any:
        """Context in which sharded parameters are whole; nothing where they are not sharded."""
        sharded = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
        return self._deepspeed.zero.GatheredParameters(sharded) if sharded else nullcontext()

    def _all_of(self, module: nn.Module) -> Any:
        return self._gathered(module.parameters())

    def _small_of(self, module: nn.Module) -> Any:
        return self._gathered(p for p in module.parameters() if getattr(p, "ds_numel", SMALL) < SMALL)

    def learner(self, policy: Any, config: PPOConfig) -> ZeroLearner:
        """See Engine."""
        zero = self._zero(self._settings["zero_stage"])
        return ZeroLearner(self._deepspeed, policy, config, self._ranks, zero=zero)

    def sampled(self, policy: Any) -> Policy:
        """See Engine."""
        return SpreadPolicy(policy, self._ranks, whole=partial(self._all_of, policy), evaluating=nullcontext)

    def frozen(self, policy: Any) -> Policy:
        """See Engine. A reference that shares the policy's weights is sharded with it."""
        shared = policy.shares_weights
        if not shared:
            self._unsettled.append(policy)
        evaluating = partial(self._all_of if shared else self._small_of, policy)
        return SpreadPolicy(policy, self._ranks, whole=partial(self._all_of, policy), evaluating=evaluating)

    def reward_model(self, model: Any) -> SpreadRewardModel:
        """See Engine."""
        self._unsettled.append(model)
        return SpreadRewardModel(model, self._ranks, reading=partial(self._small_of, model))

    def scorer(self, scorer: CoalitionScorer, model: Any) -> SpreadScorer:
        """See Engine. Coalitions are scored by code that reads the weights itself, so they are whole meanwhile."""
        return SpreadScorer(scorer, self._ranks, whole=partial(self._all_of, model))

    def settle(self) -> None:
        """Shard the frozen models."""
        for module in self._unsettled if self._settings["frozen_zero_stage"] == 3 else []:
            narrow = next(module.parameters()).dtype == torch.bfloat16
            self._deepspeed.initialize(model=module, config=base_config({"stage": 3}) | {"bf16": {"enabled": narrow}})
            module.eval()
        self._unsettled = []

    def merge(self, row: dict[str, Any], costs: dict[str, float]) -> dict[str, Any]:
        """See Engine. RuntimeError when the processes do not have the same row: they no longer train one policy."""
        found = self._ranks.objects((row, costs))
        others = [name for name in row if any(part.get(name) != row[name] for part, _ in found)]
        if others:
            raise RuntimeError(
                f"the processes disagree on {', '.join(others)}: {[{n: part.get(n) for n in others} for part, _ in found]}"
            )
        spent = [part for _, part in found]
        return row | {
            name: (max if name.startswith("memory/") else sum)(part.get(name, 0.0) for part in spent) for name in costs
        }

    def agreed(self, value: Any) -> Any:
        """See Engine."""
        return self._ranks.objects(value)[0]

    def any(self, flag: bool) -> bool:
        """See Engine."""
        return any(self._ranks.objects(flag))

    def describe(self) -> dict[str, Any]:
        """See Engine."""
        return {"name": "deepspeed", "processes": self.processes, **self._settings}
