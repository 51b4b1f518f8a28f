#!/usr/bin/env python3
"""Tokens a second of moe trace with experts read from their file, by several programs in turn.

    python3 tests/peers/cold_prefill.py NAME=MOE [NAME=MOE ...] --model FOLDER --ids IDS.npy --vocabulary V
        [--tokens 4096] [--batch 4] [--length 1024] [--expert-memory 100MB] [--device cpu] [--rounds 3] [--warm]

The folder is a Hugging Face folder without MANIFEST.json, whose bytes nobody hashes when it is opened (hard links to a
checkpoint's config.json and model.safetensors will do). Before each run every page of its files is dropped from the page
cache (posix_fadvise); with --warm they are read instead. Times are those of whole processes, opening included.
"""
import argparse
import os
import statistics
import subprocess
import time


def drop(folder):
    os.sync()
    for name in os.listdir(folder):
        file = os.open(os.path.join(folder, name), os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def fill(folder):
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            while file.read(1 << 24):
                pass


def seconds(moe, options, tokens):
    (fill if options.warm else drop)(options.model)
    words = [moe, "trace", options.model, "--data", f"tokens:path={options.ids},vocabulary={options.vocabulary}",
             "--tokens", str(tokens), "--length", str(options.length), "--batch", str(options.batch),
             "--expert-memory", options.expert_memory, "--device", options.device, "--redundancy-tokens", "0",
             "-o", options.out, "--force"]
    start = time.time()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--model", required=True)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--expert-memory", default="100MB")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--out", default="/tmp/cold_prefill.h5")
    options = parser.parse_args()
    programs = dict(p.split("=", 1) for p in options.programs)
    whole = {name: [] for name in programs}
    print(f"load {os.getloadavg()[0]:.1f}; {options.tokens} tokens, batch {options.batch} x {options.length}, "
          f"--expert-memory {options.expert_memory}, {'warm' if options.warm else 'cold'}")
    for turn in range(options.rounds):
        for name, moe in programs.items():
            spent = seconds(moe, options, options.tokens)
            whole[name].append(spent)
            print(f"  {name}: {spent:.2f} s, {options.tokens / spent:.1f} tokens/s with opening", flush=True)
    first = None
    for name, spent in whole.items():
        rate = options.tokens / statistics.median(spent)
        first = first or rate
        print(f"{name}: median {rate:.1f} tokens/s with opening, {rate / first:.2f} x the first; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
