"""Edits checkpoints with `moe edit` and opens what it wrote in transformers.

    python tests/peers/check_edits.py MOE FOLDER

FOLDER holds tiny checkpoints of published classes (make_family.py writes them). Each gets the files of a small tokenizer, and then
`moe edit --merge count=E-1` makes a model of one expert fewer. AutoModelForCausalLM must open that without a tensor missing or
unknown, with every key of config.json but the number of experts as it was; AutoTokenizer must give the ids that it gave before; and
the greedy continuation of both programs must agree. Needs torch and transformers. A refusal (experts in groups) is told.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

COUNTS = {"num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"}
# of what was quantised
GONE = {"quantization_config"}
PROMPT = [5, 17, 3, 90, 41, 8]
TEXT = "an expert, or two"


def give_tokenizer(folder):
    letters = [chr(code) for code in range(33, 127)] + ["\u0120"]  # printable ones, and the blank
    vocabulary = {"<s>": 0, **{letter: i + 1 for i, letter in enumerate(letters)}}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    own = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="<s>")
    own.chat_template = "{{ messages[0]['content'] }}"
    own.save_pretrained(folder)


def flat(config, at=""):
    out = {}
    for key, value in config.items():
        if isinstance(value, dict):
            out.update(flat(value, f"{at}{key}."))
        else:
            out[at + key] = value
    return out


def changed(before, after):
    a, b = flat(before), flat(after)
    return sorted(key for key in {*a, *b} if a.get(key) != b.get(key) and key.split(".")[0] not in GONE)


def experts_of(config):
    return next(value for key, value in flat(config).items() if key.split(".")[-1] in COUNTS)


def run(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True)


def check(moe, source, work):
    name = source.name
    here = work / "in"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, here)
    give_tokenizer(here)
    before = json.loads((here / "config.json").read_text())
    if not any(key.split(".")[-1] in COUNTS for key in flat(before)):
        return f"none {name}: dense"
    if before["model_type"] not in transformers.CONFIG_MAPPING:
        return f"none {name}: transformers has no {before['model_type']} without code of its authors"
    edit = run(moe, "edit", here, "-o", work / "new", "--merge", f"count={experts_of(before) - 1}")
    if edit.returncode == 2 and re.search("groups of|runs of expert ids", edit.stderr):
        return f"none {name}: {edit.stderr.splitlines()[0]}"
    if edit.returncode != 0:
        return f"FAIL {name}: {edit.stderr}"
    after = json.loads((work / "new/config.json").read_text())
    wrong = [key for key in changed(before, after) if key.split(".")[-1] not in COUNTS]
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        work / "new", output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    wrong += [f"{kind}: {sorted(map(str, names))}" for kind, names in report.items() if names]
    old = transformers.AutoTokenizer.from_pretrained(here)
    new = transformers.AutoTokenizer.from_pretrained(work / "new")
    if new(TEXT)["input_ids"] != old(TEXT)["input_ids"] or len(new(TEXT)["input_ids"]) < len(TEXT):
        wrong.append(f"tokenizer: {new(TEXT)['input_ids']}")
    if new.chat_template != old.chat_template or not new.chat_template:
        wrong.append("chat template")
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        theirs = model.eval().generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)[0].tolist()
    said = run(moe, "generate", work / "new", "--ids", " ".join(map(str, PROMPT)), "--tokens", 12, "--temperature", 0)
    ours = [int(word) for word in said.stdout.split()]
    # a tie, or an id that ends a text for us
    if ours != theirs[: len(ours)] or len(ours) <= len(PROMPT):
        wrong.append(f"continues as {ours[len(PROMPT):]}, not {theirs[len(PROMPT):]} {said.stderr}")
    return f"FAIL {name}: {wrong}" if wrong else f"ok   {name}: {after['model_type']}, {len(ours) - len(PROMPT)} tokens alike"


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print("transformers", transformers.__version__)
    program, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    lines = []
    for config in sorted(folder.glob("*/config.json")):
        lines.append(check(program, config.parent, folder.parent / "edited"))
        print(lines[-1], flush=True)
    sys.exit(0 if any(line.startswith("ok") for line in lines) and not any(line.startswith("FAIL") for line in lines) else 1)
