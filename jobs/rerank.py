r"""Rerank candidates with the student, and explain the first of them.

    ray job submit --working-dir . -- \
      python jobs/rerank.py --candidates /mnt/run/retrieve --student demo --adapter /mnt/run/distill \
      --out /mnt/run/rerank --explain 3
"""

import sys

from r2r.cli import main

if __name__ == "__main__":
    sys.exit(main(["rerank", *sys.argv[1:]]))
