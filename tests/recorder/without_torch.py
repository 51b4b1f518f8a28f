"""The parts of moe_recorder that need no model: the writer of traces, and the client of servers.

    python3 tests/recorder/without_torch.py MOE

A server made here answers with recorded responses, those of ../shared (MOE_SHARED) where they are;
what `moe import` makes of the lines that the client kept must be what was routed. Exit code 77: no h5py.
"""

import base64
import http.server
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

try:
    import h5py
    import numpy as np
except ImportError:
    print("this python has no h5py")
    sys.exit(77)

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "python"))
import moe_recorder

MOE, WORK = None, None


def moe(*words, code=0):
    done = subprocess.run([str(w) for w in (MOE, *words)], capture_output=True, text=True)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


class Server:
    """Answers each POST with the next line, and keeps what was asked."""

    def __init__(self, lines):
        self.lines, self.asked = list(lines), []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, json.loads(body)))
                answer = outer.lines.pop(0) if outer.lines else None
                self.send_response(200 if answer else 503)
                self.end_headers()
                self.wfile.write((answer or "no more").encode())

            def log_message(self, *_):
                pass

        self.http = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


def vllm_response(prompt, answer, routes):
    array = io.BytesIO()
    np.save(array, routes.astype(np.uint8))
    choice = {"index": 0, "text": "", "token_ids": answer, "prompt_token_ids": prompt}
    choice["routed_experts"] = base64.b64encode(array.getvalue()).decode()
    return json.dumps({"id": "cmpl-1", "object": "text_completion", "choices": [choice]})


def test_responses_become_a_trace():
    rng = np.random.default_rng(0)
    routes = [np.argsort(rng.random((n, 2, 8)), axis=-1)[..., :2] for n in (6, 9)]
    with Server(
        [
            vllm_response([5, 6, 7], [8, 9, 10, 11], routes[0]),
            vllm_response([5, 6], [1] * 8, routes[1]),
        ]
    ) as server:
        client = moe_recorder.responses(server.url + "/", WORK / "kept")
        client.completions(label="law", model="m", prompt="a")
        client.chat(label="code", model="m", messages=[])
    for path, request in server.asked:
        assert request["return_token_ids"] is True and request["model"] == "m"
    assert [path for path, _ in server.asked] == ["/v1/completions", "/v1/chat/completions"]
    path = WORK / "kept.moetrace.h5"
    moe("import", WORK / "kept", "--experts", 8, "--domain-by", "file", "-o", path)
    with h5py.File(path) as trace:
        # files by name: code before law
        assert np.array_equal(trace["routing/expert_ids"][:9], routes[1])
        assert np.array_equal(trace["routing/expert_ids"][9:], routes[0])
        assert trace["tokens/token_id"][9:].tolist() == [5, 6, 7, 8, 9, 10]
        names = [name.rstrip(b"\0").decode() for name in trace["domains/name"][:]]
        assert [names[d] for d in trace["sequences/domain"][:]] == ["code", "law"]


def refused(words, what):
    try:
        what()
    except moe_recorder.RecorderError as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"not refused: {words}")


def test_answers_without_routes_are_refused_and_not_kept():
    empty = json.dumps({"choices": [{"text": "a", "routed_experts": None}]})
    with Server([empty]) as server:
        client = moe_recorder.responses(server.url, WORK / "none.jsonl", timeout=20)
        refused("--enable-return-routed-experts", lambda: client.completions(prompt="a"))
        refused("answered 503: no more", lambda: client.completions(prompt="a"))
    refused("leave stream out", lambda: client.completions(prompt="a", stream=True))
    refused("no answer", lambda: client.completions(prompt="a"))
    assert not (WORK / "none.jsonl").exists()


def golden():
    shared = Path(os.environ.get("MOE_SHARED") or ROOT.parent / "shared")
    for engine in ("vllm-routed-experts", "sglang-routed-experts"):
        for case in sorted((shared / "golden" / "import" / engine).glob("*/expected.json")):
            said = json.loads(case.read_text())
            if said["outcome"] == "trace":
                yield engine, case.parent, said


def test_recorded_responses_come_through():
    """The golden responses, replayed to the client one by one."""
    seen = 0
    for engine, case, said in golden():
        seen += 1
        lines = [x for name in said["inputs"] for x in (case / name).read_text().splitlines() if x]
        # a client that does not stream gets no chunks
        lines = [x for x in lines if "routed_experts" in x and '"routed_experts": null' not in x]
        kept = WORK / f"{case.name}.jsonl"
        with Server(lines) as server:
            client = moe_recorder.responses(server.url, kept)
            ask = client.generate if engine.startswith("sglang") else client.completions
            for _ in lines:
                ask(prompt="a")
        options = []
        for key, value in said["options"].items():
            value = case / value if key == "config" else value
            options += ["--" + key.replace("_", "-"), value]
        path = WORK / f"{case.name}.moetrace.h5"
        moe("import", kept, *options, "-o", path)
        with h5py.File(path) as ours, h5py.File(case / "expected.h5") as right:
            for name in ("routing/expert_ids", "tokens/token_id", "sequences/length"):
                if name in right:
                    assert np.array_equal(ours[name], right[name]), (case, name)
    return "" if seen else "no recorded responses in ../shared"


LAYERS = [{"index": 1, "experts": 8, "top_k": 2}, {"index": 4, "experts": 4, "top_k": 1}]


def rows(n, seed, sequence):
    rng = np.random.default_rng(seed)
    ids = np.full((n, 2, 2), -1)
    ids[:, 0] = np.argsort(rng.random((n, 8)), axis=-1)[:, :2]
    ids[:, 1, 0] = rng.integers(0, 4, n)
    weights = np.sort(rng.random((n, 2, 2)), axis=-1)[..., ::-1].astype(np.float32)
    weights[:, 1, 1] = np.nan
    tokens = {"token_id": rng.integers(0, 99, n), "position": np.arange(n)}
    tokens.update(sequence=np.full(n, sequence), flags=np.zeros(n))
    return tokens, {"expert_ids": ids, "weights": weights}


def test_the_writer_makes_a_whole_trace():
    path = WORK / "written.moetrace.h5"
    writer = moe_recorder.TraceWriter(path, LAYERS, order="weight_desc", vocab_size=99)
    given = []
    for number, n in enumerate((3000, 3000, 2500)):  # a commit within, one at the end
        given.append(rows(n, number, writer.new_sequence(f"label {number % 2}")))
        writer.append(*given[-1], step=number)
        assert not path.exists()
    writer.close()
    assert not Path(f"{path}.part").exists()
    assert "whole" in moe("verify", path)
    with h5py.File(path) as trace:
        for name in ("expert_ids", "weights"):
            right = np.concatenate([routing[name] for _, routing in given])
            if name == "expert_ids":
                right = np.where(right < 0, 0xFFFF, right)
            assert np.array_equal(
                trace[f"routing/{name}"][:],
                right.astype(trace[f"routing/{name}"].dtype),
                equal_nan=name == "weights",
            )
        assert trace["sequences/domain"][:].tolist() == [0, 1, 0]
        assert trace["sequences/start"][:].tolist() == [0, 3000, 6000]
        assert trace["steps/num_tokens"][:].tolist() == [3000, 3000, 2500]
    assert "CV" in moe("report", path, "--metric", "load")
    moe("recover", path, "-o", WORK / "copy.h5")


def test_the_writer_replaces_only_when_told():
    path = WORK / "mine.h5"
    path.write_text("mine")
    refused("exists", lambda: moe_recorder.TraceWriter(path, LAYERS))
    assert path.read_text() == "mine"
    moe_recorder.TraceWriter(path, LAYERS, force=True).close()
    assert h5py.File(path).attrs["num_tokens"] == 0


def test_rows_of_another_shape_are_refused():
    writer = moe_recorder.TraceWriter(WORK / "shape.h5", LAYERS)
    tokens, routing = rows(4, 0, writer.new_sequence())
    routing["weights"] = routing["weights"][:, :1]
    refused("routing/weights", lambda: writer.append(tokens, routing))
    writer.close()


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # without xxhash there are no commits
    MOE = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        WORK = Path(folder)
        for name, test in [(n, t) for n, t in globals().items() if n.startswith("test_")]:
            why = test()
            print("left out: " + why if why else "ok", name[5:].replace("_", " "), flush=True)
