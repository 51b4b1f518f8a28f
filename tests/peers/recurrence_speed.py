"""Times Mamba-2 and the gated delta net beside their recurrence as PyTorch computes it, a row at a time, forward and backward.

    python tests/peers/recurrence_speed.py MOE [--tokens 2048] [--hidden 512]

Needs torch. Both have the same sizes (heads of 64, state 128; as `moe bench mixer` has them), products with weights and a convolution
included, float32, one sequence, one thread, and run in turn, so that whatever else the machine does falls on both. Of PyTorch's steps the
processor's time is taken as well, of ours the best step: of a machine that others use, the clock of a slow step says little.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.functional import conv1d, pad, silu, softplus


def convolved(x, w):
    return silu(conv1d(pad(x.t()[None], (3, 0)), w, groups=w.shape[0])[0].t())


class Mamba2(torch.nn.Module):
    def __init__(self, hidden, head=64, state=128):
        super().__init__()
        self.inner, self.head, self.state = 2 * hidden, head, state
        self.heads = self.inner // head
        mixed = self.inner + 2 * state
        self.into = torch.nn.Linear(hidden, self.inner + mixed + self.heads, bias=False)
        self.out = torch.nn.Linear(self.inner, hidden, bias=False)
        self.conv = torch.nn.Parameter(torch.randn(mixed, 1, 4) / 4)
        self.a = torch.nn.Parameter(torch.rand(self.heads))

    def forward(self, x):
        z, mixed, dt = self.into(x).split([self.inner, self.inner + 2 * self.state, self.heads], -1)
        u, b, c = convolved(mixed, self.conv).split([self.inner, self.state, self.state], -1)
        u, dt = u.view(-1, self.heads, self.head), softplus(dt)
        decay = torch.exp(-dt * torch.exp(self.a))
        s, rows = torch.zeros(self.heads, self.head, self.state), []
        for t in range(len(x)):
            s = decay[t, :, None, None] * s + (dt[t, :, None] * u[t])[..., None] * b[t]
            rows.append(s @ c[t])
        y = (torch.stack(rows) + u).view(len(x), -1) * silu(z)
        return self.out(y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5))


class DeltaNet(torch.nn.Module):
    def __init__(self, hidden, head=64):
        super().__init__()
        self.keys, self.head = hidden // head, head
        self.values = 2 * self.keys
        self.wide = [self.keys * head, self.keys * head, self.values * head]
        self.into = torch.nn.Linear(hidden, sum(self.wide) + self.wide[2] + 2 * self.values, bias=False)
        self.out = torch.nn.Linear(self.wide[2], hidden, bias=False)
        self.conv = torch.nn.Parameter(torch.randn(sum(self.wide), 1, 4) / 4)

    def forward(self, x):
        qkv, z, beta, a = self.into(x).split([sum(self.wide), self.wide[2], self.values, self.values], -1)
        q, k, v = convolved(qkv, self.conv).split(self.wide, -1)
        q, k = (
            torch.nn.functional.normalize(h.view(-1, self.keys, self.head), dim=-1).repeat_interleave(2, 1)
            for h in (q, k)
        )
        v, beta, decay = v.view(-1, self.values, self.head), torch.sigmoid(beta), torch.exp(-softplus(a))
        s, rows = torch.zeros(self.values, self.head, self.head), []
        for t in range(len(x)):
            s = decay[t, :, None, None] * s
            said = (s * k[t][..., None]).sum(1)
            s = s + k[t][..., None] * (beta[t, :, None] * (v[t] - said))[:, None]
            rows.append((s * q[t][..., None]).sum(1))
        o = torch.stack(rows)
        o = o * torch.rsqrt(o.square().mean(-1, keepdim=True) + 1e-6) * silu(z).view(o.shape)
        return self.out(o.reshape(len(x), -1))


def naive(mixer, tokens, hidden):
    """Microseconds a token of one step: on the clock, and of the processor."""
    x = torch.randn(tokens, hidden, requires_grad=True)
    start, used = time.perf_counter(), time.process_time()
    mixer(x).sum().backward()
    return 1e6 * (time.perf_counter() - start) / tokens, 1e6 * (time.process_time() - used) / tokens


def ours(moe, name, tokens, hidden):
    """The best step of `moe bench mixer`, microseconds a token."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        words = [moe, "bench", "mixer", "--mixer", name, "--threads", "1", "--tokens", str(tokens), "--hidden", str(hidden)]
        subprocess.run(words + ["--seconds", "2", "-o", str(out)], capture_output=True, check=True)
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    return 1e3 * next(r["best"] for r in rows if r["pass"] == "forward+backward") / tokens


def main():
    p = argparse.ArgumentParser()
    p.add_argument("moe")
    p.add_argument("--tokens", type=int, default=2048)
    p.add_argument("--hidden", type=int, default=512)
    p.add_argument("--rounds", type=int, default=3)
    o = p.parse_args()
    torch.set_num_threads(1)
    print(f"load {' '.join(f'{v:.1f}' for v in os.getloadavg())}, torch {torch.__version__}")
    for name, kind in (("mamba2", Mamba2), ("gdn", DeltaNet)):
        mixer = kind(o.hidden)
        best, wall, processor = [], [], []
        for _ in range(o.rounds):
            best.append(ours(o.moe, name, o.tokens, o.hidden))
            clock, used = naive(mixer, o.tokens, o.hidden)
            wall.append(clock)
            processor.append(used)
            print(f"{name}: {best[-1]:.0f} us a token; PyTorch, a row at a time: {clock:.0f} on the clock, {used:.0f} of the processor")
        print(f"{name}: best against best {min(processor) / min(best):.1f}x by the processor, {min(wall) / min(best):.1f}x by the clock")


if __name__ == "__main__":
    main()
