"""Search the shards with BM25: candidates and a TREC run.

    ray job submit --working-dir . -- \
      python jobs/retrieve.py --index runs/scifact/index --queries beir:scifact --k 100 --out runs/scifact/retrieve
"""

import sys

from r2r.cli import main

if __name__ == "__main__":
    sys.exit(main(["retrieve", *sys.argv[1:]]))
