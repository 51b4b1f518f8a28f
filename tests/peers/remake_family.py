"""Tiny random checkpoints of families that transformers has no class for, with the outputs of a decoder written here from their description.

    python tests/peers/remake_family.py FOLDER [NAME ...]

Needs torch and safetensors. The layout is that of make_family.py, which `moe verify --golden` reads. What decides the numbers:
deepseek (DeepSeekMoE 16B): plain attention, rotation in halves, softmax over all experts, the k best with their probabilities (divided by
their sum + 1e-20 where norm_topk_prob), shared experts of joint width n_shared_experts * moe_intermediate_size added to every token, layers
below first_k_dense_replace and those that moe_layer_freq does not divide dense.
interns1_pro (the text part): Qwen3's layers; the experts stand in router_n_groups groups and k / groups of each are chosen; cosines and
sines of the frequencies whose wave is shorter than the context (or the first num_inv_freq) are mixed by a matrix, one for each key head where
fope_sep_head, and the pairs of a head that are left over have a 1 for both.
moe_llava_stablelm: LayerNorm with bias, biases of queries, keys and values, the first rope_pct of each head turned in halves; in the layers
of moe_layers_idx the two largest of a softmax over the experts, each weighed by its share of the two (DeepSpeed's rule in evaluation, with
room for every row and without its noise).
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

COMMON = dict(
    vocab_size=128,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    hidden_act="silu",
    rms_norm_eps=1e-6,
    moe_intermediate_size=20,
    intermediate_size=72,
    num_experts_per_tok=4,
    rope_theta=10000.0,
    max_position_embeddings=512,
    tie_word_embeddings=False,
)
DEEPSEEK = dict(
    COMMON,
    model_type="deepseek",
    num_key_value_heads=4,
    n_routed_experts=16,
    n_shared_experts=2,
    first_k_dense_replace=1,
    moe_layer_freq=1,
    norm_topk_prob=False,
    scoring_func="softmax",
)
INTERN = dict(
    COMMON,
    model_type="interns1_pro_text",
    head_dim=24,
    num_experts=16,
    router_n_groups=4,
    norm_topk_prob=True,
    mlp_only_layers=[],
    decoder_sparse_step=1,
    attention_bias=False,
    rope_scaling={
        "rope_type": "default",
        "fope_init_factor": 0.5,
        "fope_sep_head": True,
        "num_inv_freq": None,
    },
)
LLAVA = dict(
    vocab_size=128,
    hidden_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=4,
    hidden_act="silu",
    intermediate_size=24,
    norm_eps=1e-5,
    layer_norm_eps=1e-5,
    rope_pct=0.5,
    partial_rotary_factor=0.5,
    rope_theta=10000.0,
    max_position_embeddings=512,
    tie_word_embeddings=False,
    use_qkv_bias=True,
    model_type="moe_llava_stablelm",
    moe=dict(
        moe_enable=True,
        moe_mode="sparse",
        moe_layers_idx=[0, 2],
        num_experts=[4, 4],
        top_k_experts=2,
        capacity_factor=1.5,
        eval_capacity_factor=2.0,
        min_capacity=0,
        use_residual=False,
    ),
)
CASES = {
    "moe_llava_stablelm": LLAVA,
    "deepseek": DEEPSEEK,
    "deepseek_normed": dict(
        DEEPSEEK,
        num_hidden_layers=4,
        num_key_value_heads=2,
        norm_topk_prob=True,
        first_k_dense_replace=0,
        moe_layer_freq=2,
        n_shared_experts=1,
    ),
    "interns1_pro": INTERN,
    "interns1_pro_short": dict(
        INTERN, max_position_embeddings=48, num_experts_per_tok=8
    ),  # long waves are dropped, two experts a group
    "interns1_pro_shared": dict(
        INTERN,
        norm_topk_prob=False,
        rope_scaling=dict(INTERN["rope_scaling"], fope_sep_head=False, num_inv_freq=7),
    ),
    "interns1_pro_plain": dict(INTERN, router_n_groups=1, mlp_only_layers=[1], rope_scaling=None),
}


class Remade:
    def __init__(self, c, generator):
        self.c, self.g, self.w, self.raw = c, generator, {}, {}
        self.intern = c["model_type"].startswith("interns1")
        self.prefix = "model.language_model." if self.intern else "model."
        self.heads, self.kv = c["num_attention_heads"], c["num_key_value_heads"]
        self.d = c.get("head_dim", c["hidden_size"] // self.heads)

    def draw(self, name, *shape):
        if name not in self.w:
            z = torch.randn(shape, generator=self.g)
            self.w[name] = (
                1 + 0.2 * z if len(shape) == 1 else z / shape[-1] ** 0.5
            ).double()  # numbers of float32, computed with in double
        return self.w[name]

    def mixture(self, name, *shape):
        """A matrix near the identity, for each group or for all."""
        if name not in self.w:
            z = torch.randn(shape, generator=self.g)
            self.w[name] = (torch.eye(shape[-1]) + 0.3 * z / shape[-1] ** 0.5).double()
        return self.w[name]

    def linear(self, x, name, out):
        return x @ self.draw(name, out, x.shape[-1]).T

    def norm(self, x, name):
        return (
            self.draw(name, x.shape[-1])
            * x
            / torch.sqrt((x * x).mean(-1, keepdim=True) + self.c["rms_norm_eps"])
        )

    def angles(self, length):
        """cos and sin, (1 or kv heads, length, d/2)."""
        c, half = self.c, self.d // 2
        frequency = torch.tensor(
            [c["rope_theta"] ** (-2 * i / self.d) for i in range(half)], dtype=torch.float64
        )
        fourier = self.intern and c["rope_scaling"]
        if not fourier:
            turn = torch.arange(length, dtype=torch.float64)[:, None] * frequency
            return turn.cos()[None], turn.sin()[None]
        kept = fourier["num_inv_freq"] or int(
            (frequency > 2 * math.pi / c["max_position_embeddings"]).sum()
        )
        turn = torch.arange(length, dtype=torch.float64)[:, None] * frequency[:kept]
        mixed = []
        for table, name in ((turn.cos(), "cos_coef"), (turn.sin(), "sin_coef")):
            groups = self.kv if fourier["fope_sep_head"] else 1
            shape = (groups, kept, kept) if fourier["fope_sep_head"] else (kept, kept)
            matrix = self.mixture(f"{self.prefix}rotary_emb.{name}", *shape)
            matrix = matrix.reshape(groups, kept, kept)
            out = torch.ones(groups, length, half, dtype=torch.float64)
            for group in range(groups):
                for j in range(kept):
                    out[group, :, j] = (table * matrix[group, :, j]).sum(1)
            mixed.append(out)
        return mixed

    def attention(self, x, at):
        length, d, half = x.shape[0], self.d, self.d // 2
        q = (
            self.linear(x, at + "q_proj.weight", self.heads * d)
            .reshape(length, self.heads, d)
            .transpose(0, 1)
        )
        k = (
            self.linear(x, at + "k_proj.weight", self.kv * d)
            .reshape(length, self.kv, d)
            .transpose(0, 1)
        )
        v = (
            self.linear(x, at + "v_proj.weight", self.kv * d)
            .reshape(length, self.kv, d)
            .transpose(0, 1)
        )
        if self.intern:
            q, k = self.norm(q, at + "q_norm.weight"), self.norm(k, at + "k_norm.weight")
        cos, sin = self.angles(length)
        share, causal, outs = self.heads // self.kv, torch.ones(length, length).tril() == 0, []
        turned = lambda a, g: torch.cat(
            [
                a[:, :half] * cos[g] - a[:, half:] * sin[g],
                a[:, half:] * cos[g] + a[:, :half] * sin[g],
            ],
            1,
        )
        for h in range(self.heads):
            group = h // share
            g = group if len(cos) > 1 else 0
            scores = (turned(q[h], g) @ turned(k[group], g).T / d**0.5).masked_fill(
                causal, -math.inf
            )
            outs.append(torch.softmax(scores, -1) @ v[group])
        return self.linear(torch.cat(outs, 1), at + "o_proj.weight", self.c["hidden_size"])

    def mlp(self, x, at, width):
        gate = self.linear(x, at + "gate_proj.weight", width)
        return self.linear(
            gate * torch.sigmoid(gate) * self.linear(x, at + "up_proj.weight", width),
            at + "down_proj.weight",
            x.shape[-1],
        )

    def experts(self, x, at, layer):
        c = self.c
        count, k, width = (
            c.get("n_routed_experts") or c["num_experts"],
            c["num_experts_per_tok"],
            c["moe_intermediate_size"],
        )
        logits = self.linear(x, at + "gate.weight", count)
        self.raw.setdefault(f"moe/layer_{layer}/router_logits", []).append(logits)
        groups = c.get("router_n_groups", 1)
        out = torch.zeros_like(x)
        for t, p in enumerate(torch.softmax(logits, -1)):
            chosen = []
            for group in range(groups):
                members = range(group * count // groups, (group + 1) * count // groups)
                chosen += sorted(members, key=lambda e: -p[e])[: k // groups]
            chosen.sort(key=lambda e: -p[e])
            total = p[chosen].sum() + 1e-20 if c["norm_topk_prob"] else 1.0
            self.raw.setdefault(f"moe/layer_{layer}/topk_ids", []).append(
                torch.tensor([chosen], dtype=torch.int32)
            )
            self.raw.setdefault(f"moe/layer_{layer}/topk_weights", []).append(
                (p[chosen] / total)[None]
            )
            for e in chosen:
                out[t] += p[e] / total * self.mlp(x[t : t + 1], f"{at}experts.{e}.", width)[0]
        if c.get("n_shared_experts"):
            out += self.mlp(x, at + "shared_experts.", width * c["n_shared_experts"])
        for e in range(count):  # those that nobody chose are in the file too
            self.mlp(x[:1], f"{at}experts.{e}.", width)
        return out

    def is_moe(self, layer):
        c = self.c
        if self.intern:
            return layer not in c["mlp_only_layers"] and (layer + 1) % c["decoder_sparse_step"] == 0
        return layer >= c["first_k_dense_replace"] and layer % c["moe_layer_freq"] == 0

    def logits(self, ids):
        c, p = self.c, self.prefix
        x = self.draw(p + "embed_tokens.weight", c["vocab_size"], c["hidden_size"])[ids]
        for layer in range(c["num_hidden_layers"]):
            at = f"{p}layers.{layer}."
            x = x + self.attention(self.norm(x, at + "input_layernorm.weight"), at + "self_attn.")
            y = self.norm(x, at + "post_attention_layernorm.weight")
            x = x + (
                self.experts(y, at + "mlp.", layer)
                if self.is_moe(layer)
                else self.mlp(y, at + "mlp.", c["intermediate_size"])
            )
        hidden = self.norm(x, p + "norm.weight")
        return self.linear(hidden, "lm_head.weight", c["vocab_size"]), hidden


class MoeLlava(Remade):
    def norm(self, x, name):
        centred = x - x.mean(-1, keepdim=True)
        spread = torch.sqrt((centred * centred).mean(-1, keepdim=True) + self.c["norm_eps"])
        scaled = self.draw(name, x.shape[-1]) * centred / spread
        return scaled + self.draw(name.replace("weight", "bias"), x.shape[-1])

    def attention(self, x, at):
        length, d = x.shape[0], self.d
        turned = int(d * self.c["rope_pct"])
        half = turned // 2

        def heads(name, count):
            y = self.linear(x, f"{at}{name}_proj.weight", count * d)
            y = y + self.draw(f"{at}{name}_proj.bias", count * d)
            return y.reshape(length, count, d).transpose(0, 1)

        q, k, v = heads("q", self.heads), heads("k", self.kv), heads("v", self.kv)
        frequency = torch.tensor([self.c["rope_theta"] ** (-2 * i / turned) for i in range(half)], dtype=torch.float64)
        angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
        cos, sin = angle.cos(), angle.sin()

        def turn(a):
            low, high, rest = a[:, :half], a[:, half:turned], a[:, turned:]
            return torch.cat([low * cos - high * sin, high * cos + low * sin, rest], 1)

        future, outs = torch.ones(length, length).tril() == 0, []
        for h in range(self.heads):
            group = h // (self.heads // self.kv)
            scores = (turn(q[h]) @ turn(k[group]).T / d**0.5).masked_fill(future, -math.inf)
            outs.append(torch.softmax(scores, -1) @ v[group])
        return self.linear(torch.cat(outs, 1), at + "o_proj.weight", self.c["hidden_size"])

    def experts(self, x, at, layer):
        m, width = self.c["moe"], self.c["intermediate_size"]
        count = m["num_experts"][0]
        at += "deepspeed_moe."
        logits = self.linear(x, at + "gate.wg.weight", count)
        weight, chosen = torch.softmax(logits, -1).topk(m["top_k_experts"], -1)
        weight = weight / weight.sum(-1, keepdim=True)
        for name, rows in (("router_logits", logits), ("topk_ids", chosen.int()), ("topk_weights", weight)):
            self.raw.setdefault(f"moe/layer_{layer}/{name}", []).append(rows)
        out = torch.zeros_like(x)
        for e in range(count):
            y = self.mlp(x, f"{at}experts.deepspeed_experts.{e}.", width)
            out += (weight * (chosen == e)).sum(-1, keepdim=True) * y
        return out

    def is_moe(self, layer):
        return layer in self.c["moe"]["moe_layers_idx"]


MODELS = {"moe_llava_stablelm": MoeLlava}


def make(folder, name):
    generator = torch.Generator().manual_seed(11)
    c = CASES[name]
    model = MODELS.get(name, Remade)(c, generator)
    ids = torch.randint(0, c["vocab_size"], (2, 24), generator=generator)
    with torch.no_grad():
        rows = [model.logits(row) for row in ids]
    logits, hidden = (torch.stack(part) for part in zip(*rows))
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, c["vocab_size"]), ids[:, 1:].reshape(-1)
    )
    out = folder / name
    out.mkdir(parents=True, exist_ok=True)
    whole = (
        {"model_type": "interns1_pro", "tie_word_embeddings": False, "text_config": c}
        if model.intern
        else c
    )
    (out / "config.json").write_text(json.dumps(whole, indent=2))
    single = lambda t: (t.float() if t.is_floating_point() else t).contiguous()
    save_file(
        {n: single(t) for n, t in model.w.items()}, out / "model.safetensors", {"format": "pt"}
    )
    raw = {n: single(torch.cat(parts)) for n, parts in model.raw.items()}
    save_file(
        {
            "input_ids": ids.int(),
            "logits": single(logits),
            "hidden_states": single(hidden),
            "loss": single(loss.reshape(1)),
            **raw,
        },
        out / "expected.safetensors",
    )
    print(
        f"{name}: {sum(t.numel() for t in model.w.values())} numbers, logits up to {logits.abs().max():.2f}, {len(raw) // 3} routers",
        flush=True,
    )


if __name__ == "__main__":
    for case in sys.argv[2:] or CASES:
        make(Path(sys.argv[1]), case)
