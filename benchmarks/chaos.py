"""Many seeded runs of real faults on real farms: `python -m benchmarks.chaos --runs 40 --seed 1`.

Each run renders a film of its own and meets two faults; tests/chaos does two runs of eight. Prints a row for each, and
exits with 1 if a guarantee was broken. Even runs are on a farm of Postgres and a bucket, odd ones on a farm
of SQLite and a folder on a small disk (which needs the right to mount one).
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from testkit.chaos.faults import draw_faults, which_testbed
from testkit.chaos.runner import Outcome, play
from testkit.chaos.testbeds import TESTBEDS


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(TESTBEDS), help="only the runs on this farm")
    given = parser.parse_args(arguments)
    runs = list(range(given.first, given.first + given.runs))
    drawn = draw_faults(range(given.first + given.runs), seed=given.seed)  # whichever of them are run
    print("| run | farm | faults, at % of the calls | s | calls | repeated | failed | wasted s | broken |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    outcomes: list[Outcome] = []
    started = time.monotonic()
    for name, make in TESTBEDS.items():
        mine = [run for run in runs if which_testbed(run) == name and given.only in (None, name)]
        if not mine:
            continue
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder, make(Path(folder)) as testbed:
            for run in mine:
                outcome = play(testbed, run, drawn[run], seed=given.seed)
                outcomes.append(outcome)
                print(_row(outcome), flush=True)
    broken = [outcome for outcome in outcomes if outcome.violations]
    counts = Counter(fault for outcome in outcomes for fault in outcome.faults)
    print(
        f"\n{len(outcomes)} runs, {sum(counts.values())} faults of {len(counts)} kinds, {len(broken)} runs broken;"
        f" median {statistics.median(outcome.seconds for outcome in outcomes):.0f} s a run,"
        f" {(time.monotonic() - started) / 60:.0f} min in all"
    )
    print("Faults: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    return 1 if broken else 0


def _row(outcome: Outcome) -> str:
    faults = "; ".join(
        f"{fault} ({moment} %)" for fault, moment in zip_longest(outcome.faults, outcome.moments, fillvalue="-")
    )
    cells = (
        outcome.number,
        outcome.testbed,
        faults,
        f"{outcome.seconds:.0f}",
        outcome.planned,
        outcome.repeated,
        outcome.failed,
        f"{outcome.wasted_s:.1f}",
        "; ".join(outcome.violations) or "-",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
