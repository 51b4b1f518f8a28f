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
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
)

import hybrid_cases
import make_family
import remake_family
from make_family import COMMON, LATENT, YARN

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

# of the eyes and ears of Qwen3-VL and Qwen3-Omni, which nothing here sees
QWEN_EYE = dict(
    depth=1, hidden_size=16, intermediate_size=20, num_heads=2, num_position_embeddings=16, patch_size=4,
    out_hidden_size=64, deepstack_visual_indexes=[0],
)
THINKER = dict(
    text_config=dict(
        COMMON, head_dim=20, intermediate_size=72, moe_intermediate_size=20, num_experts=8, num_experts_per_tok=3,
        mlp_only_layers=[1], attention_bias=True, norm_topk_prob=True,
        rope_parameters=dict(rope_type="default", rope_theta=300.0, mrope_section=[4, 3, 3], mrope_interleaved=True),
    ),
    vision_config=QWEN_EYE,
    audio_config=dict(
        d_model=24, encoder_layers=1, encoder_attention_heads=3, encoder_ffn_dim=20, num_mel_bins=16,
        downsample_hidden_size=6, output_dim=64, max_source_positions=32,
    ),
)
ARIA = dict(
    text_config=dict(
        COMMON, intermediate_size=24, moe_num_experts=8, moe_topk=3, moe_num_shared_experts=2, attention_bias=True,
    ),
    vision_config=dict(
        model_type="idefics3_vision", hidden_size=16, intermediate_size=20, num_hidden_layers=1,
        num_attention_heads=2, image_size=8, patch_size=4,
    ),
    projector_patch_to_query_dict={"4": 2},
)
ERNIE_VL = dict(
    text_config=dict(
        COMMON, head_dim=20, intermediate_size=72, moe_intermediate_size=[20, 20], moe_num_experts=6, moe_k=2,
        moe_num_shared_experts=2, mlp_layer_types=["dense", "sparse", "sparse"],
        rope_parameters=dict(rope_type="default", rope_theta=300.0, mrope_section=[3, 3, 4]),
    ),
    vision_config=dict(depth=1, hidden_size=16, intermediate_size=20, num_heads=2, patch_size=4),
    tie_word_embeddings=False,
)
KIMI_K25 = dict(
    text_config=dict(LATENT, q_lora_rank=24, n_shared_experts=1, model_type="deepseek_v3"),
    vision_config=dict(
        hidden_size=16, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2, patch_size=4,
        pos_emb_height=6, pos_emb_width=6,
    ),
    projection_hidden_size=16,
    tie_word_embeddings=False,
)

PLAIN = dict(COMMON, head_dim=16, moe_intermediate_size=20, num_experts_per_tok=3)
DEEPSEEK = dict(PLAIN, n_routed_experts=8, n_group=4, topk_group=2)
WINDOWS = dict(
    layer_types=["sliding_attention", "full_attention", "sliding_attention"], sliding_window=7
)
ROPES = {
    "full_attention": {"rope_type": "default", "rope_theta": 300.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
}
SPARSE = dict(intermediate_size=72, mlp_layer_types=["dense", "sparse", "sparse"])
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
    "jetmoe": (
        "jetmoe",
        dict(EXPERTS, kv_channels=12, num_experts_per_tok=3, rms_norm_eps=0.01),
    ),
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
    "qwen3_omni_moe_thinker": ("qwen3_omni_moe_thinker", THINKER),
    "qwen3_omni_moe": ("qwen3_omni_moe", dict(thinker_config=THINKER, enable_audio_output=False)),
    "aria": ("aria", ARIA),
    "ernie4_5_vl_moe": ("ernie4_5_vl_moe", ERNIE_VL),
    "kimi_k25": ("kimi_k25", KIMI_K25),
    "glm4_moe_lite": (
        "glm4_moe_lite",
        dict({k: v for k, v in LATENT.items() if k != "first_k_dense_replace"}, q_lora_rank=24,
             mlp_layer_types=["sparse", "dense", "sparse"], routed_scaling_factor=1.5),
    ),
    "dots1": (
        "dots1",
        dict(DEEPSEEK, intermediate_size=72, n_shared_experts=2, first_k_dense_replace=1,
             norm_topk_prob=True, routed_scaling_factor=1.7, sliding_window=7, max_window_layers=2,
             attention_bias=True),
    ),
    "solar_open": (
        "solar_open",
        dict(DEEPSEEK, n_shared_experts=1, routed_scaling_factor=1.3, attention_bias=True),
    ),
    "exaone_moe": (
        "exaone_moe",
        dict(PLAIN, num_experts=8, n_group=2, topk_group=1, num_shared_experts=2, sliding_window=7,
             sliding_window_pattern=2, first_k_dense_replace=1, intermediate_size=72),
    ),
    "hy_v3": (
        "hy_v3",
        dict(PLAIN | SPARSE, num_experts=8, num_shared_experts=2, router_scaling_factor=1.4,
             attention_bias=True),
    ),
    "axk1": (
        "axk1",
        dict({k: v for k, v in LATENT.items() if k != "first_k_dense_replace"}, q_lora_rank=24,
             mlp_layer_types=["dense", "sparse", "sparse"], n_shared_experts=1),
    ),
    "mistral4": (
        "mistral4",
        dict(LATENT, q_lora_rank=24, n_shared_experts=2, routed_scaling_factor=1.2,
             rope_parameters=dict(YARN, llama_4_scaling_beta=0.3, original_max_position_embeddings=8)),
    ),
    "mellum": (
        "mellum",
        dict(PLAIN | SPARSE | WINDOWS, num_local_experts=8, rope_parameters=ROPES,
             attention_bias=True),
    ),
    "mimo_v2_flash": (
        "mimo_v2_flash",
        dict(DEEPSEEK | SPARSE | WINDOWS, num_key_value_heads=1, head_dim=18, v_head_dim=10,
             attention_value_scale=0.6, attention_bias=True,
             rope_parameters={k: dict(v, partial_rotary_factor=0.334) for k, v in ROPES.items()}),
    ),
    "afmoe": (
        "afmoe",
        dict(PLAIN | WINDOWS, num_experts=8, num_shared_experts=2, intermediate_size=72,
             route_scale=1.6, mup_enabled=True, attention_bias=True),
    ),
    "flint": (
        "flint",
        dict(PLAIN | WINDOWS, num_experts=8, shared_expert_intermediate_size=24, intermediate_size=72,
             mlp_only_layers=[1], attention_bias=True),
    ),
    "deepseek_v32": (
        "deepseek_v32",
        dict(LATENT, q_lora_rank=24, n_shared_experts=1, index_topk=7, index_n_heads=6,
             index_head_dim=20),
    ),
    "glm_moe_dsa": (
        "glm_moe_dsa",
        dict(LATENT, q_lora_rank=24, n_shared_experts=1, n_group=1, topk_group=1, index_topk=7,
             index_n_heads=6, index_head_dim=20, indexer_types=["full", "shared", "full"]),
    ),
    "longcat_flash": (
        "longcat_flash",
        dict(
            {k: v for k, v in COMMON.items() if k != "num_hidden_layers"}, num_layers=2,
            num_key_value_heads=4, ffn_hidden_size=72, expert_ffn_hidden_size=20,
            n_routed_experts=6, zero_expert_num=3, moe_topk=3, q_lora_rank=24, kv_lora_rank=32,
            qk_nope_head_dim=16, qk_rope_head_dim=8, head_dim=8, v_head_dim=12,
            routed_scaling_factor=1.5, attention_bias=True,
        ),
    ),
    "gemma4_text": (
        "gemma4_text",
        dict(
            COMMON | WINDOWS, head_dim=12, global_head_dim=16, num_global_key_value_heads=1,
            attention_k_eq_v=True, enable_moe_block=True, num_experts=8, top_k_experts=3,
            moe_intermediate_size=20, intermediate_size=72, hidden_size_per_layer_input=0,
            layer_types=["sliding_attention", "full_attention"], num_hidden_layers=2,
            final_logit_softcapping=2.0, attention_bias=False,
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5,
                                   "rope_theta": 300.0},
            },
        ),
    ),
    "deepseek_v4": (
        "deepseek_v4",
        dict(
            vocab_size=96, hidden_size=40, num_hidden_layers=4, num_attention_heads=6, head_dim=14,
            q_lora_rank=18, o_groups=3, o_lora_rank=11, qk_rope_head_dim=6, sliding_window=5,
            layer_types=["sliding_attention", "compressed_sparse_attention",
                         "heavily_compressed_attention", "compressed_sparse_attention"],
            compress_rates={"compressed_sparse_attention": 2, "heavily_compressed_attention": 5},
            index_topk=5, index_n_heads=4, index_head_dim=9, rope_theta=50.0,
            compress_rope_theta=700.0, max_position_embeddings=256,
            rope_parameters={"rope_type": "yarn", "factor": 4.0, "beta_fast": 8.0, "beta_slow": 1.0,
                             "original_max_position_embeddings": 16},
            mlp_layer_types=["moe", "hash_moe", "moe", "hash_moe"], n_routed_experts=7,
            num_experts_per_tok=3, moe_intermediate_size=20, routed_scaling_factor=1.4,
            swiglu_limit=0.7, hc_mult=3, hc_sinkhorn_iters=4, hc_eps=1e-3, rms_norm_eps=1e-5,
        ),
    ),
    "qwen3_vl_moe": (
        "qwen3_vl_moe",
        dict(
            text_config=dict(COMMON, head_dim=20, num_experts=8, num_experts_per_tok=3,
                             moe_intermediate_size=20, intermediate_size=72, mlp_only_layers=[1],
                             attention_bias=True, rope_parameters={
                                 "rope_type": "default", "rope_theta": 300.0,
                                 "mrope_section": [4, 3, 3], "mrope_interleaved": True}),
            vision_config=dict(hybrid_cases.VISION, deepstack_visual_indexes=[0]),
        ),
    ),
    "kolibri1": (
        "kolibri1",
        dict(PLAIN | WINDOWS, num_local_experts=8, shared_expert_intermediate_size=24,
             norm_topk_prob=True),
    ),
    **hybrid_cases.RECORDED,
}
# encoder-decoders; nllb-moe with transformers 4.57, whose version 5 runs two of its experts only
T5 = dict(
    vocab_size=96,
    d_model=36,
    d_kv=7,
    d_ff=40,
    num_heads=5,
    num_layers=2,
    num_decoder_layers=3,
    relative_attention_num_buckets=12,
    relative_attention_max_distance=17,
    tie_word_embeddings=False,
    decoder_start_token_id=0,
)
PAIRS = {
    "t5": dict(T5, feed_forward_proj="gated-gelu"),
    "switch_transformers": dict(
        T5,
        d_model=20,
        tie_word_embeddings=True,
        num_layers=4,
        num_experts=6,
        num_sparse_encoder_layers=2,
        num_sparse_decoder_layers=3,
        expert_capacity=4,
        dense_act_fn="gelu",
        feed_forward_proj="gelu",
        router_bias=True,
    ),
    "nllb-moe": dict(
        vocab_size=96,
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=36,
        decoder_ffn_dim=28,
        encoder_sparse_step=2,
        decoder_sparse_step=3,
        num_experts=6,
        max_position_embeddings=64,
        batch_prioritized_routing=True,
        moe_eval_capacity_token_fraction=0.3,
        router_bias=True,
        activation_function="gelu",
    ),
}
# families inside a larger model, and where their tensors are
WHOLE = {
    "qwen3_vl_moe": ("model.language_model.", "lm_head."),
    "llama4": "language_model.",
    "qwen3_5_moe": ("model.language_model.", "lm_head."),
    "qwen3_omni_moe_thinker": ("model.", "lm_head."),
    "qwen3_omni_moe": ("thinker.model.", "thinker.lm_head."),
    "aria": "language_model.",
    "ernie4_5_vl_moe": ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head."),
    "kimi_k25": "language_model.",
}
REMADE = ["deepseek", "interns1_pro", "moe_llava_stablelm"]
# what a class keeps in memory beyond its published tensors, in a layout that is not read
UNREAD_PACKED = [
    "longcat_flash", "qwen3_vl_moe", "qwen3_omni_moe_thinker", "qwen3_omni_moe", "aria", "ernie4_5_vl_moe", "kimi_k25",
]
DIRECT = {  # classes that no AutoModel finds
    "mistral4": "Mistral4ForCausalLM",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeForConditionalGeneration",
}
INSIDE = {"llama4": "language_model", "qwen3_omni_moe": "thinker"}  # what of a class computes text


def text_keys(config):
    """The part of a configuration that describes the text, and the way there."""
    at = []
    while inside := next((k for k in ("thinker_config", "text_config") if k in config), None):
        config, at = config[inside], [*at, inside]
    return config, at


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
    if name.endswith("tid2eid"):  # distinct experts of each token
        ids, k = shape
        return torch.tensor([[(7 * t + j) % (k + 2) for j in range(k)] for t in range(ids)])
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


def finite(value):
    """Our files hold no infinity, and a bound that is none need not be said."""
    return all(map(finite, value)) if isinstance(value, list) else not isinstance(value, float) or np.isfinite(value)


def write(family, record):
    OUT.mkdir(exist_ok=True)
    for part in {"config", "defaults"} & set(record):
        record[part] = {k: v for k, v in record[part].items() if finite(v)}
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


def learned(tensors):
    """Without the tables of lightning attention, which follow from the sizes."""
    return {n: t for n, t in tensors.items() if not n.endswith(("slope_rate", "_decay")) or "time_decay" in n}


def as_published(family, name):
    """Transformers writes the dense layers of Kimi Linear and some of DeepSeek-V4 otherwise than their authors."""
    if family == "deepseek_v4":
        name = re.sub(r"^model\.(embed)?(_tokens)?", r"\1", name)
        name = re.sub(r"attn\.norm\.weight$", "attn.kv_norm.weight", name)
        return re.sub(r"^hc_head\.hc_", "hc_head_", name)
    if family == "kimi_k25":  # 5.24 writes the name that its eye has for layers
        return name.replace("language_model.model.blocks.", "language_model.model.layers.")
    return re.sub(r"block_sparse_moe\.(gate|up|down)_proj", r"mlp.\1_proj", name) if family == "kimi_linear" else name


# block forms and what stands behind them round more than 2e-5: recorded in float64, with what float32 is off
DOUBLE = ("qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text", "kimi_linear", "bailing_hybrid")


def packed_tensors(family, model, work):
    """The tensors as the class holds them, where that is not how they are published."""
    model.save_pretrained(work / "packed", save_original_format=False)
    file = learned(load_file(work / "packed" / "model.safetensors"))
    shapes = {n: t.shape for n, t in file.items()}
    return tensor_lines({n: s for n, s in shapes.items() if n.startswith(WHOLE.get(family, ""))})


def from_class(family, work):
    model_type, keys = CLASSES[family]
    auto = AutoModelForImageTextToText if family in WHOLE else AutoModelForCausalLM
    made_from = AutoConfig.for_model(model_type, **keys)
    if family in DIRECT:
        auto = getattr(transformers, DIRECT[family])
        model = auto(made_from).float()
    else:
        model = auto.from_config(made_from).float()
    model.save_pretrained(work)
    file = load_file(work / "model.safetensors")
    shapes = {n: t.shape for n, t in learned(file).items()}
    packed = packed_tensors(family, model, work)
    save_file(
        file | {n: weights(as_published(family, n), s) for n, s in shapes.items()}, work / "model.safetensors", {"format": "pt"}
    )
    loaded = auto.from_pretrained(work, attn_implementation="eager").float().eval()
    vocabulary = text_keys(keys)[0]["vocab_size"]
    ids = [[(17 * q + 7 * t + t * t) % vocabulary for t in range(24)] for q in range(2)]
    with torch.no_grad():
        text = getattr(loaded, INSIDE[family]) if family in INSIDE else loaded
        logits = text(torch.tensor(ids)).logits
        allowed = {}
        if family in DOUBLE:
            exact = auto.from_pretrained(
                work, attn_implementation="eager", experts_implementation="eager"
            ).double().eval()(torch.tensor(ids)).logits
            allowed["allowed"] = float(f"{max(2e-5, 4 * (exact - logits).abs().max().item()):.3g}")
            logits = exact
    config = json.loads((work / "config.json").read_text()) | {"model_type": family}
    published = tensor_lines(
        {as_published(family, n): s for n, s in shapes.items() if n.startswith(WHOLE.get(family, ""))}
    )
    return {
        "recorded_from": f"transformers {transformers.__version__}",
        "class": type(loaded).__name__,
        "config": config,
        "defaults": {} if family in WHOLE else defaults(model_type, config),
        "tensors": published,
        **({"saved": tensor_lines(shapes)} if family == "deepseek_v4" else {}),
        **({"packed": packed} if packed != published and family not in UNREAD_PACKED else {}),
        "ids": ids,
        **allowed,
        "last_logits": last_logits(logits),
    }


def from_pairs(family, work):
    """An encoder-decoder: sources of two lengths, the second filled up with padding."""
    keys = PAIRS[family]
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(family, **keys)).float()
    model.save_pretrained(work)
    shapes = {n: t.shape for n, t in load_file(work / "model.safetensors").items()}
    save_file(
        {n: weights(n, s) for n, s in shapes.items()}, work / "model.safetensors", {"format": "pt"}
    )
    loaded = AutoModelForSeq2SeqLM.from_pretrained(work, attn_implementation="eager")
    loaded = loaded.float().eval()
    vocabulary = keys["vocab_size"]
    pad, start = loaded.config.pad_token_id, loaded.config.decoder_start_token_id
    source = [[3 + (17 * q + 7 * t + t * t) % (vocabulary - 3) for t in range(21)] for q in range(2)]
    source[1][15:] = [pad] * 6
    ids = [[3 + (29 * q + 5 * t + t * t) % (vocabulary - 3) for t in range(14)] for q in range(2)]
    for row in ids:
        row[0] = start
    with torch.no_grad():
        logits = loaded(
            input_ids=torch.tensor(source),
            attention_mask=(torch.tensor(source) != pad).long(),
            decoder_input_ids=torch.tensor(ids),
        ).logits
    config = json.loads((work / "config.json").read_text()) | {"model_type": family}
    return {
        "recorded_from": f"transformers {transformers.__version__}",
        "class": type(loaded).__name__,
        "config": config,
        "defaults": defaults(family, config),
        "tensors": tensor_lines(shapes),
        "source": source,
        "ids": ids,
        "last_logits": last_logits(logits),
    }


def remade(family):
    c = remake_family.CASES[family]

    class Formula(remake_family.MODELS.get(family, remake_family.Remade)):
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

    for name in sys.argv[1:] or [*CLASSES, *PAIRS, *REMADE]:
        make = from_pairs if name in PAIRS else from_class
        with tempfile.TemporaryDirectory() as folder:
            write(name, remade(name) if name in REMADE else make(name, Path(folder)))
