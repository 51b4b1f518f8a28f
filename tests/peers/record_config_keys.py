"""Writes tests/model/config_keys.json: which keys of a config.json change what each class computes.

    python tests/peers/record_config_keys.py

Needs torch and transformers 5. Each key of the recorded configuration of a family (tests/model/families) is given another value;
the class is built with both, its weights a function of their names (record_families.py), and the logits are compared.
`changes` is true where they, or the tensors, differ by more than another order of sums makes them. Values with which the class cannot be built or run are left out, and so
are keys that say nothing of a model (BOOKKEEPING). Version 5 runs two of nllb-moe's experts only, so that family is recorded by itself with 4.57:

    python tests/peers/record_config_keys.py nllb-moe
"""

import json
import re
import sys
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
)

import record_families
from record_families import BOOKKEEPING, CLASSES, DIRECT, INSIDE, PAIRS, WHOLE, learned, text_keys, weights

OUT = Path(__file__).parent.parent / "model" / "config_keys.json"
SKIPPED = {*BOOKKEEPING, "torch_dtype", "vision_config", "audio_config", "moe_training"}
WORDS = {
    "silu": ["gelu"],
    "relu": ["gelu"],
    "gelu": ["relu"],
    "gelu_pytorch_tanh": ["relu"],
    "sqrtsoftplus": ["sigmoid"],
    "sigmoid": ["softmax"],
    "softmax": ["sigmoid"],
    "default": ["linear"],
    "rope": ["nope"],
    "nope": ["rope"],
    "gated-gelu": ["relu"],
}


def others(value):
    """Values to try in the place of one, the first that works counts."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value or 2, max(1, value // 2), value + 3, value - 1]
    if isinstance(value, float):
        return [value * 1.5 + 0.25, value / 2]
    if isinstance(value, str):
        return WORDS.get(value, [])
    if isinstance(value, list):
        return [value[::-1], value[1:] + value[:1]]
    return [3, 0.7, True] if value is None else []


def paths(config, at=()):
    for key, value in config.items():
        if key in SKIPPED or key == "text_config":
            continue
        if isinstance(value, dict):
            yield from paths(value, (*at, key))
        else:
            yield (*at, key), value


def put(config, path, value):
    out = json.loads(json.dumps(config))
    inside = out
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    if path[-1] == "rope_type" and value == "linear":
        inside.setdefault("factor", 2.5)
    return out


def as_given(key, value):
    """What a file says, as the class takes it from Python."""
    if isinstance(value, dict):
        return float(value["__float__"]) if "__float__" in value else {k: as_given(k, v) for k, v in value.items()}
    if key == "time_step_limit":
        return tuple(as_given("", v) for v in value)
    return value


def build(family, config):
    made_from = AutoConfig.for_model(**{k: as_given(k, v) for k, v in config.items() if k != "architectures"})
    if family in DIRECT:
        return getattr(transformers, DIRECT[family])(made_from)
    auto = AutoModelForSeq2SeqLM if family in PAIRS else AutoModelForCausalLM
    if family in WHOLE:
        auto = AutoModelForImageTextToText
    return auto.from_config(made_from, attn_implementation="eager")


def computed(family, config):
    """Shapes of all tensors and the logits of two sequences."""
    torch.manual_seed(0)
    model = build(family, config).float().eval()
    state = learned(model.state_dict())
    shapes = {n: tuple(t.shape) for n, t in state.items()}
    drawn = {
        n: t if "tid2eid" not in n and not t.is_floating_point() else weights(n, t.shape).to(t.dtype)
        for n, t in state.items()
        if t.ndim > 0
    }
    model.load_state_dict(drawn, strict=False)
    model.tie_weights()
    vocabulary = text_keys(config)[0]["vocab_size"]
    ids = torch.tensor([[(17 * q + 7 * t + t * t) % min(vocabulary, 90) for t in range(24)] for q in range(2)])
    with torch.no_grad():
        if family in PAIRS:
            logits = model(input_ids=ids, decoder_input_ids=ids[:, :14]).logits
        else:
            logits = (getattr(model, INSIDE[family]) if family in INSIDE else model)(ids, use_cache=False).logits
    assert torch.isfinite(logits).all()
    return shapes, logits


def changes(one, other):
    return one[0] != other[0] or one[1].shape != other[1].shape or (one[1] - other[1]).abs().max().item() > 1e-4


def keys_of(family):
    config = json.loads((record_families.OUT / f"{family}.json").read_text())["config"]
    config["model_type"] = PAIRS and family if family in PAIRS else CLASSES[family][0]
    usual = computed(family, config)
    text, inside = text_keys(config) if family in WHOLE else (config, [])
    found = {}
    for path, value in paths(text, tuple(inside)):
        for other in others(value):
            try:
                result = computed(family, put(config, path, other))
            except Exception:  # what a class says to a value that it cannot have is its own
                continue
            found[".".join(path)] = {"value": other, "changes": changes(usual, result)}
            if found[".".join(path)]["changes"]:
                break
    return found


def write(record):
    text = json.dumps(record, indent=1, sort_keys=True)
    text = re.sub(r"\{\s+(\"changes\"[^{}]*?)\s+\}", lambda m: "{" + " ".join(m[1].split()) + "}", text)
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda m: "[" + " ".join(m[1].split()) + "]", text)
    OUT.write_text(text + "\n")


if __name__ == "__main__":
    names = sys.argv[1:] or [*CLASSES, *(f for f in PAIRS if f != "nllb-moe")]
    record = {"recorded_from": f"transformers {transformers.__version__}", "families": {}}
    if sys.argv[1:] and OUT.exists():
        record = json.loads(OUT.read_text())
    for name in names:
        found = record["families"][name] = keys_of(name)
        print(f"{name}: {sum(k['changes'] for k in found.values())} of {len(found)} keys count", flush=True)
        write(record)
