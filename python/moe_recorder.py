"""Records which experts a model's tokens go to, as a moe-trace (docs/trace-format.md of moe).

    with moe_recorder.record(model, "a.moetrace.h5", tokenizer=tokenizer):   # a transformers MoE
        model(**batch)
    client = moe_recorder.responses("http://localhost:8000", "a.jsonl")      # vLLM, SGLang
    Trainer(..., callbacks=[moe_recorder.trainer_callback("run.moetrace.h5", every=100)])

One file: copy it, or `pip install ./python`. Needs h5py and numpy; record() needs torch, the
callback transformers; with xxhash the rows of a recording that was killed can be recovered.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
import time
import types
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import h5py
import numpy as np

try:
    import xxhash
except ImportError:
    xxhash = None

__version__ = "0.1.0"
CHUNK = 4096  # rows of a chunk; commits before the end are of whole chunks, as the format asks
WITHHELD = 0xFFFFFFFF
PROMPT, DECODE, TRAIN, SPECIAL = 2, 4, 8, 32  # bits of /tokens/flags
PREFILL_PHASE, DECODE_PHASE, TRAIN_PHASE, EVAL_PHASE = range(4)
SOFTMAX, SIGMOID, OTHER = range(3)  # /model/score_fn
NOT_STATED = 255


class RecorderError(RuntimeError):
    """What cannot be recorded, in one sentence that says what to do."""


# ---------------------------------------------------------------------------------- the file


def _text(group, name, value, room=1):
    data = value.encode()
    kind = h5py.string_dtype("utf-8", max(len(data), room))
    group.attrs.create(name, np.array(data, kind), dtype=kind)


def _sync(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _constants_xxh3(file):
    """The hash over what /commits and corpus_sha256 do not cover: docs/trace-format.md."""
    total = xxhash.xxh3_64()
    for name in sorted(file.attrs, key=str.encode):
        if name in ("complete", "constants_xxh3", "corpus_sha256", "num_tokens"):
            continue
        attribute = h5py.h5a.open(file.id, name.encode())
        cells = np.zeros(attribute.shape, f"V{attribute.get_type().get_size()}")
        attribute.read(cells, attribute.get_type())
        total.update(name.encode() + b"\0" + cells.tobytes())
    groups = "counts domains experts modalities model router sequences steps vocab"
    for group in groups.split():
        for name in sorted(file.get(group, ()), key=str.encode):
            data = file[f"{group}/{name}"]
            total.update(data.name[1:].encode() + b"\0")
            total.update(np.array(data.shape, "<u8").tobytes())
            if data.size:
                cells = np.zeros(data.shape, f"V{data.id.get_type().get_size()}")
                data.id.read(h5py.h5s.ALL, h5py.h5s.ALL, cells, data.id.get_type())
                total.update(cells.tobytes())
    return total.hexdigest()


class TraceWriter:
    """A trace as it is written: `path`.part until close() names it `path`.

    layers: a dict for each MoE layer, {"index", "experts", "top_k"} and what is known of
    "num_shared", "n_group", "topk_group", "score_fn", "norm_topk", "routed_scale", "expert_bytes".
    routing: names of datasets under /routing beside expert_ids: weights, entropy, margin,
    logsumexp, logits. header: root attributes. rank: of the rows, None = no such dataset.
    modalities: what the numbers of "modality" in the tokens mean, None = no such dataset; with
    them sequences have grids, how the rows of their pictures lie.
    """

    LAYER = {
        "top_k": ("u2", None),
        "num_shared": ("u2", 0),
        "n_group": ("u2", 1),
        "topk_group": ("u2", 1),
        "score_fn": ("u1", NOT_STATED),
        "norm_topk": ("u1", NOT_STATED),
        "routed_scale": ("f4", np.nan),
        "capacity_factor": ("f4", np.nan),
        "expert_bytes": ("u8", 0),
    }
    HEADER = """producer engine engine_version command config model_id model_revision tokenizer_id
        tokenizer_sha256 created_utc compute_dtype quantization capture_point sequence_order"""
    RECORDS = {
        "sequences": {"start": "u8", "length": "u4", "domain": "u2"},
        "steps": {"step": "i8", "token_start": "u8", "num_tokens": "u4", "phase": "u1"},
    }
    GRIDS = {"grid_rows": "u2", "grid_columns": "u2"}
    COMMIT = np.dtype(
        [("rows", "<u8"), ("step", "<i8"), ("data_xxh3", "<u8"), ("prev_xxh3", "<u8")]
    )

    def __init__(
        self,
        path,
        layers,
        routing=("weights",),
        order="unknown",
        normalized=False,
        header=None,
        vocab_size=0,
        checkpoint_step=-1,
        pieces=None,
        router_weight=None,
        router_bias=None,
        rank=None,
        force=False,
        modalities=None,
    ):
        self.path = Path(path)
        self.part = Path(f"{path}.part")
        if self.path.exists() and not force:
            raise RecorderError(f"{path} exists: give another name, or force=True to replace it")
        self.layers = layers
        self.experts = max(layer["experts"] for layer in layers)
        self.choices = max(layer["top_k"] for layer in layers)
        self.id_type = np.dtype("<u2" if self.experts < 65535 else "<u4")
        self.rank = rank
        self.modalities = modalities
        self.rows = 0  # given
        self.written = 0  # committed
        self.domains = {}
        self.fields = {name: dict(fields) for name, fields in self.RECORDS.items()}
        if modalities:
            self.fields["sequences"].update(self.GRIDS)
        self.records = {
            name: {field: [] for field in fields} for name, fields in self.fields.items()
        }
        self.clean = dict.fromkeys(self.RECORDS, 0)  # records that did not change since the commit
        self.commits = []
        self.tokens_hash = hashlib.sha256()
        self.file = h5py.File(
            self.part, "w", libver=("v110", "v110"), fs_strategy="page", fs_page_size=4096
        )
        self._header(header or {}, vocab_size, checkpoint_step)
        self._model(pieces, router_weight, router_bias)
        self._columns(routing, order, normalized)
        self.file.swmr_mode = True
        if xxhash is None:
            warnings.warn(
                "without the package xxhash nothing of a recording that is killed can be "
                "recovered: pip install xxhash",
                stacklevel=2,
            )

    def _header(self, header, vocab_size, checkpoint_step):
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        known = {
            "producer": f"moe_recorder {__version__}",
            "command": " ".join(sys.argv),
            "created_utc": time.strftime(
                "%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(epoch) if epoch else None)
            ),
            "capture_point": "logical",
        }
        known.update(header)
        _text(self.file, "format", "moe-trace")
        _text(self.file, "format_version", ("1.5" if self.modalities else "1.3") if xxhash else "1.1")
        for name in self.HEADER.split():
            _text(self.file, name, str(known.get(name, "")))
        _text(self.file, "corpus_sha256", "", 64)
        if xxhash:
            _text(self.file, "constants_xxh3", "", 16)
        numbers = {
            "vocab_size": np.uint32(vocab_size),
            "checkpoint_step": np.int64(checkpoint_step),
            "seed": np.uint64(0),
            "complete": np.uint8(0),
            "num_tokens": np.uint64(0),
        }
        for name, value in numbers.items():
            self.file.attrs.create(name, value, dtype=value.dtype)

    def _model(self, pieces, router_weight, router_bias):
        model = self.file.create_group("model")
        model["layer_index"] = np.array([layer["index"] for layer in self.layers], "<i4")
        model["num_experts"] = np.array(
            [layer["experts"] for layer in self.layers], "<u2" if self.experts < 65536 else "<u4"
        )
        for name, (kind, unknown) in self.LAYER.items():
            model[name] = np.array([layer.get(name, unknown) for layer in self.layers], "<" + kind)
        if pieces:
            cells = np.array([piece.encode() for piece in pieces])
            self.file.create_dataset("vocab/piece", data=cells.astype(f"S{cells.dtype.itemsize}"))
        if router_weight is not None:
            self.file["router/weight"] = np.asarray(router_weight, "<f4")
        if router_bias is not None:
            self.file["router/bias"] = np.asarray(router_bias, "<f4")
        if self.modalities:
            self.file["modalities/name"] = np.array([name.encode() for name in self.modalities])
        # grows as labels are named; 64 bytes each
        self.file.create_dataset(
            "domains/name", (0,), h5py.string_dtype("utf-8", 64), maxshape=(None,), chunks=(256,)
        )

    def _columns(self, routing, order, normalized):
        count = len(self.layers)
        self.columns = {"routing/expert_ids": (self.id_type, (count, self.choices), CHUNK)}
        shapes = {
            "weights": ("<f2", (count, self.choices), CHUNK),
            "entropy": ("<f2", (count,), CHUNK),
            "margin": ("<f2", (count,), CHUNK),
            "logsumexp": ("<f4", (count,), CHUNK),
            "logits": ("<f2", (count, self.experts), 256),
        }
        for name in routing:
            self.columns[f"routing/{name}"] = shapes[name]
        for name in ("token_id", "position", "sequence", "step"):
            self.columns[f"tokens/{name}"] = ("<u4", (), CHUNK)
        self.columns["tokens/flags"] = ("u1", (), CHUNK)
        if self.modalities:
            self.columns["tokens/modality"] = ("u1", (), CHUNK)
        if self.rank is not None:
            self.columns["tokens/rank"] = ("<u2", (), CHUNK)
        self.pending = {path: [] for path in self.columns}
        token = self._scale("token", np.zeros(0, "u1"), bare=True)
        scales = {
            "layer": self._scale("layer", self.file["model/layer_index"][:]),
            "choice": self._scale("choice", np.arange(self.choices, dtype="<i4")),
            "expert": self._scale("expert", np.arange(self.experts, dtype="<i4")),
        }
        for path, (kind, tail, chunk) in self.columns.items():
            data = self.file.create_dataset(
                path,
                (0,) + tail,
                kind,
                maxshape=(None,) + tail,
                chunks=(chunk,) + (1,) * min(len(tail), 1) + tail[1:],
                shuffle=np.dtype(kind).itemsize > 1,
                compression=1,
                fletcher32=True,
            )
            last = "expert" if path.endswith("logits") else "choice"
            for axis, scale in enumerate([token, scales["layer"], scales[last]][: len(tail) + 1]):
                data.dims[axis].attach_scale(scale)
        _text(self.file["routing/expert_ids"], "order", order)
        if "weights" in routing:
            weights = self.file["routing/weights"]
            _text(weights, "kind", "combine")
            weights.attrs.create("normalized", np.uint8(normalized), dtype="u1")
        if "logits" in routing:
            _text(self.file["routing/logits"], "kind", "logits")
        for group, fields in self.fields.items():
            for name, kind in fields.items():
                self._growing(f"{group}/{name}", "<" + kind, 4096)
        if xxhash:
            self._growing("commits", self.COMMIT, 1024)

    def _growing(self, path, kind, chunk):
        self.file.create_dataset(path, (0,), kind, maxshape=(None,), chunks=(chunk,))

    def _scale(self, name, values, bare=False):
        grows = {"maxshape": (None,), "chunks": (65536,)} if bare else {}
        data = self.file.create_dataset(name, data=values, **grows)
        # these words make netCDF readers take an axis as a dimension only
        data.make_scale(
            "This is a netCDF dimension but not a netCDF variable.         0" if bare else name
        )
        return data

    def domain(self, label):
        """The number of a label; None = no label."""
        if label is None:
            return 0xFFFF
        if label not in self.domains:
            if len(label.encode()) > 64:
                raise RecorderError(f"the label {label[:20]}... has more than 64 bytes")
            names = self.file["domains/name"]
            self.domains[label] = len(self.domains)
            names.resize((len(self.domains),))
            names[-1] = label.encode()
            names.flush()
        return self.domains[label]

    def new_sequence(self, label=None, grid=(0, 0)):
        """Begins a sequence and returns its number, which rows then name in "sequence". grid: rows
        and columns of its picture, of several pictures of each; 0, 0 = none, or not known."""
        sequences = self.records["sequences"]
        for name, size in zip(self.GRIDS if self.modalities else (), grid):
            sequences[name].append(size)
        sequences["start"].append(self.rows)
        sequences["length"].append(0)
        sequences["domain"].append(self.domain(label))
        return len(sequences["start"]) - 1

    def append(self, tokens, routing, step=0, phase=EVAL_PHASE):
        """Adds n rows. tokens: arrays [n] under "token_id", "position", "sequence", "flags", and
        "modality" where it has modalities (255 = not known).
        routing: arrays [n, L, ...] under "expert_ids" (-1 = none) and the names given before."""
        count = len(tokens["token_id"])
        if count == 0:
            return
        numbers, first, lengths = np.unique(
            tokens["sequence"], return_index=True, return_counts=True
        )
        sequences = self.records["sequences"]
        self.clean["sequences"] = min(self.clean["sequences"], int(numbers[0]))
        for number, at, length in zip(numbers.tolist(), first.tolist(), lengths.tolist()):
            if sequences["length"][number] == 0:
                sequences["start"][number] = self.rows + at
            sequences["length"][number] += length
        self._step(step, phase, count)
        tokens = dict(tokens, step=np.full(count, len(self.records["steps"]["step"]) - 1))
        if self.rank is not None:
            tokens["rank"] = np.full(count, self.rank)
        for path, (kind, tail, _) in self.columns.items():
            group, name = path.split("/")
            values = np.asarray((tokens if group == "tokens" else routing)[name])
            if values.shape != (count,) + tail:
                raise RecorderError(f"{path}: {values.shape} where {(count,) + tail} is expected")
            self.pending[path].append(values.astype(kind))
        self.tokens_hash.update(np.asarray(tokens["token_id"], "<u4").tobytes())
        self.rows += count
        if self.rows - self.written >= CHUNK:
            self._commit((self.rows - self.written) // CHUNK * CHUNK)

    def _step(self, step, phase, count):
        steps = self.records["steps"]
        self.clean["steps"] = min(self.clean["steps"], max(0, len(steps["step"]) - 1))
        if steps["step"] and steps["step"][-1] == step and steps["phase"][-1] == phase:
            steps["num_tokens"][-1] += count  # another micro-batch of the step
            return
        for name, value in zip(steps, (step, self.rows, count, phase)):
            steps[name].append(value)

    def _commit(self, count):
        old, new = self.written, self.written + count
        total = xxhash.xxh3_64() if xxhash else None
        token = self.file["token"]
        token.resize((new,))
        for path in sorted(self.columns):
            rows = np.concatenate(self.pending[path])
            self.pending[path] = [rows[count:]]
            data = self.file[path]
            data.resize(new, axis=0)
            data[old:new] = rows[:count]
            data.flush()
            if total:
                total.update(rows[:count].tobytes())
        for group, fields in self.records.items():
            length = len(next(iter(fields.values())))
            for name, values in fields.items():
                data = self.file[f"{group}/{name}"]
                data.resize((length,))
                data[self.clean[group] :] = np.array(values[self.clean[group] :], data.dtype)
                data.flush()
            self.clean[group] = length
        self.written = new
        if total:
            self._acknowledge(new, total.intdigest())

    def _acknowledge(self, rows, digest):
        before = xxhash.xxh3_64_intdigest(self.commits[-1]) if self.commits else 0
        row = np.array((rows, self.records["steps"]["step"][-1], digest, before), self.COMMIT)
        self.commits = [row.tobytes()]  # the next one names the last
        data = self.file["commits"]
        data.resize(len(data) + 1, axis=0)
        data[-1] = row
        data.flush()

    def close(self):
        """Writes the rest and gives the file its name."""
        if not self.file:
            return
        if self.rows > self.written:
            self._commit(self.rows - self.written)
        self.file.close()
        _sync(self.part)
        self.tokens_hash.update(np.array(self.records["sequences"]["length"], "<u4").tobytes())
        with h5py.File(self.part, "r+", libver=("v110", "v110")) as done:
            if xxhash:
                done.attrs.modify("constants_xxh3", np.bytes_(_constants_xxh3(done)))
            done.attrs.modify("corpus_sha256", np.bytes_(self.tokens_hash.hexdigest()))
            done.attrs.modify("num_tokens", np.uint64(self.rows))
            done.attrs.modify("complete", np.uint8(1))
        _sync(self.part)
        os.replace(self.part, self.path)
        _sync(self.path.absolute().parent)


# ------------------------------------------------------------------------------- the routers

# Router classes whose output is the logits alone: how their block goes on from there. Norm: True
# always, False never, None as the block's norm_topk_prob says.
CHOOSES = [
    (r"Granite|JetMoe|Aria", "of_chosen", True),  # the softmax over the chosen logits
    (r"Llama4", "sigmoid_of_chosen", False),
    (r"Jamba", "softmax", False),
    (r"Mixtral|MiniMaxSparse|HunYuan", "softmax", True),
    (r"Olmo|Qwen2Moe|Qwen3|Qwen3Next", "softmax", None),
    (r"Phimoe", "sparsemixer", False),
    (r"Ernie4_5", "softmax", True),
]


def _first(objects, names, unknown=None):
    for thing in objects:
        for name in names.split():
            value = getattr(thing, name, None)
            if value is not None:
                return value
    return unknown


def _matrices(output):
    """The 2-D tensors of a router's output: whole numbers, and others."""
    import torch

    found = output if isinstance(output, (tuple, list)) else (output,)
    found = [t.detach() for t in found if torch.is_tensor(t)]
    found = [t.reshape(-1, t.shape[-1]) for t in found if t.dim() in (2, 3)]
    return [t for t in found if not t.is_floating_point()], [
        t for t in found if t.is_floating_point()
    ]


class _Router:
    """One router of the model: what its hook hears becomes ids, weights and figures."""

    def __init__(self, name, module, block, config):
        self.name, self.module, self.block = name, module, block
        self.owners = (module, block, config)
        self.index = int(re.search(r"\.(\d+)(\.|$)", "." + name)[1])
        self.known = None  # the layer, as TraceWriter takes it
        self.rows = []  # of this pass: a tuple of tensors a call

    # logits (or None), ids, weights of one call
    def choices(self, args, output):
        import torch

        ids, real = _matrices(output)
        if not real:
            raise self.strange(output)
        if not ids:
            return self.chosen_from(real)
        ids = ids[0]
        if len(real) > 1:
            logits, weights = real[0], real[1]
        else:
            logits, weights = self.logits_of(args), real[0]
        if weights.shape != ids.shape:
            weights = weights.gather(1, ids)
        return logits, ids, weights

    def logits_of(self, args):
        """Versions 4 of DeepSeek's kin and GPT-OSS keep the logits to themselves."""
        import torch

        weight = _first((self.module, getattr(self.module, "classifier", None)), "weight")
        if weight is None or weight.dim() != 2 or not args:
            return None
        hidden = args[0].detach().reshape(-1, weight.shape[1])
        bias = getattr(self.module, "bias", None)
        if weight.dtype != hidden.dtype or self.bias_of(args) is not None:
            hidden, weight = hidden.float(), weight.float()
        return torch.nn.functional.linear(hidden, weight.detach(), bias)

    def chosen_from(self, real):
        import torch

        logits = real[-1]
        kind = type(self.block).__name__ + type(self.module).__name__
        route = getattr(self.block, "route_tokens_to_experts", None)
        rule = next((rule for rule in CHOOSES if re.search(rule[0], kind)), None)
        k = _first(self.owners, "top_k num_experts_per_tok moe_k moe_topk moe_top_k")
        if route is not None:
            whole, found = _matrices(route(logits))
            return logits, whole[0], found[0]
        if rule is None or k is None:
            raise RecorderError(
                f"{self.name} ({kind}) gives logits alone, and how it chooses from them is not "
                "known: record with transformers 5, whose routers give their choices"
            )
        k = k[self.index] if isinstance(k, (list, tuple)) else k
        if rule[1] == "sparsemixer":
            if self.block.training:
                raise RecorderError(f"{self.name} draws its choices in training: model.eval()")
            mix = sys.modules[type(self.block).__module__].sparsemixer
            weights, ids = mix(logits, jitter_eps=self.block.router_jitter_noise, training=False)
            return logits, ids, weights
        if rule[1].endswith("of_chosen"):
            top, ids = logits.topk(k, dim=-1)
            both = {"of_chosen": lambda t: t.softmax(-1), "sigmoid_of_chosen": torch.sigmoid}
            return logits, ids, both[rule[1]](top.float())
        scores = logits.softmax(-1, dtype=torch.float32)
        statics = getattr(self.block, "moe_statics", None)
        ids = (scores if statics is None else statics(scores)).topk(k, dim=-1)[1]
        weights = scores.gather(1, ids)
        norm = getattr(self.block, "norm_topk_prob", False) if rule[2] is None else rule[2]
        return logits, ids, weights / weights.sum(-1, keepdim=True) if norm else weights

    def strange(self, output):
        return RecorderError(
            f"the output of {self.name} ({type(self.module).__name__}) is not one of a router "
            f"({type(output).__name__}): this version of transformers is newer than the recorder"
        )

    def bias_of(self, args):
        """The bias that takes part in the choice alone; some blocks hand it in as an argument."""
        import torch

        for value in args[1:]:
            if torch.is_tensor(value) and value.is_floating_point() and value.dim() == 1:
                return value.detach()
        statics = getattr(self.module, "moe_statics", getattr(self.block, "moe_statics", None))
        bias = _first(
            (self.module, statics, self.block),
            "e_score_correction_bias balancing_biases expert_bias",
        )
        return None if bias is None or not torch.is_tensor(bias) else bias.detach().reshape(-1)

    def study(self, args, logits, ids, weights):
        """What the layer is, found out from the numbers of its first call."""
        experts = logits.shape[1] if logits is not None else None
        experts = experts or _first(self.owners, "num_experts n_routed_experts num_local_experts")
        shared = _first(self.owners, "n_shared_experts num_shared_experts moe_num_shared_experts")
        if shared is None:
            shared = int(any(re.search("shared", n) for n, _ in self.block.named_children()))
        known = {"index": self.index, "experts": int(experts), "top_k": ids.shape[1]}
        known["num_shared"] = int(shared)
        groups = _first(self.owners, "num_group n_group", 1)
        known["n_group"] = int(groups)
        known["topk_group"] = int(_first(self.owners, "topk_group", 1)) if groups > 1 else 1
        parameters = getattr(self.block, "experts", None)
        if parameters is not None:
            size = sum(p.numel() * p.element_size() for p in parameters.parameters())
            known["expert_bytes"] = size // max(1, known["experts"])
        self.score = None
        self.is_probability = False
        if logits is not None:
            lines = logits.float().sum(1)
            self.is_probability = bool((logits >= 0).all() and (abs(lines - 1) < 1e-3).all())
            known.update(self.study_score(logits, ids, weights))
        self.by_key = self.score is not None and self.keys_hold(args, logits, ids, known)
        self.known = known

    def study_score(self, logits, ids, weights):
        import torch

        own = getattr(self.module, "score_fn", None)
        scores = {SOFTMAX: lambda x: x.softmax(-1), SIGMOID: torch.sigmoid}
        if self.is_probability:
            scores = {SOFTMAX: lambda x: x}
        elif callable(own):
            scores[OTHER] = own
        loose = {torch.bfloat16: 2e-2, torch.float16: 4e-3}
        within = max(loose.get(t.dtype, 1e-4) for t in (weights, logits))
        weights = weights.double()
        total = weights.sum(1, keepdim=True)
        for name, score in scores.items():
            chosen = score(logits.float()).double().gather(1, ids)
            for norm, ratio in ((0, weights / chosen), (1, weights * chosen.sum(1, True) / chosen)):
                scale = ratio.median()
                if norm == 1 and ids.shape[1] == 1 and name != SOFTMAX:
                    continue  # one choice: a weight of 1 says nothing of the score
                if ((ratio / scale - 1).abs() <= within).all():
                    self.score = score
                    scale = float(f"{float(scale):.4g}") if within < 1e-3 else float("nan")
                    return {"score_fn": name, "norm_topk": norm, "routed_scale": scale}
        if self.is_probability:
            self.score = scores[SOFTMAX]
        return {"score_fn": OTHER}

    def keys(self, args, logits):
        """What the router ranked by."""
        bias = self.bias_of(args)
        if bias is None or bias.numel() != logits.shape[1]:
            return logits.float()
        return self.score(logits.float()) + bias.to(logits.device)

    def keys_hold(self, args, logits, ids, known):
        """Whether the choices are those of the largest keys (of a table of ids they are not)."""
        keys = self.keys(args, logits)
        chosen = keys.gather(1, ids).sort(-1)[0]
        if known["n_group"] > 1:
            return True  # other groups may hold larger ones
        best = keys.topk(ids.shape[1], dim=-1)[0].sort(-1)[0]
        return bool((chosen >= best - 1e-6 * best.abs() - 1e-12).all())

    def hear(self, args, output, wanted):
        """A call of the router: keeps what the trace holds of it, in 16 bits where it does."""
        import torch

        logits, ids, weights = self.choices(args, output)
        if self.known is None:
            if len(ids) == 0:
                return
            self.study(args, logits, ids, weights)
        ids, order = ids.sort(dim=1)  # equal keys: the lower id first
        weights = weights.gather(1, order)
        by = self.keys(args, logits).gather(1, ids) if self.by_key else weights
        order = by.argsort(dim=1, descending=True, stable=True)
        found = {"expert_ids": ids.gather(1, order).int(), "weights": weights.gather(1, order)}
        found["weights"] = found["weights"].to(torch.float16)
        if wanted & {"entropy", "margin", "logsumexp"}:
            found.update(self.figures(logits, found["expert_ids"].shape[1]))
        if "logits" in wanted:
            found["logits"] = logits.to(torch.float16)
        self.rows.append(found)

    def figures(self, logits, k):
        """In nats: the entropy of the normalised scores; their K-th less the next; of the logits."""
        import torch

        half = torch.float16
        if self.score is None:
            none = torch.full((len(logits),), float("nan"), dtype=half, device=logits.device)
            size = none.float() if self.is_probability else logits.float().logsumexp(-1)
            return {"entropy": none, "margin": none, "logsumexp": size}
        logits = logits.float()
        size = logits.logsumexp(-1)
        score = self.score(logits)
        score = score / score.sum(-1, keepdim=True)
        best = score.topk(min(k + 1, score.shape[1]), dim=-1)[0]
        margin = best[:, k - 1] - (best[:, k] if best.shape[1] > k else 0)
        entropy = torch.special.entr(score).sum(-1)
        size = size if not self.is_probability else torch.full_like(size, float("nan"))
        return {"entropy": entropy.to(half), "margin": margin.to(half), "logsumexp": size}


def _routers(model):
    """The routers of a model's text layers, in order of their layers."""
    modules = dict(model.named_modules())
    found = {}
    for name, module in modules.items():
        block = modules.get(name.rpartition(".")[0], model)
        kind, last = type(module).__name__, name.rpartition(".")[2]
        in_block = hasattr(block, "experts") or hasattr(block, "input_linear")
        named = re.search(r"(Router|Gate|Gating)$", kind) and "Gated" not in kind
        plain = kind == "Linear" and last in ("gate", "router")
        if not in_block or not (named or plain) or not re.search(r"\.\d+(\.|$)", "." + name):
            continue
        if re.search(r"vision|visual|audio|self_attn|self_attention|\bmtp\b", name):
            continue
        router = _Router(name, module, block, getattr(model, "config", None))
        found.setdefault(router.index, router)
    return [found[index] for index in sorted(found)]


# ------------------------------------------------------------------------------ the recording


MODALITIES = ("text", "image", "video", "audio")
UNKNOWN_MODALITY = 255


def _places(config):
    """Of a model that reads pictures or sounds: the ids that stand for their rows, with the number
    of the modality; empty for others."""
    found = {}
    for number, name in enumerate(MODALITIES):
        token = _first((config,), f"{name}_token_id {name}_token_index")
        if number > 0 and isinstance(token, int) and token >= 0:
            found[token] = number
    return found


class _Grids:
    """How the rows of the pictures of one call lie, by the grids that its arguments name."""

    def __init__(self, config, arguments):
        inner = getattr(config, "thinker_config", None)
        self.vision = _first((config, inner), "vision_config")
        self.left = {
            number: self.grids_of(arguments, name)
            for number, name in ((1, "image_grid_thw"), (2, "video_grid_thw"))
        }

    @staticmethod
    def grids_of(arguments, name):
        grids = arguments.get(name)
        return [] if grids is None else [[int(v) for v in grid] for grid in grids]

    def shape(self, grid, kind):
        """Rows and columns of what the language model gets, and how many of these: frames."""
        times, down, across = grid
        block = _first((self.vision,), "spatial_merge_size merge_kernel_size merge_size", 1)
        tall, wide = block if isinstance(block, (list, tuple)) else (block, block)
        if hasattr(self.vision, "merge_kernel_size"):
            times = 1  # Kimi: the mean over the frames
        elif kind == 2 and hasattr(self.vision, "temporal_merge_size"):
            times //= self.vision.temporal_merge_size
        return down // tall, across // wide, times

    def take(self, kinds):
        """The grid of a sequence whose rows have these modalities: 0, 0 where it has none, several
        or another number of rows than its grids."""
        found = set()
        for kind in (1, 2):
            rows = int((kinds == kind).sum())
            while rows > 0 and self.left[kind]:
                down, across, times = self.shape(self.left[kind].pop(0), kind)
                rows -= down * across * times
                found.add((down, across))
            if rows != 0:
                self.left = {1: [], 2: []}  # of the others nothing is known either
                return 0, 0
        heard = np.flatnonzero(np.diff(np.concatenate([[0], kinds == 3, [0]])))
        found |= {(1, int(length)) for length in heard[1::2] - heard[::2]}
        grid = found.pop() if len(found) == 1 else (0, 0)
        return grid if max(grid) < 65536 else (0, 0)


class _Pass:
    """One forward pass of the whole model: which rows are tokens, and of which sequence."""

    def __init__(self, model, arguments, open_rows):
        import torch

        ids = arguments.get("input_ids")
        embeds = arguments.get("inputs_embeds")
        if ids is None and embeds is None:
            raise RecorderError("the model was called without input_ids and inputs_embeds")
        self.shape = tuple(ids.shape[:2] if ids is not None else embeds.shape[:2])
        self.past = self.past_of(arguments)
        self.caches = self.cache_of(arguments) is not None
        self.ids = np.full(self.shape, WITHHELD, np.uint32)
        if ids is not None:
            self.ids = ids.detach().cpu().numpy().astype(np.uint32)
        self.valid = np.ones(self.shape, bool)
        mask = arguments.get("attention_mask")
        if torch.is_tensor(mask) and mask.dim() == 2:
            self.valid = mask[:, -self.shape[1] :].cpu().numpy().astype(bool)
        place = arguments.get("position_ids")
        self.place = None
        if torch.is_tensor(place) and place.dim() == 2 and place.shape[1] == self.shape[1]:
            self.place = np.broadcast_to(place.detach().cpu().numpy(), self.shape)
        self.continues = self.past > 0 and len(open_rows) == self.shape[0]
        self.grids = _Grids(getattr(model, "config", None), arguments)

    @staticmethod
    def cache_of(arguments):
        """What keeps the keys of earlier passes; its name changed with versions."""
        return _first((types.SimpleNamespace(**arguments),), "past_key_values cache cache_params")

    def past_of(self, arguments):
        """Tokens of each row that earlier passes read."""
        cache, mask = self.cache_of(arguments), arguments.get("attention_mask")
        if cache is None:
            return 0
        length = getattr(cache, "get_seq_length", None)
        try:
            past = int(length()) if length else int(cache[0][0].shape[-2])  # tuples of tensors
        except (IndexError, TypeError, ValueError, AttributeError):
            past = 0  # nothing yet, or states without a length
        if past == 0 and getattr(mask, "ndim", 0) == 2:
            past = mask.shape[1] - self.shape[1]
        return max(past, 0)

    def starts(self):
        """Where sequences begin: [B, S], of tokens only. Packed rows count positions anew."""
        counted = np.cumsum(self.valid, axis=1)
        begins = self.valid & (counted == 1) & (not self.continues)
        if self.place is None or self.past > 0:
            return begins
        for row in range(self.shape[0]):
            at = np.flatnonzero(self.valid[row])
            begins[row, at[1:]] |= np.diff(self.place[row, at]) != 1
        return begins


class Recorder:
    """Hooks on a model and the file they fill. See record()."""

    def __init__(self, model, path, tokenizer, figures, logits, router_weight, header, force):
        if hasattr(model, "_orig_mod"):
            raise RecorderError(
                "hooks do not fire in a compiled model: record the model itself, model._orig_mod"
            )
        self.model, self.tokenizer = model, tokenizer
        self.path = self._own_path(path)
        if self.path and self.path.exists() and not force:
            raise RecorderError(f"{path} exists: give another name, or force=True to replace it")
        self.wanted = {"weights"} | ({"entropy", "margin", "logsumexp"} if figures else set())
        self.wanted |= {"logits"} if logits else set()
        self.with_router_weight, self.header, self.force = router_weight, header, force
        self.config = getattr(model, "config", None)
        if getattr(self.config, "is_encoder_decoder", False):
            raise RecorderError(
                "models of encoder and decoder have two streams of tokens: record "
                "model.get_encoder() alone, or use another model"
            )
        self.places = _places(self.config)
        self.routers = _routers(model)
        if not self.routers:
            raise RecorderError(f"{type(model).__name__} has no MoE router that is known here")
        self.writer, self.handles = None, []
        self.step, self.labels = 0, None
        self.sequences = []  # of each row of the batch: its number, its tokens so far
        self.pass_ = None
        self.on_rows = None  # called with [n, L, K] ids of each pass
        special = getattr(tokenizer, "all_special_ids", None) or []
        self.special = np.array(sorted(special), np.uint32)

    def _own_path(self, path):
        """Several ranks write a file each."""
        self.rank = None
        if path is None:
            return None
        torch = sys.modules.get("torch")
        if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
            if torch.distributed.get_world_size() > 1:
                self.rank = torch.distributed.get_rank()
                name = re.sub(r"(\.moetrace)?\.h5$", "", str(path))
                return Path(f"{name}.rank{self.rank}.moetrace.h5")
        return Path(path)

    def documents(self, labels):
        """Labels (domains) of the sequences of the next pass: one a row of the batch, or one a
        sequence where rows are packed; None = no label. They hold until a pass begins anew."""
        self.labels = list(labels)

    def start(self):
        if self.handles:
            return
        self.handles.append(self.model.register_forward_pre_hook(self._before, with_kwargs=True))
        self.handles.append(self.model.register_forward_hook(self._after))
        for router in self.routers:
            hook = self._hook(router)
            self.handles.append(router.module.register_forward_hook(hook, with_kwargs=True))

    def stop(self):
        for handle in self.handles:
            handle.remove()
        self.handles = []
        self.pass_ = None

    def close(self):
        self.stop()
        if self.writer:
            self.writer.close()

    def _hook(self, router):
        import torch

        @torch.no_grad()
        def heard(module, args, kwargs, output):
            if self.pass_ is not None:  # not when a checkpointed layer is computed again
                router.hear(tuple(args) + tuple(kwargs.values()), output, self.wanted)

        return heard

    def _before(self, module, args, kwargs):
        import inspect

        names = list(inspect.signature(module.forward).parameters)
        self.pass_ = _Pass(self.model, {**dict(zip(names, args)), **kwargs}, self.sequences)
        for router in self.routers:
            router.rows = []

    def _after(self, module, args, output):
        done, self.pass_ = self.pass_, None
        if done is None:
            return
        tokens = done.shape[0] * done.shape[1]
        self._leave_out_strangers(tokens)
        valid = np.flatnonzero(done.valid.ravel())
        routing = self._stacked(valid)
        if self.writer is None and self.path is not None:
            self.writer = self._open(routing)
        rows = self._tokens(done, valid)
        if self.writer:
            self.writer.append(rows, routing, self.step, self._phase(done))
        if self.on_rows:
            self.on_rows(routing["expert_ids"])
        if not module.training:
            self.step += 1

    def _leave_out_strangers(self, tokens):
        heard = [(r, sum(len(rows["expert_ids"]) for rows in r.rows)) for r in self.routers]
        if self.writer is None:
            strange = [router.name for router, count in heard if count != tokens]
            if strange and len(strange) < len(heard):
                warnings.warn(f"left out, other rows than tokens: {', '.join(strange)}")
                self.routers = [router for router, count in heard if count == tokens]
                return
        for router, count in heard:
            if count != tokens:
                raise RecorderError(f"{router.name} routed {count} rows of {tokens} tokens")

    def _stacked(self, valid):
        """[n, L, ...] of the tokens that are not padding."""
        choices = max(router.known["top_k"] for router in self.routers)
        experts = max(router.known["experts"] for router in self.routers)
        width = {"expert_ids": (choices, -1), "weights": (choices, np.nan)}
        width["logits"] = (experts, np.nan)
        out = {}
        for name in ["expert_ids", *sorted(self.wanted)]:
            planes = []
            for router in self.routers:
                parts = [rows[name].cpu().numpy() for rows in router.rows]
                plane = (parts[0] if len(parts) == 1 else np.concatenate(parts))[valid]
                if name in width and plane.shape[1] < width[name][0]:
                    more = ((0, 0), (0, width[name][0] - plane.shape[1]))
                    plane = np.pad(plane, more, constant_values=width[name][1])
                planes.append(plane)
            out[name] = np.stack(planes, axis=1)
        for router in self.routers:
            router.rows = []
        return out

    def _phase(self, done):
        if self.model.training:
            return TRAIN_PHASE
        if not done.caches:
            return EVAL_PHASE
        return DECODE_PHASE if done.past > 0 and done.shape[1] == 1 else PREFILL_PHASE

    def _tokens(self, done, valid):
        begins = done.starts()
        labels = self._labels(begins)
        if not done.continues:
            self.sequences = [[None, 0] for _ in range(done.shape[0])]
        kinds = self._modality(done.ids)
        number = np.zeros(done.shape, np.uint32)
        position = np.zeros(done.shape, np.uint32)
        for row in range(done.shape[0]):
            at = np.flatnonzero(done.valid[row])
            for piece in np.split(at, np.flatnonzero(begins[row, at])):
                if len(piece) == 0:
                    continue
                state = self.sequences[row]
                if begins[row, piece[0]]:
                    start = 0 if done.place is None else int(done.place[row, piece[0]])
                    state = [self._new_sequence(labels, done.grids.take(kinds[row, piece])), start]
                number[row, piece] = state[0]
                position[row, piece] = state[1] + np.arange(len(piece))
                self.sequences[row] = [state[0], state[1] + len(piece)]
        phase = self._phase(done)
        flag = {TRAIN_PHASE: TRAIN, EVAL_PHASE: 0, DECODE_PHASE: DECODE, PREFILL_PHASE: PROMPT}
        ids = done.ids.ravel()[valid]
        flags = np.full(len(valid), flag[phase], np.uint8)
        flags[np.isin(ids, self.special)] |= SPECIAL
        return {
            "token_id": ids,
            "sequence": number.ravel()[valid],
            "position": position.ravel()[valid],
            "flags": flags,
            "modality": kinds.ravel()[valid],
        }

    def _modality(self, ids):
        """Of rows with these ids; withheld ones are of nobody knows what."""
        out = np.where(ids == WITHHELD, UNKNOWN_MODALITY, 0).astype(np.uint8)
        for token, number in self.places.items():
            out[ids == token] = number
        return out

    def _labels(self, begins):
        """An iterator over the labels of the sequences that begin."""
        count = int(begins.sum())
        labels, self.labels = (self.labels, None) if count else (None, self.labels)
        if labels is None:
            return iter([None] * count)
        if len(labels) == count:
            return iter(labels)
        if len(labels) == len(begins):  # a row's label for all that is packed in it
            return iter(np.repeat(np.array(labels, object), begins.sum(1)).tolist())
        raise RecorderError(
            f"documents() named {len(labels)} labels; the pass has {len(begins)} rows and "
            f"{count} sequences"
        )

    def _new_sequence(self, labels, grid):
        label = next(labels)
        return self.writer.new_sequence(label, grid) if self.writer else 0

    def _open(self, routing):
        order = "key_desc"
        if not all(router.by_key for router in self.routers):
            order = "weight_desc"
            for router in self.routers:
                router.by_key = False
            by = np.argsort(-routing["weights"], axis=-1, kind="stable")
            for name in ("expert_ids", "weights"):
                routing[name] = np.take_along_axis(routing[name], by, -1)
        layers = [router.known for router in self.routers]
        return TraceWriter(
            self.path,
            layers,
            routing=sorted(self.wanted),
            order=order,
            normalized=all(layer.get("norm_topk") == 1 for layer in layers),
            header=self._provenance(),
            vocab_size=_first(
                (self.config, getattr(self.config, "text_config", None)), "vocab_size", 0
            ),
            checkpoint_step=self.step if self.model.training else -1,
            pieces=self._pieces(),
            router_weight=self._router_weight(),
            router_bias=self._router_bias(),
            rank=self.rank,
            force=self.force,
            modalities=MODALITIES if self.places else None,
        )

    def _provenance(self):
        import torch
        import transformers

        short = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "float64": "f64"}
        kind = str(next(self.model.parameters()).dtype).replace("torch.", "")
        quantised = getattr(self.config, "quantization_config", None)
        if quantised is not None and not isinstance(quantised, dict):
            quantised = quantised.to_dict()
        out = {
            "engine": "transformers",
            "engine_version": f"{transformers.__version__} (torch {torch.__version__})",
            "model_id": getattr(self.config, "_name_or_path", ""),
            "model_revision": getattr(self.config, "_commit_hash", None) or "",
            "compute_dtype": short.get(kind, kind),
            "quantization": str((quantised or {}).get("quant_method", "")),
            "config": json.dumps({"class": type(self.model).__name__}),
        }
        if self.tokenizer is not None:
            out["tokenizer_id"] = getattr(self.tokenizer, "name_or_path", "")
            file = Path(out["tokenizer_id"]) / "tokenizer.json"
            if file.is_file():
                out["tokenizer_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        out.update(self.header or {})
        return out

    def _pieces(self):
        if self.tokenizer is None:
            return None
        pieces = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        return ["" if piece is None else str(piece) for piece in pieces]

    def _router_bias(self):
        biases = [router.bias_of((None,)) for router in self.routers]
        if all(bias is None for bias in biases):
            return None
        out = np.zeros((len(biases), max(r.known["experts"] for r in self.routers)), np.float32)
        for row, bias in zip(out, biases):
            if bias is not None:
                row[: bias.numel()] = bias.float().cpu().numpy()
        return out

    def _router_weight(self):
        if not self.with_router_weight:
            return None
        weights = []
        for router in self.routers:
            inner = [
                getattr(router.module, n, None) for n in "classifier layer wg gate proj".split()
            ]
            weight = _first((router.module, *inner), "weight")
            if weight is None or weight.dim() != 2 or weight.shape[0] != router.known["experts"]:
                return None
            weights.append(weight.detach().float().cpu().numpy())
        if len({w.shape[1] for w in weights}) > 1:
            return None
        out = np.zeros((len(weights), max(map(len, weights)), weights[0].shape[1]), np.float32)
        for plane, weight in zip(out, weights):
            plane[: len(weight)] = weight
        return out


@contextlib.contextmanager
def record(
    model,
    path,
    tokenizer=None,
    figures=True,
    logits=False,
    router_weight=True,
    header=None,
    force=False,
):
    """Records every forward pass of `model` inside the block; yields the Recorder.

    tokenizer: spells the tokens in reports. figures: entropy, margin and logsumexp. logits: every
    expert's logit in 16 bits. router_weight: the routers' rows, for similarity of experts.
    header: root attributes to set, such as {"model_id": ...}. An error inside the block still
    leaves a finished trace of the passes before it.
    """
    recorder = Recorder(model, path, tokenizer, figures, logits, router_weight, header, force)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.close()
        if recorder.writer is None:
            warnings.warn(f"the model was not called: {path} is not written", stacklevel=3)


# ---------------------------------------------------------------------------- while training

LIGHTS = {
    "load_cv": (0.25, 0.75),
    "load_maxvio_global": (1, 2),
    "load_dead_fraction": (0.001, 0.05),
}


def _figures_of(counts):
    """load_cv, load_maxvio_global, load_dead_fraction, load_entropy_norm of counts [..., E]."""
    mean = counts.mean(-1, keepdims=True)
    share = counts / np.maximum(counts.sum(-1, keepdims=True), 1)
    nats = -(share * np.log(np.where(share > 0, share, 1))).sum(-1)
    return {
        "load_cv": counts.std(-1) / mean[..., 0],
        "load_maxvio_global": counts.max(-1) / mean[..., 0] - 1,
        "load_dead_fraction": (counts <= 0).mean(-1),
        "load_entropy_norm": nats / np.log(max(2, counts.shape[-1])),
    }


def _by_chance(tokens, experts, choices, draws=256):
    """(mean, deviation) of the same figures where every token chooses its experts at random."""
    rng = np.random.default_rng(0)
    mean = tokens * choices / experts
    counts = rng.multinomial(tokens * choices, np.full(experts, 1 / experts), draws)
    # the choices of one token differ, which makes counts spread less than a multinomial's
    less = np.sqrt((1 - choices / experts) / max(1 - 1 / experts, 1e-9))
    drawn = _figures_of(np.maximum(mean + (counts - mean) * less, 0))
    out = {name: (float(v.mean()), float(v.std())) for name, v in drawn.items()}
    none = (1 - choices / experts) ** tokens
    out["load_dead_fraction"] = (none, float(np.sqrt(none * (1 - none) / experts)))
    return out


def lights(counts, tokens, choices, layers=None):
    """Figures of the worst layer: {name: (value, layer, value of random routing, light)}.

    counts: [L, E] choices of each expert; names and thresholds are those of `moe report`. A light
    is green also where random routing of so many tokens would be as bad.
    """
    found, out = _figures_of(np.asarray(counts, float)), {}
    chance = _by_chance(tokens, counts.shape[1], choices)
    for name, values in found.items():
        worst = int(values.argmin() if name == "load_entropy_norm" else values.argmax())
        value, light = float(values[worst]), ""
        if name in LIGHTS:
            yellow, red = LIGHTS[name]
            light = "red" if value >= red else "yellow" if value >= yellow else "green"
            if value <= chance[name][0] + 2 * chance[name][1]:
                light = "green"
        layer = worst if layers is None else layers[worst]
        out[name] = (value, layer, chance[name][0], light)
    return out


def trainer_callback(path=None, every=100, say=print, **options):
    """A callback for transformers.Trainer: every `every` steps the routing of that step is recorded
    (to `path`, if given; all its micro-batches) and the lights of its worst layers are said.

    say: called with each line; None = silent. options: as of record(). The callback's `history`
    is a list of (step, lights)."""
    import transformers

    class Routing(transformers.TrainerCallback):
        recorder = None
        history = []

        def on_train_begin(self, args, state, control, model=None, **kwargs):
            self.history = []
            known = dict(tokenizer=None, figures=path is not None, logits=False)
            known.update(router_weight=False, header=None, force=False)
            known.update(options)
            self.recorder = Recorder(model, path, **known)
            self.recorder.on_rows = self.count

        def count(self, ids):
            experts = max(router.known["experts"] for router in self.recorder.routers)
            for layer, chosen in enumerate(ids.transpose(1, 0, 2)):
                chosen = chosen[chosen >= 0]
                self.counts[layer] = self.counts.get(layer, 0) + np.bincount(
                    chosen, minlength=experts
                )
            self.tokens += len(ids)

        def on_step_begin(self, args, state, control, **kwargs):
            if self.recorder and state.global_step % every == 0:
                self.counts, self.tokens = {}, 0
                self.recorder.step = state.global_step
                self.recorder.start()

        def on_step_end(self, args, state, control, **kwargs):
            if not self.recorder or not self.recorder.handles:
                return
            self.recorder.stop()
            if self.tokens:
                self.tell(state)

        def tell(self, state):
            routers = self.recorder.routers
            counts = np.stack([self.counts[layer] for layer in range(len(routers))])
            choices = max(router.known["top_k"] for router in routers)
            found = lights(counts, self.tokens, choices, [router.index for router in routers])
            self.history.append((self.recorder.step, found))
            if say and state.is_world_process_zero:
                parts = [
                    f"{name} {value:.3g} {light + ' ' if light else ''}(layer {layer}; random {chance:.2g})"
                    for name, (value, layer, chance, light) in found.items()
                ]
                say(f"routing of step {self.recorder.step}: " + ", ".join(parts))

        def on_train_end(self, args, state, control, **kwargs):
            if self.recorder:
                self.recorder.close()

    return Routing()


# --------------------------------------------------------------------------------- the servers


class responses:
    """A client of a vLLM or SGLang server that keeps the routes of its responses.

    Each call posts a request, asks for routes and token ids, and appends the response as one line
    to `path`; `moe import PATH --config config.json -o T.moetrace.h5` makes the trace.
    url: of the server. label: a domain; PATH is then a folder and the line goes to PATH/LABEL.jsonl,
    so that `--domain-by file` labels the sequences.
    """

    def __init__(self, url, path, headers=None, timeout=600):
        self.url, self.path = url.rstrip("/"), Path(path)
        self.headers, self.timeout = dict(headers or {}), timeout

    def completions(self, label=None, **request):
        """POST /v1/completions."""
        return self._keep("/v1/completions", request, label)

    def chat(self, label=None, **request):
        """POST /v1/chat/completions."""
        return self._keep("/v1/chat/completions", request, label)

    def generate(self, label=None, **request):
        """POST /generate, SGLang's own."""
        return self._keep("/generate", request, label)

    def _keep(self, place, request, label):
        if request.get("stream"):
            raise RecorderError("routes come with the finished response: leave stream out")
        # vLLM takes the first, SGLang the second; each ignores the other's
        request = {"return_token_ids": True, "return_routed_experts": True, **request}
        answer = self._post(place, request)
        if not self._has_routes(answer):
            raise RecorderError(
                f"{self.url} answered without routes: start the server with "
                "--enable-return-routed-experts"
            )
        file = self.path if label is None else self.path / f"{label}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        for one in answer if isinstance(answer, list) else [answer]:
            line = json.dumps(one, separators=(",", ":")) + "\n"
            with open(file, "ab") as out:  # one write a line: a kill leaves whole lines before it
                out.write(line.encode())
        return answer

    def _post(self, place, request):
        headers = {"Content-Type": "application/json", **self.headers}
        body = json.dumps(request).encode()
        asked = urllib.request.Request(self.url + place, data=body, headers=headers)
        try:
            with urllib.request.urlopen(asked, timeout=self.timeout) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            raise RecorderError(f"{self.url}{place} answered {error.code}: {said}") from None
        except (urllib.error.URLError, TimeoutError) as error:
            raise RecorderError(f"no answer from {self.url}: {error}") from None

    @staticmethod
    def _has_routes(answer):
        """Of every finished choice; an aborted one has none."""
        one = answer[0] if isinstance(answer, list) and answer else answer
        if not isinstance(one, dict):
            return False
        places = list(one.get("choices") or []) + [one.get("meta_info") or {}, one]
        return any(place.get("routed_experts") is not None for place in places)
