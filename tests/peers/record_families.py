"""Writes tests/model/families/NAME.json: a tiny model of each family, its tensors and the logits that its class gives.

    python tests/peers/record_families.py [NAME ...]

Needs torch, transformers 5 and safetensors. Weights are a function of the tensor's name and of the place in it (weights() below,
tests/model/recorded_test.cpp), so that no weights are stored and the test needs no Python. Families without a class in transformers are
recorded from remake_family.py. Experts of one layer that are alike stand in one line: "experts.*.", with their number.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

import make_family
import remake_family
from make_family import COMMON, LATENT

OUT = Path(__file__).parent.parent / "model" / "families"
EXPERTS = dict(COMMON, intermediate_size=24, num_local_experts=8, num_experts_per_tok=2)
# a whole model with its text part inside, and an eye as small as the class allows
LLAMA4 = dict(
    text_config=make_family.CASES["llama4_text"][1],
    vision_config=dict(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projector_input_dim=16,
        projector_output_dim=16,
        vision_output_dim=16,
        image_size=28,
        patch_size=14,
    ),
)

# family -> (model_type of the class, keys of its configuration)
CLASSES = {
    "llama": make_family.CASES["llama_rope"],
    "mistral": ("mistral", dict(COMMON, head_dim=16, intermediate_size=72, sliding_window=7)),
    "qwen2": ("qwen2", dict(COMMON, intermediate_size=72, tie_word_embeddings=True)),
    "qwen3": ("qwen3", dict(COMMON, head_dim=24, intermediate_size=72)),
    "olmo2": ("olmo2", dict(COMMON, intermediate_size=72, rms_norm_eps=1e-5)),
    "flex_olmo": (
        "flex_olmo",
        dict(COMMON, intermediate_size=24, num_experts=8, num_experts_per_tok=3),
    ),
    "mixtral": ("mixtral", dict(EXPERTS, head_dim=16, sliding_window=7, tie_word_embeddings=True)),
    "olmoe": make_family.CASES["olmoe_clip"],
    "qwen2_moe": (
        "qwen2_moe",
        dict(
            COMMON,
            intermediate_size=72,
            moe_intermediate_size=20,
            shared_expert_intermediate_size=40,
            num_experts=8,
            num_experts_per_tok=3,
            mlp_only_layers=[1],
            norm_topk_prob=True,
        ),
    ),
    "qwen3_moe": make_family.CASES["qwen3_moe_bias"],
    "glm4_moe": make_family.CASES["glm4_moe_plain"],
    "granitemoe": (
        "granitemoe",
        dict(
            EXPERTS,
            embedding_multiplier=6.0,
            attention_multiplier=0.3,
            residual_multiplier=0.5,
            logits_scaling=3.0,
        ),
    ),
    "granitemoeshared": make_family.CASES["granitemoeshared"],
    "gpt_oss": make_family.CASES["gpt_oss_mxfp4"],
    "phimoe": make_family.CASES["phimoe"],
    "ernie4_5_moe": make_family.CASES["ernie4_5_moe"],
    "hunyuan_v1_moe": make_family.CASES["hunyuan_v1_moe"],
    "minimax_m2": make_family.CASES["minimax_m2"],
    "deepseek_v2": make_family.CASES["deepseek_v2_yarn"],
    "deepseek_v3": make_family.CASES["deepseek_v3_yarn"],
    "kimi_k2": make_family.CASES["kimi_k2"],
    "dbrx": make_family.CASES["dbrx"],
    "llama4_text": make_family.CASES["llama4_text"],
    "llama4": ("llama4", LLAMA4),
}
WHOLE = {"llama4": "language_model."}  # families inside a larger model, and where their tensors are
REMADE = ["deepseek", "interns1_pro"]


def uniform(name, count):
    """`count` numbers in [-1, 1): splitmix64 from the FNV-1a hash of the name."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        x = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def weights(name, shape):
    """Norms around 1, vectors and biases around 0, matrices of variance 1/inputs."""
    u = uniform(name, int(np.prod(shape)))
    if len(shape) == 1 and "norm" in name and name.endswith("weight"):
        u = 1 + 0.3 * u
    elif "correction_bias" in name:
        u = 0.2 * u
    elif len(shape) == 1:
        u = 0.5 * u
    else:
        u = u * np.sqrt(3.0 / shape[-1])
    return torch.tensor(u.astype(np.float32)).reshape(shape)


def tensor_lines(shapes):
    """{"model.layers.0.mlp.experts.*.up_proj.weight": [8, 24, 64], ...}: experts that are alike in one line."""
    lines = {}
    for name, shape in sorted(shapes.items()):
        lines.setdefault(re.sub(r"experts\.\d+\.", "experts.*.", name), []).append(list(shape))
    for name, found in lines.items():
        assert all(shape == found[0] for shape in found), name
    return {
        name: ([len(found)] + found[0]) if "experts.*." in name else found[0]
        for name, found in lines.items()
    }


def write(family, record):
    OUT.mkdir(exist_ok=True)
    text = json.dumps(record, indent=1)
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda m: "[" + " ".join(m[1].split()) + "]", text)
    (OUT / f"{family}.json").write_text(text + "\n")
    print(f"{family}: {len(record['tensors'])} lines of tensors", flush=True)


BOOKKEEPING = """architectures attention_dropout bos_token_id dtype eos_token_id initializer_range model_type output_router_logits
    pad_token_id pretraining_tp return_dict router_aux_loss_coef transformers_version use_cache""".split()


def defaults(model_type, config):
    """What the class takes where a file leaves a key out."""
    of_class = AutoConfig.for_model(model_type).to_dict()
    return {k: of_class[k] for k in config if k in of_class and k not in BOOKKEEPING}


def last_logits(logits):
    return [[float(f"{v:.8g}") for v in row[-1].tolist()] for row in logits]


def packed_tensors(family, model, work):
    """The tensors as the class holds them, where that is not how they are published."""
    model.save_pretrained(work / "packed", save_original_format=False)
    shapes = {n: t.shape for n, t in load_file(work / "packed" / "model.safetensors").items()}
    return tensor_lines({n: s for n, s in shapes.items() if n.startswith(WHOLE.get(family, ""))})


def from_class(family, work):
    model_type, keys = CLASSES[family]
    auto = AutoModelForImageTextToText if family in WHOLE else AutoModelForCausalLM
    model = auto.from_config(AutoConfig.for_model(model_type, **keys)).float()
    model.save_pretrained(work)
    shapes = {n: t.shape for n, t in load_file(work / "model.safetensors").items()}
    packed = packed_tensors(family, model, work)
    save_file(
        {n: weights(n, s) for n, s in shapes.items()}, work / "model.safetensors", {"format": "pt"}
    )
    loaded = auto.from_pretrained(work, attn_implementation="eager").float().eval()
    vocabulary = keys.get("text_config", keys)["vocab_size"]
    ids = [[(17 * q + 7 * t + t * t) % vocabulary for t in range(24)] for q in range(2)]
    with torch.no_grad():
        text = loaded.language_model if family in WHOLE else loaded
        logits = text(torch.tensor(ids)).logits
    config = json.loads((work / "config.json").read_text()) | {"model_type": family}
    published = tensor_lines(
        {n: s for n, s in shapes.items() if n.startswith(WHOLE.get(family, ""))}
    )
    return {
        "recorded_from": f"transformers {transformers.__version__}",
        "class": type(loaded).__name__,
        "config": config,
        "defaults": {} if family in WHOLE else defaults(model_type, config),
        "tensors": published,
        **({"packed": packed} if packed != published else {}),
        "ids": ids,
        "last_logits": last_logits(logits),
    }


def remade(family):
    c = remake_family.CASES[family]

    class Formula(remake_family.Remade):
        def draw(self, name, *shape):
            self.w[name] = weights(name, shape).double()
            return self.w[name]

        mixture = draw

    model = Formula(c, torch.Generator())
    ids = [[(17 * q + 7 * t + t * t) % c["vocab_size"] for t in range(24)] for q in range(2)]
    with torch.no_grad():
        logits = [model.logits(torch.tensor(row))[0] for row in ids]
    whole = {"model_type": "interns1_pro", "tie_word_embeddings": False, "text_config": c}
    return {
        "recorded_from": "tests/peers/remake_family.py",
        "config": whole if model.intern else c,
        "tensors": tensor_lines({n: t.shape for n, t in model.w.items()}),
        "ids": ids,
        "last_logits": last_logits(logits),
    }


if __name__ == "__main__":
    import tempfile

    for name in sys.argv[1:] or [*CLASSES, *REMADE]:
        with tempfile.TemporaryDirectory() as folder:
            write(name, remade(name) if name in REMADE else from_class(name, Path(folder)))
