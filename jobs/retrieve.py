"""Search the shards with BM25: candidates and a TREC run.

    ray job submit --working-dir . -- \
      python jobs/retrieve.py --index /mnt/run/index --queries beir:/mnt/data --k 100 --out /mnt/run/retrieve
"""

from r2r.cli import job

job(__name__, __file__)
