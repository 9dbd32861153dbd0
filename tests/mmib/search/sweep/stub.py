"""A stub of `mmib fit`: same options, same run folder, no training.

Its rate is 100 times beta. The F1 of a run rises to 1 - |beta - 0.3| over `--values` values. With beta 0.9 it fails;
with beta 0.8 it waits, after its second value, for a file `go` in the folder of its trial. `--logs` names another
metric than val/f1. Each start adds a line to `starts.log` in the folder of the trial.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--model.beta", type=float, dest="beta", default=0.0)
parser.add_argument("--model.flag", dest="flag")
parser.add_argument("--logs", default="val/f1")
parser.add_argument("--values", type=int, default=3)
parser.add_argument("--runs", type=Path)
parser.add_argument("--run", type=Path)
parser.add_argument("--ckpt_path", choices=["last"])
parser.add_argument("--print_config", action="store_true")
options = parser.parse_args()
if options.print_config:
    sys.exit(0)
run: Path = options.run or options.runs / "stub" / "run"
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
with (run.parents[1] / "starts.log").open("a") as starts:
    starts.write(json.dumps(sys.argv[1:]) + "\n")
if options.beta == 0.9:
    sys.exit("something before\nmmib: beta is too strong:\n  take less")
(run.parents[1] / "pid").write_text(str(os.getpid()))
checkpoint = run / "checkpoints" / "last.ckpt"
done = int(checkpoint.read_text()) if options.run else 0
with (run / "metrics.csv").open("a") as table:
    if not done:
        table.write(f"step,train/loss,{options.logs}\n")
    for number in range(done, options.values):
        f1 = (1 - abs(options.beta - 0.3)) * (number + 1) / options.values
        table.write(f"{number},0.5,{f1}\n")
        table.flush()
        checkpoint.write_text(str(number + 1))
        while options.beta == 0.8 and number == 1 and not (run.parents[1] / "go").exists():
            time.sleep(0.02)
summary = {
    **{"task": "mre", "experiment": "stub", "seed": 1, "val": {"f1": f1}, "test": None},
    **{"bottleneck": {"text": {"rate": {"end": 100 * options.beta}}}},
}
(run / "config.yaml").write_text("name: stub\n")
(run / "summary.json").write_text(json.dumps(summary))
