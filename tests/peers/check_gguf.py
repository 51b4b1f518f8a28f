"""Opens GGUF files of this program in llama.cpp and compares what both say next.

    python tests/peers/check_gguf.py MOE FOLDER [FOLDER ...]

Each FOLDER holds checkpoints in folders of their own (those of make_family.py, or a run's). `moe edit X -o x.gguf --save f32` writes the
file, llama.cpp opens it and continues a few ids, the best token each time; so does `moe generate` from the checkpoint. Both must say the
same, up to tokens whose logits lie within 1e-3 of each other. What `moe edit` says that llama.cpp does not open is told, and of the architectures that compute something else in llama.cpp (phimoe,
gpt-oss, DeepSeek-V2 with groups) a difference is told. Needs llama-cpp-python, which pip builds from source.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp

PROMPT = [5, 17, 3, 90, 41, 8]
TOKENS = 8
OTHERWISE = {"phimoe", "gpt_oss", "deepseek_v2"}


def run(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True)


class Model:
    def __init__(self, path):
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self.model:
            raise RuntimeError("llama.cpp does not open the file")
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = 64
        options.n_batch = 64
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        self.size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def logits(self, ids):
        batch = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(batch, len(ids))) != 0:
            raise RuntimeError("llama.cpp does not decode")
        return llama_cpp.llama_get_logits_ith(self.context, -1)[: self.size]


def greedy(path):
    model, ids, step = Model(path), list(PROMPT), list(PROMPT)
    gaps = []
    for _ in range(TOKENS):
        logits = model.logits(step)
        order = sorted(range(model.size), key=lambda i: -logits[i])
        gaps.append(logits[order[0]] - logits[order[1]])
        step = [order[0]]
        ids += step
    return ids, gaps


def check(moe, source, work):
    family = json.loads((source / "config.json").read_text())["model_type"]
    path = Path(work) / "x.gguf"
    path.unlink(missing_ok=True)
    written = run(moe, "edit", source, "-o", path, "--save", "f32")
    if written.returncode != 0:
        return f"none {source.name}: {written.stderr.splitlines()[0]}"
    try:
        theirs, gaps = greedy(path)
    except RuntimeError as error:
        kind = "told" if "llama.cpp opens" in written.stderr else "FAIL"
        return f"{kind} {source.name}: {error}; {written.stderr}"
    said = run(moe, "generate", source, "--ids", " ".join(map(str, PROMPT)), "--tokens", TOKENS, "--temperature", 0)
    ours = [int(word) for word in said.stdout.split()]
    same = 0
    while same < min(len(ours), len(theirs)) and ours[same] == theirs[same]:
        same += 1
    # an id that ends a text for us, or two tokens that lie closer than float32 tells apart
    ended = same == len(ours) and len(ours) > len(PROMPT)
    close = same >= len(PROMPT) and same < len(theirs) and gaps[same - len(PROMPT)] < 1e-3
    if same == len(theirs) or ended or close:
        return f"ok   {source.name}: {same - len(PROMPT)} tokens alike"
    kind = "told" if family in OTHERWISE else "FAIL"
    return f"{kind} {source.name}: {ours[len(PROMPT):]} here, {theirs[len(PROMPT):]} in llama.cpp {written.stderr}"


if __name__ == "__main__":
    llama_cpp.llama_backend_init()
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    program = Path(sys.argv[1]).resolve()
    lines = []
    with tempfile.TemporaryDirectory() as work:
        for folder in sys.argv[2:]:
            for config in sorted(Path(folder).glob("*/config.json")):
                lines.append(check(program, config.parent, work))
                print(lines[-1], flush=True)
    sys.exit(0 if any(line.startswith("ok") for line in lines) and not any(line.startswith("FAIL") for line in lines) else 1)
