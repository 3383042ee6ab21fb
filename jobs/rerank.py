r"""Rerank candidates with the student, and explain the first of them.

    ray job submit --working-dir . -- \
      python jobs/rerank.py --candidates runs/scifact/retrieve --student demo --adapter runs/scifact/distill \
        --out runs/scifact/rerank --explain 3
"""

import sys

from r2r.cli import main

if __name__ == "__main__":
    sys.exit(main(["rerank", *sys.argv[1:]]))
