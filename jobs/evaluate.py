"""Measure TREC runs and write the report.

    ray job submit --working-dir . -- \
      python jobs/evaluate.py --qrels beir:scifact --run bm25=runs/scifact/retrieve/run.txt --out runs/scifact/evaluate
"""

import sys

from r2r.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
