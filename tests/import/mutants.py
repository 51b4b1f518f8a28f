#!/usr/bin/python3
"""Damaged recordings of every binary kind that `moe import` reads, and of the lines of moe export.

  mutants.py MOE [--count N] [--kind NAME] [--seed S] [--samples DIR] [--keep DIR]

Makes a small sound file of each kind, damages copies of it in N ways (bytes, lengths, numbers in
headers, pieces left out, doubled or exchanged; entries of archives with a checksum that fits), and
imports each in a process of its own. Every one has to end in a trace that `moe verify` finds whole,
or in one sentence: exit code 2, 3 or 4, nothing on stdout, no file left behind, no signal, at most
1 GiB of memory and 20 s. --samples takes recorded files beside the made ones (folders with an
expected.json, as ../shared/golden/import). Exit code 1 where one did not; --keep keeps those.

No library is needed but Python's own. The same seed damages the same bytes.
"""

import argparse
import base64
import collections
import io
import json
import os
import pathlib
import pickle
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import types
import zipfile

LIMIT = 1 << 30  # bytes of memory
SECONDS = 20
REFUSED = (2, 3, 4)
HELD, IMPORTED = "refused", "imported"  # how a mutant may end
EXTREMES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
            1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


# ---- sound files

def npy(kind, shape, numbers):
    code = {"<i2": "h", "<i4": "i", "<i8": "q", "<f4": "f", "|u1": "B", "<u2": "H"}[kind]
    dims = "".join(f"{n}, " for n in shape)
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({dims}), }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    body = struct.pack(f"<{len(numbers)}{code}", *numbers)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + body


def npy_text(words):
    width = max(len(w) for w in words)
    head = f"{{'descr': '<U{width}', 'fortran_order': False, 'shape': ({len(words)},), }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    body = b"".join(w.ljust(width, "\0").encode("utf-32-le") for w in words)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + body


def archive(entries, packed=False):
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as z:
        for name, data in entries.items():
            z.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, method)
    return out.getvalue()


def entries_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        packed = any(i.compress_type for i in z.infolist())
        return {i.filename: z.read(i) for i in z.infolist()}, packed


def choices(tokens, layers, k, experts):
    return [(t * 5 + l * 3 + j) % experts
            for t in range(tokens) for l in range(layers) for j in range(k)]


def plain_arrays():
    return {
        "expert_ids.npy": npy("<i2", (6, 2, 2), choices(6, 2, 2, 8)),
        "weights.npy": npy("<f4", (6, 2, 2), [0.5] * 24),
        "dropped.npy": npy("|u1", (6, 2, 2), [0, 1] * 12),
        "token_ids.npy": npy("<i8", (6,), range(6)),
        "positions.npy": npy("<i4", (6,), [0, 1, 2, 0, 1, 2]),
        "flags.npy": npy("|u1", (6,), [2] * 6),
        "sequence_lengths.npy": npy("<i8", (2,), [3, 3]),
        "domains.npy": npy_text(["a", "bc"]),
        "layer_index.npy": npy("<i4", (2,), [1, 3]),
        "num_experts.npy": npy("<i4", (2,), [8, 8]),
        "order.npy": npy_text(["key_desc"]),
    }


class Tensor:
    def __init__(self, kind, shape, numbers):
        self.kind, self.shape, self.numbers = kind, shape, list(numbers)


def torch_file(value):
    """As torch.save writes it, without torch: a pickle that names storages by number."""
    codes = {"Int": "i", "Long": "q", "Float": "f", "Short": "h"}
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*_):
        raise NotImplementedError
    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    kinds = {k: type(f"{k}Storage", (), {"__module__": "torch"}) for k in codes}
    for kind in kinds.values():
        setattr(torch, kind.__name__, kind)
    storages, out = [], io.BytesIO()

    class Storage:
        def __init__(self, tensor):
            self.tensor = tensor

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if not isinstance(obj, Storage):
                return None
            t = obj.tensor
            storages.append(struct.pack(f"<{len(t.numbers)}{codes[t.kind]}", *t.numbers))
            return ("storage", kinds[t.kind], str(len(storages) - 1), "cpu", len(t.numbers))

        def reducer_override(self, obj):
            if not isinstance(obj, Tensor):
                return NotImplemented
            strides, step = [], 1
            for n in reversed(obj.shape):
                strides.insert(0, step)
                step *= n
            return _rebuild_tensor_v2, (Storage(obj), 0, tuple(obj.shape), tuple(strides), False,
                                        collections.OrderedDict())
    old = {m: sys.modules.get(m) for m in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        Pickler(out, protocol=2).dump(value)
    finally:
        for name, module in old.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    entries = {"archive/data.pkl": out.getvalue(), "archive/byteorder": b"little",
               "archive/version": b"3\n"}
    entries.update({f"archive/data/{i}": s for i, s in enumerate(storages)})
    return archive(entries)


def sglang_recorder():
    record = {"forward_pass_id": 3, "rank": 0, "input_ids": [70, 71], "positions": [0, 1],
              "extend_seq_lens": [2], "forward_mode": 1,
              "topk_ids_of_layer": Tensor("Int", (2, 2, 8), [3, 1] + [-1] * 6 + [0, 2] + [-1] * 6 +
                                          [1, 2] + [-1] * 6 + [3, 0] + [-1] * 6)}
    return torch_file({"records": [record],
                       "last_physical_to_logical_map": Tensor("Long", (2, 4), list(range(4)) * 2)})


def slime():
    sample = {"tokens": [5, 6, 7, 8], "response_length": 2, "status": "completed",
              "rollout_routed_experts": Tensor("Int", (3, 2, 2), choices(3, 2, 2, 8))}
    return torch_file({"rollout_id": 3, "samples": [sample, sample]})


def safetensors(tensors):
    head, body = {}, b""
    for name, (kind, shape, data) in tensors.items():
        head[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def plain_safetensors():
    ids = struct.pack("<24i", *choices(6, 2, 2, 8))
    return safetensors({"expert_ids": ("I32", [6, 2, 2], ids),
                        "weights": ("F32", [6, 2, 2], struct.pack("<24f", *[0.5] * 24)),
                        "token_ids": ("I64", [6], struct.pack("<6q", *range(6)))})


def gguf_string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def imatrix():
    """GGUF version 3: text metadata, counts of the experts of two layers."""
    meta = [("general.type", 8, gguf_string("imatrix")),
            ("imatrix.datasets", 9, struct.pack("<IQ", 8, 1) + gguf_string("text")),
            ("imatrix.chunk_count", 4, struct.pack("<I", 2)),
            ("imatrix.chunk_size", 4, struct.pack("<I", 512))]
    tensors, body = [], b""
    for layer in (0, 1):
        for part in ("down", "gate", "up"):
            name = f"blk.{layer}.ffn_{part}_exps.weight"
            for end, dims, data in ((".counts", (1, 4), [3, 5, 8, 0]), (".in_sum2", (2, 4), [1.0] * 8)):
                tensors.append((name + end, dims, len(body)))
                body += struct.pack(f"<{len(data)}f", *data)
                body += b"\0" * (-len(body) % 32)
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta))
    for name, kind, value in meta:
        out += gguf_string(name) + struct.pack("<I", kind) + value
    for name, dims, at in tensors:
        out += gguf_string(name) + struct.pack("<I", len(dims)) + struct.pack("<2Q", *dims)
        out += struct.pack("<IQ", 0, at)
    return out + b"\0" * (-len(out) % 32) + body


def response(routes, engine):
    if engine == "vllm":
        one = {"id": "c", "choices": [{"index": 0, "token_ids": [9, 8], "prompt_token_ids": [7, 6],
                                       "routed_experts": routes}]}
    else:
        one = {"text": "", "output_ids": [5, 6], "meta_info": {
            "prompt_tokens": 2, "completion_tokens": 2, "routed_experts": routes}}
    return one


def in_base64(engine):
    data = npy("|u1", (3, 2, 2), choices(3, 2, 2, 8)) if engine == "vllm" else \
        struct.pack("<12i", *choices(3, 2, 2, 8))
    return (json.dumps(response(base64.b64encode(data).decode(), engine)) + "\n").encode()


def records():
    out = b""
    for layer in range(2):
        for _ in range(2):
            out += struct.pack("<3i", layer, 2, 2) + struct.pack("<4i", 0, 1, 2, 3)
    return out


def token_csv():
    out = "sequence,position,token_id,phase,layer,choice,expert,weight,dropped,domain\n"
    for t in range(6):
        for layer in (1, 3):
            for k in range(2):
                out += f"{t // 3},{t % 3},{t + 9},prefill,{layer},{k},{(t * 5 + layer + k) % 8},0.5,{k},\"a, b\"\n"
    return out.encode()


def token_lines():
    out = ""
    for t in range(6):
        experts = {str(layer): [(t * 5 + layer + k) % 8 for k in range(2)] for layer in (1, 3)}
        weights = {layer: [0.75, 0.25] for layer in experts}
        out += json.dumps({"sequence": t // 3, "position": t % 3, "token_id": t + 9, "domain": "a",
                           "phase": "decode", "experts": experts, "weights": weights}) + "\n"
    return out.encode()


Sample = collections.namedtuple("Sample", "kind name files options")


def made():
    """kind, name, {file: bytes}, options of the import."""
    e = ["--experts", "8"]
    arrays = plain_arrays()
    one_layer = struct.pack("<4q", 3, 5, 8, 0)
    trtllm = {"meta_info.json": b'{"num_experts": 4, "num_experts_per_token": 2}',
              "rank0.safetensors": safetensors({"100_0": ("I64", [4], one_layer),
                                                "100_1": ("I64", [4], one_layer)})}
    return [
        Sample("npz", "stored", {"t.npz": archive(arrays)}, []),
        Sample("npz", "deflated", {"t.npz": archive(arrays, packed=True)}, []),
        Sample("npy", "ids", {"t.npy": npy("<i4", (6, 2, 2), choices(6, 2, 2, 8))}, e),
        Sample("npy", "moe-infinity", {"t.npy": npy("<f4", (2, 2, 4), [1.0, 2, 3, 0] * 4)}, []),
        Sample("torch", "arrays", {"t.pt": torch_file(
            {"expert_ids": Tensor("Int", (6, 2, 2), choices(6, 2, 2, 8)),
             "weights": Tensor("Float", (6, 2, 2), [0.5] * 24),
             "token_ids": Tensor("Long", (6,), range(6))})}, e),
        Sample("torch", "sglang-recorder", {"expert_distribution_recorder_1_0.pt": sglang_recorder()},
               ["--experts", "4"]),
        Sample("torch", "slime", {"3.pt": slime()}, e),
        Sample("torch", "logical-count", {"l.pt": torch_file(
            {"logical_count": Tensor("Int", (1, 2, 4), [3, 5, 8, 0] * 2)})}, []),
        Sample("safetensors", "arrays", {"t.safetensors": plain_safetensors()}, e),
        Sample("safetensors", "trtllm", trtllm, []),
        Sample("gguf", "imatrix", {"imatrix.gguf": imatrix()}, []),
        Sample("base64", "vllm", {"r.jsonl": in_base64("vllm")}, e),
        Sample("base64", "sglang", {"r.jsonl": in_base64("sglang")},
               e + ["--layers", "2", "--topk", "2"]),
        Sample("records", "int32", {"t.bin": records()}, e),
        Sample("lines", "csv", {"t.csv": token_csv()}, e),
        Sample("lines", "jsonl", {"t.jsonl": token_lines()}, e),
    ]


BINARY = {".npz": "npz", ".npy": "npy", ".pt": "torch", ".safetensors": "safetensors", ".gguf": "gguf"}


def recorded(folder):
    """Cases of a folder of recorded files that are imported, and have a binary file."""
    out = []
    for expected in sorted(pathlib.Path(folder).resolve().glob("*/*/expected.json")):
        case = json.loads(expected.read_text())
        inputs = [expected.parent / i for i in case.get("inputs", [])]
        kinds = {BINARY[p.suffix] for i in inputs for p in ([i] if i.is_file() else i.rglob("*"))
                 if p.suffix in BINARY}
        if case.get("outcome") == "refused" or len(kinds) != 1 or any(i.is_dir() for i in inputs):
            continue
        options = []
        for key, value in case.get("options", {}).items():
            if key == "config":
                value = str(expected.parent / value)
            options += ["--" + key.replace("_", "-"), str(value)]
        files = {i.name: i.read_bytes() for i in inputs}
        if sum(map(len, files.values())) < 1 << 20:
            out.append(Sample(kinds.pop(), f"{expected.parent.parent.name}/{expected.parent.name}",
                              files, options))
    return out


# ---- damage

def numbers_in(rng, data):
    runs = list(re.finditer(rb"-?\d+", data[:4096]))
    if not runs:
        return data
    run = rng.choice(runs)
    number = rng.choice([b"-1", b"0", b"1", b"4294967296", b"9223372036854775807",
                         b"99999999999999999999", b"1e308", b"65536", b"3", b""])
    return data[:run.start()] + number + data[run.end():]


def damage_once(rng, data):
    if not data:
        return bytes([rng.randrange(256)])
    at, n = rng.randrange(len(data)), rng.randrange(1, 17)
    to = rng.randrange(len(data))
    way = rng.randrange(8)
    if way == 0:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]
    if way == 1:
        return data[:at]
    if way == 2:
        return data[:at] + data[at + n:]
    if way == 3:
        return data[:to] + data[at:at + n] + data[to:]
    if way == 4:
        return data[:at] + rng.randbytes(n) + data[at + n:]
    if way == 5:
        width = rng.choice([1, 2, 4, 8])
        value = rng.choice(EXTREMES) % (1 << 8 * width)
        at = at // width * width if rng.random() < 0.7 else at
        return data[:at] + value.to_bytes(width, "little") + data[at + width:]
    if way == 6:
        return numbers_in(rng, data)
    first, last = sorted((at, to))
    return data[:first] + data[last:last + n] + data[first + n:last] + data[first:first + n] + data[last + n:]


def damaged(rng, data):
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        data = damage_once(rng, data)
    return data


def damaged_archive(rng, data):
    """One entry, or the list of them, with a checksum that fits: damage that a checksum hides."""
    entries, packed = entries_of(data)
    name = rng.choice(sorted(entries))
    way = rng.randrange(10)
    if way == 0:
        del entries[name]
    elif way == 1:
        entries[rng.choice(sorted(entries))] = entries[name]
    elif way == 2:
        entries[damaged(rng, name.encode()).decode("latin-1")] = entries.pop(name)
    else:
        entries[name] = damaged(rng, entries[name])
    return archive(entries, packed)


def damaged_base64(rng, data):
    text = data.decode()
    run = rng.choice(list(re.finditer(r"[A-Za-z0-9+/]{24,}={0,2}", text)))
    routes = damaged(rng, base64.b64decode(run.group()))
    return (text[:run.start()] + base64.b64encode(routes).decode() + text[run.end():]).encode()


def mutant(rng, sample):
    files = dict(sample.files)
    name = rng.choice(sorted(files))
    data = files[name]
    inside = rng.random() < 0.7
    if inside and sample.kind in ("npz", "torch") and zipfile.is_zipfile(io.BytesIO(data)):
        files[name] = damaged_archive(rng, data)
    elif inside and sample.kind == "base64":
        files[name] = damaged_base64(rng, data)
    else:
        files[name] = damaged(rng, data)
    return files


# ---- what has to hold

def run(words, folder):
    """Exit code (negative: signal), stdout, stderr, bytes of memory at most."""
    with open(folder / ".out", "wb") as out, open(folder / ".err", "wb") as err:
        pid = os.fork()
        if pid == 0:
            os.chdir(folder)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            try:
                os.execv(words[0], words)
            except OSError:
                os._exit(127)
        _, status, usage = os.wait4(pid, 0)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    texts = [(folder / n).read_text(errors="replace") for n in (".out", ".err")]
    for n in (".out", ".err"):
        (folder / n).unlink()
    return code, texts[0], texts[1], usage.ru_maxrss * 1024


def sentences(stderr):
    """The lines that are no hints and do not name the format."""
    return [l for l in stderr.splitlines()
            if l and not l.startswith("  ") and not l.startswith("moe: the format is ")]


# What verify says of numbers that were recorded so, but that no routing gives: one digit is enough.
UNLIKELY = re.compile(
    r"out\.h5: (\d+ counts of a step in a layer have more|MoE layer \d+ has no count in any step)"
)


def wrong(moe, folder, sample, files):
    """How it ended: HELD, IMPORTED, or what did not hold."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    code, out, err, memory = run([moe, "import", *sorted(files), *sample.options, "-o", "out.h5"], folder)
    left = sorted(p.name for p in folder.iterdir() if p.name not in files)
    if memory > LIMIT:
        return f"took {memory >> 20} MiB"
    if out:
        return f"wrote to stdout: {out[:80]!r}"
    if code == 0:
        if left != ["out.h5"]:
            return f"left {left}"
        code, out, err, _ = run([moe, "verify", "out.h5"], folder)
        (folder / "out.h5").unlink()
        lines = out.splitlines()
        if code == 0 or (lines and all(UNLIKELY.match(line) for line in lines)):
            return IMPORTED
        return f"made a trace that is not whole: {(out + err)[:200]!r}"
    if code not in REFUSED:
        return f"ended with {code}: {err[-200:]!r}"
    if left:
        return f"left {left}"
    said = sentences(err)
    if len(said) != 1 or not said[0].startswith("moe: "):
        return f"said {said}"
    return HELD


def check(moe, sample, count, seed, keep):
    """Tries a sample whole, then `count` mutants; returns how many ended how, and what was wrong."""
    tally, failures = collections.Counter(), []
    with tempfile.TemporaryDirectory(prefix="moe-mutants-") as place:
        folder = pathlib.Path(place)
        code, _, err, _ = run_whole(moe, folder, sample)
        if code != 0:
            return tally, [f"{sample.kind} {sample.name}: the sound file is refused: {err.strip()}"]
        for i in range(count):
            rng = random.Random(f"{seed} {sample.kind} {sample.name} {i}")
            files = mutant(rng, sample)
            reason = wrong(moe, folder, sample, files)
            tally[reason if reason in (HELD, IMPORTED) else "wrong"] += 1
            if reason not in (HELD, IMPORTED):
                failures.append(f"{sample.kind} {sample.name} mutant {i}: {reason}")
                if keep:
                    to = pathlib.Path(keep) / f"{sample.kind}-{sample.name.replace('/', '-')}-{i}"
                    to.mkdir(parents=True, exist_ok=True)
                    for name, data in files.items():
                        (to / name).write_bytes(data)
            for p in folder.iterdir():
                shutil.rmtree(p) if p.is_dir() else p.unlink()
    return tally, failures


def run_whole(moe, folder, sample):
    for name, data in sample.files.items():
        (folder / name).write_bytes(data)
    result = run([moe, "import", *sorted(sample.files), *sample.options, "-o", "out.h5"], folder)
    for p in folder.iterdir():
        p.unlink()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("moe")
    parser.add_argument("--count", type=int, default=2000, help="mutants of each kind")
    parser.add_argument("--kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples")
    parser.add_argument("--keep")
    o = parser.parse_args()
    moe = str(pathlib.Path(o.moe).resolve())
    samples = made() + (recorded(o.samples) if o.samples else [])
    by_kind = collections.defaultdict(list)
    for s in samples:
        if o.kind in (None, s.kind):
            by_kind[s.kind].append(s)
    if not by_kind:
        parser.error(f"no kind '{o.kind}'; there is {', '.join(sorted({s.kind for s in samples}))}")
    failed = []
    for kind, group in by_kind.items():
        tally = collections.Counter()
        for n, s in enumerate(group):
            share = o.count // len(group) + (n < o.count % len(group))
            t, failures = check(moe, s, share, o.seed, o.keep)
            tally += t
            failed += failures
        print(f"{kind}: {sum(tally.values())} mutants of {len(group)} files: {tally[HELD]} refused, "
              f"{tally[IMPORTED]} imported, {tally['wrong']} wrong", flush=True)
    for line in failed:
        print(line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
