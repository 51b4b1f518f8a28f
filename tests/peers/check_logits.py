"""Opens checkpoints of this program in transformers and compares logits, every token, float32.

    cmake --build build/dev --target peers_write_model
    python tests/peers/check_logits.py build/dev/tests/peers_write_model

Needs torch, transformers and safetensors; not part of the test run for that reason. Each model is written with random weights, loaded
with AutoModelForCausalLM, and must agree within 2e-5 of the size of its logits. A tensor that the class misses or does not know
is a failure.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

MODELS = [
    "tiny", "tiny:tied=1", "tiny:window=16", "mixtral-toy", "olmoe-toy", "deepseek-v3-toy", "deepseek-v3-toy:qk_norm=head,shared_width=128",
    "tiny:qk_norm=head,dense_layers=1,router={softmax:k=2,norm=0}", "tiny:shared_width=64,shared_gate=1,dense_layers=1", "tiny:shared_width=64,shared_gate=1,qkv_bias=1,dense_at=2",
    "deepseek-v3-toy:qkv_bias=1,rotary_dim=16", "tiny:qk_norm=full,clip_qkv=0.05,qkv_bias=1,o_bias=1", "tiny:qk_norm=head,qkv_bias=1,o_bias=1",
    "tiny:dense=1", "tiny:dense=1,window=16", "tiny:dense=1,qk_norm=head,head_dim=48",
]


def compare(writer, spec):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        family = subprocess.run([writer, spec, folder / "model"], check=True, capture_output=True, text=True).stdout.strip()
        model, report = AutoModelForCausalLM.from_pretrained(folder / "model", output_loading_info=True, attn_implementation="eager")
        strays = [f"{kind}: {sorted(map(str, names))}" for kind, names in report.items() if names]
        ids = torch.tensor([json.loads((folder / "model/ids.json").read_text())])
        with torch.no_grad():
            theirs = model.float().eval()(ids).logits[0]
        ours = load_file(folder / "model/expected.safetensors")["logits"]
        worst = (ours - theirs).abs().max().item()
        ok = worst <= 2e-5 * max(1.0, theirs.abs().max().item()) and not strays
        print(f"{'ok  ' if ok else 'FAIL'} {family}: largest difference {worst:.2e} of logits up to {theirs.abs().max():.2f}", *strays)
        return ok


if __name__ == "__main__":
    results = [compare(sys.argv[1], spec) for spec in MODELS]
    sys.exit(0 if all(results) else 1)
