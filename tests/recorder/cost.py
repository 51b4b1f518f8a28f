#!/usr/bin/env python3
"""What recording costs: a forward pass and a training step with and without python/moe_recorder.py.

  PYTHON tests/recorder/cost.py [--pairs 40] [--steps 40]

One thread, processor time, the two of a pair right after each other, in changing order; the figure is the median of the pairs' ratios
with the middle 95 % of medians of resampled pairs. Forward: an OLMoE-like model (4 layers of 64 experts, top 8, hidden 512), one batch of
512 tokens. Step: forward, backward and AdamW of the same model, and a step that the callback watches, lights and their chance values
included; the callback watches every 10th or 100th step, so that its cost is that of a watched step divided by 10 or 100.
"""

import argparse
import pathlib
import sys
import tempfile
import time
import types

import numpy as np
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))
import moe_recorder  # noqa: E402


def model_of():
    torch.manual_seed(1)
    config = transformers.OlmoeConfig(
        vocab_size=4096,
        eos_token_id=0,
        hidden_size=512,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        num_experts=64,
        num_experts_per_tok=8,
    )
    return transformers.OlmoeForCausalLM(config)


def seconds(run):
    start = time.process_time()
    run()
    return time.process_time() - start


def ratios(plain, recorded, before, after, pairs):
    """Recorded over plain; before() and after() switch recording on and off, outside the time."""
    out = []
    for pair in range(pairs):
        times = {}
        for on in (False, True) if pair % 2 else (True, False):
            if on:
                before()
            times[on] = seconds(recorded if on else plain)
            if on:
                after()
        out.append(times[True] / times[False])
    return np.array(out)


def said(values):
    random = np.random.default_rng(1)
    medians = [np.median(random.choice(values, len(values))) for _ in range(2000)]
    low, high = np.quantile(medians, [0.025, 0.975])
    return np.median(values), low, high


def show(what, value, low, high, part=1):
    cost = [100 * (v - 1) / part for v in (value, low, high)]
    print(f"{what}: {cost[0]:+.2f} % [{cost[1]:+.2f}, {cost[2]:+.2f}]")
    return cost[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=40)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = model_of()
    ids = torch.randint(0, 4096, (1, 512), generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def forward():
        with torch.no_grad():
            model(input_ids=ids)

    def step():
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for run in (forward, step):
        for _ in range(3):
            run()
    with tempfile.TemporaryDirectory() as folder:
        recorder = moe_recorder.Recorder(
            model, f"{folder}/t.h5", None, True, False, True, None, False
        )
        pairs = ratios(forward, forward, recorder.start, recorder.stop, asked.pairs)
        cost = show("forward pass, recorded", *said(pairs))
        recorder.close()

    state = types.SimpleNamespace(global_step=0, is_world_process_zero=True)
    callback = moe_recorder.trainer_callback(None, every=1, say=lambda line: None)
    callback.on_train_begin(None, state, None, model=model)

    def watched():
        callback.on_step_begin(None, state, None)
        step()
        callback.on_step_end(None, state, None)

    pairs = said(ratios(step, watched, nothing, nothing, asked.steps))
    show("training step that the callback watches", *pairs)
    often = show("training with the callback, every=10", *pairs, part=10)
    show("training with the callback, every=100", *pairs, part=100)
    return 0 if cost <= 5 and often <= 2 else 1


def nothing():
    pass


if __name__ == "__main__":
    sys.exit(main())
