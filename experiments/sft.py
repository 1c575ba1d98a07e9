"""Train the SFT policy of a local scale unless it is cached: `python experiments/sft.py task=imdb`."""

import hydra
from omegaconf import DictConfig

from scar.commands.cli import run_script


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Train the model of the composed config."""
    from scar.commands.models import make_model  # here, so that the parent of a sweep loads no torch

    make_model(cfg, "policy")


if __name__ == "__main__":
    run_script(main)
