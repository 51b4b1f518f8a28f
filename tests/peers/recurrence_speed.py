"""Times Mamba-2 and the gated delta net beside their recurrence as PyTorch computes it, a row at a time, forward and backward.

    python tests/peers/recurrence_speed.py MOE [--tokens 2048] [--hidden 512]

Needs torch. Both have the same sizes (heads of 64, state 128; as `moe bench mixer` has them), products with weights and a convolution
included, float32, one sequence, one thread, and run in turn, so that whatever else the machine does falls on both.
"""

import argparse
import subprocess
import time

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
    """Seconds of a step, the best of three."""
    best = float("inf")
    for _ in range(3):
        x = torch.randn(tokens, hidden, requires_grad=True)
        start = time.perf_counter()
        mixer(x).sum().backward()
        best = min(best, time.perf_counter() - start)
    return best


def ours(moe, name, tokens, hidden):
    """What `moe bench mixer` prints, line by line."""
    words = [moe, "bench", "mixer", "--mixer", name, "--threads", "1", "--tokens", str(tokens), "--hidden", str(hidden)]
    return subprocess.run(words + ["--seconds", "2"], capture_output=True, text=True, check=True).stdout


def main():
    p = argparse.ArgumentParser()
    p.add_argument("moe")
    p.add_argument("--tokens", type=int, default=2048)
    p.add_argument("--hidden", type=int, default=512)
    o = p.parse_args()
    torch.set_num_threads(1)
    for name, kind in (("mamba2", Mamba2), ("gdn", DeltaNet)):
        print(ours(o.moe, name, o.tokens, o.hidden), end="")
        took = naive(kind(o.hidden), o.tokens, o.hidden)
        print(f"{name}: a row at a time in PyTorch {1e6 * took / o.tokens:.0f} µs a token, forward and backward")


if __name__ == "__main__":
    main()
