#!/usr/bin/env python3
"""Records encoders of pictures and sounds of transformers' classes with settings that published
checkpoints do not have, for tests/tower: other ratios, layers, blocks, videos, windows.

  python tests/peers/record_towers.py FOLDER [NAME...]
  MOE_TOWER_CASES=FOLDER build/dev/tests/test_tower "encoders and projectors*"

Each case is a folder with config.json, model.safetensors (random numbers under published names)
and expected.h5 in the layout of golden/modal/hf. Needs torch, transformers 5.24, safetensors, h5py.
"""

import json
import pathlib
import sys

import h5py
import torch
import transformers
from safetensors.torch import save_file

TEXT = {
    "hidden_size": 32, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 12, "vocab_size": 32,
}
TEXT_OF = {
    "llama4": {"num_local_experts": 2, "intermediate_size_mlp": 12, "pad_token_id": 0},
    "aria": {"moe_num_experts": 2, "moe_topk": 1, "pad_token_id": 0},
    "qwen3_vl_moe": {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 6,
                     "rope_parameters": {"rope_theta": 1e4, "rope_type": "default",
                                         "mrope_section": [2, 2, 2], "mrope_interleaved": True}},
    "ernie4_5_vl_moe": {"moe_num_experts": 2, "moe_k": 1, "moe_intermediate_size": [6, 6],
                        "mlp_layer_types": ["dense"],
                        "rope_parameters": {"rope_theta": 1e4, "rope_type": "default",
                                            "mrope_section": [2, 2, 2]}},
    "kimi_k25": {"model_type": "deepseek_v3", "n_routed_experts": 2, "num_experts_per_tok": 1,
                 "moe_intermediate_size": 6, "first_k_dense_replace": 1, "q_lora_rank": 6,
                 "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4,
                 "v_head_dim": 4, "n_group": 1, "topk_group": 1, "num_key_value_heads": 2},
}
TEXT_OF["qwen3_omni_moe_thinker"] = TEXT_OF["qwen3_vl_moe"]
VISION = {
    "llama4": {"hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 2,
               "num_hidden_layers": 2, "image_size": 16, "patch_size": 4,
               "projector_input_dim": 20, "projector_output_dim": 20, "vision_output_dim": 20},
    "aria": {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 3,
             "num_hidden_layers": 3, "image_size": 16, "patch_size": 4},
    "qwen3_vl_moe": {"hidden_size": 16, "intermediate_size": 28, "num_heads": 2, "depth": 3,
                     "patch_size": 4, "num_position_embeddings": 25, "out_hidden_size": 32,
                     "deepstack_visual_indexes": [0, 2]},
    "ernie4_5_vl_moe": {"hidden_size": 16, "intermediate_size": 28, "num_heads": 2, "depth": 2,
                        "patch_size": 4},
    "kimi_k25": {"hidden_size": 16, "intermediate_size": 28, "num_attention_heads": 2,
                 "num_hidden_layers": 2, "patch_size": 4, "pos_emb_height": 6, "pos_emb_width": 6},
}
VISION["qwen3_omni_moe_thinker"] = VISION["qwen3_vl_moe"]
AUDIO = {"d_model": 24, "encoder_attention_heads": 3, "encoder_ffn_dim": 40, "encoder_layers": 2,
         "num_mel_bins": 16, "downsample_hidden_size": 6, "output_dim": 32,
         "max_source_positions": 32, "n_window_infer": 200}
CLASSES = {
    "llama4": "Llama4ForConditionalGeneration",
    "aria": "AriaForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "ernie4_5_vl_moe": "Ernie4_5_VLMoeForConditionalGeneration",
    "kimi_k25": "Kimi_K25ForConditionalGeneration",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeThinkerForConditionalGeneration",
}
PICTURES = [[1, 4, 6], [1, 2, 4]]


class Case:
    def __init__(self, root, name, family, vision=(), audio=None, **top):
        torch.manual_seed(0)
        self.folder = root / name
        self.family = family
        config = {"model_type": family, "text_config": TEXT | TEXT_OF[family],
                  "vision_config": VISION[family] | dict(vision), **top}
        if family == "kimi_k25":
            config.setdefault("projection_hidden_size", 16)
        if audio is not None:
            config["audio_config"] = AUDIO | audio
        self.config = config
        cls = getattr(transformers, CLASSES[family])
        made = cls.config_class.from_dict(json.loads(json.dumps(config)))
        made._attn_implementation = "eager"
        self.model = randomised(cls._from_config(made))
        self.model.save_pretrained(self.folder)

    def parts(self):
        inner = getattr(self.model, "model", self.model)
        return inner if hasattr(inner, "get_image_features") else self.model

    def patches(self, grid):
        v = self.model.config.vision_config
        count = sum(t * h * w for t, h, w in grid)
        channels = getattr(v, "in_channels", 3)
        if self.family == "kimi_k25":
            return torch.randn(count, channels, v.patch_size, v.patch_size)
        times = getattr(v, "temporal_patch_size", 1)
        return torch.randn(count, channels * times * v.patch_size ** 2)

    def pictures_in_rows(self, pictures=PICTURES, videos=None):
        out = {}
        for grid, pixels, of, suffix, features in (
                (pictures, "pixel_values", "image_grid_thw", "", "image_features"),
                (videos, "pixel_values_videos", "video_grid_thw", "_videos", "video_features")):
            if not grid:
                continue
            x, g = self.patches(grid), torch.tensor(grid)
            call = self.parts().get_video_features if suffix else self.parts().get_image_features
            o = call(x, g)
            out |= {pixels: x, of: g, "vision_last_hidden" + suffix: o.last_hidden_state,
                    features: torch.cat(list(o.pooler_output))}
            for i, level in enumerate(getattr(o, "deepstack_features", None) or []):
                out[f"deepstack_{i}{suffix}"] = torch.cat(list(level))
        self.write(out)

    def pictures_whole(self, height, width):
        x = torch.randn(2, 3, height, width)
        if self.family == "llama4":
            o = self.parts().get_image_features(pixel_values=x, return_dict=True)
            last = o.last_hidden_state
            projector = getattr(self.model, "multi_modal_projector", None)
            projector = projector or self.model.model.multi_modal_projector
            features = projector(last.reshape(-1, last.shape[-1]))
        else:
            layer = self.config.get("vision_feature_layer", -1)
            o = self.parts().get_image_features(pixel_values=x, vision_feature_layer=layer)
            last, features = o.last_hidden_state, o.pooler_output
        self.write({"pixel_values": x, "vision_last_hidden": last, "image_features": features})

    def sounds(self, lengths):
        bands = self.config["audio_config"]["num_mel_bins"]
        x = torch.randn(len(lengths), bands, max(lengths))
        mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        for i, length in enumerate(lengths):
            mask[i, :length] = 1
            x[i, :, length:] = 0
        o = self.parts().get_audio_features(x, feature_attention_mask=mask)
        self.write({"input_features": x, "feature_attention_mask": mask,
                    "audio_last_hidden": o.last_hidden_state})

    def write(self, values):
        write(self.folder, values)


def randomised(model):
    model = model.float().eval()
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn_like(p)
            p.copy_(p + 0.1 * noise if p.dim() < 2 else 0.15 * noise)
    return model


def write(folder, values):
    with h5py.File(folder / "expected.h5", "w") as f:
        for name, v in values.items():
            f[name] = v.detach().numpy().astype("i4" if v.dtype == torch.long else "f4")


def llava(root, name, activation, layer, projector, feature):
    """CLIP is transformers' own; the choice of a layer and the products are written again here."""
    torch.manual_seed(1)
    folder = root / name
    settings = {"hidden_size": 16, "intermediate_size": 28, "num_attention_heads": 2,
                "num_hidden_layers": 3, "image_size": 16, "patch_size": 4,
                "hidden_act": activation, "attn_implementation": "eager"}
    clip = randomised(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**settings)))
    clip.save_pretrained(folder / "image_tower")
    config = {"model_type": "moe_llava_stablelm", "hidden_size": 32, "mm_hidden_size": 16,
              "mm_image_tower": "image_tower", "mm_vision_select_layer": layer,
              "mm_vision_select_feature": feature, "image_projector_type": projector}
    (folder / "config.json").write_text(json.dumps(config))
    x = torch.randn(2, 3, 16, 16)
    hidden = clip(x, output_hidden_states=True).hidden_states[layer]
    if feature == "patch":
        hidden = hidden[:, 1:]
    tensors, y, at = {}, hidden, "model.mm_projector.image_projector"
    for i in range(1 if projector == "linear" else int(projector[3])):
        w, b = torch.randn(32, y.shape[-1]) * 0.2, torch.randn(32) * 0.1
        prefix = at if projector == "linear" else f"{at}.{2 * i}"
        tensors |= {f"{prefix}.weight": w, f"{prefix}.bias": b}
        y = (torch.nn.functional.gelu(y) if i else y) @ w.T + b
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write(folder, {"pixel_values": x, "vision_last_hidden": hidden, "image_features": y})


def all_cases(root):
    third = {"image_size": 24, "pixel_shuffle_ratio": 1 / 3, "hidden_size": 8,
             "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 1,
             "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
             "hidden_act": "relu", "norm_eps": 1e-3}
    qwen, ernie, kimi = "qwen3_vl_moe", "ernie4_5_vl_moe", "kimi_k25"
    omni = "qwen3_omni_moe_thinker"
    deep = {"deepstack_visual_indexes": [2, 0], "num_position_embeddings": 36,
            "rope_parameters": {"rope_theta": 100.0, "rope_type": "axial"}}
    flat = {"temporal_patch_size": 1, "depth": 2, "deepstack_visual_indexes": [1],
            "spatial_merge_size": 1, "hidden_act": "gelu"}
    axial = {"merge_kernel_size": [2, 3],
             "rope_parameters": {"rope_theta": 77.0, "rope_type": "axial"}}
    return {
        "llama4_third": lambda n: Case(root, n, "llama4", third).pictures_whole(24, 24),
        "aria_layer": lambda n: Case(root, n, "aria", {"hidden_act": "gelu"},
                                     vision_feature_layer=-2,
                                     projector_patch_to_query_dict={"16": 5}
                                     ).pictures_whole(16, 16),
        "aria_input": lambda n: Case(root, n, "aria", {"image_size": 24}, vision_feature_layer=1,
                                     projector_patch_to_query_dict={"16": 5, "36": 7}
                                     ).pictures_whole(24, 24),
        "aria_small": lambda n: Case(root, n, "aria",
                                     projector_patch_to_query_dict={"16": 5, "6": 2}
                                     ).pictures_whole(8, 12),
        "qwen_videos": lambda n: Case(root, n, qwen, deep).pictures_in_rows(
            videos=[[3, 4, 2], [2, 2, 2]]),
        "qwen_flat": lambda n: Case(root, n, qwen, flat).pictures_in_rows(),
        "qwen_thirds": lambda n: Case(root, n, qwen, {"spatial_merge_size": 3, "patch_size": 3}
                                      ).pictures_in_rows([[1, 6, 9], [1, 3, 3]]),
        "ernie_videos": lambda n: Case(root, n, ernie, {"rms_norm_eps": 1e-4}).pictures_in_rows(
            videos=[[4, 4, 2], [2, 2, 2]]),
        "ernie_gelu": lambda n: Case(root, n, ernie, {"hidden_act": "gelu", "depth": 3}
                                     ).pictures_in_rows(),
        "kimi_videos": lambda n: Case(root, n, kimi, {"pos_emb_height": 5, "pos_emb_width": 5}
                                      ).pictures_in_rows(videos=[[3, 4, 2], [2, 2, 2]]),
        "kimi_blocks": lambda n: Case(root, n, kimi, axial).pictures_in_rows(
            [[1, 4, 6], [1, 2, 3]]),
        "omni_pieces": lambda n: Case(root, n, omni, audio={}).sounds([250, 73, 100]),
        "omni_windows": lambda n: Case(root, n, omni, audio={
            "n_window_infer": 100, "num_mel_bins": 21}).sounds([430, 199]),
        "omni_short": lambda n: Case(root, n, omni, audio={
            "n_window": 100, "n_window_infer": 400, "activation_function": "gelu_new"}
            ).sounds([61, 40]),
        "clip_gelu": lambda n: llava(root, n, "gelu", -1, "mlp1x_gelu", "patch"),
        "clip_linear": lambda n: llava(root, n, "quick_gelu", 1, "linear", "cls_patch"),
        "clip_three": lambda n: llava(root, n, "quick_gelu", -3, "mlp3x_gelu", "patch"),
    }


def main():
    root = pathlib.Path(sys.argv[1])
    cases = all_cases(root)
    for name in sys.argv[2:] or cases:
        cases[name](name)
        print(name)


if __name__ == "__main__":
    main()
