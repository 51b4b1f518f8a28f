#!/usr/bin/env python3
"""The program held against kills, power cuts, failing disks, damaged files and odd words.

faults.py MOE INTERPOSE [--long] [--only NAME,...] [--keep FOLDER]

Every part prints one line: what was tried, how often, and what was met. It ends with 1 where a gate
was missed: a row or a checkpoint lost, an end by a signal, exit code 70, ten seconds and more, 1 GiB
and more for a small file, a report that differs from the sound one while verify finds nothing.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from disk import PAGE, SECTOR, disk_after, draws, read_log, tree_at

SECONDS = 10
SLOW = 4  # a debug build, beside others
MEMORY = 1 << 30
OUT_OF_MEMORY = 5  # the exit code


class Gate(Exception):
    pass


class Faults:
    def __init__(self, moe, shim, folder, long):
        self.moe, self.shim, self.folder, self.long = moe, shim, folder, long
        self.failures = []
        self.random = random.Random(7)
        os.makedirs(folder, exist_ok=True)
        self.inputs()

    def path(self, *names):
        return os.path.join(self.folder, *names)

    # ------------------------------------------------------------------------ the program

    def run(self, words, env=None, gate=True, cwd=None):
        """(exit code, output, seconds, peak bytes); -N where signal N ended it."""
        full = dict(os.environ, SOURCE_DATE_EPOCH="0", TERM="dumb", **(env or {}))
        full.pop("MOE_DEVICE", None)
        start = time.monotonic()
        process = subprocess.Popen(
            [self.moe, *words],
            env=full,
            cwd=cwd or self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        timer = SECONDS * SLOW
        try:
            out, _ = process.communicate(timeout=timer)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            code = "hang"
        seconds = time.monotonic() - start
        out = out.decode("utf-8", "replace")
        if gate:
            line = " ".join(words)
            if code == "hang":
                self.fail(f"took more than {timer} s: {line}")
            elif code < 0 or code == 70:
                self.fail(f"ended with {code}: {line}\n{out[-400:]}")
        return code, out, seconds

    def faulty(self, words, root, kind, at, sticky=False):
        env = {
            "LD_PRELOAD": self.shim,
            "ASAN_OPTIONS": "verify_asan_link_order=0",
            "MOE_FAULT_ROOT": root,
            "MOE_FAULT_KIND": kind,
            "MOE_FAULT_AT": str(at),
        }
        if sticky:
            env["MOE_FAULT_STICKY"] = "1"
        return self.run(words, env, gate=kind not in ("kill",))

    def logged(self, words, root):
        log = self.path("log")
        if os.path.exists(log):
            os.remove(log)
        env = {"LD_PRELOAD": self.shim, "MOE_FAULT_ROOT": root, "MOE_FAULT_LOG": log}
        code, out, _ = self.run(words, env)
        if code != 0:
            raise Gate(f"the run that is to be logged ended with {code}: {out}")
        return read_log(log)

    def fail(self, sentence):
        self.failures.append(sentence)
        print("  FAILED:", sentence, flush=True)

    # ------------------------------------------------------------------------ small inputs

    def inputs(self):
        draw = random.Random(1)
        words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 7))) for _ in range(200)]
        os.makedirs(self.path("text"), exist_ok=True)
        with open(self.path("text", "a.txt"), "w") as out:
            out.write(" ".join(draw.choices(words, k=30000)))
        with open(self.path("text", "b.txt"), "w") as out:
            out.write(" ".join(str(draw.randint(0, 99)) for _ in range(20000)))
        self.data = ["--data", f"text:path={self.path('text')}"]
        shutil.rmtree(self.path("r0"), ignore_errors=True)
        self.need(self.train("r0", steps=2))
        self.trace = ["trace", self.path("r0"), *self.data, "--threads", "1"]

    def need(self, words):
        code, out, _ = self.run(words)
        if code != 0:
            raise Gate(f"{' '.join(words)} ended with {code}: {out}")

    def train(self, name, steps, *more):
        return [
            *["train", *self.data, "--model", "nano", "--steps", str(steps), "--batch", "2"],
            *["--length", "32", "--eval-every", "0", "--eval-tokens", "64", "--threads", "1"],
            *["--log-every", "1", "-o", self.path(name), *more],
        ]

    # ------------------------------------------------------------------------ kills of a recording

    def rows(self, place, name="t.h5"):
        """Rows that can be had from what a stopped recording left."""
        final, part = os.path.join(place, name), os.path.join(place, name + ".part")
        if os.path.exists(final):
            code, out, _ = self.run(["verify", final])
            if code != 0:
                self.fail(f"a finished trace is not whole: {out}")
                return 0
            source = final
        elif os.path.exists(part):
            source = part
        else:
            return 0
        code, out, _ = self.run(["recover", source, "-o", self.path("out.h5"), "--force"])
        if code != 0:
            return 0
        return int(re.search(r"kept (\d+) committed tokens", out).group(1))

    def kills_of_trace(self):
        root = self.path("kt")
        os.makedirs(root, exist_ok=True)
        words = [*self.trace, "--tokens", "20000", "-o", os.path.join(root, "t.h5"), "--force"]
        calls = self.logged(words, root)
        points = sorted(
            {*range(0, len(calls), 1 if self.long else 10), *range(len(calls) - 12, len(calls) + 1)}
        )
        best, tried = 0, 0
        for count in points:
            place = self.path("state")
            disk_after(calls, count).build(root, place)
            rows = self.rows(place)
            tried += 1
            if rows < best:
                self.fail(f"{best - rows} of {best} rows lost by a kill after call {count}")
            best = max(best, rows)
        if best < 20000:
            self.fail(f"the whole recording has {best} rows")
        return f"{tried} of {len(calls) + 1} states of a killed recording, {best} rows in the end"

    def power_cuts_of_trace(self, unit):
        root = self.path("pt")
        os.makedirs(root, exist_ok=True)
        words = [*self.trace, "--tokens", "20000", "--durability", "power"]
        calls = self.logged([*words, "-o", os.path.join(root, "t.h5"), "--force"], root)
        syncs = [i + 1 for i, call in enumerate(calls) if call.what == "sync"]
        place, safe = self.path("state"), {}
        tried = 0
        for draw in draws("trace" if unit == PAGE else "torn", 400 if self.long else 40):
            count = draw.choice([draw.randrange(len(calls)), len(calls) - draw.randrange(1, 14)])
            synced = max([s for s in syncs if s <= count], default=0)
            if synced not in safe:
                disk_after(calls, synced).build(root, place)
                safe[synced] = self.rows(place)
            disk_after(calls, count).build(root, place, draw, unit)
            rows = self.rows(place)
            tried += 1
            if rows < safe[synced]:
                self.fail(f"{safe[synced] - rows} of {safe[synced]} rows lost by a power cut "
                          f"after call {count}")
        return f"{tried} power cuts of a recording, by blocks of {unit} bytes"

    # ------------------------------------------------------------------------ stops of a run

    def weights(self, folder, steps):
        name = os.path.join(folder, f"checkpoint-{steps:08}", "model.safetensors")
        if not os.path.exists(name):
            return None
        with open(name, "rb") as file:
            return file.read()

    def goes_on(self, root, words, steps, expected, what):
        """The run in `root` can be finished, with the same weights, a whole log and every row."""
        run = os.path.join(root, "run")
        begun = os.path.isdir(run) and any(n.startswith("checkpoint-") for n in os.listdir(run))
        again = ["train", "--resume", run, "--threads", "1"] if begun else [*words, "--force"]
        code, out, _ = self.run(again)
        if code != 0:
            return self.fail(f"{what}: exit {code}: {out[-300:]}")
        if self.weights(run, steps) != expected:
            return self.fail(f"{what}: other weights")
        seen = []
        with open(os.path.join(run, "metrics.jsonl"), "rb") as file:
            for line in file.read().splitlines():
                try:
                    seen.append(json.loads(line).get("step"))
                except ValueError:
                    return self.fail(f"{what}: metrics.jsonl has a line that is no JSON")
        if not set(range(1, steps + 1)) <= set(seen):
            self.fail(f"{what}: metrics.jsonl lacks steps")
        left = [n for n in os.listdir(run) if n.startswith(".") or n == "lock"]
        if left:
            self.fail(f"{what}: {left} is left in the run")
        if "--trace" in words and self.rows(root, "run.h5") != steps * 64:
            self.fail(f"{what}: the trace lacks rows")

    def stops_of_run(self, traced, power):
        root, steps = self.path("kr"), 6
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(root)
        more = ["--save-every", "2"]
        if traced:
            more += ["--trace", os.path.join(root, "run.h5")]
        words = self.train(os.path.join("kr", "run"), steps, *more)
        calls = self.logged(words, root)
        expected = self.weights(os.path.join(root, "run"), steps)
        tried = 0
        if power:
            for draw in draws(f"run {traced}", 200 if self.long else 20):
                count = draw.randrange(1, len(calls) + 1)
                disk_after(calls, count).build(root, None, draw)
                self.goes_on(root, words, steps, expected, f"power cut after call {count}")
                tried += 1
        else:
            for count in range(0, len(calls) + 1, 1 if self.long else 9):
                disk_after(calls, count).build(root)
                self.goes_on(root, words, steps, expected, f"kill after call {count}")
                tried += 1
        kind = "power cuts" if power else "kills"
        return f"{tried} {kind} of a run{' that is recorded' if traced else ''}, {len(calls)} calls"

    def stops_of_resume(self):
        """A run that goes on from a checkpoint, killed in turn, goes on again."""
        root, steps = self.path("kr"), 6
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(root)
        words = self.train(os.path.join("kr", "run"), steps, "--save-every", "2")
        self.need(words)
        expected = self.weights(os.path.join(root, "run"), steps)
        shutil.rmtree(self.path("kr", "run"))
        stop = self.path("kr", "run", ".tmp-checkpoint-00000004")
        self.faulty(words, stop, "kill", 0)
        before = tree_at(root)
        calls = self.logged(["train", "--resume", self.path("kr", "run"), "--threads", "1"], root)
        tried = 0
        for count in range(0, len(calls) + 1, 1 if self.long else 9):
            disk_after(calls, count, before).build(root)
            self.goes_on(root, words, steps, expected, f"kill of a resumed run after call {count}")
            tried += 1
        return f"{tried} kills of a resumed run, {len(calls)} calls"

    # ------------------------------------------------------------------------ kills of one file

    def makers(self, root):
        """verb: its words, and the name that it makes."""
        sound, out = self.sound_trace(), os.path.join(root, "o.h5")
        routes = self.path("routes.npz")
        if not os.path.exists(routes):
            self.need(["export", sound, "--to", "npz", "-o", routes])
        synth = ["synth", "uniform", "--tokens", "9000"]
        page, folder = os.path.join(root, "r.html"), os.path.join(root, "q")
        quantised = ["edit", self.path("r0"), "--quantise", "experts=int8", "-o", folder]
        spoken = ["generate", self.path("r0"), "--prompt", "ab", "--tokens", "40", "--trace", out]
        return {
            "recover": (["recover", sound, "-o", out, "--force"], out),
            "edit": (quantised, folder),
            "generate --trace": ([*spoken, "--threads", "1", "--force"], out),
            "import": (["import", routes, "-o", out, "--force"], out),
            "export": (["export", sound, "--to", "npz", "-o", page], page),
            "synth": ([*synth, "-o", out, "--force"], out),
            "report": (["report", sound, "-o", page], page),
        }

    def kills_of_makers(self):
        root, tried = self.path("km"), 0
        for verb, (words, name) in self.makers(root).items():
            shutil.rmtree(root, ignore_errors=True)
            os.makedirs(root)
            calls = self.logged(words, root)
            whole = tree_at(root)
            if not os.path.exists(name):
                raise Gate(f"{verb} made no {name}")
            for count in range(0, len(calls) + 1, 1 if self.long else 1 + len(calls) // 8):
                disk_after(calls, count).build(root)
                self.whole_or_none(f"{verb}, kill after call {count}", words, name, whole)
                tried += 1
        return f"{tried} kills of what makes one file or folder"

    def whole_or_none(self, what, words, name, whole):
        """What stands under its final name is whole, and where nothing does the command works.

        A kill may leave hidden files with the number of its process.
        """

        def named(tree):
            return {p: d for p, d in tree.items() if p == name or p.startswith(name + "/")}

        root, expected = os.path.dirname(name), named(whole)
        there = named(tree_at(root))
        if there:
            if there != expected:
                self.fail(f"{what}: {name} is there, and is not whole")
            return
        code, out, _ = self.run(words)
        left = [p for p in os.listdir(root) if not p.startswith(".")]
        if code != 0 or named(tree_at(root)) != expected or left != [os.path.basename(name)]:
            self.fail(f"{what}: again: exit {code}, leaves {left}: {out[-300:]}")

    # ------------------------------------------------------------------------ calls that fail

    def failing_calls(self):
        root = self.path("fc")
        tried = 0
        for name, words in self.writers(root).items():
            shutil.rmtree(root, ignore_errors=True)
            os.makedirs(root)
            count = self.path("count")
            env = {"LD_PRELOAD": self.shim, "MOE_FAULT_ROOT": root, "MOE_FAULT_COUNT": count}
            self.run(words, env)
            with open(count) as file:
                calls = int(file.read())
            few = {*range(0, calls, max(1, calls // 5)), *range(4, min(calls, 20), 5)}
            places = range(calls) if self.long else sorted(few)
            for at in places:
                for kind, sticky in (("enospc", True), ("eio", False), ("short", False)):
                    shutil.rmtree(root, ignore_errors=True)
                    os.makedirs(root)
                    code, out, _ = self.faulty(words, root, kind, at, sticky)
                    tried += 1
                    kept = re.search(r"try:\s+.*moe recover (\S+)", out)
                    if kept and not os.path.exists(kept.group(1)):
                        self.fail(f"{name}, {kind} at {at}: {kept.group(1)} is named and not there")
        return f"{tried} calls that failed or were cut short"

    def writers(self, root):
        out = os.path.join(root, "o.h5")
        return {
            "trace": [*self.trace, "--tokens", "9000", "-o", out],
            "train": self.train(os.path.join("fc", "run"), 2, "--trace", out),
            "synth": ["synth", "uniform", "--tokens", "9000", "-o", out],
            "report": ["report", self.sound_trace(), "-o", os.path.join(root, "r.html")],
            "recover": ["recover", self.sound_trace(), "-o", out],
        }

    # ------------------------------------------------------------------------ damaged files

    def sound_trace(self):
        path = self.path("t0.h5")
        if not os.path.exists(path):
            self.need([*self.trace, "--tokens", "3000", "-o", path])
        return path

    def report(self, path):
        code, out, _ = self.run(["report", path, "--format", "json"])
        return code, re.sub(r'"[^"]*\.h5"', '""', out)

    def damaged_traces(self):
        with open(self.sound_trace(), "rb") as file:
            sound = file.read()
        path = self.path("d.h5")
        with open(path, "wb") as out:
            out.write(sound)
        code, expected = self.report(path)
        if code != 0:
            raise Gate(f"the report of a sound trace ended with {code}: {expected}")
        refused, differ, silent = 0, 0, 0
        tried = 2000 if self.long else 120
        for n in range(tried):
            bit = self.random.randrange(len(sound) * 8)
            bytes_now = bytearray(sound)
            bytes_now[bit // 8] ^= 1 << (bit % 8)
            with open(path, "wb") as out:
                out.write(bytes_now)
            code, now = self.report(path)
            refused += code != 0
            if now == expected or code != 0:
                continue
            differ += 1
            code, said, _ = self.run(["verify", path])
            if code == 0:
                silent += 1
                self.fail(f"bit {bit} of t0.h5 changes the report, and verify says: {said.strip()}")
        return (f"{tried} flipped bits: {refused} reports refused, {differ} differ, "
                f"verify silent of {silent}")

    def damaged_states(self):
        run = self.path("sr")
        shutil.rmtree(run, ignore_errors=True)
        words = self.train("sr", 4, "--save-every", "2")
        self.faulty(words, os.path.join(run, ".tmp-checkpoint-00000004"), "kill", 0)
        state = os.path.join(run, "checkpoint-00000002", "state.json")
        with open(state) as file:
            sound = json.load(file)
        os.remove(os.path.join(run, "checkpoint-00000002", "MANIFEST.json"))
        tried = 0
        values = [0, -1, 1 << 31, 1 << 63, 1e308, "", [], {}, None, True, [[]], "x\udcff"]
        for section in (None, "train", "trace", "run"):
            keys = sound if section is None else sound[section]
            for key in keys:
                for value in values if self.long else self.random.sample(values, 2):
                    now = json.loads(json.dumps(sound))
                    (now if section is None else now[section])[key] = value
                    with open(state, "w", errors="replace") as out:
                        json.dump(now, out)
                    self.run(["show", os.path.dirname(state)])
                    self.run(["eval", os.path.dirname(state), *self.data, "--tokens", "64"])
                    tried += 1
        return f"{tried} values of state.json"

    # ------------------------------------------------------------------------ words

    def words(self):
        pieces = ["uniform", "zipf:s=", "custom:", "experts=", "k=", "layers=", "-1", "0", "1e9"]
        pieces += [",", ":", "=", "{", "}", ";", "nan", "4294967296", "softmax", "x\udcff", "\x1b[2J"]
        tried = 2000 if self.long else 100
        for n in range(tried):
            spec = "".join(self.random.choices(pieces, k=self.random.randint(1, 5)))
            option = self.random.choice(["--model", "--router", "--balance", "--capacity"])
            code, out, _ = self.run(["train", "--dry-run", option, spec])
            if "\x1b" in out:
                self.fail(f"an escape sequence of {spec!r} reaches the terminal")
        return f"{tried} specs"

    def odd_bytes(self):
        """Names that are bytes and no characters."""
        folder = os.fsdecode(os.path.join(os.fsencode(self.folder), b"x\xff"))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.path("text"), folder)
        run = os.fsdecode(os.path.join(os.fsencode(self.folder), b"r\xff"))
        shutil.rmtree(run, ignore_errors=True)
        words = self.train("r", 2, "--save-every", "1")
        words[words.index("--data") + 1] = f"text:path={folder}"
        words[words.index("-o") + 1] = run
        self.faulty(words, os.path.join(run, ".tmp-checkpoint-00000002"), "kill", 0)
        for line in (
            ["train", "--resume", run, "--threads", "1"],
            ["trace", run, "--data", f"text:path={folder}", "--tokens", "64", "--force"]
            + ["-o", os.path.join(run, "t.h5")],
            ["generate", run, "--prompt", "x\udcff", "--tokens", "2"],
        ):
            code, out, _ = self.run(line)
            if code != 0:
                self.fail(f"a name that is no UTF-8 ends in {code}: {out[-300:]}")
        fifo = self.path("pipe")
        if not os.path.exists(fifo):
            os.mkfifo(fifo)
        for spec in (f"tokens:path={fifo}", f"text:path={fifo}"):
            code, out, seconds = self.run(["eval", self.path("r0"), "--data", spec])
            if code not in (2, 3):
                self.fail(f"a pipe as {spec} ends in {code}")
        return "5 names"

    # ------------------------------------------------------------------------ resume, stopping

    def resume_matrix(self):
        steps, tried = 4, 0
        for device in ("cpu", "cpu:dtype=bf16"):
            for more in ([], ["--balance", "bias", "--router", "sigmoid:k=2,bias=1"],
                         ["--accumulate", "2", "--balance", "quantile:ema=0.5", "--router",
                          "sigmoid:k=2,bias=1"]):
                words = ["--save-every", "2", "--device", device, *more]
                shutil.rmtree(self.path("m0"), ignore_errors=True)
                shutil.rmtree(self.path("m1"), ignore_errors=True)
                self.need(self.train("m0", steps, *words))
                stop = self.path("m1", ".tmp-checkpoint-00000004")
                self.faulty(self.train("m1", steps, *words), stop, "kill", 0)
                self.need(["train", "--resume", self.path("m1"), "--threads", "2"])
                tried += 1
                if self.weights(self.path("m0"), steps) != self.weights(self.path("m1"), steps):
                    self.fail(f"resumed to other weights: {' '.join(words)}")
        return f"{tried} runs stopped and resumed"

    def signals(self):
        tried = 0
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
            run = self.path("sg")
            shutil.rmtree(run, ignore_errors=True)
            words = self.train("sg", 3, "--accumulate", "100000")
            # after the first checkpoint the only step would take hours
            process = subprocess.Popen([self.moe, *words], stderr=subprocess.PIPE)
            for _ in range(400):
                if os.path.exists(os.path.join(run, "checkpoint-00000000")):
                    break
                time.sleep(0.05)
            time.sleep(0.5)
            process.send_signal(number)
            try:
                _, said = process.communicate(timeout=SECONDS * SLOW)
            except subprocess.TimeoutExpired:
                process.kill()
                _, said = process.communicate()
                self.fail(f"signal {number} is not heard within {SECONDS * SLOW} s")
            if process.returncode != 128 + number or b"saved; go on with" not in said:
                self.fail(f"signal {number} ends with {process.returncode}: {said[-200:]}")
            tried += 1
        return f"{tried} signals within a step"

    def little_room(self):
        tried = 0
        for megabytes in range(40, 520, 10 if self.long else 60):
            limit = megabytes << 20
            words = self.train("lr", 1, "--force")
            process = subprocess.run(
                [self.moe, *words],
                capture_output=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
            )
            if process.returncode == 127 and b"loading shared libraries" in process.stderr:
                continue  # the loader's own refusal: the program has not begun
            tried += 1
            if process.returncode not in (0, OUT_OF_MEMORY):
                said = process.stderr[-200:].decode("utf-8", "replace")
                self.fail(f"{megabytes} MiB of addresses end in {process.returncode}: {said}")
        return f"{tried} limits of addresses"

    PARTS = {
        "kill-trace": lambda f: f.kills_of_trace(),
        "power-trace": lambda f: f.power_cuts_of_trace(PAGE),
        "torn-trace": lambda f: f.power_cuts_of_trace(SECTOR),
        "kill-run": lambda f: f.stops_of_run(False, False),
        "kill-recorded": lambda f: f.stops_of_run(True, False),
        "kill-resumed": lambda f: f.stops_of_resume(),
        "kill-makers": lambda f: f.kills_of_makers(),
        "power-run": lambda f: f.stops_of_run(False, True),
        "power-recorded": lambda f: f.stops_of_run(True, True),
        "calls": lambda f: f.failing_calls(),
        "bits": lambda f: f.damaged_traces(),
        "states": lambda f: f.damaged_states(),
        "words": lambda f: f.words(),
        "bytes": lambda f: f.odd_bytes(),
        "resume": lambda f: f.resume_matrix(),
        "signals": lambda f: f.signals(),
        "room": lambda f: f.little_room(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("moe")
    parser.add_argument("interpose")
    parser.add_argument("--long", action="store_true", help="every place, an hour or so")
    parser.add_argument("--only", default="", help=", ".join(Faults.PARTS))
    parser.add_argument("--keep", default="", help="a folder for the files, which stay")
    args = parser.parse_args()
    folder = args.keep or tempfile.mkdtemp(prefix="moe-faults-", dir=shm())
    faults = Faults(os.path.abspath(args.moe), os.path.abspath(args.interpose), folder, args.long)
    wanted = args.only.split(",") if args.only else list(Faults.PARTS)
    for name in wanted:
        start = time.monotonic()
        said = Faults.PARTS[name](faults)
        print(f"{name}: {said}; {time.monotonic() - start:.0f} s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"peak memory of all: {peak >> 20} MiB")
    if peak > MEMORY:
        faults.fail(f"{peak} bytes of memory at most, and {MEMORY} are enough")
    if not args.keep:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(faults.failures)} gates missed" if faults.failures else "every gate held")
    return 1 if faults.failures else 0


def shm():
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
