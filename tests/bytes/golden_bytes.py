#!/usr/bin/python3
"""Golden bytes of every preset: a checkpoint, a resumed run, a trace and its reports.

  golden_bytes.py check MOE PRESET      compares with golden/PRESET.txt; exit code 1 where they differ
  golden_bytes.py update MOE [PRESET]   writes what is there now, for one preset or for all

What is computed is the definition's (--device reference), so the bytes depend on nothing but the C
library's exp, log, ... Where those give other bits than on the machine of the record (`canary`),
the test is skipped with exit code 77. Builds with sanitizers add up the rows of recurrent mixers in
another order: of these a run is compared with itself, resumed. Version, date and paths of this machine are masked.

Lines of a record that start with "text" may change with the wording of reports; those that start
with "number" (weights, moments, rows of the trace, every cell of every table by its table and
column id) change only with a computation, which CHANGELOG.md then says.
"""

import ctypes
import hashlib
import json
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

import h5py
import numpy

HERE = pathlib.Path(__file__).resolve().parent
FORMATS = ["text", "md", "csv", "json", "html"]
SAMPLES = [0.013 * i - 3.7 for i in range(600)]


def canary():
    """A hash of what this machine's C library says of exp, log, ... in f32 and f64."""
    libm, out = ctypes.CDLL("libm.so.6"), hashlib.sha256()
    for name in ("exp", "log", "sin", "cos", "tanh", "erf", "log1p", "pow"):
        for ending, kind, code in (("", ctypes.c_double, "<d"), ("f", ctypes.c_float, "<f")):
            f = getattr(libm, name + ending)
            f.restype = kind
            f.argtypes = [kind] * (2 if name == "pow" else 1)
            for x in SAMPLES:
                x = abs(x) + 0.01 if name in ("log", "log1p", "pow") else x
                out.update(struct.pack(code, f(x, 1.37) if name == "pow" else f(x)))
    return out.hexdigest()


def masked(text):
    text = re.sub(r"\d+\.\d+\.\d+ \([^)\s]*\)", "VERSION", text)
    return re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?( ?UTC|Z)?", "DATE", text)


def digest(data):
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()[:32]


def hash_of_trace(path):
    """Every dataset of the file by name, type, shape and numbers."""
    out = hashlib.sha256()

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            out.update(f"{name} {item.dtype} {item.shape}".encode())
            data = item[()]
            text = data.dtype.hasobject if isinstance(data, numpy.ndarray) else True
            out.update(repr(data.tolist() if text and hasattr(data, "tolist") else data).encode())
            if not text:
                out.update(numpy.ascontiguousarray(data).tobytes())

    with h5py.File(path) as f:
        f.visititems(visit)
    return out.hexdigest()[:32]


def numbers_of(node, out, path=""):
    """Cells and ids of a JSON report, without its prose."""
    prose = {
        "title",
        "reading",
        "meaning",
        "findings",
        "finding_cells",
        "notes",
        "name",
        "about",
        "help",
        "glossary",
    }
    if isinstance(node, dict):
        for key, value in node.items():
            if key not in prose:
                numbers_of(value, out, f"{path}/{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            numbers_of(value, out, f"{path}/{i}")
    elif (
        isinstance(node, (int, float))
        or node is None
        or path.rsplit("/", 1)[-1] in ("id", "metric")
    ):
        out.append(f"{path} {node!r}")


class Runs:
    def __init__(self, moe, folder):
        self.moe, self.folder, self.lines = moe, folder, []

    def moe_(self, *words):
        done = subprocess.run([self.moe, *words], cwd=self.folder, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"moe {' '.join(words)}: exit code {done.returncode}\n{done.stderr.decode()}")
        return done.stdout

    def add(self, kind, name, value):
        self.lines.append(f"{kind} {name} {value}")

    def checkpoint(self, run):
        step = self.folder / run / "checkpoint-00000003"
        for file in ("model.safetensors", "optimizer.safetensors"):
            self.add("number", f"{run}/{file}", digest((step / file).read_bytes()))
        steps = [json.loads(line) for line in (self.folder / run / "metrics.jsonl").open()]
        for one in steps:
            one.pop("tokens_per_second", None)
        self.add("number", f"{run}/metrics.jsonl", digest(json.dumps(steps)))
        for file in ("config.json", "state.json"):
            text = (step / file).read_text().replace(str(self.folder), "FOLDER")
            self.add("text", f"{run}/{file}", digest(masked(text)))

    def report(self, name):
        for form in FORMATS:
            text = masked(self.moe_("report", "a.h5", "--format", form, "-o", "-").decode())
            self.add("text", f"{name}.{form}", digest(text))
            if form == "json":
                cells = []
                numbers_of(json.loads(text), cells)
                self.add("number", f"{name}.cells", digest("\n".join(cells)))
        self.moe_("report", "a.h5", "--values", "values.h5")
        self.add("number", f"{name}.values", hash_of_trace(self.folder / "values.h5"))


def corpus(folder):
    """Two domains of made-up words, from a generator of our own."""
    state = 12345
    for name, words in (("letters", "abcdefgh"), ("digits", "0123456789")):
        text = []
        for _ in range(6000):
            state = (state * 1103515245 + 12345) % 2**31
            text.append(words[state // 65536 % len(words)])
            if state // 1024 % 5 == 0:
                text.append(" \n"[state // 4096 % 2])
        (folder / "corpus").mkdir(exist_ok=True)
        (folder / "corpus" / f"{name}.txt").write_text("".join(text))


# Presets whose encoder reads a source for each sequence, and those without experts, which leave no
# trace.
WITH_SOURCES = ("t5-toy", "switch-t5-toy", "nllb-toy")
DENSE = ("t5-toy",)
# Presets that read pictures beside text.
WITH_PICTURES = ("moe-llava-toy", "limoe-toy", "ernie-vl-toy", "moma-toy")


def record(moe, preset):
    task = ",task=denoise" if preset in WITH_SOURCES else ""
    data = "shapes:valid=12" if preset in WITH_PICTURES else f"text:path=corpus{task}"
    length = "64" if preset in WITH_PICTURES else "24"
    with tempfile.TemporaryDirectory() as where:
        folder = pathlib.Path(where)
        corpus(folder)
        runs = Runs(moe, folder)
        # one layer of the largest preset: plain loops are slow
        model = "small:layers=1" if preset == "small" else preset
        common = ["--device", "reference", "--data", data, "--model", model]
        common += ["--steps", "3", "--batch", "2", "--length", length, "--eval-tokens", "96"]
        traced = [] if preset in DENSE else ["--trace", "train.h5"]
        runs.moe_("train", *common, *traced, "-o", "run")
        runs.checkpoint("run")
        if traced:
            runs.add("number", "run/trace", hash_of_trace(folder / "train.h5"))
        runs.moe_("train", *common, "--save-every", "2", "-o", "resumed")
        for left in (folder / "resumed" / "checkpoint-00000003").iterdir():
            left.unlink()
        (folder / "resumed" / "checkpoint-00000003").rmdir()
        runs.moe_("train", "--resume", "resumed", "--device", "reference")
        runs.checkpoint("resumed")
        if not traced:
            return runs.lines
        runs.moe_("trace", "run", "--device", "reference", "--data", data,
                  "--tokens", "240", "--batch", "2", "--length", length, "-o", "a.h5")  # fmt: skip
        runs.add("number", "trace", hash_of_trace(folder / "a.h5"))
        runs.report("report")
        return runs.lines


def presets(moe):
    text = subprocess.run([moe, "list", "models"], capture_output=True, check=True).stdout.decode()
    return re.findall(r"^  ([a-z][a-z0-9-]*) ", text, re.M)


def built_with_sanitizers(moe):
    text = subprocess.run([moe, "--version"], capture_output=True, check=True).stdout.decode()
    return bool(re.search(r"^  sanitizers +\S", text, re.M))


def resumed_alike(lines):
    """Whether the run that was gone on with has the numbers of the one that was not stopped."""
    numbers = [line.removeprefix("number ") for line in lines if line.startswith("number ")]
    whole = [line.removeprefix("run/") for line in numbers if line.startswith("run/")]
    again = [line.removeprefix("resumed/") for line in numbers if line.startswith("resumed/")]
    return bool(again) and set(again) <= set(whole)


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("check", "update"):
        sys.exit(__doc__)
    moe = str(pathlib.Path(sys.argv[2]).resolve())
    wanted = sys.argv[3:] or presets(moe)
    for preset in wanted:
        file = HERE / "golden" / f"{preset}.txt"
        lines = [f"canary {canary()}"] + record(moe, preset)
        if sys.argv[1] == "update":
            file.parent.mkdir(exist_ok=True)
            file.write_text("\n".join(lines) + "\n")
            print("wrote", file.name)
            continue
        if not file.exists():
            sys.exit(f"{preset} has no record: golden_bytes.py update MOE {preset}")
        want = file.read_text().split("\n")[:-1]
        if want[0] != lines[0]:
            print("skipped: this machine's C library rounds exp, log, ... differently")
            sys.exit(77)
        different = [a for a in lines if a not in want] + [
            f"gone: {a}" for a in want if a not in lines
        ]
        if different and built_with_sanitizers(moe) and resumed_alike(lines):
            print("skipped: sanitizers change how loops are widened, and with it sums of mixers;")
            print("a run that is gone on with has the bytes of one that is not stopped")
            sys.exit(77)
        if different:
            sys.exit("\n  ".join([f"{preset}: other bytes than recorded:", *different]))
        print(f"{preset}: {len(lines) - 1} records agree")


if __name__ == "__main__":
    main()
