"""A day without a fault, in minutes or hours: the real program on a real terminal, over the real engine, training on, with somebody at its keys.

    python -m benchmarks.soak [--sets 300] [--faults 24] [--seed 0] [--model pocket] [--keep FOLDER]

Meanwhile processes are killed and stand still, the disk is full, writing is forbidden, the clock stops, the pipe breaks, losses are no numbers and
memory runs out, at random. Nothing that was acknowledged may be lost, the log has to verify, nothing may take more than 10 s, memory may not
grow, and every published version has to be what it was. Prints one JSON line; exits 1 where anything failed. ctrl+c ends it early with its
verdict. Needs Linux; run by root it has a disk of its own, by others a limit on the size of files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.soak.reproduction import reproduced
from benchmarks.soak.supervisor import Soak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=300)
    parser.add_argument("--faults", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--keep", type=Path, help="Where to leave the database, its versions and the logs.")
    chosen = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for variable in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            os.environ[variable] = str(work / "home")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        soak = Soak(work, chosen.model, chosen.sets, chosen.faults, chosen.seed)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(soak, "stopped", True))
        try:
            soak.run()
            outcome = soak.verdict()
            outcome["reproduced"] = again = reproduced(soak.database, work, chosen.model)
            if again["unlike"]:
                soak.fail(f"versions that two engines do not agree on: {again['unlike']}")
        finally:
            if chosen.keep is not None:
                shutil.copytree(soak.disk.folder, chosen.keep / "disk", dirs_exist_ok=True)
                shutil.copytree(work / "home", chosen.keep / "home", dirs_exist_ok=True)
                shutil.copytree(soak.folder, chosen.keep / "requests", dirs_exist_ok=True)
            soak.close()
    print(json.dumps(outcome | {"seed": chosen.seed, "seconds": round(time.monotonic() - started), "failures": soak.failures}, ensure_ascii=False))
    return int(bool(soak.failures))


if __name__ == "__main__":
    sys.exit(main())
