"""Writes small checkpoints of multimodal classes with what they compute, in the layout of golden modal/hf.

    python tests/peers/modal_cases.py BASE OUT [NAME...]

Needs torch, h5py and transformers 5. BASE holds folders FAMILY/config.json of small models to begin from; a variant changes keys of
such a configuration and has pictures, videos and sounds of its own, drawn at random. `moe verify --golden OUT` compares.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers

CLASS = {
    "llama4": "Llama4ForConditionalGeneration",
    "aria": "AriaForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "ernie4_5_vl_moe": "Ernie4_5_VLMoeForConditionalGeneration",
    "kimi_k25": "Kimi_K25ForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
}
# name: family, changes of config.json by path, videos
VARIANTS = {
    "qwen3_vl_video": ("qwen3_vl_moe", {}, True),
    "qwen3_vl_deep": (
        "qwen3_vl_moe",
        {
            "vision_config.depth": 4,
            "vision_config.deepstack_visual_indexes": [1, 3],
            "vision_config.num_position_embeddings": 36,
            "vision_config.num_heads": 4,
            "text_config.num_experts_per_tok": 3,
            "text_config.mlp_only_layers": [1],
            "text_config.rope_parameters.mrope_section": [3, 2, 1],
            "text_config.rope_parameters.rope_theta": 500.0,
        },
        True,
    ),
    "qwen3_vl_one": (
        "qwen3_vl_moe",
        {"vision_config.deepstack_visual_indexes": [1], "vision_config.temporal_patch_size": 1, "vision_config.hidden_act": "gelu"},
        False,
    ),
    "ernie_video": ("ernie4_5_vl_moe", {}, True),
    "ernie_wide": (
        "ernie4_5_vl_moe",
        {
            "text_config.moe_k": 3,
            "text_config.moe_num_experts": 5,
            "text_config.moe_num_shared_experts": 2,
            "text_config.moe_intermediate_size": [10, 4],
            "text_config.mlp_layer_types": ["sparse", "dense", "sparse"],
            "text_config.rope_parameters.mrope_section": [1, 1, 4],
            "text_config.use_bias": False,
            "vision_config.depth": 3,
        },
        True,
    ),
    "llama4_more": (
        "llama4",
        {"vision_config.num_hidden_layers": 3, "vision_config.num_attention_heads": 2, "text_config.num_experts_per_tok": 2},
        False,
    ),
    "aria_more": ("aria", {"text_config.moe_topk": 2, "text_config.moe_num_shared_experts": 1, "vision_feature_layer": -2}, False),
    "kimi_more": (
        "kimi_k25",
        {"vision_config.num_hidden_layers": 3, "vision_config.pos_emb_height": 5, "vision_config.pos_emb_width": 5, "text_config.num_experts_per_tok": 2},
        False,
    ),
    "omni_windows": (
        "qwen3_omni_moe",
        {"audio_config.encoder_layers": 3, "audio_config.n_window_infer": 100, "audio_config.activation_function": "relu"},
        False,
    ),
}


def changed(config, changes):
    config = json.loads(json.dumps(config))
    for path, value in changes.items():
        inside = config
        *folders, last = path.split(".")
        for key in folders:
            inside = inside[key]
        if last not in inside:
            raise SystemExit(f"config.json has no {path}")
        inside[last] = value
    return config


def fill(model, seed):
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        learned = [b for b in model.named_buffers() if b[0].endswith("e_score_correction_bias")]
        for name, value in [*model.named_parameters(), *learned]:
            noise = torch.randn(value.shape, generator=draw)
            if name.endswith("e_score_correction_bias"):
                value.copy_(0.1 * noise)
            elif value.ndim > 1 and ("pos" in name or "embed" in name or "query" in name):
                value.copy_(0.6 * noise)
            elif value.ndim > 1:
                value.copy_(noise * value[0].numel() ** -0.5 * (3 if "gate.weight" in name or "router" in name else 1))
            elif name.endswith("bias"):
                value.copy_(0.1 * noise)
            else:
                value.copy_(1 + 0.2 * noise)


class Rows:
    """Ids of one sequence, with the modality of each."""

    def __init__(self, random, special):
        self.random, self.special, self.ids, self.kind = random, special, [], []

    def text(self, count):
        self.ids += self.random.integers(1, 80, count).tolist()
        self.kind += [0] * count

    def one(self, id):
        if id is not None:
            self.ids.append(id)
            self.kind.append(0)

    def run(self, id, count, kind, start=None, end=None):
        self.one(start)
        self.ids += [id] * count
        self.kind += [kind] * count
        self.one(end)


def sequences(rows):
    longest = max(len(r.ids) for r in rows) + 2
    for r in rows:
        r.text(longest - len(r.ids))
    return torch.tensor([r.ids for r in rows]), torch.tensor([r.kind for r in rows])


def qwen_inputs(config, family, random, video):
    v = config["vision_config"]
    merge, patch = v["spatial_merge_size"], v["patch_size"]
    time = 1 if family == "ernie4_5_vl_moe" else v["temporal_patch_size"]
    image, film = config["image_token_id"], config["video_token_id"]
    start = config.get("image_start_token_id", config.get("vision_start_token_id"))
    end = config.get("image_end_token_id", config.get("vision_end_token_id"))
    film_start = config.get("video_start_token_id", start)
    film_end = config.get("video_end_token_id", end)
    rows = [Rows(random, config), Rows(random, config)]
    grids = [(1, 2 * merge, 2 * merge), (1, merge, 3 * merge), (1, 3 * merge, merge)]
    films = []
    rows[0].text(3)
    rows[0].run(image, 4, 1, start, end)
    rows[0].text(2)
    rows[0].run(image, 3, 1, start, end)
    rows[1].text(2)
    rows[1].run(image, 3, 1, start, end)
    if video:
        if family == "ernie4_5_vl_moe":
            films = [(2 * v["temporal_merge_size"], merge, 2 * merge)]
            rows[1].text(1)
            rows[1].run(film, 4, 2, film_start, film_end)
        else:
            films = [(2, merge, 2 * merge)]
            for _ in range(2):
                rows[1].text(2)
                rows[1].run(film, 2, 2, film_start, film_end)
    ids, kind = sequences(rows)
    size = 3 * time * patch * patch
    inputs = {
        "input_ids": ids,
        "pixel_values": torch.tensor(random.standard_normal((sum(t * h * w for t, h, w in grids), size)), dtype=torch.float32),
        "image_grid_thw": torch.tensor(grids),
    }
    if films:
        inputs["pixel_values_videos"] = torch.tensor(
            random.standard_normal((sum(t * h * w for t, h, w in films), size)), dtype=torch.float32
        )
        inputs["video_grid_thw"] = torch.tensor(films)
    return inputs, kind


def audio_rows(frames):
    """Rows of an audio of so many frames, as Qwen3-Omni's class counts them."""
    left = frames % 100
    out = (left - 1) // 2 + 1
    out = ((out - 1) // 2 + 1 - 1) // 2 + 1
    return (0 if left == 0 else out) + frames // 100 * 13


def omni_inputs(config, random):
    a = config["audio_config"]
    inputs, _ = qwen_inputs({**config}, "qwen3_omni_moe", random, False)
    frames = [130, 57]
    rows = [Rows(random, config), Rows(random, config)]
    grids = [(1, 4, 4), (1, 2, 4)]
    for row, grid, length in zip(rows, grids, frames):
        row.text(2)
        row.run(config["image_token_id"], grid[1] * grid[2] // 4, 1, config["vision_start_token_id"], config["vision_end_token_id"])
        row.text(2)
        row.run(config["audio_token_id"], audio_rows(length), 3, config["audio_start_token_id"], config["audio_end_token_id"])
    ids, kind = sequences(rows)
    mask = torch.zeros(2, max(frames), dtype=torch.long)
    for i, length in enumerate(frames):
        mask[i, :length] = 1
    sound = torch.tensor(random.standard_normal((2, a["num_mel_bins"], max(frames))), dtype=torch.float32) * mask[:, None]
    size = inputs["pixel_values"].shape[1]
    return {
        "input_ids": ids,
        "pixel_values": torch.tensor(random.standard_normal((24, size)), dtype=torch.float32),
        "image_grid_thw": torch.tensor(grids),
        "input_features": sound,
        "feature_attention_mask": mask,
    }, kind


def square_inputs(config, family, random, per_picture):
    image = config.get("image_token_index", config.get("image_token_id"))
    size = config["vision_config"]["image_size"]
    rows = [Rows(random, config), Rows(random, config)]
    rows[0].text(3)
    rows[0].run(image, per_picture, 1)
    rows[0].text(2)
    rows[0].run(image, per_picture, 1)
    rows[1].text(4)
    rows[1].run(image, per_picture, 1)
    ids, kind = sequences(rows)
    pixels = torch.tensor(random.standard_normal((3, 3, size, size)), dtype=torch.float32)
    return {"input_ids": ids, "pixel_values": pixels}, kind


def kimi_inputs(config, random):
    v = config["vision_config"]
    grids = [(1, 4, 4), (1, 2, 6), (1, 6, 2)]
    rows = [Rows(random, config), Rows(random, config)]
    image = config["image_token_id"]
    rows[0].text(3)
    rows[0].run(image, 4, 1)
    rows[0].text(2)
    rows[0].run(image, 3, 1)
    rows[1].text(2)
    rows[1].run(image, 3, 1)
    ids, kind = sequences(rows)
    patches = sum(t * h * w for t, h, w in grids)
    pixels = torch.tensor(random.standard_normal((patches, 3, v["patch_size"], v["patch_size"])), dtype=torch.float32)
    return {"input_ids": ids, "pixel_values": pixels, "image_grid_thw": torch.tensor(grids)}, kind


def inputs_of(config, family, random, video):
    if family == "qwen3_omni_moe":
        return omni_inputs(config, random)
    if family == "kimi_k25":
        return kimi_inputs(config, random)
    if family == "llama4":
        v = config["vision_config"]
        return square_inputs(config, family, random, int((v["image_size"] // v["patch_size"]) ** 2 * v["pixel_shuffle_ratio"] ** 2))
    if family == "aria":
        return square_inputs(config, family, random, list(config["projector_patch_to_query_dict"].values())[0])
    return qwen_inputs(config, family, random, video)


def flat(features):
    return torch.cat([f.reshape(-1, f.shape[-1]) for f in features]) if isinstance(features, (list, tuple)) else features


def text_model(model):
    inner = model.model if hasattr(model, "model") else model
    return inner.language_model if hasattr(inner, "language_model") else inner


def put_pictures(out, model, family, inputs):
    inner = model.model if hasattr(model, "model") and not family == "qwen3_omni_moe" else model
    owner = inner if hasattr(inner, "get_image_features") else model
    words = {k: inputs[k] for k in ("pixel_values", "image_grid_thw") if k in inputs}
    if family == "llama4":
        words.update(vision_feature_layer=-1, vision_feature_select_strategy="default")
    with torch.no_grad():
        seen = owner.get_image_features(**words, return_dict=True)
        out["vision_last_hidden"] = seen.last_hidden_state
        out["image_features"] = flat(seen.pooler_output)
        if "pixel_values_videos" in inputs:
            seen = owner.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=True)
            out["vision_last_hidden_videos"] = seen.last_hidden_state
            out["image_features_videos"] = flat(seen.pooler_output)
        if "input_features" in inputs:
            heard = owner.get_audio_features(inputs["input_features"], inputs["feature_attention_mask"], return_dict=True)
            out["audio_last_hidden"] = heard.last_hidden_state


def mend_llama4():
    """The class of 5.24 reads a field that the output of its own text model lacks."""
    from transformers import modeling_outputs

    modeling_outputs.MoeCausalLMOutputWithPast.image_outputs = None


def rows_of(t):
    return t.detach().reshape(-1, t.shape[-1])


def chosen(out, k):
    """Logits, ids and weights of what a router gave, ids by descending weight."""
    if isinstance(out, tuple) and len(out) == 3:
        logits, weights, ids = (rows_of(t) for t in out)
    elif isinstance(out, tuple):  # Llama 4: scores of all, -inf where not chosen, and logits
        logits = rows_of(out[1])
        ids = logits.topk(k, -1).indices
        weights = torch.sigmoid(logits).gather(1, ids)
    else:
        return {}
    order = torch.sort(weights, dim=-1, descending=True, stable=True).indices
    return {"router_logits": logits, "topk_ids": ids.gather(1, order), "topk_weights": weights.gather(1, order)}


def watched(layer, place, seen, k):
    """Hooks that write down what a MoE block reads, chooses and puts out."""
    block = getattr(layer, "mlp", None) or getattr(layer, "feed_forward", None)

    def of_block(_, args, kwargs, out):
        seen[f"{place}/moe_input"] = rows_of(args[0] if args else kwargs["hidden_states"])
        seen[f"{place}/moe_output"] = rows_of(out[0] if isinstance(out, tuple) else out)

    def of_router(part):
        def write(_, args, out):
            for name, value in chosen(out, k).items():
                seen[f"{place}/{part}{name}"] = value

        return write

    if hasattr(block, "text_moe"):
        routers = {"text:": block.text_moe.gate, "vision:": block.vision_moe.gate}
    else:
        routers = {"": getattr(block, "gate", None) or getattr(block, "router", None)}
    if not (hasattr(block, "experts") or hasattr(block, "text_moe")):
        return []
    hooks = [block.register_forward_hook(of_block, with_kwargs=True)]
    return hooks + [r.register_forward_hook(of_router(part)) for part, r in routers.items()]


def join_groups(seen, experts):
    """ERNIE's two routers as one table; ids of vision experts behind those of text."""
    vision = seen.get("moe_mm_token_type_ids")
    for name in [n for n in seen if "text:" in n]:
        text, other = seen.pop(name), seen.pop(name.replace("text:", "vision:"))
        if name.endswith("ids"):
            other = other + experts
        both = torch.empty((vision.numel(), text.shape[1]), dtype=text.dtype)
        both[vision.flatten() == 0] = text
        both[vision.flatten() != 0] = other
        seen[name.replace("text:", "")] = both


def compute(model, family, inputs, kind):
    seen = {}
    text = text_model(model)
    layered = text.model if hasattr(text, "model") else text
    k = getattr(text.config, "num_experts_per_tok", None) or 1

    def before(_, args, kwargs):
        seen["position_ids"] = kwargs.get("position_ids")
        seen["inputs_embeds"] = kwargs["inputs_embeds"]
        for i, rows in enumerate(kwargs.get("deepstack_visual_embeds") or []):
            seen[f"deepstack_{i}"] = rows

    hook = text.register_forward_pre_hook(before, with_kwargs=True)
    hooks = [h for l, layer in enumerate(layered.layers) for h in watched(layer, f"moe/layer_{l}", seen, k)]
    words = dict(inputs)
    if family in ("qwen3_vl_moe", "ernie4_5_vl_moe"):
        words["mm_token_type_ids"] = kind
    if family == "qwen3_omni_moe":
        words["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if family == "ernie4_5_vl_moe":
        c = model.config
        vision = kind > 0
        for id in (c.image_start_token_id, c.image_end_token_id, c.video_start_token_id, c.video_end_token_id):
            vision = vision | (inputs["input_ids"] == id)
        words["moe_mm_token_type_ids"] = vision.int()
        seen["moe_mm_token_type_ids"] = words["moe_mm_token_type_ids"]
    with torch.no_grad():
        result = model(**words, use_cache=False, output_hidden_states=True)
    for h in [hook, *hooks]:
        h.remove()
    if family == "ernie4_5_vl_moe":
        join_groups(seen, model.config.text_config.moe_num_experts)
    seen["hidden_states"] = result.hidden_states[-1] if result.hidden_states is not None else None
    seen["logits"] = result.logits
    return seen


def record(name, base, out):
    family, changes, video = VARIANTS[name]
    config = changed(json.loads((base / family / "config.json").read_text()), changes)
    made_of = getattr(transformers, CLASS[family])
    torch.manual_seed(1)
    model = made_of._from_config(made_of.config_class(**config), attn_implementation="eager").float().eval()
    model.config._experts_implementation = "eager"
    fill(model, sum(name.encode()))
    random = np.random.default_rng(sum(name.encode()))
    inputs, kind = inputs_of(config, family, random, video)
    seen = compute(model, family, inputs, kind)
    put_pictures(seen, model, family, inputs)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if family == "kimi_k25":
        rename(folder / "model.safetensors")
    target = torch.full_like(inputs["input_ids"], -1)
    target[:, :-1] = torch.where(kind[:, 1:] == 0, inputs["input_ids"][:, 1:], -1)
    logits = seen["logits"].float()
    seen["loss"] = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-1)
    with h5py.File(folder / "expected.h5", "w") as h5:
        h5.attrs.update(case=name, family=family, margin=0.0, modalities="text,image,video,audio", seed=sum(name.encode()))
        for key, value in {**inputs, **seen, "modality": kind.to(torch.uint8), "target": target}.items():
            if value is None:
                continue
            value = value.numpy()
            if value.dtype == np.int64:
                value = value.astype(np.int32)
            if key == "position_ids" and value.ndim == 3:
                value = value[-3:]
            h5[key] = value
    print(f"{name}: {', '.join(k for k in seen if seen[k] is not None)}", flush=True)


def rename(path):
    from safetensors.torch import load_file, save_file

    save_file({k.replace("language_model.model.blocks.", "language_model.model.layers."): v for k, v in load_file(path).items()}, path)


if __name__ == "__main__":
    base, out, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or list(VARIANTS)
    mend_llama4()
    for name in names:
        record(name, base, out)
