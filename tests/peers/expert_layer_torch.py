"""The expert layer that moe_gpu_check times, in PyTorch on the same machine: gather, experts, combine; routing given. Once as a
loop over experts, once by grouped products (torch._grouped_mm, where it is). bf16 throughout, random inputs, forward and forward
with backward. Prints rows for the table of scripts/gpu-check.sh. "small" as an argument runs tiny sizes, on a processor too."""
import statistics
import sys
import time

import torch
import torch.nn.functional as F

SMALL = "small" in sys.argv[1:]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [("fine-grained, small", 256, 64, 32, 16, 4)] if SMALL else [
    ("fine-grained", 24576, 1536, 256, 128, 8), ("I=1024 E=32 k=2", 24576, 1536, 1024, 32, 2), ("Mixtral", 8192, 4096, 14336, 8, 2)]


def wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def seconds(run):
    for _ in range(3):
        run()
    wait()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(4):
            run()
        wait()
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


def main():
    torch.manual_seed(1)
    for name, tokens, hidden, width, experts, k in SHAPES:
        new = lambda *s: torch.randn(*s, device=DEVICE, dtype=torch.bfloat16)
        x, weight = new(tokens, hidden).requires_grad_(), new(tokens, k)
        chosen = torch.rand(tokens, experts, device=DEVICE).topk(k).indices
        scale = hidden ** -0.5
        weights = [(new(experts, hidden, width) * scale).requires_grad_(), (new(experts, hidden, width) * scale).requires_grad_(),
                   (new(experts, width, hidden) * scale).requires_grad_()]
        dy = new(tokens, hidden)
        flops = 6 * tokens * k * hidden * width
        for kind, bodies in (("loop over experts", loop), ("_grouped_mm", grouped)):
            if bodies is grouped and not hasattr(torch, "_grouped_mm"):
                print(f"row\tPyTorch {torch.__version__}, {kind}\tnot in this version\t\t")
                continue
            try:
                def forward():
                    with torch.no_grad():
                        layer(bodies, x, chosen, weight, weights)

                def both():
                    layer(bodies, x, chosen, weight, weights).backward(dy)
                    x.grad = None
                    for w in weights:
                        w.grad = None

                f, b = seconds(forward), seconds(both)
                print(f"row\t{name}: PyTorch, {kind}\t{f * 1e3:.2f}; {b * 1e3:.2f} ms ({flops / f / 1e12:.0f}; {3 * flops / b / 1e12:.0f} TFLOP/s)\t\t", flush=True)
            except (RuntimeError, NotImplementedError) as error:
                print(f"row\t{name}: PyTorch, {kind}\tcannot: {str(error).splitlines()[0][:60]}\t\t", flush=True)


main()
