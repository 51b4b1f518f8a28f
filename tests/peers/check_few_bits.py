#!/usr/bin/env python3
"""Whether the compressed-tensors package opens what `moe edit --quantise` writes, and computes the same loss.

    check_few_bits.py MOE

Needs torch, h5py, compressed-tensors and transformers 4.57, whose Mixtral has a module for each expert's matrix (that of version 5
keeps a layer's experts in one tensor, which the package does not convert). For each format a model of two layers is trained for two
steps, quantised, traced by MOE over 264 ids, and opened by the class: the mean loss of both is printed. Ends with 1 where they differ
by more than 1e-6.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers

FORMATS = ["int8", "int8:block=32", "int4", "int4:block=64"]
SEQUENCES, LENGTH = 8, 33


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words))} ended with {done.returncode}: {done.stderr}")


def ours(moe, folder, ids, out):
    data = f"tokens:path={ids},whole=1,split=valid"
    run(moe, "trace", folder, "--data", data, "--length", LENGTH, "-o", out, "--force")
    with h5py.File(out) as trace:
        asked = trace["tokens/target_id"][:] < 1 << 20
        return -float(trace["tokens/logprob"][:].astype(np.float64)[asked].mean())


def theirs(folder, ids):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor(ids), use_cache=False).logits
    return float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), torch.tensor(ids[:, 1:]).flatten()))


def main(moe):
    moe = Path(moe).resolve()
    ids = np.random.default_rng(1).integers(0, 250, (SEQUENCES, LENGTH))
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        lines = [json.dumps({"input_ids": row.tolist()}) + "\n" for row in ids]
        (work / "ids.jsonl").write_text("".join(lines))
        short = ["--steps", 2, "--batch", 2, "--length", 32, "--eval-tokens", 64]
        run(moe, "train", "--data", "arithmetic", "--model", "nano", *short, "-o", work / "run")
        for form in FORMATS:
            folder = work / form.replace(":", "_").replace("=", "_")
            run(moe, "edit", work / "run", "--quantise", f"experts={form}", "-o", folder)
            a, b = ours(moe, folder, work / "ids.jsonl", work / "t.h5"), theirs(folder, ids)
            worst = max(worst, abs(a - b))
            print(f"{form}: moe {a:.8f}, compressed-tensors {b:.8f}", flush=True)
    print(f"largest difference {worst:.1e}")
    return worst > 1e-6


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
