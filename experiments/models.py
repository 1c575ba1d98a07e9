"""Train the models that a task's runs start from, unless they are cached: `python experiments/models.py task=imdb`.

One of them: `model=policy` (SFT) or `model=reward`. Several tasks side by side: `experiment=models task=imdb,tldr`.
"""

import hydra
from omegaconf import DictConfig

from scar.commands.cli import one_line_errors, run_script


@hydra.main(config_path="../conf", config_name="models", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Train the models that the composed config names."""
    from scar.commands.models import SETTINGS, make_model  # here, so that the parent of a sweep loads no torch
    from scar.commands.settings import prepared

    with one_line_errors():
        make_model(prepared(cfg, SETTINGS), cfg.model)


if __name__ == "__main__":
    run_script(main)
