"""The command line of experiments/report.py: a target, and NAME=VALUE as everywhere in this repository."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scar.report.items import TARGETS
from scar.report.selection import METHODS, READ_BY
from scar.report.sources import Sources

FOLDERS = ("units", "critic", "credit", "judgements")
_names = re.compile(r"[^\s,]+").findall  # what stands between commas


@dataclass(frozen=True)
class Request:
    """What a user asks for. `records` is a folder, or names where in W&B the records are; `sources` holds the rest."""

    target: str
    records: str
    sources: Sources
    results: Path
    name: str


def seeds(text: str) -> list[int]:
    """Numbers between commas, or Hydra's `range(1,6)`."""
    parts = re.fullmatch(r"range\((.*)\)", text.strip())
    return list(range(*map(int, parts[1].split(",")))) if parts else [int(name) for name in _names(text)]


def parse(arguments: Sequence[str], *, description: str | None) -> Request:
    """Read the command line; a usage error ends the program with status 2."""
    parser = _parser(description)
    args = parser.parse_args([f"--{text}" if re.match(r"[a-z_]+=", text) else text for text in arguments])
    sources = Sources(
        scale=args.scale,
        tasks=args.tasks,
        methods=args.methods,
        seeds=args.seeds,
        model_seed=args.model_seed,
        judge=args.judge,
        settings={key: getattr(args, key) for key in READ_BY},
        **{folder: Path(getattr(args, folder)) for folder in FOLDERS},
    )
    return Request(args.target, args.records, sources, Path(args.results), args.name)


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, usage="report.py [TARGET] [NAME=VALUE ...]")
    parser.add_argument("target", nargs="?", default="all", choices=TARGETS, help="default: all, with report.html")
    parser.add_argument("--scale", default="local", help="smoke, local, small or paper")
    parser.add_argument("--records", default="runs", help="a folder, wandb:ENTITY/PROJECT or wandb-offline:PATH")
    for folder in FOLDERS:
        default = Sources.__dataclass_fields__[folder].default
        parser.add_argument(f"--{folder}", default=str(default), help=f"folder (default {default})")
    parser.add_argument("--results", default="results", help="folder to write into")
    parser.add_argument("--name", default="sweep", help="sweep: the files' name")
    parser.add_argument("--tasks", type=_names, help="such as imdb,tldr (default: all that have runs)")
    parser.add_argument("--methods", type=_names, default=list(METHODS), help="such as sparse,scar")
    parser.add_argument("--seeds", type=seeds, default=[1, 2, 3, 4, 5], help="such as 1,2,3 or range(1,6)")
    parser.add_argument("--model_seed", type=int, help="seed of the SFT policy and the reward model")
    parser.add_argument("--judge", help="table2: of several judges this one, such as reward_model")
    parser.add_argument("--alpha", type=float, help="keep these of abc and scar's runs, if several differ")
    for key in ("estimator", "segmentation"):
        parser.add_argument(f"--{key}", help="keep these of scar's runs")
    parser.add_argument("--device", help="keep runs on cpu or cuda")
    return parser
