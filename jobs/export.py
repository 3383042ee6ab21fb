r"""Write what was trained, with a model card, and upload it if --push says where to.

    ray job submit --working-dir . -- \
      python jobs/export.py /mnt/run --to /mnt/run/export
"""

from r2r.cli import job

job(__name__, __file__)
