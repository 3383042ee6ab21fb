r"""Have a teacher write training queries for a corpus that has none.

    ray job submit --working-dir . -- \
      python jobs/queries.py --corpus beir:/mnt/data --index /mnt/run/index --teacher demo --n 1000 \
      --out /mnt/run/queries
"""

from r2r.cli import job

job(__name__, __file__)
