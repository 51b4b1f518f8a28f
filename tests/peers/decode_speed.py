"""Decoding a token at a time beside llama.cpp, the two in turn on the same GGUF files.

    python decode_speed.py MOE FOLDER [--rounds 3] [--threads 1 2] [--seconds 2] [--kinds f32 ...]
    python decode_speed.py MOE FOLDER --prompt 512 [--rounds 3] [--threads 1 2] [--kinds f32 ...]

Makes in FOLDER, where they are not there, a model of OLMoE's shape (8 layers, H=1024, 32 experts of
I=512, k=8, V=32,000: 502 M parameters) and its files in F32, BF16, Q8_0 and Q4_0, and by llama.cpp's
own quantiser in Q4_K_M. Ids are drawn, so that nothing of the text matters. Opening is timed on its
own, the file being in the page cache: brought there by reading it from disk, as files are that lie
there for longer. Pages that were written in the same hour lie singly, and both programs then read
them a fifth slower. With --prompt, so many ids at once: theirs by the clock around llama_decode, ours
as a process that reads the prompt and makes one token, less one that reads a single id.
"""
import argparse
import ctypes
import json
import mmap
import os
import random
import statistics
import subprocess
import sys
import time

MODEL = ("olmoe-toy:layers=8,hidden=1024,heads=16,kv_heads=16,width=512,context=1024,"
         "router={softmax:k=8,norm=0}")
VOCABULARY = 32000


def llama(path, threads, seconds, prompt):
    """Seconds of opening, and tokens a second, in a process of its own. As many seconds as the other
    decodes, so that both look back at sequences of like length."""
    import llama_cpp as lib
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    silence = quiet(lambda level, text, data: None)
    lib.llama_log_set(silence, None)
    lib.llama_backend_init()
    begin = time.perf_counter()
    model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
    p = lib.llama_context_default_params()
    p.n_ctx = max(1024, 4 * prompt)
    p.n_batch = p.n_ubatch = max(prompt, 64)
    p.n_threads = p.n_threads_batch = threads
    context = lib.llama_init_from_model(model, p)
    opened = time.perf_counter() - begin
    draw = random.Random(1)

    def step(count=1):
        ids = (lib.llama_token * count)(*(draw.randrange(VOCABULARY) for _ in range(count)))
        if lib.llama_decode(context, lib.llama_batch_get_one(ids, count)) != 0:
            sys.exit("llama_decode failed")

    for _ in range(8):
        step()
    times = []
    while sum(times) < seconds and 8 + prompt * (len(times) + 1) <= p.n_ctx:
        begin = time.perf_counter()
        step(prompt)
        times.append(time.perf_counter() - begin)
    print(json.dumps({"open": opened, "rate": prompt / statistics.median(times)}))


def in_llama(path, threads, seconds, prompt=1):
    run = subprocess.run([sys.executable, __file__, "llama", path, str(threads), str(seconds),
                          str(prompt)],
                         capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def in_moe(moe, path, threads, seconds, activations="exact"):
    run = subprocess.run([moe, "bench", "decode", path, "--threads", str(threads), "--seconds",
                          str(seconds), "--activations", activations, "--format", "json"],
                         capture_output=True, text=True, check=True)
    row = json.loads(run.stdout.splitlines()[0])
    return {"open": row["open"], "rate": row["tokens_per_s"], "share": row["share"]}


def prompt_in_moe(moe, path, threads, prompt, activations):
    def seconds(count):
        draw = random.Random(1)
        ids = " ".join(str(draw.randrange(VOCABULARY)) for _ in range(count))
        begin = time.perf_counter()
        subprocess.run([moe, "generate", path, "--ids", ids, "--tokens", "1", "--threads", str(threads),
                        "--activations", activations], capture_output=True, check=True)
        return time.perf_counter() - begin
    return prompt / (seconds(prompt) - seconds(1))


def make(moe, folder):
    os.makedirs(folder, exist_ok=True)
    run = os.path.join(folder, "model")
    if not os.path.exists(run):
        ids = os.path.join(folder, "ids.txt")
        draw = random.Random(0)
        with open(ids, "w") as out:
            out.write(" ".join(str(draw.randrange(VOCABULARY)) for _ in range(20000)) + "\n")
        subprocess.run([moe, "train", "--steps", "0", "--save-dtype", "bf16", "--data",
                        f"tokens:path={ids},vocabulary={VOCABULARY}", "--model", MODEL,
                        "--experts", "32", "-o", run], check=True, stdout=subprocess.DEVNULL)
    files = {}
    for kind in ("f32", "bf16", "q8_0", "q4_0"):
        files[kind] = os.path.join(folder, kind + ".gguf")
        if not os.path.exists(files[kind]):
            subprocess.run([moe, "edit", run, "-o", files[kind], "--save", kind], check=True,
                           stdout=subprocess.DEVNULL)
    files["q4_k_m"] = os.path.join(folder, "q4_k_m.gguf")
    if not os.path.exists(files["q4_k_m"]):
        quantise(files["f32"], files["q4_k_m"])
    return files


def read_from_disk(path):
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    with mmap.mmap(file, 0, prot=mmap.PROT_READ) as mapped:
        sum(mapped[::4096])
    os.close(file)


def quantise(source, target):
    import llama_cpp as lib
    p = lib.llama_model_quantize_default_params()
    p.ftype = 15  # LLAMA_FTYPE_MOSTLY_Q4_K_M
    if lib.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(p)) != 0:
        sys.exit("llama_model_quantize failed")


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "llama":
        return llama(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]),
                     int(sys.argv[5]))
    parser = argparse.ArgumentParser()
    parser.add_argument("moe")
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--prompt", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=["f32", "bf16", "q8_0", "q4_0", "q4_k_m"])
    o = parser.parse_args()
    files = make(o.moe, o.folder)
    if o.prompt:
        return prompts(o, files)
    print(f"{'file':8}{'threads':>8}{'activations':>12}{'llama.cpp':>11}{'moe':>8}{'ratio':>7}"
          f"{'of memory':>11}{'open: theirs':>14}{'ours':>7}")
    for kind in o.kinds:
        path = files[kind]
        read_from_disk(path)
        for threads in o.threads:
            for activations in ["exact"] + ["int8"] * kind.startswith("q"):
                row(o, kind, path, threads, activations)


def prompts(o, files):
    print(f"{'file':8}{'threads':>8}{'activations':>12}{'llama.cpp':>11}{'moe':>8}{'ratio':>7}")
    for kind in o.kinds:
        read_from_disk(files[kind])
        for threads in o.threads:
            for activations in ["exact"] + ["int8"] * kind.startswith("q"):
                rounds = [(in_llama(files[kind], threads, 0.1, o.prompt)["rate"],
                           prompt_in_moe(o.moe, files[kind], threads, o.prompt, activations))
                          for _ in range(o.rounds)]
                theirs, ours = (statistics.median(r) for r in zip(*rounds))
                ratio = statistics.median(b / a for a, b in rounds)
                print(f"{kind:8}{threads:8}{activations:>12}{theirs:11.0f}{ours:8.0f}{ratio:7.2f}",
                      flush=True)


def row(o, kind, path, threads, activations):
    rounds = [(in_llama(path, threads, o.seconds),
               in_moe(o.moe, path, threads, o.seconds, activations)) for _ in range(o.rounds)]
    theirs = statistics.median(t["rate"] for t, _ in rounds)
    ours = statistics.median(m["rate"] for _, m in rounds)
    share = statistics.median(m["share"] for _, m in rounds)
    print(f"{kind:8}{threads:8}{activations:>12}{theirs:11.1f}{ours:8.1f}"
          f"{statistics.median(m['rate'] / t['rate'] for t, m in rounds):7.2f}{share:11.2f}"
          f"{statistics.median(t['open'] for t, _ in rounds):14.2f}"
          f"{statistics.median(m['open'] for _, m in rounds):7.2f}", flush=True)


main()
