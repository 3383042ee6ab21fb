"""Run every stage of a run file. On a cluster, give a folder that all of its machines see.

ray job submit --working-dir . -- python jobs/pipeline.py jobs/configs/demo.yaml --out s3://my-bucket/runs/demo
"""

from r2r.cli import job

job(__name__, __file__)
