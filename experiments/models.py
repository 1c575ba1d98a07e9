"""Train the models that a task's runs start from, unless they are cached: `python experiments/models.py task=imdb`.

One of them: `model=policy` (SFT) or `model=reward`. Several tasks side by side: `experiment=models task=imdb,tldr`.
"""

import hydra
from omegaconf import DictConfig

from scar.commands.cli import run_script


@hydra.main(config_path="../conf", config_name="models", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Train the models that the composed config names."""
    from scar.commands.models import make_model  # here, so that the parent of a sweep loads no torch

    make_model(cfg, cfg.model)


if __name__ == "__main__":
    run_script(main)
