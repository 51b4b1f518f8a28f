"""Reads TensorBoard event files with the tensorboard package and holds them to the long CSV of the same runs: read_events.py FOLDER CSV"""

import csv, sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

folder, table = Path(sys.argv[1]), sys.argv[2]
events = {}
for run in sorted(p for p in folder.iterdir() if p.is_dir()):
    read = EventAccumulator(str(run), size_guidance={"scalars": 0})
    read.Reload()
    for tag in read.Tags()["scalars"]:
        for e in read.Scalars(tag):
            events[run.name, tag, e.step] = e.value

logged, seen = 0, set()
for row in csv.DictReader(open(table)):
    tag = "/".join(
        [row["figure"]]
        + ([row["domain"]] if row["domain"] else [])
        + (["layer " + row["layer"]] if row["layer"] else [])
    )
    key = (Path(row["run"]).name, tag, int(row["step"]))
    assert key in events, f"{key} was logged and is not in the event files"
    value, want = events[key], float(row["value"])
    assert abs(value - want) <= 1e-6 * max(1, abs(want)) or value != value and want != want, (key, value, want)
    seen.add(key)
    logged += 1
assert set(events) == seen, f"the event files hold what was not logged: {sorted(set(events) - seen)[:3]}"
print(f"{logged} numbers of {len({k[0] for k in events})} runs under {len({k[1] for k in events})} names are the same in the event files")
