"""The hub's repositories of every task, made once for all proofs of this folder."""

from __future__ import annotations

from typing import Any

import pytest

from scar.commands.models import prepare_model
from scar.commands.train import train_run
from scar.tracking.records import RunRecord
from tests.paper_scale.hub import BUILD
from tests.smoke_scale import composed, silent_progress

BATCH = {"imdb": (4, 4), "tldr": (4, 2), "hh": (4, 2)}
"""Episodes an update and rows a microbatch."""


class Hub:
    """The repositories of one task in a folder, and runs on them."""

    def __init__(self, task: str, root: Any) -> None:
        self.task, self.root = task, root
        self.overrides = BUILD[task](root)

    def config(self, *overrides: str) -> Any:
        batch, micro = BATCH[self.task]
        sizes = [f"ppo.batch_size={batch}", f"ppo.minibatch_size={batch}", f"ppo.microbatch_size={micro}"]
        # Nobody has the parser's English models here; untrained models never end a response.
        parser = ["parser=chunk"] + (["task.scoring.missing_eos_score=null"] if self.task == "tldr" else [])
        paths = [f"paths.runs={self.root}/runs", f"paths.cache={self.root}/cache", "tracker=jsonl", "device=cpu"]
        few = ["ppo.updates=2", "evaluation.prompts=4", "evaluation.batch_size=4"]
        return composed("scale=paper", f"task={self.task}", *self.overrides, *sizes, *parser, *paths, *few, *overrides)

    def train(self, *overrides: str) -> RunRecord:
        return RunRecord(train_run(self.config(*overrides)))


class Hubs(dict[str, Hub]):
    """The hub of each task, made when it is first asked for; tldr's models are trained."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory

    def __missing__(self, task: str) -> Hub:
        hub = Hub(task, self._factory.mktemp(task))
        for kind in ("policy", "reward") if task == "tldr" else ():
            assert prepare_model(hub.config(), kind, start_progress=silent_progress) is not None
        return self.setdefault(task, hub)


@pytest.fixture(scope="session")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> Hubs:
    return Hubs(tmp_path_factory)
