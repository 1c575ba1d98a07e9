"""Print how many runs this machine computes at a time: `jobs.py THREADS`, a run with so many cores and 2 GB.

A run of scale=local takes 1.5 to 1.7 GB.
"""

import os
import sys

affinity = getattr(os, "sched_getaffinity", None)  # Linux alone
cores = len(affinity(0)) if affinity else os.cpu_count() or 1
memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
sys.stdout.write(f"{max(1, min(cores // int(sys.argv[1]), int(memory / 2e9)))}\n")
