"""Records checkpoints with moe_recorder and with `moe trace` on the same ids: both must say the same.

    python tests/recorder/compare.py MOE FOLDER...      (folders of checkpoints, or one checkpoint each)

Needs torch, transformers, h5py. The ids are those that `moe trace` took. Experts must be equal, and in
the same order where both files say key_desc; weights and figures of the router as 16 bits hold them.
A checkpoint that `moe trace` does not run is held to the choices in its expected.h5 where it has one.
What this version of transformers cannot run is named and left out.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[2] / "python"))
import moe_recorder

LENGTH, TOKENS = 20, 80
KNOWN = {  # where the class computes something else than the checkpoint says
    "deepseek_v3_fp8": "the class multiplies in 8 bits",
    "4 gpt_oss_mxfp4": "the class of version 4.57 keeps bf16 experts beside f32",
    "4 deepseek_v2_yarn": "version 4.57 leaves out a factor of the attention scale",
}
TOLERANCE = {"weights": 1e-3, "entropy": 4e-3, "margin": 2e-3, "logsumexp": 2e-4}


def traced(moe, checkpoint, path):
    """What `moe trace` says, or why it does not run this one."""
    vocabulary = transformers.AutoConfig.from_pretrained(checkpoint).get_text_config().vocab_size
    command = [
        moe,
        "trace",
        checkpoint,
        "--data",
        f"zipf:vocabulary={vocabulary}",
        "-o",
        path,
        "--force",
    ]
    command += ["--tokens", str(TOKENS), "--length", str(LENGTH), "--redundancy-tokens", "0"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[0]


def recorded(checkpoint, batches, path):
    eager = {"attn_implementation": "eager"}
    if not transformers.__version__.startswith("4."):
        eager["experts_implementation"] = "eager"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, torch_dtype=torch.float32, **eager
    ).eval()
    with torch.no_grad(), moe_recorder.record(model, path, force=True):
        for batch in batches:
            model(input_ids=torch.tensor(batch.astype(np.int64)), use_cache=False)


def differences(ours, theirs):
    """Sentences; empty = the same."""
    out = []
    for name in ("tokens/token_id", "tokens/position", "tokens/sequence", "model/layer_index"):
        if not np.array_equal(ours[name], theirs[name]):
            out.append(f"{name} differs")
    for name in ("model/num_experts", "model/top_k"):
        if not np.array_equal(ours[name], theirs[name]):
            out.append(f"{name}: {ours[name][:]} and {theirs[name][:]}")
    if out:
        return out
    a, b = ours["routing/expert_ids"][:].astype(int), theirs["routing/expert_ids"][:].astype(int)
    orders = [f["routing/expert_ids"].attrs["order"] for f in (ours, theirs)]
    sort = [np.argsort(x, axis=-1) for x in (a, b)]
    if not np.array_equal(*(np.take_along_axis(x, s, -1) for x, s in zip((a, b), sort))):
        return ["other experts were chosen"]
    if orders[0] == orders[1] and not np.array_equal(a, b):
        out.append(f"the order of the choices differs ({orders[0].decode()})")
    for name, within in TOLERANCE.items():
        if f"routing/{name}" not in theirs or f"routing/{name}" not in ours:
            continue
        x, y = ours[f"routing/{name}"][:].astype(float), theirs[f"routing/{name}"][:].astype(float)
        if name == "weights":
            x, y = (np.take_along_axis(v, s, -1) for v, s in zip((x, y), sort))
        known = np.isfinite(x)  # of routers with scores of their own
        worst = np.abs(x - y)[known].max(initial=0)
        if worst > within * max(1, np.abs(y).max()):
            out.append(f"{name} differs by {worst:.2g}")
    return out


def beside_values(checkpoint, path):
    """The recording beside the choices that the class's routers were seen to make."""
    with h5py.File(checkpoint / "expected.h5") as expected:
        recorded(checkpoint, [expected["input_ids"][:]], path)
        with h5py.File(path) as ours:
            layers = ours["model/layer_index"][:].tolist()
            if sorted(f"layer_{layer}" for layer in layers) != sorted(expected["moe"]):
                return [f"layers {layers} where {sorted(expected['moe'])} are"]
            for at, layer in enumerate(layers):
                values = expected[f"moe/layer_{layer}"]
                ids, wanted = ours["routing/expert_ids"][:, at].astype(int), values["topk_ids"][:]
                a, b = np.argsort(ids, axis=-1), np.argsort(wanted, axis=-1)
                if not np.array_equal(
                    *(np.take_along_axis(x, o, -1) for x, o in ((ids, a), (wanted, b)))
                ):
                    return [f"other experts were chosen in layer {layer}"]
                weights = np.take_along_axis(ours["routing/weights"][:, at].astype(float), a, -1)
                right = np.take_along_axis(values["topk_weights"][:], b, -1)
                if np.abs(weights - right).max() > TOLERANCE["weights"] * max(1, right.max()):
                    return [
                        f"weights of layer {layer} differ by {np.abs(weights - right).max():.2g}"
                    ]
    return []


def beside_trace(checkpoint, path, mine):
    with h5py.File(path) as theirs:
        ids = theirs["tokens/token_id"][:].reshape(-1, LENGTH)
        recorded(checkpoint, np.array_split(ids, 2), mine)
        with h5py.File(mine) as ours:
            return differences(ours, theirs)


def has_class(checkpoint):
    try:
        config = transformers.AutoConfig.from_pretrained(checkpoint)
        transformers.AutoModelForCausalLM._model_mapping[type(config)]
    except (ValueError, KeyError):
        return False
    return True


def compare(moe, checkpoint, folder):
    """(True, False or None where left out; with what, or why)."""
    name = checkpoint.name
    known = KNOWN.get(name) or KNOWN.get(f"{transformers.__version__[0]} {name}")
    if known or not has_class(checkpoint):
        return None, known or "this version has no class for it"
    path, mine = folder / f"{name}.moetrace.h5", folder / f"{name}.recorded.h5"
    why = traced(moe, checkpoint, path)
    try:
        if not why:
            with_what, found = "moe trace", beside_trace(checkpoint, path, mine)
        elif (checkpoint / "expected.h5").is_file() and "dense" not in why:
            with_what, found = "recorded values", beside_values(checkpoint, mine)
        else:
            return None, why
    except moe_recorder.RecorderError as error:
        return (None if "no MoE router" in str(error) else False), str(error)
    said = subprocess.run([moe, "verify", mine], capture_output=True, text=True)
    if said.returncode != 0:
        found.append(said.stdout.strip() + said.stderr.strip())
    return not found, "; ".join(found) or f"as {with_what}"


def checkpoints(folder):
    folder = Path(folder)
    return [folder] if (folder / "config.json").is_file() else sorted(folder.glob("*"))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    moe, failed, same = sys.argv[1], 0, 0
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as work:
        for checkpoint in (c for folder in sys.argv[2:] for c in checkpoints(folder)):
            if not (checkpoint / "config.json").is_file():
                continue
            ok, why = compare(moe, checkpoint, Path(work))
            word = "left out" if ok is None else "same" if ok else "FAIL"
            print(f"{word:<9}{checkpoint.name:<22}{why}", flush=True)
            failed += ok is False
            same += ok is True
    print(f"{same} the same, {failed} failed")
    sys.exit(1 if failed or not same else 0)
