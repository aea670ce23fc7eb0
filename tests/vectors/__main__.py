"""``python -m tests.vectors FILE.json ...``: run golden vectors and say how many passed."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict

from rheostat.errors import RheostatError
from tests.vectors.runner import run_file


def main(files: list[str]) -> int:
    """Run the files, print every failure and skip, and return the exit code: 0, 1 after a failure, 2 for a file that cannot be read."""
    if not files:
        print("usage: python -m tests.vectors FILE.json ...")
        return 2
    total: Counter[str] = Counter()
    for file in files:
        counts: Counter[str] = Counter()
        skipped_for: defaultdict[str, list[str]] = defaultdict(list)
        try:
            for result in run_file(file):
                counts[result.outcome] += 1
                if result.outcome == "failed":
                    indented = result.reason.replace("\n", "\n    ")
                    print(f"FAILED {file}: {result.case}\n    {indented}")
                elif result.outcome == "skipped":
                    skipped_for[result.reason].append(result.case)
        except RheostatError as error:
            print(error)
            return 2
        for reason, cases in skipped_for.items():
            print(f"skipped in {file}, because {reason}:\n    {', '.join(cases)}")
        print(f"{file}: {counts['passed']} of {sum(counts.values())} passed")
        total += counts
    skipped = f", {total['skipped']} skipped" if total["skipped"] else ""
    print(f"{total['passed']} passed, {total['failed']} failed{skipped}")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
