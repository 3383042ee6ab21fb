"""Serve the student with Ray Serve, behind POST /v1/rerank.

    ray job submit --working-dir . -- \
      python jobs/serve.py --student demo --adapter /mnt/run/distill
"""

import sys

from r2r.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
