"""The published figures that need no GPU, measured again and compared with the recorded ones.

Owns the comparison. The commands, the figures and how far each may be off, [value, tolerance], are in
`regressions.json`. R2R_DATA_DIR names the data. Exit status 1 if a figure is off or a command fails.

    R2R_DATA_DIR=DIR python benchmarks/regressions.py --work /tmp/regressions    # a few minutes; --demo: 15 more
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r2r import cli

RECORDED = Path(__file__).with_suffix(".json")


def main(arguments: list[str] | None = None) -> int:
    """Measure and compare all cases; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="new folder for what the commands write")
    parser.add_argument("--demo", action="store_true", help="also the demo, which trains")
    parser.add_argument("--recorded", default=RECORDED, help="JSON file with the cases")
    given = parser.parse_args(arguments)
    if Path(given.work).is_dir() and any(Path(given.work).iterdir()):
        # Its work is of other code, and would be passed over as done.
        print(f"regressions: {given.work}: is not empty; give a new folder", file=sys.stderr)
        return 2
    lines, off, skipped = [], 0, 0
    for case in json.loads(Path(given.recorded).read_text(encoding="utf-8")):
        if why := _skipped(case, given.demo):
            lines.append(f"skipped  {case['name']}: {why}")
            skipped += 1
            continue
        started = time.time()
        for good, line in measure(case, {"data": os.environ.get("R2R_DATA_DIR", ""), "work": given.work}):
            lines.append(f"{'ok' if good else 'OFF':8} {case['name']}: {line} ({time.time() - started:.0f} s)")
            off += not good
    print("\n".join([*lines, f"regressions: {off} off, {skipped} cases skipped"]), flush=True)
    return 1 if off else 0


def _skipped(case: dict[str, Any], demo: bool) -> str:
    """Return why a case is not measured, "" if it is."""
    if case.get("demo") and not demo:
        return "trains for minutes; --demo measures it"
    if "reads" not in case:
        return ""
    data = os.environ.get("R2R_DATA_DIR")
    if not data:
        return "R2R_DATA_DIR is not set"
    return "" if (Path(data) / case["reads"]).is_dir() else f"{data} has no {case['reads']}"


def measure(case: dict[str, Any], places: dict[str, str]) -> Iterator[tuple[bool, str]]:
    """Run a case's commands. Yield whether each figure is near enough to the recorded one, and a line on it."""
    for command in case["commands"]:
        words = [word.format(**places) for word in shlex.split(command)]
        if status := cli.main(words[1:]):
            yield False, f"{' '.join(words[:2])} ended with status {status}"
            return
    systems = json.loads(Path(case["metrics"].format(**places)).read_text(encoding="utf-8"))["systems"]
    for system, figures in case["figures"].items():
        for measured, (value, tolerance) in figures.items():
            found = systems.get(system, {}).get(measured)
            # Written so that not-a-number is off.
            good = found is not None and abs(found - value) <= tolerance
            yield (
                good,
                f"{system} {measured} {found if found is None else round(found, 4)}, recorded {value} ± {tolerance:g}",
            )


if __name__ == "__main__":
    sys.exit(main())
