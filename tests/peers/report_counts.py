"""Counts the assignments of every expert and layer of a trace with h5py and numpy, window by window, and times it.

    python report_counts.py TRACE SECONDS

Says one JSON object: "counts", layer by layer as long as the layer has experts; "seconds" and "processor" (both of every round, the imports not
in them). At least three rounds after one to warm up, and as many as SECONDS allow. `moe bench report` runs it and compares the counts.
"""

import json
import sys
import time

import h5py
import numpy as np


def count(path):
    with h5py.File(path) as f:
        data, flags = f["routing/expert_ids"], f["tokens/flags"]
        experts = [int(e) for e in f["model/num_experts"][:]]
        counts = [np.zeros(e, np.int64) for e in experts]
        rows = data.chunks[0] if data.chunks else 4096
        for first in range(0, len(data), rows):
            window = data[first : first + rows]  # [rows, L, K]
            padding = (flags[first : first + rows] & 1).astype(bool)
            if padding.any():
                window = window[~padding]
            for layer, total in enumerate(counts):
                ids = window[:, layer].ravel()
                total += np.bincount(ids, minlength=len(total))[
                    : len(total)
                ]  # all ones is no expert and lies beyond
        return [c.tolist() for c in counts]


def main():
    path, budget = sys.argv[1], float(sys.argv[2])
    counts = count(path)
    seconds, processor = [], []
    while len(seconds) < 3 or (sum(seconds) < budget and len(seconds) < 1000):
        start, busy = time.perf_counter(), time.process_time()
        count(path)
        seconds.append(time.perf_counter() - start), processor.append(time.process_time() - busy)
    print(json.dumps({"counts": counts, "seconds": seconds, "processor": processor}))


main()
