"""Ask a teacher for order and reasons, on vLLM actors under Ray Data.

    ray job submit --working-dir . -- \
      python jobs/annotate.py --candidates /mnt/run/retrieve --teacher demo --out /mnt/run/annotate
"""

from r2r.cli import job

job(__name__, __file__)
