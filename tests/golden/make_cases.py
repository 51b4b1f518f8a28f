#!/usr/bin/env python3
"""Makes the case files of this folder (python3-h5py): small layers written from the equations in numpy, apart from the C++.

Gradients are complex steps of the same forward, exact to rounding: d f / d v = Im f(v + i h) / h with h = 1e-200. Decisions
(selection, capacity) look at real parts only, so no gradient passes through them. `hand` is worked out on paper instead.
cases/ must pass; bad/ holds files that must fail or be called unsupported.
"""

import pathlib
import h5py
import numpy as np

HERE = pathlib.Path(__file__).parent
UNUSED = dict(
    mode="train",
    norm_topk=0,
    routed_scale=1.0,
    temperature=1.0,
    jitter_eps=0.0,
    router_bias=0,
    correction_bias=0,
    gate_residual=0,
    group_mode="none",
    n_group=1,
    topk_group=1,
    group_score="none",
    topk_inner=0,
    noise_eps=0.01,
    second_policy="none",
    top_p=0.0,
    num_slots=0,
    soft_normalize=0,
    capacity_factor=0.0,
    min_capacity=0,
    overflow="none",
    drop_weights="keep",
    dropped_output="zero",
    activation="swiglu",
    expert_bias=0,
    apply_weight="output",
    hetero_widths=0,
    zero_compute=0,
    zc_exclude_zero=0,
    zc_tau=1.0,
    zc_capacity=0,
    shared="none",
    shared_intermediate_size=0,
    aux_type="none",
    aux_coef=0.0,
    aux_scope="batch",
    aux_counts="topk",
    z_coef=0.0,
    entropy_coef=0.0,
    importance_coef=0.0,
    load_coef=0.0,
    l1_coef=0.0,
    l1_balanced=0,
    l1_growth=1.2,
    bias_update="none",
    bias_update_rate=0.0,
    has_mask=0,
    exact_ties=0,
    f64_only=0,
    min_margin=1e300,
    seed=0,
)
LOSSES = dict(aux="aux_loss", z="z_loss", entropy="entropy_loss")


def write(path, options, inputs, params, expected):
    with h5py.File(path, "w", libver="latest", track_order=False) as f:
        o = dict(
            UNUSED,
            format="moe-golden-layer",
            format_version="1.0",
            case=path.stem,
            kind="layer",
            **options,
        )
        for name in sorted(o):
            f.attrs[name] = o[name]
        for group, arrays in (("input", inputs), ("param", params), ("expected", expected)):
            for name in sorted(arrays):
                f.create_dataset(f"{group}/{name}", data=arrays[name], track_times=False)


def body(o, x, p, prefix, e=None):
    """One expert on one row: down(phi(gate) * up), biases where there are any."""
    get = lambda n: (p[prefix + n] if e is None else p[prefix + n][e]) if prefix + n in p else 0
    up = get("up") @ x + get("up_bias")
    if o["activation"] == "swiglu":
        gate = get("gate") @ x + get("gate_bias")
        h = gate / (1 + np.exp(-gate)) * up
    else:
        h = np.where(up.real > 0, up, 0) ** {"relu": 1, "relu2": 2}[o["activation"]]
    return get("down") @ h + get("down_bias")


def select(o, s, z, p):
    """Ids by falling key, lower id first among equals."""
    key = (z if o["router"] == "softmax" else s).real + p.get("router.correction_bias", 0)
    if o["group_mode"] == "limited":
        size = o["num_experts"] // o["n_group"]
        best = [
            np.sort(key[g * size : (g + 1) * size])[::-1][:2].sum() for g in range(o["n_group"])
        ]
        kept = np.argsort(-np.array(best), kind="stable")[: o["topk_group"]]
        key = np.where(np.isin(np.arange(len(key)) // size, kept), key, -np.inf)
    return np.argsort(-key, kind="stable")[: o["top_k"]]


def drop(o, ids):
    """Capacity by position: first choices of all tokens, then second choices."""
    kept = ids.copy()
    if o["overflow"] == "none":
        return kept, None
    valid = int((ids[:, 0] >= 0).sum())
    room = max(
        o["min_capacity"],
        int(np.ceil(valid * o["top_k"] * o["capacity_factor"] / o["num_experts"] - 1e-9)),
    )
    used = np.zeros(o["num_experts"], int)
    for j in range(o["top_k"]):
        for t in range(len(ids)):
            if kept[t, j] < 0:
                continue
            if used[kept[t, j]] >= room:
                kept[t, j] = -1
            else:
                used[kept[t, j]] += 1
    return kept, room


def switch_loss(o, prob, ids, rows):
    n = np.bincount(ids[rows][ids[rows] >= 0], minlength=o["num_experts"])
    return o["num_experts"] * sum(n / max(1, n.sum()) * prob[rows].mean(0))


def forward(o, i, p, dz=0):
    """Everything of one layer; dz is added to the logits, for their gradient."""
    x, T, E, k = i["x"], o["num_tokens"], o["num_experts"], o["top_k"]
    valid = i["mask"].astype(bool) if o["has_mask"] else np.ones(T, bool)
    z = (x @ p["router.weight"].T + p.get("router.bias", 0)) / o["temperature"] + dz
    z = np.where(valid[:, None], z, 0)
    ez = np.exp(z - z.real.max(1, keepdims=True))
    soft = ez / ez.sum(1, keepdims=True)
    s = np.where(valid[:, None], soft if o["router"] == "softmax" else 1 / (1 + np.exp(-z)), 0)
    ids, w = np.full((T, k), -1), np.zeros((T, k), complex)
    for t in np.flatnonzero(valid):
        ids[t] = select(o, s[t], z[t], p)
        w[t] = o["routed_scale"] * s[t, ids[t]] / (s[t, ids[t]].sum() if o["norm_topk"] else 1)
    kept, room = drop(o, ids)
    after = np.where(kept >= 0, w, 0)
    if o["drop_weights"] == "renormalize":
        total = after.sum(1, keepdims=True)
        after = np.where(
            total.real > 0, after * w.sum(1, keepdims=True) / np.where(total.real > 0, total, 1), 0
        )
    y = np.zeros(x.shape, complex)
    for t in np.flatnonzero(valid):
        for j in range(k):
            if kept[t, j] >= 0:
                on_input = o["apply_weight"] == "input"
                out = body(o, x[t] * (after[t, j] if on_input else 1), p, "experts.", kept[t, j])
                y[t] += out * (1 if on_input else after[t, j])
        if (kept[t] < 0).all() and o["dropped_output"] == "identity":
            y[t] += x[t]
        if o["shared"] != "none":
            gate = (
                1 / (1 + np.exp(-p["shared_gate.weight"][0] @ x[t]))
                if o["shared"] == "gated"
                else 1
            )
            y[t] += gate * body(o, x[t], p, "shared.")
    prob = s / np.where(valid, s.sum(1), 1)[:, None]
    lse = np.log(ez.sum(1)) + z.real.max(1)
    parts = (
        [np.flatnonzero(valid & (i["sequence"] == q)) for q in np.unique(i["sequence"])]
        if o["aux_scope"] == "sequence"
        else [np.flatnonzero(valid)]
    )
    losses = dict(
        aux=np.mean([switch_loss(o, prob, ids, r) for r in parts if len(r)]),
        z=np.mean(lse[valid] ** 2),
        entropy=np.mean(-(soft * (z - lse[:, None])).sum(1)[valid]),
    )
    losses = {n: v for n, v in losses.items() if o[n + "_coef"] != 0}
    aux = sum(o[n + "_coef"] * v for n, v in losses.items())
    total = (y * i["grad_y"]).sum() + aux
    return dict(
        z=z,
        s=s,
        ids=ids,
        w=w,
        kept=kept,
        after=after,
        room=room,
        y=y,
        losses=losses,
        aux=aux,
        total=total,
    )


def complex_step(f, a):
    g = np.zeros(a.shape)
    for at in np.ndindex(a.shape):
        b = a.astype(complex)
        b[at] += 1e-200j
        g[at] = f(b).imag / 1e-200
    return g


def expect(o, i, p):
    r = forward(o, i, p)
    E, counts = o["num_experts"], lambda ids: np.bincount(ids[ids >= 0], minlength=o["num_experts"])
    x = {
        "logits": r["z"],
        "probs": r["s"],
        "topk_ids": r["ids"].astype("i4"),
        "topk_weights": r["w"],
        "counts": counts(r["ids"]),
        "y": r["y"],
        "total_loss": r["total"],
    }
    x.update({LOSSES[n]: v for n, v in r["losses"].items()})
    if r["room"] is not None:
        x.update(
            {
                "post_capacity/ids": r["kept"].astype("i4"),
                "post_capacity/weights": r["after"],
                "post_capacity/kept": (r["kept"] >= 0).astype("u1"),
                "post_capacity/counts": counts(r["kept"]),
                "post_capacity/capacity": np.full(E, r["room"]),
            }
        )
    x = {n: np.real(v) for n, v in x.items()}
    for name in p:
        if name != "router.correction_bias":
            x["grad/" + name] = complex_step(
                lambda v: forward(o, i, {**p, name: v})["total"], p[name]
            )
    x["grad/x"] = complex_step(lambda v: forward(o, {**i, "x": v}, p)["total"], i["x"])
    x["grad/logits"] = complex_step(lambda v: forward(o, i, p, v)["total"], np.zeros_like(r["z"]))
    if r["losses"]:
        x["aux_grad/logits"] = complex_step(
            lambda v: forward(o, i, p, v)["aux"], np.zeros_like(r["z"])
        )
    if o["bias_update"] != "none":
        n = counts(r["ids"])
        x["updated/router.correction_bias"] = p["router.correction_bias"] + o[
            "bias_update_rate"
        ] * np.sign(n.mean() - n)
    return x


def make(name, seed, T=7, H=3, E=4, I=3, **options):
    rng = np.random.default_rng(seed)
    o = dict(
        UNUSED,
        **dict(
            num_tokens=T,
            hidden_size=H,
            num_experts=E,
            top_k=2,
            intermediate_size=I,
            ids_width=2,
            seed=seed,
        ),
        **options,
    )
    i = {
        "x": rng.normal(size=(T, H)),
        "grad_y": rng.normal(size=(T, H)),
        "sequence": np.array([0] * (T // 2) + [1] * (T - T // 2), "i4"),
    }
    if o["has_mask"]:
        i["mask"] = np.array([1] * (T - 2) + [0, 1], "u1")
    p = {"router.weight": rng.normal(size=(E, H))}

    def bodies(prefix, lead, width):
        gated = o["activation"] == "swiglu"
        for n, shape in (
            ("gate", (width, H)),
            ("up", (width, H)),
            ("down", (H, width)),
            ("gate_bias", (width,)),
            ("up_bias", (width,)),
            ("down_bias", (H,)),
        ):
            if (gated or not n.startswith("gate")) and (o["expert_bias"] or not n.endswith("bias")):
                p[prefix + n] = rng.normal(size=lead + shape)

    bodies("experts.", (E,), I)
    if o["router_bias"]:
        p["router.bias"] = rng.normal(size=E)
    if o["correction_bias"]:
        p["router.correction_bias"] = 0.2 * rng.normal(size=E)
    if o["shared"] != "none":
        bodies("shared.", (), o["shared_intermediate_size"])
    if o["shared"] == "gated":
        p["shared_gate.weight"] = rng.normal(size=(1, H))
    changed = {n: v for n, v in o.items() if n not in UNUSED or v != UNUSED[n]}
    e = expect(o, i, p)
    write(
        HERE / "cases" / f"{name}.h5",
        {"description": "from the equations, gradients by complex steps", **changed},
        i,
        p,
        e,
    )
    return changed, i, p, e


def hand():
    """On paper: E=2, k=1, H=I=1, relu body h = 2x, router (ln 3, 0), x = 1: p = (3/4, 1/4), y = 3/4 * 2, dw = 2,
    dz = p0 (1 - p0) dw = 3/8 and -3/8, dx = 3/4 * 2 + 3/8 ln 3."""
    o = dict(
        router="softmax",
        num_tokens=1,
        hidden_size=1,
        num_experts=2,
        top_k=1,
        intermediate_size=1,
        ids_width=1,
        activation="relu",
        description="by hand",
    )
    ln3 = np.log(3)
    p = {
        "router.weight": [[ln3], [0.0]],
        "experts.up": [[[2.0]], [[5.0]]],
        "experts.down": [[[1.0]], [[1.0]]],
    }
    e = {
        "logits": [[ln3, 0.0]],
        "probs": [[0.75, 0.25]],
        "topk_ids": np.array([[0]], "i4"),
        "topk_weights": [[0.75]],
        "counts": [1, 0],
        "y": [[1.5]],
        "total_loss": 1.5,
        "grad/logits": [[0.375, -0.375]],
        "grad/router.weight": [[0.375], [-0.375]],
        "grad/x": [[1.5 + 0.375 * ln3]],
        "grad/experts.up": [[[0.75]], [[0.0]]],
        "grad/experts.down": [[[1.5]], [[0.0]]],
    }
    i = {"x": [[1.0]], "grad_y": [[1.0]]}
    write(HERE / "cases" / "hand.h5", o, i, p, e)
    bad = HERE / "bad"
    write(bad / "wrong_value.h5", o, i, p, {**e, "grad/x": [[1.5]]})
    write(bad / "wrong_id.h5", o, i, p, {**e, "topk_ids": np.array([[1]], "i4")})
    write(bad / "not_a_number.h5", o, i, p, {**e, "y": [[float("nan")]]})
    write(bad / "unknown_expectation.h5", o, i, p, {**e, "grad/soul": [[1.0]]})
    write(bad / "unknown_option.h5", {**o, "teleport": 1}, i, p, e)
    write(bad / "unknown_value.h5", {**o, "activation": "sine"}, i, p, e)
    write(bad / "unknown_router.h5", {**o, "router": "oracle"}, i, p, e)
    write(bad / "not_expressed.h5", {**o, "router": "round_robin", "temperature": 0.5}, i, p, e)
    write(bad / "unused_parameter.h5", o, i, {**p, "experts.middle": [1.0]}, e)


if __name__ == "__main__":
    for folder in ("cases", "bad"):
        (HERE / folder).mkdir(exist_ok=True)
    hand()
    make(
        "softmax_capacity_shared",
        1,
        router="softmax",
        norm_topk=1,
        temperature=0.8,
        router_bias=1,
        capacity_factor=0.75,
        overflow="position",
        drop_weights="renormalize",
        dropped_output="identity",
        shared="gated",
        shared_intermediate_size=2,
        aux_type="switch",
        aux_coef=0.2,
        z_coef=0.1,
    )
    make(
        "sigmoid_groups_padding",
        2,
        E=6,
        router="sigmoid",
        norm_topk=1,
        routed_scale=2.5,
        correction_bias=1,
        group_mode="limited",
        n_group=3,
        topk_group=2,
        group_score="top2_sum",
        has_mask=1,
        activation="relu2",
        expert_bias=1,
        aux_type="switch",
        aux_coef=0.2,
        aux_scope="sequence",
        bias_update="sign",
        bias_update_rate=0.01,
    )
    make(
        "sigmoid_weight_on_input",
        3,
        router="sigmoid",
        activation="swiglu",
        apply_weight="input",
        entropy_coef=0.1,
    )
