"""Serve the student with Ray Serve, behind POST /v1/rerank.

    ray job submit --working-dir . -- \
      python jobs/serve.py --student demo --adapter /mnt/run/distill
"""

from r2r.cli import job

job(__name__, __file__)
