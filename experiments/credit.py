"""Credit of one text, token by token, or of many: `python experiments/credit.py source=run run=runs/.../seed1-... sample=3`."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scar.commands.cli import one_line_errors, run_script, training_bar
from scar.printing import say
from scar.report.credit import load_credit
from scar.report.credit_items import write_credit


@hydra.main(config_path="../conf", config_name="credit", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Compute the record unless it is there, and draw it."""
    from scar.commands.credit import SETTINGS, make_credit
    from scar.commands.settings import prepared

    with one_line_errors():
        folder = make_credit(prepared(cfg, SETTINGS), HydraConfig.get().overrides.task, start_progress=training_bar)
        paths = write_credit(load_credit(folder), Path(cfg.paths.results))
        say("".join(f"wrote {path}\n" for path in (folder, *paths)))


if __name__ == "__main__":
    run_script(main)
