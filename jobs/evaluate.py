"""Measure TREC runs and write the report.

    ray job submit --working-dir . -- \
      python jobs/evaluate.py --qrels beir:/mnt/data --run bm25=/mnt/run/retrieve/run.txt --out /mnt/run/evaluate
"""

from r2r.cli import job

job(__name__, __file__)
