"""Build Lucene shards from a corpus with Ray Data.

    ray job submit --working-dir . -- \
      python jobs/index.py --corpus beir:/mnt/data --out /mnt/run/index --shards 4

With --merge, /mnt/run/index/merged is one Lucene index of the whole corpus, which plain Pyserini opens.
"""

from r2r.cli import job

job(__name__, __file__)
