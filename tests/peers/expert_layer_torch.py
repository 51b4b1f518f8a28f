"""The expert layer that moe_gpu_check times, in PyTorch on the same machine: gather, experts, combine; routing given. Once as a
loop over experts, once by grouped products (torch._grouped_mm, where it is). bf16 throughout, random inputs, forward and forward
with backward. Prints rows for the table of scripts/gpu-check.sh. --device cpu rehearses it on a processor, with tiny sizes, and holds the
two ways to each other; nothing said of a processor is a measurement of a GPU."""

import argparse
import statistics
import sys
import time

import torch
import torch.nn.functional as F

SHAPES = {
    "cuda": [
        ("fine-grained", 24576, 1536, 256, 128, 8),
        ("I=1024 E=32 k=2", 24576, 1536, 1024, 32, 2),
        ("Mixtral", 8192, 4096, 14336, 8, 2),
    ],
    "cpu": [("fine-grained, small", 256, 64, 32, 16, 4), ("Mixtral, small", 256, 64, 128, 8, 2)],
}  # as tests/gpu/speed.cpp


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(run, device):
    for _ in range(3):
        run()
    wait(device)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(4):
            run()
        wait(device)
        times.append((time.perf_counter() - start) / 4)
    return statistics.median(times)


def loop(xs, ends, gate, up, down):
    out, first = [], 0
    for e, last in enumerate(ends.tolist()):
        rows = xs[first:last]
        out.append((F.silu(rows @ gate[e]) * (rows @ up[e])) @ down[e])
        first = last
    return torch.cat(out)


def grouped(xs, ends, gate, up, down):
    mm = lambda a, b: torch._grouped_mm(a, b, offs=ends)
    return mm(F.silu(mm(xs, gate)) * mm(xs, up), down)


def layer(bodies, x, chosen, weight, weights):
    experts = weights[0].shape[0]
    order = torch.argsort(chosen.flatten(), stable=True)
    ends = torch.cumsum(torch.bincount(chosen.flatten(), minlength=experts), 0).to(torch.int32)
    ys = bodies(x[order // chosen.shape[1]], ends, *weights)
    back = torch.empty_like(order)
    back[order] = torch.arange(order.numel(), device=order.device)
    return (ys[back].view(*chosen.shape, -1) * weight.unsqueeze(-1)).sum(1)


WAYS = {"loop over experts": loop, "_grouped_mm": grouped}


def gradients(bodies, x, chosen, weight, weights, dy):
    y = layer(bodies, x, chosen, weight, weights)
    return [y.detach(), *torch.autograd.grad(y, [x, weight, *weights], dy)]


# The ways must say the same, or the faster one proves nothing.
def agree(inputs):
    for a, b in zip(gradients(loop, *inputs), gradients(grouped, *inputs)):
        off = (a.float() - b.float()).norm() / a.float().norm()
        if not off < 0.02:
            sys.exit(f"expert_layer_torch.py: the loop and _grouped_mm differ by {off:.3g}")


# The reason why this version cannot, or nothing.
def missing(bodies, inputs):
    if bodies is grouped and not hasattr(torch, "_grouped_mm"):
        return "this PyTorch has no torch._grouped_mm"
    try:
        gradients(bodies, *inputs)
    except (RuntimeError, NotImplementedError) as error:
        return f"cannot: {str(error).splitlines()[0][:60]}"
    return ""


def run_shape(name, tokens, hidden, width, experts, k, device):
    new = lambda *s: torch.randn(*s, device=device, dtype=torch.bfloat16)
    scale = hidden**-0.5
    chosen = torch.rand(tokens, experts, device=device).topk(k).indices
    weights = [
        (new(*s) * scale).requires_grad_()
        for s in ((experts, hidden, width), (experts, hidden, width), (experts, width, hidden))
    ]
    inputs = (
        new(tokens, hidden).requires_grad_(),
        chosen,
        new(tokens, k).requires_grad_(),
        weights,
        new(tokens, hidden),
    )
    flops = 6 * tokens * k * hidden * width
    absent = {way: missing(bodies, inputs) for way, bodies in WAYS.items()}
    if not any(absent.values()):
        agree(inputs)
    for way, bodies in WAYS.items():
        if absent[way]:
            print(f"row\t{name}: PyTorch {torch.__version__}, {way}\t{absent[way]}\t\t", flush=True)
            continue
        f = seconds(
            lambda: layer(bodies, *(i.detach() for i in inputs[:3]), [w.detach() for w in weights]),
            device,
        )
        b = seconds(lambda: gradients(bodies, *inputs), device)
        print(
            f"row\t{name}: PyTorch {torch.__version__}, {way}\t{f * 1e3:.2f}; {b * 1e3:.2f} ms ({flops / f / 1e12:.3g}; {3 * flops / b / 1e12:.3g} TFLOP/s)\t\t",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=list(SHAPES), default="cuda")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "expert_layer_torch.py: this PyTorch finds no GPU; --device cpu rehearses with small sizes"
        )
    torch.manual_seed(1)
    for shape in SHAPES[device]:
        run_shape(*shape, device)


main()
