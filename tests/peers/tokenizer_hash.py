"""Every id of a whole text by `moe tokenizer encode` and by the library that each file is meant for.

  tokenizer_hash.py MOE DOCUMENTS TOKENIZER...

DOCUMENTS: JSON lines {"text": ...} (tokenizer_speed.py makes them). A TOKENIZER is a tokenizer.json
(`tokenizers`) or a sentencepiece .model (`sentencepiece`). Prints a line for each: documents, ids,
the SHA-256 over all ids as little-endian u32 of both, and whether they are equal; ends with 1 where
any is not. Called by scripts/tokenizer-peers.sh --hash.
"""

import array
import hashlib
import json
import os
import subprocess
import sys


def library_of(path):
    """Its name, and a function from text to ids."""
    if path.endswith(".json"):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(path)
        return "tokenizers", lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=path)
    return "sentencepiece", lambda text: model.encode(text)


class Digest:
    def __init__(self):
        self.sha, self.count, self.first = hashlib.sha256(), 0, []

    def add(self, ids):
        self.count += len(ids)
        numbers = array.array("I", ids)
        if sys.byteorder == "big":
            numbers.byteswap()
        self.sha.update(numbers.tobytes())


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    moe, documents, *paths = sys.argv[1:]
    with open(documents) as file:
        texts = [json.loads(line)["text"] for line in file]
    size = sum(len(t.encode()) for t in texts)
    different = 0
    for path in paths:
        name, encode = library_of(path)
        theirs, ours = Digest(), Digest()
        first = ""
        words = [moe, "tokenizer", "encode", path, "--jsonl"]
        with open(documents) as source:
            process = subprocess.Popen(words, stdin=source, stdout=subprocess.PIPE, text=True)
            for number, (text, line) in enumerate(zip(texts, process.stdout)):
                want, got = encode(text), json.loads(line)["ids"]
                theirs.add(want)
                ours.add(got)
                if want != got and not first:
                    first = f"; document {number} is the first that differs"
        if process.wait() != 0:
            sys.exit(f"{' '.join(words)} ended with {process.returncode}")
        equal = ours.sha.digest() == theirs.sha.digest() and ours.count == theirs.count
        different += not equal
        label = os.path.basename(os.path.dirname(os.path.abspath(path)))
        print(
            f"{label:24} {name:13} {len(texts):,} documents, {size:,} bytes, {theirs.count:,} ids, "
            f"{theirs.sha.hexdigest()[:16]} {'equal' if equal else 'DIFFERENT ' + ours.sha.hexdigest()[:16] + first}",
            flush=True,
        )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
