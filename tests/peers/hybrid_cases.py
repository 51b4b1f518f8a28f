"""Cases of families whose layers mix tokens by recurrences, for make_family.py and record_families.py: (model_type of the class, keys)."""

SIZES = dict(vocab_size=128, hidden_size=64, max_position_embeddings=512, pad_token_id=None)
HEADS = dict(SIZES, num_attention_heads=4, num_key_value_heads=2)

NEMOTRON = dict(
    HEADS,
    head_dim=12,
    layers_block_type=["linear_attention", "moe", "full_attention", "mlp", "moe"],
    intermediate_size=72,
    mamba_num_heads=6,
    mamba_head_dim=10,
    n_groups=2,
    ssm_state_size=12,
    conv_kernel=3,
    n_routed_experts=8,
    num_experts_per_tok=3,
    moe_intermediate_size=20,
    moe_shared_expert_intermediate_size=40,
    routed_scaling_factor=2.5,
    chunk_size=8,
)
GRANITE = dict(
    HEADS,
    num_hidden_layers=4,
    layer_types=["mamba", "attention", "mamba", "mamba"],
    intermediate_size=24,
    shared_intermediate_size=40,
    num_local_experts=8,
    num_experts_per_tok=3,
    mamba_n_heads=8,
    mamba_n_groups=2,
    mamba_d_state=12,
    mamba_expand=2,
    mamba_chunk_size=8,
    embedding_multiplier=6.0,
    attention_multiplier=0.3,
    residual_multiplier=0.5,
    logits_scaling=3.0,
)
JAMBA = dict(
    HEADS,
    num_hidden_layers=5,
    intermediate_size=24,
    attn_layer_period=3,
    attn_layer_offset=1,
    expert_layer_period=2,
    expert_layer_offset=1,
    num_experts=8,
    num_experts_per_tok=3,
    mamba_d_state=6,
    mamba_dt_rank=5,
)
LFM2 = dict(
    HEADS,
    num_hidden_layers=4,
    layer_types=["conv", "full_attention", "conv", "conv"],
    intermediate_size=72,
    moe_intermediate_size=20,
    num_dense_layers=1,
    num_experts=8,
    num_experts_per_tok=3,
)
MAMBA2 = dict(
    SIZES,
    num_hidden_layers=3,
    num_heads=8,
    head_dim=16,
    n_groups=2,
    state_size=12,
    chunk_size=8,
)
QWEN = dict(
    HEADS,
    head_dim=16,
    num_hidden_layers=4,
    layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"],
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=10,
    linear_value_head_dim=12,
    moe_intermediate_size=20,
    shared_expert_intermediate_size=40,
    num_experts=8,
    num_experts_per_tok=3,
)
QWEN_NEXT = dict(QWEN, intermediate_size=72, attention_bias=True, mlp_only_layers=[1])
VISION = dict(
    depth=1,
    hidden_size=16,
    intermediate_size=20,
    num_heads=2,
    out_hidden_size=64,
    patch_size=4,
    temporal_patch_size=1,
    num_position_embeddings=16,
)
LATENT = dict(
    SIZES,
    num_attention_heads=4,
    num_key_value_heads=4,
    num_hidden_layers=4,
    layer_types=["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    kv_lora_rank=20,
    qk_nope_head_dim=12,
    qk_rope_head_dim=8,
    v_head_dim=10,
    intermediate_size=72,
    moe_intermediate_size=20,
    num_experts=8,
    num_experts_per_token=3,
    num_expert_group=4,
    topk_group=2,
    num_shared_experts=2,
    routed_scaling_factor=2.5,
)
KIMI = dict(LATENT, linear_head_dim=10, linear_num_heads=3, linear_conv_kernel_dim=3, q_lora_rank=14)
BAILING = dict(LATENT, head_dim=10, short_conv_kernel_size=3, first_k_dense_replace=1)
MINIMAX = dict(
    HEADS,
    head_dim=12,
    num_hidden_layers=4,
    layer_types=["linear_attention", "full_attention", "linear_attention", "linear_attention"],
    intermediate_size=20,
    num_local_experts=8,
    num_experts_per_tok=3,
    block_size=8,
    full_attn_alpha_factor=1.5,
    full_attn_beta_factor=0.75,
    linear_attn_alpha_factor=1.25,
    linear_attn_beta_factor=0.5,
    mlp_alpha_factor=2.0,
    mlp_beta_factor=0.875,
)
RWKV = dict(
    vocab_size=128,
    hidden_size=64,
    num_hidden_layers=5,
    intermediate_size=72,
    context_length=512,
)

# What the tests are recorded from.
RECORDED = {
    "nemotron_h": ("nemotron_h", dict(NEMOTRON, moe_latent_size=24, n_group=4, topk_group=2, use_bias=True)),
    "granitemoehybrid": ("granitemoehybrid", dict(GRANITE, mamba_proj_bias=True)),
    "jamba": ("jamba", dict(JAMBA, mamba_proj_bias=True)),
    "lfm2_moe": ("lfm2_moe", dict(LFM2, routed_scaling_factor=1.5, conv_bias=True)),
    "mamba": ("mamba", dict(SIZES, num_hidden_layers=3, state_size=6, time_step_rank=5, use_bias=True)),
    "mamba2": ("mamba2", dict(MAMBA2, use_bias=True)),
    "qwen3_next": ("qwen3_next", QWEN_NEXT),
    "qwen3_5_moe_text": ("qwen3_5_moe_text", QWEN),
    "qwen3_5_moe": ("qwen3_5_moe", dict(text_config=QWEN, vision_config=VISION)),
    "kimi_linear": ("kimi_linear", KIMI),
    "bailing_hybrid": ("bailing_hybrid", BAILING),
    "minimax": ("minimax", MINIMAX),
    "rwkv": ("rwkv", dict(RWKV, rescale_every=2)),
}
# Other settings of the same.
OTHERS = {
    "nemotron_h_plain": ("nemotron_h", dict(NEMOTRON, use_conv_bias=False, attention_bias=True, time_step_min=0.3)),
    "nemotron_h_dense": (
        "nemotron_h",
        dict(NEMOTRON, layers_block_type=["linear_attention", "mlp", "full_attention"], mlp_hidden_act="silu"),
    ),
    "nemotron_h_unnormed": ("nemotron_h", dict(NEMOTRON, norm_topk_prob=False, tie_word_embeddings=True)),
    "granitemoehybrid_rope": (
        "granitemoehybrid",
        dict(GRANITE, position_embedding_type="rope", attention_bias=True, tie_word_embeddings=True, mamba_conv_bias=False),
    ),
    "granitemoehybrid_dense": ("granitemoehybrid", dict(GRANITE, num_local_experts=0, time_step_limit=[0.4, 0.8])),
    "jamba_plain": ("jamba", dict(JAMBA, mamba_conv_bias=False, mamba_dt_rank="auto", tie_word_embeddings=True)),
    "jamba_dense": ("jamba", dict(JAMBA, num_experts=1, num_experts_per_tok=1)),
    "lfm2_moe_unbiased": ("lfm2_moe", dict(LFM2, use_expert_bias=False, conv_L_cache=4, num_dense_layers=0)),
    "lfm2_moe_unnormed": ("lfm2_moe", dict(LFM2, norm_topk_prob=False, tie_word_embeddings=False)),
    "mamba_plain": ("mamba", dict(SIZES, num_hidden_layers=2, use_conv_bias=False, expand=3, conv_kernel=2)),
    "qwen3_next_mixed": (
        "qwen3_next",
        dict(QWEN_NEXT, attention_bias=False, norm_topk_prob=False, linear_num_value_heads=2, mlp_only_layers=[]),
    ),
    "kimi_linear_plain": (
        "kimi_linear",
        dict(KIMI, q_lora_rank=None, num_expert_group=1, topk_group=1, moe_renormalize=False),
    ),
    "bailing_hybrid_open": ("bailing_hybrid", dict(BAILING, kda_safe_gate=False, q_lora_rank=14)),
    "minimax_plain": ("minimax", dict(MINIMAX, layer_types=None, mlp_alpha_factor=1)),
    "rwkv_plain": ("rwkv", dict(RWKV, rescale_every=0)),
    "mamba2_bounded": ("mamba2", dict(MAMBA2, time_step_limit=[0.4, 0.8], use_conv_bias=False, tie_word_embeddings=True)),
}
CASES = {n: c for n, c in RECORDED.items() if "text_config" not in c[1]} | OTHERS
