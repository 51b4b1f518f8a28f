"""The same documents through Hugging Face's tokenizers, tiktoken and `moe bench tokenizer`.

  tokenizer_speed.py documents OUT MB NAME=FILE...   JSON lines: {"text": 4 KB of a file, "kind": NAME}
  tokenizer_speed.py qwen RANKS OUT                  a tokenizer.json of the merges behind tiktoken ranks
  tokenizer_speed.py time LIBRARY FILE DOCUMENTS     JSON lines: kind, ids, hash, MB/s of processor time, best of 3

Called by scripts/tokenizer-peers.sh. Documents of the kinds come in turn; a file that is too short
is read again.
"""

import base64
import hashlib
import json
import sys
import time

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def cut(text, size):
    """Pieces of `size` bytes that cut no character, for ever: each pass begins some bytes further in, so
    that no piece comes twice."""
    data, at, passes = text.encode(), 0, 0
    edge = lambda i: next((j for j in range(i, len(data)) if data[j] & 0xC0 != 0x80), len(data))
    while True:
        end = edge(min(at + size, len(data)))
        yield data[at:end].decode()
        if end == len(data):
            passes += 1
            end = edge(101 * passes)
        at = end


def documents(out, megabytes, *named):
    kinds = [n.split("=", 1) for n in named]
    streams = [(name, cut(open(path, errors="replace").read(), 4096)) for name, path in kinds]
    written = 0
    with open(out, "w") as f:
        while written < float(megabytes) * 1e6:
            for name, stream in streams:
                text = next(stream)
                written += len(text.encode())
                f.write(json.dumps({"text": text, "kind": name}, ensure_ascii=False) + "\n")


def read_ranks(path):
    lines = (line.split() for line in open(path, "rb") if line.strip())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def letters():
    """GPT-2's printable letter for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + n) for n, b in enumerate(others)}}


def halves(token, ranks):
    """The two tokens that merge last into this one."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [(ranks.get(parts[i] + parts[i + 1], len(ranks)), i) for i in range(len(parts) - 1)]
        rank, i = min(pairs)
        if rank >= ranks[token]:
            sys.exit(f"the token {token} of rank {ranks[token]} is made by no merge")
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def qwen(path, out):
    ranks, letter = read_ranks(path), letters()
    spell = lambda token: "".join(letter[b] for b in token)
    by_rank = sorted(ranks, key=ranks.get)
    merges = [[spell(p) for p in halves(t, ranks)] for t in by_rank if len(t) > 1]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    model = {"type": "BPE", "vocab": {spell(t): r for t, r in ranks.items()}, "merges": merges}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": len(ranks) + i, "content": c, **flags} for i, c in enumerate(SPECIAL)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level,
        "decoder": level,
        "model": model,
    }
    json.dump(tokenizer, open(out, "w"), ensure_ascii=False)


def encoder(library, file):
    if library == "tokenizers":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(file)
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    import tiktoken

    ranks = read_ranks(file)
    special = {c: len(ranks) + i for i, c in enumerate(SPECIAL)}
    encoding = tiktoken.Encoding("ranks", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)
    return encoding.encode_ordinary


def measure(library, file, path):
    encode = encoder(library, file)
    kinds = {}
    for line in open(path):
        one = json.loads(line)
        kinds.setdefault(one["kind"], []).append(one["text"])
    for kind, texts in kinds.items():
        size = sum(len(t.encode()) for t in texts)
        times = []
        for _ in range(3):
            start = time.process_time()
            ids = [encode(t) for t in texts]
            times.append(time.process_time() - start)
        digest = hashlib.sha256()
        for one in ids:
            digest.update(b"".join(i.to_bytes(4, "little") for i in one))
        row = {"kind": kind, "ids": sum(map(len, ids)), "hash": digest.hexdigest()[:16]}
        print(json.dumps({**row, "rate": size / min(times) / 1e6, "bytes": size}), flush=True)


def main():
    verbs = {"documents": documents, "qwen": qwen, "time": measure}
    if len(sys.argv) < 3 or sys.argv[1] not in verbs:
        sys.exit(__doc__)
    verbs[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
