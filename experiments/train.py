"""Train one run, or with --multirun or experiment=... a sweep: `python experiments/train.py shaping=scar seed=3`."""

import hydra
from omegaconf import DictConfig

from scar.commands.cli import one_line_errors, run_script


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run the composed config."""
    from scar.commands.settings import prepared
    from scar.commands.train import train_run

    with one_line_errors():
        train_run(prepared(cfg))


if __name__ == "__main__":
    run_script(main)
