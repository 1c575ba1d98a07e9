"""Train the local models of several tasks, side by side: `python experiments/models.py experiment=models task=imdb,tldr`."""

import hydra
from omegaconf import DictConfig

from scar.commands.cli import run_script


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Train one model of one task."""
    from scar.commands.models import make_model  # here, so that the parent of a sweep loads no torch

    make_model(cfg, cfg.model)


if __name__ == "__main__":
    run_script(main)
