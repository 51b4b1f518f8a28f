"""Writes tiny random checkpoints of published classes with their outputs, in the layout that `moe verify --golden` reads.

    python tests/peers/make_family.py FOLDER [NAME ...]

Needs torch, transformers and safetensors. Each folder gets config.json and model.safetensors as save_pretrained writes them, and
expected.safetensors: input_ids, logits, hidden_states (after the final norm), loss, and for each MoE layer the router's raw logits.
Of the quantised cases the files are FP8 in blocks or MXFP4, and the class computes with the numbers those stand for.
Weights are drawn larger than a class draws them, biases and norms away from 0 and 1, so that nothing is without effect.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import hybrid_cases

COMMON = dict(
    vocab_size=128,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    pad_token_id=None,
)
YARN = {
    "rope_type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
    "rope_theta": 10000.0,
}
LATENT = dict(
    COMMON,
    num_key_value_heads=4,
    intermediate_size=72,
    moe_intermediate_size=20,
    n_routed_experts=8,
    num_experts_per_tok=3,
    first_k_dense_replace=1,
    kv_lora_rank=32,
    qk_nope_head_dim=16,
    qk_rope_head_dim=8,
    v_head_dim=12,
    n_group=4,
    topk_group=2,
)
DBRX_FEED = dict(ffn_hidden_size=24, moe_num_experts=8, moe_top_k=3)

CASES = {
    "granitemoeshared": (
        "granitemoeshared",
        dict(
            COMMON,
            intermediate_size=24,
            num_local_experts=8,
            num_experts_per_tok=3,
            shared_intermediate_size=40,
            embedding_multiplier=6.0,
            attention_multiplier=0.3,
            residual_multiplier=0.5,
            logits_scaling=3.0,
        ),
    ),
    "phimoe": (
        "phimoe",
        dict(
            COMMON,
            intermediate_size=24,
            num_local_experts=8,
            attention_bias=True,
            lm_head_bias=True,
            router_jitter_noise=0.2,
            sliding_window=9,
        ),
    ),
    "phimoe_longrope": (
        "phimoe",
        dict(
            COMMON,
            intermediate_size=24,
            num_local_experts=8,
            router_jitter_noise=0.01,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0 + 0.1 * i for i in range(8)],
                "long_factor": [2.0 + i for i in range(8)],
                "short_mscale": 1.1,
                "long_mscale": 1.3,
                "original_max_position_embeddings": 64,
            },
        ),
    ),
    "ernie4_5_moe": (
        "ernie4_5_moe",
        dict(
            COMMON,
            num_hidden_layers=4,
            intermediate_size=72,
            moe_intermediate_size=20,
            moe_num_experts=8,
            moe_k=3,
            moe_layer_end_index=2,
            tie_word_embeddings=True,
        ),
    ),
    "hunyuan_v1_moe": (
        "hunyuan_v1_moe",
        dict(COMMON, head_dim=16, intermediate_size=24, num_experts=8, moe_topk=3),
    ),
    "hunyuan_v1_moe_alpha": (
        "hunyuan_v1_moe",
        dict(
            COMMON,
            head_dim=16,
            intermediate_size=24,
            num_experts=8,
            moe_topk=2,
            rope_parameters={
                "rope_type": "dynamic",
                "type": "dynamic",
                "alpha": 1000.0,
                "factor": 1.0,
                "rope_theta": 10000.0,
            },
        ),
    ),
    "minimax_m2": (
        "minimax_m2",
        dict(
            COMMON,
            head_dim=24,
            intermediate_size=24,
            num_local_experts=8,
            num_experts_per_tok=3,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 5e6,
                "partial_rotary_factor": 0.5,
            },
        ),
    ),
    "dbrx": (
        "dbrx",
        dict(
            vocab_size=128,
            d_model=64,
            n_heads=4,
            n_layers=3,
            max_seq_len=512,
            attn_config=dict(kv_n_heads=2, clip_qkv=0.6, rope_theta=10000.0),
            ffn_config=DBRX_FEED,
        ),
    ),
    "dbrx_unnormed": (
        "dbrx",
        dict(
            vocab_size=128,
            d_model=64,
            n_heads=4,
            n_layers=2,
            max_seq_len=512,
            attn_config=dict(kv_n_heads=4, clip_qkv=8.0, rope_theta=10000.0),
            ffn_config=dict(DBRX_FEED, moe_normalize_expert_weights=None),
        ),
    ),
    "llama4_text": (
        "llama4_text",
        dict(
            COMMON,
            head_dim=16,
            num_hidden_layers=5,
            intermediate_size=24,
            intermediate_size_mlp=72,
            num_local_experts=8,
            num_experts_per_tok=2,
            interleave_moe_layer_step=2,
            attention_chunk_size=7,
            floor_scale=4,
            attn_scale=0.3,
            no_rope_layer_interval=3,
            rope_parameters={
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
                "rope_theta": 500000.0,
            },
        ),
    ),
    "deepseek_v2_yarn": (
        "deepseek_v2",
        dict(
            LATENT,
            q_lora_rank=24,
            topk_method="group_limited_greedy",
            routed_scaling_factor=4.0,
            n_shared_experts=2,
            rope_parameters=YARN,
        ),
    ),
    "deepseek_v3_yarn": (
        "deepseek_v3",
        dict(
            LATENT,
            q_lora_rank=None,
            routed_scaling_factor=2.5,
            n_shared_experts=1,
            attention_bias=False,
            rope_parameters=YARN,
        ),
    ),
    "glm4_moe_plain": (
        "glm4_moe",
        dict(
            COMMON,
            head_dim=20,
            intermediate_size=72,
            moe_intermediate_size=20,
            n_routed_experts=8,
            num_experts_per_tok=3,
            n_group=2,
            topk_group=1,
            first_k_dense_replace=2,
        ),
    ),
    "olmoe_clip": (
        "olmoe",
        dict(
            COMMON,
            intermediate_size=24,
            num_experts=8,
            num_experts_per_tok=3,
            clip_qkv=0.7,
            attention_bias=True,
        ),
    ),
    "qwen3_moe_bias": (
        "qwen3_moe",
        dict(
            COMMON,
            head_dim=16,
            intermediate_size=72,
            moe_intermediate_size=20,
            num_experts=8,
            num_experts_per_tok=3,
            attention_bias=True,
            decoder_sparse_step=2,
        ),
    ),
    "llama_rope": (
        "llama",
        dict(
            COMMON,
            intermediate_size=72,
            rope_parameters={
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
                "rope_theta": 10000.0,
            },
        ),
    ),
    "llama_linear": (
        "llama",
        dict(
            COMMON,
            intermediate_size=72,
            rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
        ),
    ),
    "kimi_k2": (
        "deepseek_v3",
        dict(
            LATENT,
            n_group=1,
            topk_group=1,
            q_lora_rank=24,
            routed_scaling_factor=2.827,
            n_shared_experts=1,
            rope_parameters=YARN,
        ),
    ),
    "deepseek_v3_fp8": (
        "deepseek_v3",
        dict(
            LATENT,
            hidden_size=160,
            intermediate_size=200,
            moe_intermediate_size=136,
            kv_lora_rank=132,
            q_lora_rank=24,
            n_shared_experts=1,
        ),
    ),
    "gpt_oss_mxfp4": (
        "gpt_oss",
        dict(
            COMMON,
            head_dim=12,
            intermediate_size=96,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=7,
            rope_parameters={
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "rope_theta": 150000.0,
            },
        ),
    ),
}

CASES.update(hybrid_cases.CASES)
PUBLISHED_AS = {"kimi_k2": "kimi_k2"}  # model_type of files whose class has another


def fp8(name, w):
    """Tensors of the file, and the numbers they stand for: a scale for each block of 128x128, cut at the edges."""
    rows, cols = w.shape
    scale = torch.stack(
        [
            torch.stack([block.abs().max() / 448 for block in band.split(128, 1)])
            for band in w.split(128, 0)
        ]
    )
    every = scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :cols]
    codes = (w / every).to(torch.float8_e4m3fn)
    return {name: codes, name + "_scale_inv": scale}, codes.float() * every


def mxfp4(name, w):
    """(E, in, out) -> blocks (E, out, in/32, 16), scales (E, out, in/32)."""
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    groups = w.transpose(1, 2).unflatten(2, (-1, 32))
    power = torch.ceil(torch.log2(groups.abs().amax(-1, keepdim=True) / 6))
    codes = (groups / 2**power).unsqueeze(-1).sub(table).abs().argmin(-1)
    numbers = (table[codes] * 2**power).flatten(2).transpose(1, 2).contiguous()
    return {
        name + "_blocks": (codes[..., 0::2] + 16 * codes[..., 1::2]).byte(),
        name + "_scales": (power.squeeze(-1) + 127).byte(),
    }, numbers


QUANTISED = {
    "deepseek_v3_fp8": (
        fp8,
        {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [128, 128],
        },
        lambda name: "_proj" in name,
    ),
    "gpt_oss_mxfp4": (
        mxfp4,
        {"quant_method": "mxfp4"},
        lambda name: name.endswith(("gate_up_proj", "down_proj")),
    ),
}


def quantise(model, out, rule, config, chosen):
    """Writes the folder; returns the class with the numbers that are left."""
    with tempfile.TemporaryDirectory() as plain:
        model.save_pretrained(plain)
        file, numbers = {}, {}
        for name, w in load_file(plain + "/model.safetensors").items():
            tensors, numbers[name] = rule(name, w) if chosen(name) else ({name: w}, w)
            file.update(tensors)
        keys = json.loads(Path(plain, "config.json").read_text())
        (out / "config.json").write_text(
            json.dumps(keys | {"quantization_config": config}, indent=2)
        )
        save_file(file, out / "model.safetensors")
        save_file(numbers, plain + "/model.safetensors", {"format": "pt"})
        print(f"{out.name}: {len(file) - len(numbers)} tensors quantised")
        return (
            AutoModelForCausalLM.from_pretrained(plain, attn_implementation="eager").float().eval()
        )


def draw(model, generator):
    with torch.no_grad():
        for name, p in list(model.named_parameters()) + [
            b for b in model.named_buffers() if b[0].endswith(("correction_bias", "expert_bias"))
        ]:
            if "norm" in name and name.endswith("weight") and p.dim() == 1:
                p.copy_(1 + 0.2 * torch.randn(p.shape, generator=generator))
            elif name.endswith(("correction_bias", "expert_bias")):
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
            elif p.dim() < 2:
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
            else:
                p.copy_(1.0 / p.shape[-1] ** 0.5 * torch.randn(p.shape, generator=generator))


def first_of(module, *names):
    return next(getattr(module, name) for name in names if hasattr(module, name))


def make(folder, name):
    family, keys = CASES[name]
    generator = torch.Generator().manual_seed(7)
    model = (
        AutoModelForCausalLM.from_config(
            AutoConfig.for_model(family, **keys), attn_implementation="eager"
        )
        .float()
        .eval()
    )
    draw(model, generator)
    out = folder / name
    out.mkdir(parents=True, exist_ok=True)
    if name in QUANTISED:
        model = quantise(model, out, *QUANTISED[name])
    else:
        model.save_pretrained(out)
    if name in PUBLISHED_AS:
        keys_of_file = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(
            json.dumps(keys_of_file | {"model_type": PUBLISHED_AS[name]}, indent=2)
        )
    raw = {}
    for path, module in model.named_modules():  # the routers, under whatever name
        if (
            path.split(".")[-1] in ("gate", "router")
            and hasattr(module, "weight")
            and getattr(module.weight, "dim", lambda: 0)() == 2
            or path.endswith(("router.layer", "gate.wg"))
        ):
            layer = next(int(part) for part in path.split(".") if part.isdigit())

            def hook(module, inputs, output, layer=layer):
                if inputs[0].dtype == torch.float64:  # a second run, for the noise alone
                    return
                weight = module.weight.float()
                raw[f"moe/layer_{layer}/router_logits"] = torch.nn.functional.linear(
                    inputs[0].reshape(-1, weight.shape[1]).float(),
                    weight,
                    getattr(module, "bias", None),
                ).contiguous()

            module.register_forward_hook(hook)
    ids = torch.randint(0, keys["vocab_size"], (2, 24), generator=generator)
    last = {}
    body = first_of(model, "model", "backbone", "rwkv", "transformer")
    first_of(
        body, "norm", "norm_f", "final_layernorm", "embedding_norm", "ln_out"
    ).register_forward_hook(
        lambda m, i, o: None if o.dtype == torch.float64 else last.update(hidden_states=o)
    )
    with torch.no_grad():
        logits = model(ids).logits
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1)
    )
    # its class in f32 beside itself in f64: a case allows four times that where it is more than usual
    model.config._experts_implementation = "eager"  # products of all experts at once know no f64
    with torch.no_grad():
        noise = (model.double()(ids).logits - logits.double()).abs().max().item()
    allowed = {"tolerance_logits": torch.tensor([4 * noise])} if 4 * noise > 2e-5 else {}
    save_file(
        {
            **allowed,
            "input_ids": ids.int(),
            "logits": logits.contiguous(),
            "hidden_states": last["hidden_states"].contiguous(),
            "loss": loss.reshape(1),
            **raw,
        },
        out / "expected.safetensors",
    )
    print(
        f"{name}: {sum(p.numel() for p in model.parameters())} parameters, logits up to {logits.abs().max():.2f}, {len(raw)} routers",
        flush=True,
    )


if __name__ == "__main__":
    for case in sys.argv[2:] or CASES:
        make(Path(sys.argv[1]), case)
