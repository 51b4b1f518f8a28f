#!/usr/bin/env python3
"""Every router on the same tokens at the same active size: the table of docs/routers.md.

  scripts/compare_routers.py DATA [--moe build/release/apps/moe] [--steps 300] [--seeds 3] [--only WORD]

DATA is what `--data` takes (text:path=FOLDER). Two layers of H=64, 8 experts; two experts of width 64 a token, or as many hidden
units differently cut. Loss on the validation split after the last step, the rest from a trace of it; means over MoE layers, domain
information of the layer that knows most. Routers in MAIN are run with several seeds and shown as mean ± standard deviation.
"""

import argparse
import csv
import io
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

SWITCH = ["--balance", "switch:coef=0.01"]
NONE = ["--balance", "none"]
RUNS = [  # name, router, further options
    ("softmax, switch loss", "softmax:k=2", SWITCH),
    ("softmax, no balance", "softmax:k=2", NONE),
    ("softmax, concat loss", "softmax:k=2", ["--balance", "concat:coef=0.01"]),
    ("softmax, quantile bias", "softmax:k=2,bias=1", ["--balance", "quantile"]),
    (
        "softmax top-1, capacity 1.25",
        "softmax:k=1,norm=0",
        SWITCH + ["--width", "128", "--capacity", "position:factor=1.25"],
    ),
    ("sigmoid, loss-free bias", "sigmoid:k=2,bias=1", ["--balance", "bias:rate=0.001"]),
    ("sigmoid, switch loss", "sigmoid:k=2", SWITCH),
    (
        "gshard, capacity 2T/E",
        "gshard:second=random",
        ["--balance", "switch:coef=0.01,counts=top1", "--capacity", "position:factor=1"],
    ),
    ("noisy", "noisy:k=2", ["--balance", "importance:coef=0.1", "--balance", "load:coef=0.1"]),
    ("top_p 0.4, up to 4", "top_p:p=0.4,k=4", SWITCH),
    ("cosine", "cosine:k=2", SWITCH),
    ("relu, l1", "relu", ["--balance", "l1"]),
    ("hierarchical 4 x 2", "hierarchical:groups=4,topk_groups=2,inner=1", SWITCH),
    ("expert_choice", "expert_choice:factor=2", NONE),
    ("soft, T/4 slots", "soft:slots=64", NONE),
    ("sinkhorn", "sinkhorn:k=2", NONE),
    ("base, top-1", "base", NONE + ["--width", "128"]),
    ("dense mixture", "dense", NONE + ["--width", "16"]),
    ("hash, random table", "hash:k=2", NONE),
    ("hash, balanced table", "hash:k=2,fn=balanced", NONE),
    ("random", "random:k=2", NONE),
    ("round_robin", "round_robin:k=2", NONE),
]
MAIN = {
    "softmax, switch loss",
    "softmax top-1, capacity 1.25",
    "sigmoid, loss-free bias",
    "expert_choice",
}


def moe(args, *words):
    done = subprocess.run([args.moe, *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"moe {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def figures(args, router, options, seed, folder):
    run, trace = str(folder / "run"), str(folder / "t.moetrace.h5")
    common = ["--data", args.data]
    moe(
        args,
        "train",
        *common,
        "--model",
        "nano",
        "--router",
        router,
        *options,
        "--steps",
        str(args.steps),
        "--batch",
        "16",
        "--lr",
        "3e-3",
        "--seed",
        str(seed),
        "--eval-every",
        "0",
        "--eval-tokens",
        "65536",
        "--save-every",
        "0",
        "-o",
        run,
        "--force",
    )
    lines = [json.loads(l) for l in open(pathlib.Path(run) / "metrics.jsonl")]
    loss = [l["valid_loss"] for l in lines if "valid_loss" in l]
    steps = [l["tokens_per_second"] for l in lines if "tokens_per_second" in l]
    moe(
        args,
        "trace",
        run,
        "--data",
        args.data + ",split=valid",
        "--tokens",
        "65536",
        "--redundancy-tokens",
        "0",
        "-o",
        trace,
        "--force",
    )
    rows = list(csv.DictReader(io.StringIO(moe(args, "report", trace, "--format", "csv"))))

    def values(metric):
        return [float(r["value"]) for r in rows if r["metric"] == metric and r["value"]]

    mean = lambda v: statistics.mean(v) if v else 0.0
    return {
        "loss": loss[-1],
        "CV": mean(values("load_cv")),
        "MaxVio": mean(values("load_maxvio_global")),
        "dropped": 100 * mean(values("observed_drop_rate")),
        "domain bits": max(values("domain_expert_mi_bits"), default=0.0),
        "ms a step": 1000 * 16 * 128 / statistics.median(steps),
    }


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("data"), p.add_argument("--moe", default="build/release/apps/moe")
    p.add_argument("--steps", type=int, default=300), p.add_argument(
        "--seeds", type=int, default=3
    ), p.add_argument("--only", default="")
    args = p.parse_args()
    digits = {"loss": 3, "CV": 2, "MaxVio": 2, "dropped": 1, "domain bits": 3, "ms a step": 0}
    print(
        "| router | validation loss, nats/byte | CV | MaxVio | dropped, % | domain information, bits | ms a step |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, router, options in RUNS:
            if args.only not in name:
                continue
            seeds = range(1, args.seeds + 1 if name in MAIN else 2)
            all_of = [figures(args, router, options, s, pathlib.Path(folder)) for s in seeds]
            cells = []
            for key, n in digits.items():
                v = [f[key] for f in all_of]
                cells.append(
                    f"{statistics.mean(v):.{n}f}"
                    + (f" ± {statistics.stdev(v):.{n}f}" if len(v) > 1 else "")
                )
            print(f"| {name} `{router}` | " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
