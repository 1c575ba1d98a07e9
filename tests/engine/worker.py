"""One process of a launch: trains the run of its Hydra overrides and saves what it learned in a folder.

torchrun ... -m tests.engine.worker FOLDER DYING override ...   DYING: a process that has an error in update 4, or "none"
"""

import os
import sys
from pathlib import Path
from typing import Any

from scar.cli import run_script
from scar.run import train_run
from scar.trainer import Trainer
from tests.smoke_scale import composed

weights, dying, *overrides = sys.argv[1:]
train, run_update = Trainer.train, Trainer.run_update


def saving(self: Trainer, *arguments: Any, **options: Any) -> None:
    train(self, *arguments, **options)
    Path(weights).mkdir(parents=True, exist_ok=True)
    self.updater.learner.save(Path(weights))


def mortal(self: Trainer, update: int) -> dict[str, Any]:
    if update == 4 and dying == os.environ.get("RANK"):
        raise ValueError("an error of this process alone")
    return run_update(self, update)


Trainer.train, Trainer.run_update = saving, mortal  # type: ignore[method-assign]
run_script(lambda: train_run(composed(*overrides)))
