"""The engine of several processes: DeepSpeed's ZeRO shards optimizer, gradients and weights over them.

Stage 1 shards the optimizer's state, stage 2 the gradients too, stage 3 the weights too (Rajbhandari et al. 2020). The
reference policy and the reward model learn nothing; `frozen_zero_stage=3` shards their weights (ZeRO inference).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scar.config import PPOConfig, require
from scar.engine.single import WEIGHTS, GradientCheck, adam, copy_weights, trained_parameters
from scar.engine.spread import Ranks, SpreadPolicy, SpreadRewardModel, SpreadScorer, name_this_process
from scar.interfaces import CoalitionScorer, Policy, PolicyOutput
from scar.packages import require_installed
from scar.types import PromptBatch


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


def state_bytes(
    stage: int,
    trained: int,
    largest_layer: int,
    *,
    gpus_a_node: int,
    nodes: int,
    offload_optimizer: bool,
    offload_parameters: bool,
) -> float:
    """DeepSpeed's own estimate, in bytes per GPU, of weights, gradients and Adam's state at ZeRO 2 or 3 in 16-bit training:
    `trained` parameters, of which a layer has `largest_layer` at most. Needs no GPU and no other process."""
    _import_quietly()
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    gpus = {"num_gpus_per_node": gpus_a_node, "num_nodes": nodes, "cpu_offload": offload_optimizer}
    if stage == 2:
        return estimate_zero2_model_states_mem_needs(trained, **gpus)[1]
    return estimate_zero3_model_states_mem_needs(trained, largest_layer, **gpus, cpu_offload_params=offload_parameters)[
        1
    ]


def reduce_bucket_numbers() -> int:
    """Gradients that DeepSpeed collects before it reduces them, by default."""
    _import_quietly()
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    return DeepSpeedZeroConfig().reduce_bucket_size


def _import_quietly() -> None:
    """Import deepspeed without its warning that it found no GPU."""
    logging.disable(logging.WARNING)
    try:
        import deepspeed  # noqa: F401
    finally:
        logging.disable(logging.NOTSET)


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
        rows, costs_of_ranks = zip(*self._ranks.objects((row, costs)), strict=True)
        differing = [name for name in row if any(other.get(name) != row[name] for other in rows)]
        if differing:
            values = [{name: other.get(name) for name in differing} for other in rows]
            raise RuntimeError(f"the processes disagree on {', '.join(differing)}: {values}")
        return row | {
            name: (max if name.startswith("memory/") else sum)(spent.get(name, 0.0) for spent in costs_of_ranks)
            for name in costs
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


# What several processes learn together: a policy with its Adam, sharded by DeepSpeed's ZeRO, and its checkpoints.


SMALL = 100_000
"""Parameters of fewer numbers (norms, biases, heads) are not sharded while a model computes: DeepSpeed's own threshold."""


def base_config(zero: dict[str, Any]) -> dict[str, Any]:
    """What all configurations of DeepSpeed here have in common. The batch sizes are placeholders: the loop decides how many
    backward passes make a step (`managed_gradient_accumulation`), and DeepSpeed has no say in it."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "zero_optimization": zero | {"stage3_param_persistence_threshold": SMALL, "overlap_comm": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }


class _Trained(nn.Module):
    """The policy as stages 1 and 2 see it: the parameters that are trained. What is frozen may be of any number type."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.trained = nn.ParameterList(trained_parameters(policy).values())
        self._call = [policy]  # no child, or its frozen parameters would be DeepSpeed's too

    def forward(self, *inputs: Tensor) -> Any:
        return self._call[0](*inputs)


class _Adam(torch.optim.AdamW):
    """Adam whose next steps can be left out: DeepSpeed then goes through all of a step but changes nothing."""

    skip = False

    def step(self, closure: Any = None) -> None:
        if not self.skip:
            super().step(closure)


class ZeroLearner:
    """A policy whose optimizer, gradients and (stage 3) weights are sharded over the processes."""

    def __init__(self, deepspeed: Any, policy: Any, config: PPOConfig, ranks: Ranks, *, zero: dict[str, Any]) -> None:
        self._ranks = ranks
        share, self._stage = config.minibatch_size, zero["stage"]
        require(
            share % ranks.count == 0,
            f"ppo.minibatch_size={share} with {ranks.count} processes",
            f"a minibatch that {ranks.count} processes can share evenly",
        )
        self._deepspeed = deepspeed
        self._parameters = trained_parameters(policy)
        self._adam = adam(list(self._parameters.values()), config, _Adam)
        self._check_gradients = GradientCheck(self._parameters)
        self._engine = deepspeed.initialize(
            model=policy if self._stage == 3 else _Trained(policy),
            optimizer=self._adam,
            config=base_config(zero) | {"gradient_clipping": config.max_grad_norm or 0.0},
        )[0]
        policy.eval()
        self.policy: Policy = _Training(policy, self._engine)

    def share(self, rows: Tensor) -> Tensor:
        """See Learner."""
        return rows[self._ranks.share(len(rows)).to(rows.device)]

    def add_up(self, sums: dict[str, float]) -> dict[str, float]:
        """See Learner."""
        sums_of_ranks = self._ranks.objects(dict(sums))
        return {name: sum(rank_sums[name] for rank_sums in sums_of_ranks) for name in sums}

    def backward(self, loss: Tensor) -> None:
        """See Learner. DeepSpeed takes the mean over the processes."""
        self._engine.backward(loss * self._ranks.count)

    def set_learning_rate(self, rate: float) -> None:
        """See Learner."""
        for group in self._adam.param_groups:
            group["lr"] = rate

    def step(self, *, skip: bool) -> float:
        """See Learner."""
        if not skip:
            self._check_gradients()
        self._adam.skip = skip
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def _whole(self) -> Any:
        return self._deepspeed.zero.GatheredParameters(list(self._parameters.values()))

    def _partitions(self) -> list[Tensor]:
        """The float32 numbers that this process optimizes: flat pieces of all parameters."""
        zero = self._engine.optimizer
        return zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups

    def held_bytes(self) -> dict[str, int]:
        """See Learner."""
        weights = [getattr(parameter, "ds_tensor", parameter) for parameter in self._parameters.values()]
        state = [tensor for state in self._adam.state.values() for tensor in state.values()]
        return {
            "weights": sum(tensor.nbytes for tensor in weights),
            "optimizer": sum(tensor.nbytes for tensor in [*self._partitions(), *state]),
        }

    def _shard(self, folder: Path) -> Path:
        return folder / f"optimizer-{self._ranks.rank + 1:05d}-of-{self._ranks.count:05d}.safetensors"

    def save(self, folder: Path) -> None:
        """`weights.safetensors` by the main process, and each process's piece of optimizer and float32 weights."""
        with self._whole():
            if self._ranks.rank == 0:
                save_file({name: p.detach().contiguous() for name, p in self._parameters.items()}, folder / WEIGHTS)
        tensors: dict[str, Tensor] = {}
        for number, piece in enumerate(self._partitions()):
            state = {"weights": piece.detach(), **self._adam.state.get(piece, {})}
            tensors |= {f"{number}/{key}": value.contiguous() for key, value in state.items()}
        save_file(tensors, self._shard(folder))

    def load(self, folder: Path) -> None:
        """See Learner."""
        with self._deepspeed.zero.GatheredParameters(list(self._parameters.values()), modifier_rank=0):
            copy_weights(dict(self._parameters), load_file(folder / WEIGHTS))
        pieces = self._partitions()
        for name, tensor in load_file(self._shard(folder)).items():
            number, key = name.split("/")
            piece = pieces[int(number)]
            if key == "weights":
                piece.data.copy_(tensor)
            else:
                self._adam.state[piece][key] = tensor if key == "step" else tensor.to(piece.device)


class _Training:
    """The policy with gradients, called through DeepSpeed's engine."""

    def __init__(self, policy: Any, engine: Any) -> None:
        self.eos_id, self.pad_id, self.vocabulary = policy.eos_id, policy.pad_id, policy.vocabulary
        self.decoder = policy.decoder
        self._engine = engine

    def evaluate(self, prompts: PromptBatch, response_ids: Tensor, response_mask: Tensor) -> PolicyOutput:
        """See Policy."""
        return PolicyOutput(*self._engine(prompts.prompt_ids, prompts.prompt_mask, response_ids, response_mask))
