#!/usr/bin/python3
"""Kills a study (SIGKILL) at points spread over its whole run, starts it again, and compares what it
ends with against a study that was never killed: study.csv, .json, .h5, .html and every checkpoint,
byte for byte. Files that hold times (unit.json, metrics.jsonl, log.txt, run.json, traces) are left out.

study_kills.py PATH_OF_MOE [--points 20 | --quick]
"""
import argparse
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

STUDY = """about = "a"
question = "Does a balance loss cost loss?"
seeds = 2
measures = ["loss", "load_cv:layers=most"]
shared = ["train --data arithmetic --model nano --dense --steps 3 --batch 2 --length 32 --eval-tokens 64 --threads 1 --seed {seed} -o {shared}/dense",
          "edit {shared}/dense -o {shared}/grown --upcycle copy:experts=4,k=2,noise=0.01 --seed {seed}"]
commands = ["train --init {shared}/grown --data arithmetic --steps 8 --batch 2 --length 32 --eval-tokens 64 --eval-every 4 --save-every 3 --log-every 1 --threads 1"]
[[arm]]
name = "none"
options = "--balance none"
[[arm]]
name = "switch"
options = "--balance switch"
[[claim]]
says = "it costs nothing"
holds = "loss[switch] = loss[none] within 0.5"
"""


def files(folder):
    """Name and bytes of what must not depend on being killed."""
    out = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        whole = name in ("study.csv", "study.json", "study.h5", "study.html")
        if path.is_file() and (whole or path.suffix == ".safetensors"):
            out[name] = path.read_bytes()
    return out


def start(moe, place):
    return subprocess.Popen([moe, "study", "s.toml", "-o", "d"], cwd=place, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


def finish(moe, place):
    run = start(moe, place)
    said = run.communicate()[1]
    if run.returncode != 0:
        sys.exit(f"moe study ended with {run.returncode}: {said}")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("moe")
    options.add_argument("--points", type=int, default=20)
    options.add_argument("--quick", action="store_true", help="4 points")
    given = options.parse_args()
    points = 4 if given.quick else given.points
    moe = str(pathlib.Path(given.moe).resolve())
    root = pathlib.Path(tempfile.mkdtemp(prefix="moe-study-kills-"))
    try:
        places = []
        for i in range(points + 1):
            places.append(root / str(i))
            places[-1].mkdir()
            (places[-1] / "s.toml").write_text(STUDY)
        began = time.monotonic()
        finish(moe, places[0])
        took = time.monotonic() - began
        want = files(places[0] / "d")
        if len(want) < 10:
            sys.exit(f"the whole study left only {sorted(want)}")
        bad = early = 0
        for i, place in enumerate(places[1:]):
            run = start(moe, place)
            try:
                run.wait(took * (i + 0.5) / points)
                early += 1
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.communicate()
            finish(moe, place)
            got = files(place / "d")
            wrong = [n for n in sorted(want.keys() | got.keys()) if want.get(n) != got.get(n)]
            if wrong:
                bad += 1
                print(f"killed after {took * (i + 0.5) / points:.2f} s: other bytes in {', '.join(wrong)}")
        print(f"{points} points over {took:.1f} s, {len(want)} files: {points - bad} ended with the same bytes"
              + (f"; {early} had ended before they were killed" if early else ""))
        return 1 if bad or early > points // 4 else 0
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
