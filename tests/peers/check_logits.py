"""Opens checkpoints of this program in transformers and compares logits, every token, float32.

    cmake --build build/dev --target peers_write_model && build/dev/tests/peers_write_model FOLDER
    python tests/peers/check_logits.py [--expect 4|5] FOLDER

Needs torch, transformers (4.57 or 5) and safetensors. Each model has random weights, is loaded with AutoModelForCausalLM, and must agree
within 2e-5. Where a class rounds more in float32, it is asked in float64 too: what we give may be no farther from that than twice what the
class itself gives. A tensor that the class misses or does not know is a failure, and so are no models at all. Version 4 has no class for some
families; those are said and left out.
--expect: refuse to run in another major version.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

ONLY_IN_5 = {"minimax_m2"}
ONLY_IN_4 = {"nllb-moe"}  # version 5 runs two of its experts only


def noise(model, said_to, theirs, ours):
    """Of the class in float32, and of ours: largest distance from the class in float64."""
    model.config._experts_implementation = "eager"  # products of all experts at once know no float64
    with torch.no_grad():
        exact = model.double()(**said_to).logits[0]
    return tuple((x.double() - exact).abs().max().item() for x in (theirs, ours))


def compare(folder):
    said = json.loads((folder / "written.json").read_text())
    other = ONLY_IN_5 if transformers.__version__.startswith("4.") else ONLY_IN_4
    if said["family"] in other:
        print(f"none {said['family']:<10} this version has no such class  {said['spec']}")
        return True
    source = folder / "source.json"
    auto = (
        transformers.AutoModelForSeq2SeqLM if source.exists() else transformers.AutoModelForCausalLM
    )
    model, report = auto.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", torch_dtype=torch.float32
    )
    strays = [f"{kind}: {sorted(map(str, names))}" for kind, names in report.items() if names]
    if model.config.model_type != said["family"]:
        strays.append(f"opened as {model.config.model_type}")
    ids = torch.tensor([json.loads((folder / "ids.json").read_text())])
    said_to = {"input_ids": ids}
    if source.exists():
        said_to = {
            "input_ids": torch.tensor([json.loads(source.read_text())]),
            "decoder_input_ids": ids,
        }
    with torch.no_grad():
        theirs = model.eval()(**said_to).logits[0]
    ours = load_file(folder / "expected.safetensors")["logits"]
    worst = (ours - theirs).abs().max().item()
    ok = worst <= 2e-5
    beside = ""
    if not ok:
        its_own, from_exact = noise(model, said_to, theirs, ours)
        ok = from_exact <= 2 * its_own
        beside = f" (from float64: {from_exact:.1e}, the class {its_own:.1e})"
    ok = ok and not strays
    print(
        f"{'ok  ' if ok else 'FAIL'} {said['family']:<10} {worst:.1e} of {theirs.abs().max():.1f}{beside}  {said['spec']}",
        *strays,
        flush=True,
    )
    return ok


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "--expect":
        if transformers.__version__.split(".")[0] != arguments[1]:
            sys.exit(f"this is transformers {transformers.__version__}, expected {arguments[1]}")
        arguments = arguments[2:]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print("transformers", transformers.__version__, "torch", torch.__version__)
    results = [compare(path.parent) for path in sorted(Path(arguments[0]).glob("*/written.json"))]
    sys.exit(0 if results and all(results) else 1)
