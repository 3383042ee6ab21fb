"""Search the shards with BM25: candidates and a TREC run.

    ray job submit --working-dir . -- \
      python jobs/retrieve.py --index /mnt/run/index --queries beir:/mnt/data --k 100 --out /mnt/run/retrieve
"""

import sys

from r2r.cli import main

if __name__ == "__main__":
    sys.exit(main(["retrieve", *sys.argv[1:]]))
