"""What moe_recorder makes of padding, packed rows, decoding, labels, training, errors and kills.

    python tests/recorder/behaviour.py MOE      (the program: `moe verify`, `moe recover`, `moe report`)

Needs torch, transformers (4.57 or 5), h5py, xxhash. Models are tiny, random and made here.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import h5py
import numpy as np
import torch
import transformers

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "python"))
import moe_recorder

SMALL = dict(vocab_size=96, hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
SMALL.update(num_key_value_heads=2, intermediate_size=24, max_position_embeddings=8192)
SMALL.update(pad_token_id=0, bos_token_id=1, eos_token_id=None)
MIXTRAL = dict(SMALL, num_local_experts=8, num_experts_per_tok=2)
MOE, WORK = None, None


def model(kind="mixtral", **changes):
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **{**MIXTRAL, **changes})
    made = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    if hasattr(made, "set_experts_implementation"):
        made.set_experts_implementation("eager")
    with torch.no_grad():
        for parameter in made.parameters():  # far from ties
            parameter.mul_(3)
    return made.eval()


def ids(*shape, seed=0):
    return torch.tensor(np.random.default_rng(seed).integers(2, 96, shape))


def record(what, path="a.moetrace.h5", made=None, **options):
    """Runs what(model, recorder) and returns the file, which `moe verify` calls whole."""
    made = made or model()
    path = WORK / path
    with torch.no_grad(), moe_recorder.record(made, path, force=True, **options) as recorder:
        what(made, recorder)
    said = subprocess.run([MOE, "verify", path], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    return h5py.File(path)


def routes(file):
    return file["routing/expert_ids"][:], file["routing/weights"][:]


def same_routes(a, b):
    assert np.array_equal(a[0], b[0])
    assert np.allclose(a[1].astype(float), b[1].astype(float), atol=2e-3)


def test_padding_is_left_out():
    text = ids(2, 9)
    alone = record(lambda m, r: [m(text[:1, :5]), m(text[1:])])
    for side, pad in (("right", slice(5, 9)), ("left", slice(0, 4))):
        rows, mask = text.clone(), torch.ones(2, 9, dtype=torch.long)
        if side == "left":
            rows[0, 4:] = text[0, :5]
        rows[0, pad], mask[0, pad] = 0, 0
        place = (mask.cumsum(1) - 1).clamp(min=0)
        found = record(
            lambda m, r: m(rows, attention_mask=mask, position_ids=place), "b.moetrace.h5"
        )
        assert len(found["tokens/token_id"]) == 14
        for name in ("token_id", "position", "sequence"):
            assert np.array_equal(found[f"tokens/{name}"], alone[f"tokens/{name}"]), (side, name)
        same_routes(routes(found), routes(alone))


def test_packed_rows_are_sequences():
    place = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1]])
    found = record(
        lambda m, r: (r.documents(["law", "code", "law"]), m(ids(1, 9), position_ids=place))
    )
    assert found["sequences/start"][:].tolist() == [0, 4, 7]
    assert found["sequences/length"][:].tolist() == [4, 3, 2]
    assert found["sequences/domain"][:].tolist() == [0, 1, 0]
    assert found["domains/name"][:].tolist() == [b"law", b"code"]
    assert found["tokens/position"][:].tolist() == place[0].tolist()


def test_a_label_of_a_row_is_that_of_all_its_sequences():
    place = torch.tensor([[0, 1, 0, 1], [0, 1, 2, 3]])
    found = record(lambda m, r: (r.documents(["a", None]), m(ids(2, 4), position_ids=place)))
    assert found["sequences/domain"][:].tolist() == [0, 0, 0xFFFF]
    try:
        record(lambda m, r: (r.documents(["a"] * 5), m(ids(2, 4))))
    except moe_recorder.RecorderError as error:
        assert "5 labels" in str(error)
    else:
        raise AssertionError("five labels for two rows were taken")


def test_decoding_continues_the_sequences():
    prompt = ids(2, 6)
    prompt[0, :2] = 0
    mask = (prompt != 0).long()
    answers = []

    def generate(m, r):
        r.documents(["short", "long"])
        answers.append(m.generate(prompt, attention_mask=mask, max_new_tokens=4, do_sample=False))

    found = record(generate)
    assert found["sequences/length"][:].tolist() == [4 + 3, 6 + 3]  # the last token is not read
    assert found["sequences/domain"][:].tolist() == [0, 1]
    assert found["steps/phase"][:].tolist() == [0, 1, 1, 1]
    assert found["steps/num_tokens"][:].tolist() == [10, 2, 2, 2]
    assert found["tokens/flags"][:].tolist() == [2] * 10 + [4] * 6
    for row, text in enumerate(answers[0]):
        text = text[(2 if row == 0 else 0) : -1][None]
        whole = record(lambda m, r: m(text, use_cache=False), "b.moetrace.h5")
        mine = np.flatnonzero(found["tokens/sequence"][:] == row)
        assert found["tokens/token_id"][:][mine].tolist() == text[0].tolist()
        assert found["tokens/position"][:][mine].tolist() == list(range(text.shape[1]))
        same_routes([x[mine] for x in routes(found)], routes(whole))


def test_a_prompt_in_pieces_continues_too():
    text = ids(1, 8)

    def pieces(m, r):
        cache = m(text[:, :5], use_cache=True).past_key_values
        m(text[:, 5:], past_key_values=cache, use_cache=True)
        m(text[:, :3], use_cache=False)

    found = record(pieces)
    assert found["sequences/length"][:].tolist() == [8, 3]
    assert found["tokens/position"][:].tolist() == list(range(8)) + [0, 1, 2]


def test_embeddings_have_no_ids():
    found = record(lambda m, r: m(inputs_embeds=m.get_input_embeddings()(ids(1, 5))))
    assert (found["tokens/token_id"][:] == 0xFFFFFFFF).all()


def test_rows_of_pictures_and_sounds_are_marked():
    made = model()
    made.config.image_token_id, made.config.audio_token_id = 90, 91
    tokens = ids(2, 8)
    tokens[tokens >= 90] = 5
    tokens[:, :3] = 90
    tokens[1, 3:5] = 91
    found = record(lambda model, _: model(input_ids=tokens), made=made)
    names = [name.decode().rstrip("\0") for name in found["modalities/name"][:]]
    assert names == ["text", "image", "video", "audio"], names
    assert found.attrs["format_version"].decode() == "1.5"
    expected = [1, 1, 1, 0, 0, 0, 0, 0] + [1, 1, 1, 3, 3, 0, 0, 0]
    assert found["tokens/modality"][:].tolist() == expected
    said = subprocess.run(
        [MOE, "report", WORK / "a.moetrace.h5", "--metric", "modality", "--bootstrap", "0"],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0 and "modalities" in said.stdout, said.stdout + said.stderr
    plain = record(lambda model, _: model(input_ids=tokens))
    assert "modality" not in plain["tokens"] and plain.attrs["format_version"].decode() == "1.3"


def test_grids_of_pictures_are_those_of_the_call():
    made = model()
    made.config.image_token_id, made.config.video_token_id = 90, 91
    made.config.audio_token_id = 92
    made.config.vision_config = type("Vision", (), {"spatial_merge_size": 2})()
    tokens = ids(4, 14)
    tokens[tokens >= 90] = 5
    tokens[0, 1:7] = 90  # 2 x 3 blocks
    tokens[1, 1:5] = 90  # two pictures of 1 x 2
    tokens[2, 2:5] = 92  # a sound
    tokens[3, 1:4] = tokens[3, 6:9] = 91  # two frames of 1 x 3, apart
    grids = {"image_grid_thw": torch.tensor([[1, 4, 6], [1, 2, 4], [1, 2, 4]])}
    grids["video_grid_thw"] = torch.tensor([[2, 2, 6]])
    forward = made.forward
    made.forward = lambda input_ids=None, image_grid_thw=None, video_grid_thw=None: forward(input_ids)

    def of(**arguments):
        found = record(lambda m, _: m(input_ids=tokens, **arguments), made=made)
        return list(zip(found["sequences/grid_rows"][:], found["sequences/grid_columns"][:]))

    assert of(**grids) == [(2, 3), (1, 2), (1, 3), (1, 3)], of(**grids)
    # of pictures of two grids, of grids that do not fit the rows, and without any: none
    tokens[1, 1:11] = 90
    grids["image_grid_thw"] = torch.tensor([[1, 4, 6], [1, 4, 6], [1, 4, 4]])
    assert of(**grids) == [(2, 3), (0, 0), (1, 3), (1, 3)]
    grids["image_grid_thw"] = torch.tensor([[1, 4, 8], [1, 4, 6], [1, 4, 4]])
    assert of(**grids) == [(0, 0), (0, 0), (1, 3), (0, 0)]
    assert of() == [(0, 0), (0, 0), (1, 3), (0, 0)]


def test_training_is_marked_and_recomputation_is_not_recorded_twice():
    made = model().train()
    made.gradient_checkpointing_enable()
    with moe_recorder.record(made, WORK / "a.moetrace.h5", force=True) as recorder:
        recorder.step = 7
        for seed in (0, 1):  # two micro-batches
            text = ids(2, 5, seed=seed)
            made(text, labels=text, use_cache=False).loss.backward()
    found = h5py.File(WORK / "a.moetrace.h5")
    assert len(found["tokens/token_id"]) == 20
    assert (found["tokens/flags"][:] == 8).all()
    assert found["steps/step"][:].tolist() == [7] and found["steps/phase"][:].tolist() == [2]


def test_the_hooks_go():
    made = model()
    record(lambda m, r: m(ids(1, 5)), made=made)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in made.modules())


def test_an_error_leaves_a_finished_trace():
    def fails(m, r):
        m(ids(1, 5))
        raise ZeroDivisionError

    try:
        record(fails)
    except ZeroDivisionError:
        pass
    found = h5py.File(WORK / "a.moetrace.h5")
    assert found.attrs["complete"] == 1 and found.attrs["num_tokens"] == 5


def refused(what, words, **options):
    try:
        what()
    except moe_recorder.RecorderError as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"not refused: {words}")


def test_refusals():
    (WORK / "there.h5").write_text("mine")
    refused(lambda: moe_recorder.record(model(), WORK / "there.h5").__enter__(), "exists")
    assert (WORK / "there.h5").read_text() == "mine"
    dense = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model("llama", **SMALL)
    )
    refused(lambda: moe_recorder.record(dense, WORK / "no.h5").__enter__(), "no MoE router")
    twice = transformers.AutoConfig.for_model(
        "switch_transformers", d_model=16, d_ff=16, num_layers=2
    )
    twice = transformers.AutoModelForSeq2SeqLM.from_config(twice)
    refused(lambda: moe_recorder.record(twice, WORK / "no.h5").__enter__(), "encoder")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with moe_recorder.record(model(), WORK / "no.h5"):
            pass
    assert "not called" in str(said[-1].message) and not (WORK / "no.h5").exists()


CHILD = """
import sys, torch
sys.path[:0] = [{tests!r}]
import behaviour
made = behaviour.model()
with torch.no_grad(), behaviour.moe_recorder.record(made, {path!r}, force=True):
    for seed in range(100):
        made(behaviour.ids(2, 700, seed=seed))
        print(seed, flush=True)
"""


def test_a_kill_leaves_whole_chunks():
    path = WORK / "killed.moetrace.h5"
    code = CHILD.format(tests=str(Path(__file__).parent), path=str(path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while child.stdout.readline().strip() != "7":  # 8 passes of 1400 rows: two chunks
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    saved = WORK / "saved.moetrace.h5"
    said = subprocess.run(
        [MOE, "recover", f"{path}.part", "-o", saved, "--force"], capture_output=True
    )
    assert said.returncode == 0, said.stderr
    found = h5py.File(saved)
    rows = len(found["tokens/token_id"])
    assert rows >= 8192 and rows % 4096 == 0, rows

    def again(m, r):
        for seed in range(rows // 1400 + 1):
            m(ids(2, 700, seed=seed))

    whole = record(again)
    for name in ("tokens/token_id", "routing/expert_ids", "routing/weights"):
        assert np.array_equal(found[name][:], whole[name][:rows]), name


def test_logits_and_a_tokenizer():
    class Tokenizer:
        all_special_ids, name_or_path = [5], "of-a-test"

        def __len__(self):
            return 96

        def convert_ids_to_tokens(self, numbers):
            return [f"Ġ{n}é" for n in numbers]

    text = torch.tensor([[5, 6, 7]])
    found = record(lambda m, r: m(text), logits=True, tokenizer=Tokenizer())
    assert found["routing/logits"].shape == (3, 3, 8)
    assert found["vocab/piece"][7].decode() == "Ġ7é"
    assert found["tokens/flags"][:].tolist() == [32, 0, 0]
    assert found.attrs["tokenizer_id"] == b"of-a-test"
    said = subprocess.run([MOE, "report", WORK / "a.moetrace.h5"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr


def test_many_passes_are_one_file():
    def many(m, r):
        for n in range(6):
            m(ids(2, 1000, seed=n))

    found = record(many)
    assert len(found["tokens/token_id"]) == 12000
    assert found["commits"]["rows"].tolist()[-1] == 12000 and len(found["commits"]) >= 3
    last = record(lambda m, r: m(ids(2, 1000, seed=5)), "b.moetrace.h5")
    same_routes([x[10000:] for x in routes(found)], routes(last))


def test_trainer_callback():
    try:
        import accelerate  # noqa: F401
    except ImportError:
        return "accelerate is missing"
    made, lines = model().train(), []
    data = [{"input_ids": row, "labels": row} for row in ids(64, 16)]
    path = WORK / "train.moetrace.h5"
    callback = moe_recorder.trainer_callback(path, every=3, say=lines.append, force=True)
    arguments = transformers.TrainingArguments(
        output_dir=str(WORK / "run"),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=8,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    transformers.Trainer(made, arguments, train_dataset=data, callbacks=[callback]).train()
    found = h5py.File(path)
    assert found["steps/step"][:].tolist() == [0, 3, 6]
    assert found["steps/num_tokens"][:].tolist() == [64, 64, 64]
    assert len(lines) == 3 and "load_cv" in lines[0] and "random" in lines[0]
    values = WORK / "values.h5"
    command = [
        MOE,
        "report",
        path,
        "--metric",
        "load",
        "--values",
        values,
        "-o",
        WORK / "t.txt",
        "--force",
    ]
    subprocess.run(command, check=True, capture_output=True)
    whole = moe_recorder.lights(*counted(found))
    for name, (value, layer, chance, _) in whole.items():
        theirs = h5py.File(values)[name][:]
        assert abs(theirs[layer] - value) < 1e-4, (name, theirs, value)
    return None


def counted(file):
    chosen = file["routing/expert_ids"][:]
    counts = [
        np.bincount(chosen[:, layer].ravel(), minlength=8) for layer in range(chosen.shape[1])
    ]
    return np.array(counts), len(chosen), chosen.shape[2]


def test_chance_is_that_of_moe():
    """The values of random routing, beside those that a report gives."""
    path, out = WORK / "even.moetrace.h5", WORK / "even.json"

    def run(*words):
        subprocess.run([str(w) for w in (MOE, *words, "--force")], check=True, capture_output=True)

    for experts, k, tokens in ((8, 2, 4096), (64, 8, 1000)):
        sizes = ("--experts", experts, "--topk", k, "--tokens", tokens, "--layers", 1)
        run("synth", "zipf:s=0", *sizes, "-o", path)
        run("report", path, "--metric", "load", "--format", "json", "-o", out)
        tables = json.loads(out.read_text())["tables"]
        columns = {c["metric"]: c for t in tables for c in t["columns"] if c["metric"]}
        for name in ("load_cv", "load_maxvio_global"):
            mine = moe_recorder._by_chance(tokens, experts, k)[name]
            assert abs(columns[name]["chance"][0] - mine[0]) < 0.05 * mine[0], (name, mine)
            assert abs(columns[name]["chance_spread"][0] - mine[1]) < 0.3 * mine[1], (name, mine)


def test_a_dead_layer_is_red_and_a_few_tokens_are_not():
    dead = np.array([[100, 100, 100, 0], [75, 75, 75, 75]])
    found = moe_recorder.lights(dead, 150, 2, [3, 5])
    assert found["load_dead_fraction"][:2] == (0.25, 3) and found["load_dead_fraction"][3] == "red"
    few = moe_recorder.lights(np.array([[2, 0, 1, 1]]), 2, 2)
    assert few["load_cv"][0] > 0.5 and few["load_cv"][3] == "green"  # as bad by chance


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    MOE, failed = sys.argv[1], 0
    only = sys.argv[2:]
    print(f"transformers {transformers.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        WORK = Path(folder)
        for name, test in [(n, t) for n, t in globals().items() if n.startswith("test_")]:
            if only and not any(word in name for word in only):
                continue
            try:
                why = test()
                print(
                    f"{'left out: ' + why if why else 'ok':<9}{name[5:].replace('_', ' ')}",
                    flush=True,
                )
            except Exception:
                failed += 1
                traceback.print_exc()
                print(f"FAIL     {name[5:].replace('_', ' ')}", flush=True)
    sys.exit(1 if failed else 0)
