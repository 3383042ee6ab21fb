"""Train a LoRA adapter with Ray Train and DeepSpeed.

    ray job submit --working-dir . -- \
      python jobs/distill.py --annotations /mnt/run/annotate --student demo --steps 20 --out /mnt/run/distill
"""

import sys

from r2r.cli import main

if __name__ == "__main__":
    sys.exit(main(["distill", *sys.argv[1:]]))
