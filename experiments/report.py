"""Draw a table or figure from finished runs: `python experiments/report.py table1 --scale local --seeds 1,2,3`."""

import argparse
import re
import sys
from pathlib import Path

from scar.report import outputs, selection
from scar.tracking.records import find_records

names = re.compile(r"[^\s,]+").findall  # what stands between commas


def seeds(text: str) -> list[int]:
    """Numbers between commas, or Hydra's `range(1,6)`."""
    parts = re.fullmatch(r"range\((.*)\)", text.strip())
    return list(range(*map(int, parts[1].split(",")))) if parts else [int(name) for name in names(text)]


def report(args: argparse.Namespace) -> str:
    """Write the target's files; return its table and the paths of the files."""
    wanted = {"task": args.tasks, "method": args.methods, "seed": args.seeds, "model_seed": args.model_seed}
    wanted = {"scale": args.scale} | {key: value for key, value in wanted.items() if value is not None}
    settings = {key: getattr(args, key) for key in selection.READ_BY}
    records = selection.narrow(find_records(Path(args.runs), **wanted), **settings)
    if not records:
        shown = ", ".join(f"{key}={value}" for key, value in (wanted | settings).items() if value is not None)
        raise ValueError(f"no run in {args.runs} has {shown}; make reproduce-table1 SCALE={args.scale} makes them")
    sweep, which = args.target == "sweep", {key: getattr(args, key) for key in ("tasks", "methods", "seeds")}
    files = outputs.sweep_files(records, name=args.name) if sweep else outputs.table1_files(records, **which)
    paths = outputs.write_files(Path(args.results) / args.scale, files)
    return files[f"{args.name if sweep else args.target}.md"].decode() + "".join(f"wrote {path}\n" for path in paths)


def main() -> int:
    """Run from the command line: 0, or 2 and one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=["table1", "sweep"], help="table1: with Figure 2; sweep: a row a setting")
    parser.add_argument("--scale", default="local", help="smoke, local, small or paper")
    parser.add_argument("--runs", default="runs", help="folder of run records")
    parser.add_argument("--results", default="results", help="folder to write into")
    parser.add_argument("--name", default="sweep", help="sweep: the files' name")
    parser.add_argument("--tasks", type=names, help="such as imdb,tldr (default: all that have runs)")
    parser.add_argument("--methods", type=names, default=list(selection.METHODS), help="such as sparse,scar")
    parser.add_argument("--seeds", type=seeds, default=[1, 2, 3, 4, 5], help="such as 1,2,3 or range(1,6)")
    parser.add_argument("--model-seed", type=int, help="seed of the SFT policy and the reward model")
    parser.add_argument("--alpha", type=float, help="keep these of abc and scar's runs, if several differ")
    parser.add_argument("--estimator", help="keep these of scar's runs")
    parser.add_argument("--segmentation", help="keep these of scar's runs")
    parser.add_argument("--device", help="keep runs on cpu or cuda")
    try:
        sys.stdout.write(report(parser.parse_args()))
        return 0
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
