"""Ask a teacher for order and reasons, on vLLM actors under Ray Data.

    ray job submit --working-dir . -- \
      python jobs/annotate.py --candidates /mnt/run/retrieve --teacher demo --out /mnt/run/annotate
"""

import sys

from r2r.cli import main

if __name__ == "__main__":
    sys.exit(main(["annotate", *sys.argv[1:]]))
