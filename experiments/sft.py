"""Train the SFT policy of a local scale unless it is cached: `python experiments/sft.py task=imdb`."""

import hydra
from omegaconf import DictConfig

from scar.cli import one_line_errors, run_script, show_report, training_bar
from scar.run import prepare_model


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Train the policy of the composed config."""
    with one_line_errors():
        show_report("policy", prepare_model(cfg, "policy", start_progress=training_bar))


if __name__ == "__main__":
    run_script(main)
