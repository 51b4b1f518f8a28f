#!/usr/bin/env python3
"""Handwritten digits: the 1,797 pictures of 8 x 8 that scikit-learn has, and a small MoE that names
them ("3"). The first 1,437 are for training, the last 360 for validation.

  scripts/digits.py [FOLDER] [OPTIONS OF moe train]

FOLDER: runs/digits by default; pictures in FOLDER/pictures, the run in FOLDER/run.
  scripts/digits.py runs/digits --seed 2         another seed
  scripts/digits.py runs/digits --dense          the dense twin
STEPS: 200. MOE: the program (build/release/apps/moe, build/dev/apps/moe or `moe`).
Needs scikit-learn: apt-get install python3-sklearn, or a virtual environment:
  python3 -m venv skl && skl/bin/pip install scikit-learn && skl/bin/python scripts/digits.py
"""

import os
import pathlib
import shlex
import shutil
import struct
import subprocess
import sys
import zlib

HELD = 360
MODEL = ("custom:hidden=96,layers=3,heads=4,kv_heads=4,context=128,experts=8,width=96,"
         "router={softmax:k=2},balance={switch:coef=0.01}")


def png(rows):
    """A PNG file of shades of grey, a list of bytes a row."""
    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body)
            + chunk(b"IEND", b""))


def write_pictures(folder):
    """Two folders. apart=folder keeps `last`: it is the last of two names that the hash leaves
    alone, and `moe eval` says that it asks 360. The text beside a picture is its caption."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("digits: scikit-learn is not here, and it has the pictures: "
                 "apt-get install python3-sklearn, or pip install scikit-learn in a venv")
    digits = load_digits()
    first = len(digits.images) - HELD
    shutil.rmtree(folder, ignore_errors=True)
    for n, (image, digit) in enumerate(zip(digits.images, digits.target)):
        there = folder / ("first" if n < first else "last")
        there.mkdir(parents=True, exist_ok=True)
        rows = [[round(float(v) * 255 / 16) for v in row] for row in image]
        (there / f"{n:04}.png").write_bytes(png(rows))
        (there / f"{n:04}.txt").write_text(f"{digit}\n")


def program():
    root = pathlib.Path(__file__).resolve().parent.parent
    built = [root / "build" / kind / "apps" / "moe" for kind in ("release", "dev")]
    return os.environ.get("MOE") or next((str(p) for p in built if p.exists()), "moe")


def show(*command):
    print("\n$", shlex.join(command), flush=True)
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main():
    if sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(print(__doc__))
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "runs/digits")
    write_pictures(out / "pictures")
    moe = program()
    data = f"images:path={out}/pictures,apart=folder,size=8,patch=2"
    show(moe, "train", "--data", data, "--steps", os.environ.get("STEPS", "200"), "--batch", "32",
         "--length", "64", "--lr", "3e-3", "--threads", "1", "--eval-every", "50",
         "--eval-tokens", "0", "--force", "-o", f"{out}/run", "--model", MODEL, *sys.argv[2:])
    show(moe, "eval", f"{out}/run", "--data", data + ",split=valid", "--length", "64",
         "--threads", "1")


main()
