"""Measure TREC runs and write the report.

    ray job submit --working-dir . -- \
      python jobs/evaluate.py --qrels beir:/mnt/data --run bm25=/mnt/run/retrieve/run.txt --out /mnt/run/evaluate
"""

import sys

from r2r.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
