"""Decoding a token at a time beside llama.cpp, the two in turn on the same GGUF files.

    python decode_speed.py MOE FOLDER [--rounds 3] [--threads 1 2] [--tokens 100]

Makes in FOLDER, where they are not there, a model of OLMoE's shape (8 layers, H=1024, 32 experts of
I=512, k=8, V=32,000: 502 M parameters) and its files in F32, BF16, Q8_0 and Q4_0, and by llama.cpp's
own quantiser in Q4_K_M. Ids are drawn, so that nothing of the text matters. Opening is timed on its
own, the file being in the page cache.
"""
import argparse
import ctypes
import json
import os
import random
import statistics
import subprocess
import sys
import time

MODEL = ("olmoe-toy:layers=8,hidden=1024,heads=16,kv_heads=16,width=512,context=1024,"
         "router={softmax:k=8,norm=0}")
VOCABULARY = 32000


def llama(path, threads, tokens):
    """Seconds of opening, and tokens a second, in a process of its own."""
    import llama_cpp as lib
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    silence = quiet(lambda level, text, data: None)
    lib.llama_log_set(silence, None)
    lib.llama_backend_init()
    begin = time.perf_counter()
    model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
    p = lib.llama_context_default_params()
    p.n_ctx = 512
    p.n_threads = p.n_threads_batch = threads
    context = lib.llama_init_from_model(model, p)
    opened = time.perf_counter() - begin
    draw = random.Random(1)

    def step():
        one = (lib.llama_token * 1)(draw.randrange(VOCABULARY))
        if lib.llama_decode(context, lib.llama_batch_get_one(one, 1)) != 0:
            sys.exit("llama_decode failed")

    for _ in range(8):
        step()
    times = []
    for _ in range(tokens):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    print(json.dumps({"open": opened, "rate": 1 / statistics.median(times)}))


def in_llama(path, threads, tokens):
    run = subprocess.run([sys.executable, __file__, "llama", path, str(threads), str(tokens)],
                         capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def in_moe(moe, path, threads, seconds, activations="exact"):
    run = subprocess.run([moe, "bench", "decode", path, "--threads", str(threads), "--seconds",
                          str(seconds), "--activations", activations, "--format", "json"],
                         capture_output=True, text=True, check=True)
    row = json.loads(run.stdout.splitlines()[0])
    return {"open": row["open"], "rate": row["tokens_per_s"], "share": row["share"]}


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


def quantise(source, target):
    import llama_cpp as lib
    p = lib.llama_model_quantize_default_params()
    p.ftype = 15  # LLAMA_FTYPE_MOSTLY_Q4_K_M
    if lib.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(p)) != 0:
        sys.exit("llama_model_quantize failed")


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "llama":
        return llama(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    parser = argparse.ArgumentParser()
    parser.add_argument("moe")
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=2)
    o = parser.parse_args()
    files = make(o.moe, o.folder)
    print(f"{'file':8}{'threads':>8}{'activations':>12}{'llama.cpp':>11}{'moe':>8}{'ratio':>7}"
          f"{'of memory':>11}{'open: theirs':>14}{'ours':>7}")
    for kind, path in files.items():
        for threads in o.threads:
            for activations in ["exact"] + ["int8"] * kind.startswith("q"):
                row(o, kind, path, threads, activations)


def row(o, kind, path, threads, activations):
    rounds = [(in_llama(path, threads, o.tokens),
               in_moe(o.moe, path, threads, o.seconds, activations)) for _ in range(o.rounds)]
    theirs = statistics.median(t["rate"] for t, _ in rounds)
    ours = statistics.median(m["rate"] for _, m in rounds)
    share = statistics.median(m["share"] for _, m in rounds)
    print(f"{kind:8}{threads:8}{activations:>12}{theirs:11.1f}{ours:8.1f}"
          f"{statistics.median(m['rate'] / t['rate'] for t, m in rounds):7.2f}{share:11.2f}"
          f"{statistics.median(t['open'] for t, _ in rounds):14.2f}"
          f"{statistics.median(m['open'] for _, m in rounds):7.2f}", flush=True)


main()
