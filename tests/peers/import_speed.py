#!/usr/bin/env python3
"""Recordings of a given size and the time in which orjson + numpy read them.

    import_speed.py make FOLDER MB        # FOLDER/router_trace_rank0.jsonl and FOLDER/responses.jsonl
    import_speed.py read megatron FILE    # prints the seconds of one reading, and the ids read
    import_speed.py read base64 FILE

`make` writes what Megatron-LM's RouterTracer writes (integer lists, one line a layer and step) and
what vLLM answers (one .npy in base64 a response). `read` does the least that any importer must do:
parse every line, and bring the ids of every layer into one array of u16; it writes nothing.
"""
import base64
import io
import json
import sys
import time

import numpy as np

LAYERS, EXPERTS, TOP_K, TOKENS = 16, 64, 8, 2048


def choices(random, tokens):
    """[tokens, TOP_K] different experts a row, in the order in which they were chosen."""
    return np.argsort(random.random((tokens, EXPERTS)), axis=1)[:, :TOP_K]


def write_megatron(path, size):
    random = np.random.default_rng(1)
    step = 0
    with open(path, "w") as out:
        while out.tell() < size:
            for layer in range(1, LAYERS + 1):
                line = {"step": step, "stage": "pre_dispatch", "block": "decoder", "layer": layer,
                        "rank": 0, "num_tokens": TOKENS, "topk": TOP_K,
                        "top_indices": np.sort(choices(random, TOKENS), axis=1).tolist()}
                out.write(json.dumps(line) + "\n")
            step += 1


def npy_base64(ids):
    held = io.BytesIO()
    np.save(held, ids)
    return base64.b64encode(held.getvalue()).decode()


def write_responses(path, size):
    random = np.random.default_rng(2)
    number = 0
    with open(path, "w") as out:
        while out.tell() < size:
            prompt = random.integers(0, 50000, 1000).tolist()
            answer = random.integers(0, 50000, 1000).tolist()
            rows = len(prompt) + len(answer) - 1
            layers = [choices(random, rows) for _ in range(LAYERS)]
            routed = npy_base64(np.stack(layers, axis=1).astype(np.uint8))
            choice = {"index": 0, "text": "", "finish_reason": "length", "token_ids": answer,
                      "prompt_token_ids": prompt, "routed_experts": routed}
            line = {"id": f"cmpl-{number}", "object": "text_completion", "model": "m",
                    "choices": [choice]}
            out.write(json.dumps(line) + "\n")
            number += 1


def read_megatron(orjson, path):
    steps = {}
    with open(path, "rb") as lines:
        for line in lines:
            record = orjson.loads(line)
            ids = np.asarray(record["top_indices"], dtype=np.uint16)
            steps.setdefault(record["step"], {})[record["layer"]] = ids
    held = [np.stack([layers[n] for n in sorted(layers)], axis=1) for layers in steps.values()]
    return np.concatenate(held)


def read_base64(orjson, path):
    held = []
    with open(path, "rb") as lines:
        for line in lines:
            for choice in orjson.loads(line)["choices"]:
                packed = base64.b64decode(choice["routed_experts"])
                held.append(np.load(io.BytesIO(packed)).astype(np.uint16))
    return np.concatenate(held)


def main():
    if sys.argv[1] == "make":
        size = float(sys.argv[3]) * 1e6
        write_megatron(f"{sys.argv[2]}/router_trace_rank0.jsonl", size)
        write_responses(f"{sys.argv[2]}/responses.jsonl", size)
        return
    import orjson
    read = {"megatron": read_megatron, "base64": read_base64}[sys.argv[2]]
    begin = time.perf_counter()
    ids = read(orjson, sys.argv[3])
    print(f"{time.perf_counter() - begin:.4f} {ids.size} {int(ids.sum(dtype=np.uint64))}")


main()
