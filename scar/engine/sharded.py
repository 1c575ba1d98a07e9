"""What several processes learn together: a policy with its Adam, sharded by DeepSpeed's ZeRO, and its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scar.config import PPOConfig, require
from scar.engine.ranks import Ranks
from scar.engine.single import WEIGHTS, GradientCheck, adam, copy_weights, trained_parameters
from scar.interfaces import Policy, PolicyOutput
from scar.types import PromptBatch

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
        parts = self._ranks.objects(dict(sums))
        return {name: sum(part[name] for part in parts) for name in sums}

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
