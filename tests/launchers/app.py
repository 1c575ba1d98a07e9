"""A script as those in experiments/, with their config, whose runs take no time: a file says what happened to each.

The first time that seed 1 is run, its process gets the signal that SLURM sends before the time limit.
"""

import os
import signal
from pathlib import Path

import hydra
from omegaconf import DictConfig

from scar.commands.cli import run_script


@hydra.main(config_path="../../conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Note a start, and an end unless the signal ends the process."""
    notes = Path(cfg.paths.runs) / f"seed{cfg.seed}.txt"
    first = not notes.exists()
    with notes.open("a") as file:
        file.write("start\n")
    if first and cfg.seed == 1:
        os.kill(os.getpid(), signal.SIGUSR2)
    with notes.open("a") as file:
        file.write("end\n")


if __name__ == "__main__":
    run_script(main)
