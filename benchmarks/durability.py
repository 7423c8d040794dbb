"""Is anything lost when the program is killed? A child teaches without end and tells what was acknowledged; SIGKILL comes at random moments.

    python benchmarks/durability.py [--kills 300]

After each kill the database has to hold everything acknowledged, and `tamer verify` has to find it as it was written. Prints one JSON line; exits 1
where something was lost.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from storage.journal import Journal
from storage.verification import problems
from tests.storage.test_kill import killed_while_writing, stored


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    chosen = parser.parse_args()
    random_, acknowledged, lost, broken = random.Random(0), set[str](), 0, 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(chosen.kills):
            if i % 20 == 0:  # a new one now and then, or verifying takes longer and longer
                database, acknowledged = Path(folder) / f"tamer{i}.db", set()
                Journal.open(database).close()
            acknowledged |= set(killed_while_writing(database, after=random_.randrange(1, 120)))
            lost += len(acknowledged - stored(database))
            broken += bool(list(problems(database)))
            print(f"\r{i + 1} kills", end="", file=sys.stderr)
    print(json.dumps({"kills": chosen.kills, "lost": lost, "broken": broken, "seconds": round(time.monotonic() - started)}))
    return int(bool(lost or broken))


if __name__ == "__main__":
    sys.exit(main())
