"""One process of a launch: trains the runs of its Hydra overrides one after the other and saves what each learned in a folder.

torchrun ... -m tests.engine.worker FOLDER FAULT override ... [-- FOLDER FAULT override ...]
FAULT: "none"; the number of a process that has an error in update 4; or "unused": the policy gets a parameter without a say.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scar.commands.build import Parts
from scar.commands.cli import run_script
from scar.commands.train import train_run
from scar.ppo.trainer import Trainer
from tests.smoke_scale import composed

weights, fault = "", ""
train, run_update, build_policy = Trainer.train, Trainer.run_update, Parts.policy


def saving(self: Trainer, *arguments: Any, **options: Any) -> None:
    train(self, *arguments, **options)
    Path(weights).mkdir(parents=True, exist_ok=True)
    self.updater.learner.save(Path(weights))


def mortal(self: Trainer, update: int) -> dict[str, Any]:
    if update == 4 and fault == os.environ.get("RANK"):
        raise ValueError("an error of this process alone")
    return run_update(self, update)


def with_unused(self: Parts) -> Any:
    policy = build_policy(self)
    policy.unused = torch.nn.Parameter(torch.zeros(3))
    return policy


Trainer.train, Trainer.run_update = saving, mortal  # type: ignore[method-assign]
for run in "\n".join(sys.argv[1:]).split("\n--\n"):
    weights, fault, *overrides = run.split("\n")
    Parts.policy = with_unused if fault == "unused" else build_policy  # type: ignore[method-assign]
    run_script(partial(train_run, composed(*overrides)))
