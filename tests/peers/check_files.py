"""Holds `moe trace MODEL --data images:|sounds:` to the processor and the class of transformers, from files to experts.

    python tests/peers/check_files.py MOE BASE FOLDER [NAME...]

MOE is the program; BASE holds folders FAMILY/config.json of small models to begin from (golden modal/hf); FOLDER takes what is made:
models of random numbers with a tokenizer of bytes and the processors' files, pictures, clips and sounds. Needs torch, torchvision,
pillow, h5py, transformers 5.24. Each case writes files, lets the processor and the class read them, traces the same files with MOE,
and compares ids, experts and their weights (16 bits in a trace) row by row.
"""

import json
import subprocess
import sys
import wave
from pathlib import Path

import h5py
import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image

import modal_cases

SPECIAL = [
    "<|endoftext|>", "<|image_pad|>", "<|video_pad|>", "<|audio_pad|>", "<|vision_start|>", "<|vision_end|>", "<|audio_start|>",
    "<|audio_end|>", "<|image_start|>", "<|image_end|>", "<|video_start|>", "<|video_end|>", "<|image|>", "<|patch|>",
    "<|tile_x_separator|>", "<|tile_y_separator|>", "<|media_begin|>", "<|media_content|>", "<|media_end|>", "<|media_pad|>",
]
END = SPECIAL[0]
WORDS = {
    "image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "audio_token": "<|audio_pad|>",
    "vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>",
    "vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>",
    "image_start_token": "<|image_start|>", "image_end_token": "<|image_end|>",
    "video_start_token": "<|video_start|>", "video_end_token": "<|video_end|>",
}


def tokenizer_of(folder, words):
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(letters)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, pad_token=END, extra_special_tokens=words)
    fast.save_pretrained(folder)
    return fast


def id_of(word):
    return 256 + SPECIAL.index(word)


def picture(seed, height, width):
    """A smooth picture with some grain, so that what resizing does can be seen."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(x / draw.uniform(3, 9) + c) * np.cos(y / draw.uniform(3, 9) - c) for c in range(3)]
    return np.clip(np.stack(waves, -1) + draw.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def sound(seed, samples):
    draw = np.random.default_rng(seed)
    t = np.arange(samples) / 16000
    s = 0.4 * np.sin(2 * np.pi * (300 + 500 * t) * t) + 0.05 * draw.normal(size=samples)
    return np.clip(s * 32767, -32768, 32767).astype(np.int16)


def write_wav(path, samples):
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(16000)
        f.writeframes(samples.tobytes())


class Case:
    """A model of a family in a folder, and what its class says of files."""

    def __init__(self, root, base, name, family, changes, fills=None):
        self.folder = root / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.family, self.name = family, name
        config = json.loads((base / family / "config.json").read_text())
        config["text_config"] |= {"vocab_size": 256 + len(SPECIAL), "max_position_embeddings": 4096, "pad_token_id": None}
        if family == "llama4":
            config["text_config"] |= {"attention_chunk_size": 64, "floor_scale": 64, "pad_token_id": id_of(END)}
        config = changed(config, changes)
        made_of = getattr(transformers, modal_cases.CLASS[family])
        torch.manual_seed(1)
        model = made_of._from_config(made_of.config_class(**config), attn_implementation="eager").float().eval()
        model.config._experts_implementation = "eager"
        modal_cases.fill(model, sum(name.encode()))
        model.save_pretrained(self.folder)
        if family == "kimi_k25":
            modal_cases.rename(self.folder / "model.safetensors")
        self.model = model
        self.tokenizer = tokenizer_of(self.folder, fills or WORDS)
        self.files = self.folder / "files"
        self.files.mkdir(exist_ok=True)

    def prompt(self, around, caption):
        return END + around + caption + END

    def experts(self, words):
        """Experts and weights of every row and MoE layer."""
        if self.family == "llama4":
            modal_cases.mend_llama4()
        seen, hooks = {}, []
        text = modal_cases.text_model(self.model)
        layered = text.model if hasattr(text, "model") else text
        k = getattr(text.config, "num_experts_per_tok", None) or 1
        for l, layer in enumerate(layered.layers):
            hooks += modal_cases.watched(layer, f"moe/layer_{l}", seen, k)
        with torch.no_grad():
            self.model(**words, use_cache=False)
        for h in hooks:
            h.remove()
        if self.family == "ernie4_5_vl_moe":
            seen["moe_mm_token_type_ids"] = words["moe_mm_token_type_ids"]
            modal_cases.join_groups(seen, self.model.config.text_config.moe_num_experts)
        ids = [seen[n] for n in sorted(seen) if n.endswith("topk_ids")]
        weights = [seen[n] for n in sorted(seen) if n.endswith("topk_weights")]
        return torch.stack(ids, 1).numpy(), torch.stack(weights, 1).numpy()

    def check(self, moe, data, words, exact=True):
        words = {k: v for k, v in words.items() if v is not None}
        ids, weights = self.experts(words)
        path = self.folder / "out.h5"
        command = [moe, "trace", str(self.folder), "--data", data, "-o", str(path), "--length", "4096", "--force"]
        said = subprocess.run(command, capture_output=True, text=True)
        if said.returncode != 0:
            raise SystemExit(f"{self.name}: {said.stderr}")
        with h5py.File(path) as f:
            token, got = f["tokens/token_id"][()].astype(np.int64), f["routing/expert_ids"][()].astype(np.int64)
            got_weights = f["routing/weights"][()].astype(np.float64)
            kind = f["tokens/modality"][()]
        want = words["input_ids"][0].numpy()
        if len(want) != len(token) or (want != token).any():
            print(self.tokenizer.decode(want.tolist()), "\n", self.tokenizer.decode([t for t in token.tolist() if t < 1 << 20]))
            raise SystemExit(f"{self.name}: {len(want)} ids of the processor, {len(token)} of moe, or others")
        order, got_order = np.argsort(ids, -1), np.argsort(got, -1)
        same = (np.take_along_axis(ids, order, -1) == np.take_along_axis(got, got_order, -1)).all(-1)
        apart = abs(np.take_along_axis(weights, order, -1) - np.take_along_axis(got_weights, got_order, -1))[same].max()
        print(f"{self.name}: {len(want)} rows ({(kind != 0).sum()} no text), same experts {same.mean():.2%}, weights {apart:.1e} apart", flush=True)
        if exact and (not same.all() or apart > 1e-3):
            raise SystemExit(f"{self.name}: experts differ in rows {np.unique(np.where(~same)[0]).tolist()[:40]}")
        if same.mean() < 0.97:
            raise SystemExit(f"{self.name}: too many experts differ")


def changed(config, changes):
    for path, value in changes.items():
        inside = config
        *folders, last = path.split(".")
        for key in folders:
            inside = inside[key]
        inside[last] = value
    return config


def clean(folder):
    for old in folder.iterdir():
        old.unlink()


def omni(root, base, moe):
    ids = {
        "audio_token_id": "<|audio_pad|>", "audio_start_token_id": "<|audio_start|>", "audio_end_token_id": "<|audio_end|>",
        "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    case = Case(root, base, "omni", "qwen3_omni_moe", {k: id_of(w) for k, w in ids.items()} | {"audio_config.num_mel_bins": 80, "vision_config.patch_size": 16})
    images = transformers.Qwen2VLImageProcessor(patch_size=16, merge_size=2, size={"shortest_edge": 64, "longest_edge": 65536})
    videos = transformers.Qwen2VLVideoProcessor(patch_size=16, merge_size=2, size={"shortest_edge": 64, "longest_edge": 65536})
    ears = transformers.WhisperFeatureExtractor(feature_size=80)
    processor = transformers.Qwen3OmniMoeProcessor(images, videos, ears, case.tokenizer)
    processor.save_pretrained(case.folder)
    for seed, samples in ((1, 263 * 160 + 71), (2, 100 * 160), (3, 5003)):
        clean(case.files)
        heard = sound(seed, samples)
        write_wav(case.files / f"a_tone-{seed}.wav", heard)
        made = processor(text=case.prompt("<|audio_start|><|audio_pad|><|audio_end|>", "a tone"),
                         audio=[heard.astype(np.float32) / 32768], return_tensors="pt", audio_kwargs={"sampling_rate": 16000})
        words = {k: made[k] for k in ("input_ids", "attention_mask", "input_features", "feature_attention_mask")}
        case.check(moe, f"sounds:path={case.files}", words)
    clean(case.files)
    seen = picture(4, 64, 96)
    Image.fromarray(seen).save(case.files / "waves.png")
    made = processor(text=case.prompt("<|vision_start|><|image_pad|><|vision_end|>", "waves"), images=[Image.fromarray(seen)],
                     return_tensors="pt")
    case.check(moe, f"images:path={case.files}", {k: made[k] for k in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")})
    clean(case.files)
    frames = np.stack([picture(10 + i, 320, 416) for i in range(5)])
    np.save(case.files / "clip.npy", frames)
    made = processor(text=case.prompt("<|vision_start|><|video_pad|><|vision_end|>", "clip"), videos=[frames], return_tensors="pt")
    names = ("input_ids", "attention_mask", "pixel_values_videos", "video_grid_thw", "video_second_per_grid")
    case.check(moe, f"images:path={case.files}", {k: made[k] for k in names})


def qwen(root, base, moe):
    ids = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>",
           "vision_end_token_id": "<|vision_end|>"}
    case = Case(root, base, "qwen3_vl", "qwen3_vl_moe", {k: id_of(w) for k, w in ids.items()})
    images = transformers.Qwen2VLImageProcessor(patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024},
                                                image_mean=[0.5] * 3, image_std=[0.5] * 3)
    videos = transformers.Qwen3VLVideoProcessor(patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 8192})
    processor = transformers.Qwen3VLProcessor(images, case.tokenizer, videos)
    processor.save_pretrained(case.folder)
    names = ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
    for seed, size in ((1, (24, 40)), (2, (37, 61)), (3, (9, 11))):
        clean(case.files)
        seen = picture(seed, *size)
        Image.fromarray(seen).save(case.files / "waves.png")
        made = processor(text=case.prompt("<|vision_start|><|image_pad|><|vision_end|>", "waves"), images=[Image.fromarray(seen)],
                         return_tensors="pt")
        case.check(moe, f"images:path={case.files}", {k: made.get(k) for k in names}, exact=size == (24, 40))
    for count, rate, size in ((5, 24, (16, 24)), (9, 3, (16, 24)), (40, 8, (16, 24)), (6, 2, (26, 51))):
        clean(case.files)
        frames = np.stack([picture(10 + i, *size) for i in range(count)])
        np.save(case.files / "a_clip.npy", frames)
        made = processor(text=case.prompt("<|video_pad|>", "a clip"), videos=[frames], return_tensors="pt",
                         videos_kwargs={"video_metadata": [{"total_num_frames": count, "fps": rate}]})
        case.check(moe, f"images:path={case.files},fps={rate}", {k: made.get(k) for k in names}, exact=size == (16, 24))


def ernie(root, base, moe):
    ids = {"image_token_id": "<|image_pad|>", "image_start_token_id": "<|image_start|>", "image_end_token_id": "<|image_end|>",
           "video_token_id": "<|video_pad|>", "video_start_token_id": "<|video_start|>", "video_end_token_id": "<|video_end|>"}
    case = Case(root, base, "ernie", "ernie4_5_vl_moe", {k: id_of(w) for k, w in ids.items()})
    size = {"shortest_edge": 64, "longest_edge": 1024}
    images = transformers.Ernie4_5_VLMoeImageProcessor(patch_size=4, merge_size=2, size=size)
    videos = transformers.Ernie4_5_VLMoeVideoProcessor(patch_size=4, merge_size=2, size=size, draw_on_frames=False, min_frames=2)
    processor = transformers.Ernie4_5_VLMoeProcessor(images, case.tokenizer, videos)
    (case.folder / "processor_config.json").write_text(json.dumps({"image_processor": images.to_dict(), "video_processor": {
        k: v for k, v in videos.to_dict().items() if k != "font"}}, default=str))
    names = ("input_ids", "attention_mask", "mm_token_type_ids", "moe_mm_token_type_ids", "pixel_values", "image_grid_thw",
             "pixel_values_videos", "video_grid_thw")
    clean(case.files)
    seen = picture(1, 24, 40)
    Image.fromarray(seen).save(case.files / "waves.png")
    made = processor(text=case.prompt("<|image_start|><|image_pad|><|image_end|>", "waves"), images=[Image.fromarray(seen)], return_tensors="pt")
    case.check(moe, f"images:path={case.files}", {k: made.get(k) for k in names})
    for count in (4, 5):
        clean(case.files)
        frames = np.stack([picture(10 + i, 16, 24) for i in range(count)])
        np.save(case.files / "clip.npy", frames)
        made = processor(text=case.prompt("<|video_start|><|video_pad|><|video_end|>", "clip"), videos=[frames], return_tensors="pt",
                         videos_kwargs={"video_metadata": [{"total_num_frames": count, "fps": 24}], "draw_on_frames": False})
        case.check(moe, f"images:path={case.files}", {k: made.get(k) for k in names})
    # with the time drawn into frames; MOE must be built with FreeType, and pillow have FriBiDi
    font = case.folder / "DejaVuSans.ttf"
    font.write_bytes(Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf").read_bytes())
    room = {"shortest_edge": 64, "longest_edge": 65536}  # nothing is resized
    videos = transformers.Ernie4_5_VLMoeVideoProcessor(patch_size=4, merge_size=2, size=room, min_frames=2, font=str(font))
    processor = transformers.Ernie4_5_VLMoeProcessor(images, case.tokenizer, videos)
    (case.folder / "processor_config.json").write_text(json.dumps({"image_processor": images.to_dict(), "video_processor": videos.to_dict()}, default=str))
    frames = np.stack([picture(10 + i, 96, 128) for i in range(5)])
    np.save(case.files / "clip.npy", frames)
    made = processor(text=case.prompt("<|video_start|><|video_pad|><|video_end|>", "clip"), videos=[frames.copy()], return_tensors="pt",
                     videos_kwargs={"video_metadata": [{"total_num_frames": 5, "fps": 2, "frames_indices": list(range(5))}]})
    case.check(moe, f"images:path={case.files},fps=2", {k: made.get(k) for k in names})


def kimi(root, base, moe):
    ids = {"image_token_id": "<|media_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>",
           "vision_end_token_id": "<|vision_end|>"}
    words = WORDS | {"image_token": "<|media_pad|>"}
    case = Case(root, base, "kimi", "kimi_k25", {k: id_of(w) for k, w in ids.items()}, words)
    images = transformers.Kimi_K25ImageProcessor(patch_size=4, merge_size=2)
    from transformers.models.kimi_k25.video_processing_kimi_k25 import Kimi_K25VideoProcessor
    videos = Kimi_K25VideoProcessor(patch_size=4, merge_size=2)
    processor = transformers.Kimi_K25Processor(images, case.tokenizer, videos)
    processor.save_pretrained(case.folder)
    names = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
    for size in ((24, 40), (27, 45)):
        clean(case.files)
        seen = picture(1, *size)
        Image.fromarray(seen).save(case.files / "waves.png")
        made = processor(text=case.prompt("<|vision_start|><|media_pad|><|vision_end|>", "waves"), images=[Image.fromarray(seen)],
                         return_tensors="pt")
        case.check(moe, f"images:path={case.files}", {k: made.get(k) for k in names})
    for count, rate in ((9, 2), (13, 5)):
        clean(case.files)
        frames = np.stack([picture(10 + i, 16, 24) for i in range(count)])
        np.save(case.files / "clip.npy", frames)
        made = processor(text=case.prompt("<|video_pad|>", "clip"), videos=[frames], return_tensors="pt",
                         videos_kwargs={"video_metadata": [{"total_num_frames": count, "fps": rate}]})
        case.check(moe, f"images:path={case.files},fps={rate}", {k: made.get(k) for k in names})


def llama(root, base, moe):
    case = Case(root, base, "llama4", "llama4", {"boi_token_index": id_of("<|image_start|>"), "eoi_token_index": id_of("<|image_end|>"),
                                                 "image_token_index": id_of("<|patch|>")}, WORDS | {"image_token": "<|image|>"})
    images = transformers.Llama4ImageProcessor(size={"height": 16, "width": 16}, max_patches=6)
    processor = transformers.Llama4Processor(images, case.tokenizer, patch_size=4)
    processor.save_pretrained(case.folder)
    for size, exact in (((16, 16), True), ((32, 16), False), ((16, 48), False), ((30, 21), False), ((7, 9), False), ((90, 40), False)):
        clean(case.files)
        seen = picture(3, *size)
        Image.fromarray(seen).save(case.files / "waves.png")
        made = processor(text=case.prompt("<|image|>", "waves"), images=[Image.fromarray(seen)], return_tensors="pt")
        words = {k: made[k] for k in ("input_ids", "attention_mask", "pixel_values")}
        words["pixel_values"] = words["pixel_values"].float()
        case.check(moe, f"images:path={case.files}", words, exact=exact)


def aria(root, base, moe):
    for split in (False, True):
        case = Case(root, base, "aria_split" if split else "aria", "aria",
                    {"image_token_index": id_of("<|image_pad|>"), "vision_config.patch_size": 14, "vision_config.image_size": 490,
                     "projector_patch_to_query_dict": {"1225": 6}, "max_value_projector_patch_to_query_dict": 6,
                     "text_config.pad_token_id": id_of(END)})
        images = transformers.AriaImageProcessor(max_image_size=490, min_image_size=336, split_image=split)
        processor = transformers.AriaProcessor(images, case.tokenizer, size_conversion={490: 6})
        processor.save_pretrained(case.folder)
        sizes = ((490, 980), (490, 490), (600, 950)) if split else ((490, 385), (350, 490), (490, 490), (200, 300))
        for size in sizes:
            clean(case.files)
            seen = picture(5, *size)
            Image.fromarray(seen).save(case.files / "waves.png")
            made = processor(text=case.prompt("<|image_pad|>", "waves"), images=[Image.fromarray(seen)], return_tensors="pt",
                             images_kwargs={"max_image_size": 490, "split_image": split})
            names = ("input_ids", "attention_mask", "pixel_values", "pixel_mask")
            case.check(moe, f"images:path={case.files}", {k: made[k] for k in names}, exact=490 in size)


CASES = {"omni": omni, "qwen": qwen, "ernie": ernie, "kimi": kimi, "llama": llama, "aria": aria}


def main():
    moe, base, root = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    transformers.logging.set_verbosity_error()
    for name in sys.argv[4:] or CASES:
        CASES[name](root, base, moe)


if __name__ == "__main__":
    main()
