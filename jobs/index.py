"""Build Lucene shards from a corpus with Ray Data.

    ray job submit --working-dir . -- \
      python jobs/index.py --corpus beir:/mnt/data --out /mnt/run/index --shards 4

With --merge, /mnt/run/index/merged is one Lucene index of the whole corpus, which plain Pyserini opens.
"""

import sys

from r2r.cli import main

if __name__ == "__main__":
    sys.exit(main(["index", *sys.argv[1:]]))
