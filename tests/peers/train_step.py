"""The same training step in PyTorch: a Mixtral-shaped decoder of our own writing, from the weights of a moe run.

  train_step.py agree RUN TRACE METRICS TEXT   replays the batches that `moe train --trace` recorded and compares every step's loss
                                          and gradient norm with metrics.jsonl: equal losses after updates mean equal gradients.
                                          TEXT is the file trained on (by bytes): it has the target of a batch's last tokens.
                                          Where tokens go to other experts than in the trace, the replay is repeated with the
                                          choices of the trace: are those ties of scores, and does everything else agree?
  train_step.py time RUN VARIANT          times steps on random tokens; prints one JSON object
VARIANT: loop (an index per expert), grouped (torch._grouped_mm on rows sorted by expert), bmm (rows padded to the busiest expert),
+compile behind one of them for torch.compile. Used by scripts/peers.sh.
"""

import argparse
import json
import math
import pathlib
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def newest(run):
    return sorted(pathlib.Path(run).glob("checkpoint-*"))[-1]


class Attention(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        h, self.d = c["hidden_size"], c["head_dim"]
        self.heads, self.kv, self.theta = (
            c["num_attention_heads"],
            c["num_key_value_heads"],
            c["rope_theta"],
        )
        self.q = torch.nn.Linear(h, self.heads * self.d, bias=False)
        self.k = torch.nn.Linear(h, self.kv * self.d, bias=False)
        self.v = torch.nn.Linear(h, self.kv * self.d, bias=False)
        self.o = torch.nn.Linear(self.heads * self.d, h, bias=False)
        angle = torch.outer(
            torch.arange(c["max_position_embeddings"], dtype=torch.float64),
            self.theta ** (-torch.arange(0, self.d, 2, dtype=torch.float64) / self.d),
        )
        self.register_buffer("cos", angle.cos().float().repeat(1, 2), persistent=False)
        self.register_buffer("sin", angle.sin().float().repeat(1, 2), persistent=False)

    def rope(self, x):  # (B,heads,T,d), pairs half a head apart
        t, half = x.shape[2], self.d // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), -1)
        return x * self.cos[:t] + turned * self.sin[:t]

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (m(x).view(b, t, -1, self.d).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(
            self.rope(q), self.rope(k), v, is_causal=True, enable_gqa=True
        )
        return self.o(y.transpose(1, 2).reshape(b, t, -1))


class Moe(torch.nn.Module):
    def __init__(self, c, variant):
        super().__init__()
        self.e, self.k, self.variant = c["num_local_experts"], c["num_experts_per_tok"], variant
        h, i = c["hidden_size"], c["intermediate_size"]
        self.router = torch.nn.Parameter(torch.empty(self.e, h))
        self.gate, self.up = (torch.nn.Parameter(torch.empty(self.e, i, h)) for _ in range(2))
        self.down = torch.nn.Parameter(torch.empty(self.e, h, i))
        self.given = None  # choices in place of the best k; then `last` holds logits and own choices

    def experts(self, x, ids, weights):
        out = torch.zeros_like(x)
        if self.variant == "loop":
            for e in range(self.e):
                token, slot = torch.where(ids == e)
                rows = x[token]
                y = F.linear(
                    F.silu(F.linear(rows, self.gate[e])) * F.linear(rows, self.up[e]), self.down[e]
                )
                out.index_add_(0, token, (y * weights[token, slot, None]).to(out.dtype))
            return out
        order = ids.flatten().argsort(stable=True)
        token, count = order // self.k, torch.bincount(ids.flatten(), minlength=self.e)
        if self.variant == "grouped":
            ends = count.cumsum(0).to(torch.int32)
            mm = lambda a, w: torch._grouped_mm(a, w.transpose(1, 2), offs=ends)
            y = mm(F.silu(mm(x[token], self.gate)) * mm(x[token], self.up), self.down)
        else:
            most = int(count.max())
            place = (
                torch.arange(len(order))
                - (count.cumsum(0) - count)[ids.flatten()[order]]
                + ids.flatten()[order] * most
            )
            rows = (
                x.new_zeros(self.e * most, x.shape[1])
                .index_copy(0, place, x[token])
                .view(self.e, most, -1)
            )
            mm = lambda a, w: torch.bmm(a, w.transpose(1, 2))
            y = mm(F.silu(mm(rows, self.gate)) * mm(rows, self.up), self.down).flatten(0, 1)[place]
        return out.index_add_(0, token, (y * weights.flatten()[order][:, None]).to(out.dtype))

    def forward(self, x):
        shape, x = x.shape, x.flatten(0, 1)
        z = F.linear(x, self.router)
        p = z.softmax(-1)
        weights, ids = p.topk(self.k)
        if self.given is not None:
            self.last, ids = (z.detach(), ids), self.given
            weights = p.gather(1, ids)
        weights = weights / weights.sum(-1, keepdim=True)
        share = F.one_hot(ids, self.e).sum((0, 1)).to(p.dtype) / ids.numel()
        return self.experts(x, ids, weights).view(shape), self.e * (share * p.mean(0)).sum()


class Decoder(torch.nn.Module):
    def __init__(self, c, variant):
        super().__init__()
        norm = lambda: torch.nn.RMSNorm(c["hidden_size"], eps=c["rms_norm_eps"])
        self.embed = torch.nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.blocks = torch.nn.ModuleList(
            torch.nn.ModuleDict(
                {"a": norm(), "attention": Attention(c), "b": norm(), "moe": Moe(c, variant)}
            )
            for _ in range(c["num_hidden_layers"])
        )
        self.norm, self.head = norm(), torch.nn.Linear(
            c["hidden_size"], c["vocab_size"], bias=False
        )

    def forward(self, ids, targets):
        x, balance = self.embed(ids), 0
        for b in self.blocks:
            x = x + b["attention"](b["a"](x))
            y, loss = b["moe"](b["b"](x))
            x, balance = x + y, balance + loss
        z = self.head(self.norm(x))
        return F.cross_entropy(z.flatten(0, 1).float(), targets.flatten(), ignore_index=-1), balance


def load(run, variant):
    folder = newest(run)
    c = json.loads((folder / "config.json").read_text())
    if c["model_type"] != "mixtral":
        sys.exit(f"{folder}: a {c['model_type']} model; this script knows the shape of mixtral")
    w = load_file(folder / "model.safetensors")
    m = Decoder(c, variant)
    with torch.no_grad():
        m.embed.weight.copy_(w["model.embed_tokens.weight"]), m.head.weight.copy_(
            w["lm_head.weight"]
        ), m.norm.weight.copy_(w["model.norm.weight"])
        for n, b in enumerate(m.blocks):
            at = lambda name: w[f"model.layers.{n}.{name}.weight"]
            for x in "qkvo":
                getattr(b["attention"], x).weight.copy_(at(f"self_attn.{x}_proj"))
            b["a"].weight.copy_(at("input_layernorm")), b["b"].weight.copy_(
                at("post_attention_layernorm")
            )
            b["moe"].router.copy_(at("block_sparse_moe.gate"))
            for e in range(c["num_local_experts"]):
                for name, key in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
                    getattr(b["moe"], name)[e].copy_(at(f"block_sparse_moe.experts.{e}.{key}"))
    return m, c


def optimizer_of(m, lr, decay=0.1):
    matrices, vectors = [p for p in m.parameters() if p.dim() > 1], [
        p for p in m.parameters() if p.dim() == 1
    ]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=lr,
        betas=(0.9, 0.95),
        eps=1e-8,
    )


def step(m, optimizer, ids, targets, coef, autocast=False):
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, balance = m(ids, targets)
    (loss + coef * balance).backward()
    norm = torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
    optimizer.step()
    return loss, norm


def targets_of(text, ids):
    """The token behind each. Where a piece of the text was cut off for validation a boundary (256) follows that nobody had to predict."""
    start = max((n + 1 for n, i in enumerate(ids) if i > 255), default=0)
    piece = bytes(ids[start:])
    at = text.find(piece)
    if at < 0 or text.find(piece, at + 1) >= 0 or at + len(piece) >= len(text):
        sys.exit(
            "a sequence of the trace is not found once in the text: another seed, or another text"
        )
    out = ids[1:] + [text[at + len(piece)]]
    for n, i in enumerate(ids[1:]):
        if i > 255 and not text.endswith(bytes(ids[max(0, n - 40) : n + 1])):
            out[n] = -1
    return out


class Recorded:
    """What a training of moe computed: batches and choices from its trace, losses from its metrics.jsonl."""

    def __init__(self, trace, metrics, text):
        import h5py

        text = pathlib.Path(text).read_bytes()
        lines = {l["step"]: l for l in map(json.loads, open(metrics)) if "loss" in l}
        self.steps = []
        with h5py.File(trace) as f:
            token, where = f["tokens/token_id"][:], f["tokens/step"][:]
            sequence, choices = f["tokens/sequence"][:], f["routing/expert_ids"][:]
            numbers = f["steps/step"][:]
        for n, number in enumerate(numbers):
            rows = where == n
            length = int((sequence[rows] == sequence[rows][0]).sum())
            ids = torch.tensor(token[rows].astype("int64")).view(-1, length)
            targets = torch.tensor([targets_of(text, row) for row in ids.tolist()])
            chosen = torch.tensor(choices[rows].astype("int64")).unbind(1)
            self.steps.append((lines[int(number)], ids, targets, chosen))


def parted(moe):
    """Of every token whose own k best are not those given: how far apart the logits are of what it would take and what it took."""
    z, own = moe.last
    own, given = own.sort(1).values, moe.given.sort(1).values
    other = (own != given).any(1)
    one_of = lambda ids: F.one_hot(ids[other], moe.e).sum(1).bool()
    gone, come = one_of(own) & ~one_of(given), one_of(given) & ~one_of(own)
    far = torch.tensor(math.inf)
    best, least = torch.where(gone, z[other], -far).amax(1), torch.where(come, z[other], far).amin(1)
    return (best - least).abs()


def replay(a, recorded, obey):
    """Largest relative differences of loss and gradient norm; with `obey` tokens go where they went in the trace, and the gaps of
    those that would not have gone there come back as well."""
    m, c = load(a.run, a.variant)
    optimizer, worst, gaps = optimizer_of(m, 0), [0.0, 0.0], []
    moes = [b["moe"] for b in m.blocks]
    for line, ids, targets, chosen in recorded.steps:
        for moe, choices in zip(moes, chosen):
            moe.given = choices if obey else None
        for g in optimizer.param_groups:
            g["lr"] = line["lr"]
        loss, norm = step(m, optimizer, ids, targets, a.coef)
        errors = [abs(loss.item() / line["loss"] - 1), abs(norm.item() / line["gradient_norm"] - 1)]
        worst = [max(x, y) for x, y in zip(worst, errors)]
        if not all(math.isfinite(e) for e in errors):
            worst = [math.inf] * 2
        said = ""
        if obey:
            now = [gap for moe in moes for gap in parted(moe).tolist()]
            gaps += now
            said = f", choices that would be others: {len(now)}" + "".join(f" (gap {g:.1e})" for g in now[:4])
        print(
            f"step {line['step']}: loss {loss.item():.6f} ours {line['loss']:.6f}, gradient norm {norm.item():.6f} ours {line['gradient_norm']:.6f}{said}"
        )
    return worst, gaps


def agree(a):
    recorded = Recorded(a.trace, a.metrics, a.text)
    free, _ = replay(a, recorded, False)
    print("with the choices of the trace:")
    worst, gaps = replay(a, recorded, True)
    rows = sum(len(choices) for _, _, _, chosen in recorded.steps for choices in chosen)
    say = lambda w: f"of the loss {w[0]:.1e}, of the gradient norm {w[1]:.1e}"
    if not gaps:
        print(f"{len(recorded.steps)} steps: largest relative difference {say(free)}; all of {rows:,} choices are the same")
    else:
        verdict = "ties, which rounding decides" if max(gaps) <= a.tie else "no ties: one of the two is wrong"
        print(
            f"{len(recorded.steps)} steps: largest relative difference {say(free)}; with the choices of the trace {say(worst)}: "
            f"{len(gaps)} of {rows:,} would be others, their logits at most {max(gaps):.1e} apart ({verdict})"
        )
    ok = max(worst) < a.tolerance and max(gaps, default=0) <= a.tie
    return 0 if ok else 1


def timed(a):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kind, _, compiled = a.variant.partition("+")
    m, c = load(a.run, kind)
    model = torch.compile(m) if compiled else m
    torch.manual_seed(1)
    length = a.length or c["max_position_embeddings"]
    ids = torch.randint(c["vocab_size"], (a.batch, length))
    targets = torch.cat((ids[:, 1:], torch.full((a.batch, 1), -1)), 1)
    optimizer, times = optimizer_of(m, 1e-5), []
    for n in range(a.warm):
        step(model, optimizer, ids, targets, a.coef, a.dtype == "bf16")
    start = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < a.seconds:
        t = time.perf_counter()
        step(model, optimizer, ids, targets, a.coef, a.dtype == "bf16")
        times.append(time.perf_counter() - t)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    median = statistics.median(times)
    print(
        json.dumps(
            {
                "variant": a.variant,
                "dtype": a.dtype,
                "threads": torch.get_num_threads(),
                "tokens": a.batch * length,
                "median": median * 1e3,
                "best": min(times) * 1e3,
                "tokens_per_s": a.batch * length / median,
                "memory_mib": peak / 1024,
                "memory_over_import_mib": (peak - before) / 1024,
                "torch": torch.__version__,
            }
        )
    )
    return 0


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--threads", type=int, default=0)
    p.add_argument(
        "--coef", type=float, default=0.01, help="of the balance loss, summed over layers"
    )
    verbs = p.add_subparsers(required=True)
    v = verbs.add_parser("agree")
    v.add_argument("run"), v.add_argument("trace"), v.add_argument("metrics"), v.add_argument(
        "text"
    )
    v.add_argument("--variant", default="loop"), v.add_argument(
        "--tolerance", type=float, default=1e-4
    )
    v.add_argument(
        "--tie", type=float, default=1e-5, help="logits so close are told apart by rounding alone"
    )
    v.set_defaults(go=agree)
    v = verbs.add_parser("time")
    v.add_argument("run"), v.add_argument("variant")
    v.add_argument("--batch", type=int, default=8), v.add_argument(
        "--length", type=int, default=0
    ), v.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    v.add_argument("--seconds", type=float, default=10), v.add_argument(
        "--warm", type=int, default=3
    )
    v.set_defaults(go=timed)
    a = p.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    return a.go(a)


if __name__ == "__main__":
    sys.exit(main())
