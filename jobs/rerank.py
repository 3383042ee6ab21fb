r"""Rerank candidates with the student, and explain the first of them.

    ray job submit --working-dir . -- \
      python jobs/rerank.py --candidates /mnt/run/retrieve --student demo --adapter /mnt/run/distill \
      --out /mnt/run/rerank --explain 3
"""

from r2r.cli import job

job(__name__, __file__)
