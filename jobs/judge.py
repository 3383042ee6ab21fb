r"""Measure the reasons of a ranking or of annotations.

    ray job submit --working-dir . -- \
      python jobs/judge.py --rankings /mnt/run/rerank --candidates /mnt/run/retrieve --out /mnt/run/judge
"""

from r2r.cli import job

job(__name__, __file__)
