"""Train a LoRA adapter with Ray Train and DeepSpeed.

    ray job submit --working-dir . -- \
      python jobs/distill.py --annotations /mnt/run/annotate --student demo --steps 20 --out /mnt/run/distill
"""

from r2r.cli import job

job(__name__, __file__)
