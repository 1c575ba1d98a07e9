"""Draw a credit record again, without any model: `python experiments/show_credit.py credit/local/imdb/sft-... --item 3`."""

import argparse
import sys
from pathlib import Path

from scar.printing import ended, say
from scar.report.credit import load_credit
from scar.report.credit_items import write_credit


def show(args: argparse.Namespace) -> str:
    """Write the record's files; return their paths."""
    paths = write_credit(load_credit(Path(args.record)), Path(args.results), item=args.item)
    return "".join(f"wrote {path}\n" for path in paths)


def main() -> int:
    """Run from the command line: 0, or 2 and one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", help="folder of a credit record, as experiments/credit.py names it")
    parser.add_argument("--item", type=int, help="draw Figure 1 of this response of the record, from 0")
    parser.add_argument("--results", default="results", help="folder to write into")
    try:
        say(show(parser.parse_args()))
        return ended(0)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
