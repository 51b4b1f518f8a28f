#!/usr/bin/python3
"""Several processes over a real MPI: the bytes of one process, and an end to every fault.

  ranks.py MOE [--quick] [--mpi openmpi|mpich] [--only PART,...] [--before MOE] [--torch PYTHON]

Parts: bytes (layouts of ranks against one process with the same lanes), hosts (the same over four
network namespaces, for which root is needed), resume (other numbers of ranks), verbs (eval and
trace), stop (SIGUSR1 to the launcher), kills (all killed at twenty moments: the rows of the trace
that a checkpoint names are there, and the run goes on as if nothing had been), faults (a rank is
killed, crashes, is stopped, meets a NaN, a full disk, has no memory), memory (what ranks hold
against what --dry-run says), gpus (a GPU each, or the end without one); and where they are asked
for real (`small` with 16 experts on four hosts with 1 Gbit/s between them, traced and reported,
against one process) and speed (speed.py). Exit code 1 where something differs, 77 where no mpirun
is there.
"""

import argparse
import hashlib
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import h5py
import numpy

MODEL = "nano:layers=2,hidden=32,width=32,experts=6,vocabulary=256"
DATA = "clusters:vocabulary=64,clusters=4,valid=400"
ENDS_WITHIN = 2.0  # seconds from a fault on one host to the end of all
BUSY = 10.0        # the same where --quick runs beside other work
PATIENCE = 3.0

failures = []


def check(passed, what):
    print(("  ok      " if passed else "  FAILED  ") + what, flush=True)
    if not passed:
        failures.append(what)


def environment():
    out = dict(os.environ, SOURCE_DATE_EPOCH="1700000000", OMP_WAIT_POLICY="passive")
    out.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    # OpenMPI keeps tables of its own to the end, which a build with sanitizers would call leaks
    out["ASAN_OPTIONS"] = ":".join(filter(None, [out.get("ASAN_OPTIONS"), "detect_leaks=0"]))
    return out


def launcher(mpi, ranks):
    if ranks == 1:
        return []
    if mpi == "openmpi":
        return ["mpirun.openmpi", "--oversubscribe", "--bind-to", "none", "--mca",
                "mpi_yield_when_idle", "1", "-np", str(ranks)]
    return ["mpirun.mpich", "-np", str(ranks)]


class Place:
    """A folder of one name in which every layout runs in turn, so that paths in files agree."""

    def __init__(self, moe, mpi):
        self.moe, self.mpi = moe, mpi
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="moe-ranks-"))
        self.work = self.root / "work"
        self.fresh()

    def fresh(self):
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()

    def command(self, ranks, *words):
        return launcher(self.mpi, ranks) + [self.moe, *map(str, words)]

    def run(self, ranks, *words, expect=0, within=300):
        done = subprocess.run(self.command(ranks, *words), cwd=self.work, env=environment(),
                              capture_output=True, text=True, timeout=within)
        if done.returncode != expect:
            print(done.stdout + done.stderr)
            raise SystemExit(f"{' '.join(map(str, words))}: exit code {done.returncode}")
        return done

    def start(self, ranks, *words):
        return subprocess.Popen(self.command(ranks, *words), cwd=self.work, env=environment(),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                start_new_session=True)

    def train(self, ranks, *more, steps=6, lanes=4):
        self.run(ranks, *training(steps, lanes), *more)

    def state(self):
        return state_of(self.work)


def training(steps=6, lanes=4):
    return ["train", "--data", DATA, "--model", MODEL, "--balance", "bias", "--router",
            "sigmoid:k=2,bias=1", "--steps", steps, "--batch", 2, "--length", 16, "--lanes", lanes,
            "--accumulate", lanes, "--log-every", 1, "--save-every", 2, "--save-minutes", 0,
            "--keep", 99, "--eval-every", 3, "--eval-tokens", 160, "--threads", 1, "-o", "run",
            "--trace", "run.moetrace.h5"]


def large():
    """A run of a model that takes memory, without a trace."""
    words = training(steps=100000)
    words[words.index("--model") + 1] = "nano:layers=4,hidden=256,width=512,experts=8,vocabulary=4096"
    at = words.index("--trace")
    return words[:at] + words[at + 2:]


def trace_of(path):
    """Every dataset and attribute but the command that was typed, and its hash."""
    out = {}
    with h5py.File(path) as f:
        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                data = item[()]
                text = not isinstance(data, numpy.ndarray) or data.dtype.hasobject
                out[name] = repr(data.tolist() if hasattr(data, "tolist") else data) if text else data.tobytes()
            for key, value in item.attrs.items():
                out[name + "@" + key] = repr(value)
        f.visititems(visit)
        for key, value in f.attrs.items():
            if key not in ("command", "constants_xxh3"):  # a hash that holds the command too
                out["@" + key] = repr(value)
    return out


def state_of(work):
    out = {}
    for path in sorted(work.glob("run/checkpoint-*/*")):
        out[str(path.relative_to(work))] = path.read_bytes()
    for line in (work / "run/metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        for gone in ("tokens_per_second", "ranks"):
            values.pop(gone, None)
        out[f"metrics {len(out)}"] = json.dumps(values)
    if (work / "run.moetrace.h5").exists():
        out["trace"] = trace_of(work / "run.moetrace.h5")
    return out


def differing(a, b):
    return [n for n in sorted(set(a) | set(b)) if a.get(n) != b.get(n)]


def same(whole, other, what):
    names = differing(whole, other)
    check(not names and len(whole) > 20, what + (": differs in " + ", ".join(names[:4]) if names else ""))


def layouts(quick):
    if quick:
        return [(2, ["--ep", "2"])]
    return [(2, []), (2, ["--ep", "2"]), (3, []), (4, ["--ep", "2"]), (4, ["--ep", "4"]),
            (4, ["--zero", "1"]), (4, ["--zero", "1", "--ep", "2"]), (3, ["--ep", "3", "--zero", "1"]),
            (4, ["--zero", "2"]), (3, ["--zero", "3"]), (4, ["--zero", "3", "--ep", "2"]),
            (4, ["--ep", "4", "--ep-send", "once"]), (4, ["--ep", "4", "--ep-send", "nodes", "--ep-nodes", "2"]),
            (4, ["--ep", "2", "--move", "weights"]), (2, ["--ep", "2", "--zero", "2", "--move", "cheaper"])]


def bytes_of_layouts(place, quick):
    place.fresh()
    place.train(1)
    whole = place.state()
    for ranks, more in layouts(quick):
        place.fresh()
        place.train(ranks, *more)
        same(whole, place.state(), f"{ranks} ranks {' '.join(more)}: the bytes of one process")


def resumed(place, quick):
    place.fresh()
    place.train(1)
    whole = place.state()
    for before, after, more in [(2, 1, []), (1, 4, ["--ep", "2"]), (4, 3, ["--zero", "1"])][:1 if quick else 3]:
        place.fresh()
        run = place.start(before, *training())
        while not (place.work / "run/checkpoint-00000002/MANIFEST.json").exists() and run.poll() is None:
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        time.sleep(1.5)  # the launcher is gone; its processes end by themselves
        place.run(after, "train", "--resume", "run", "--threads", 1, *more)
        same(whole, place.state(), f"killed on {before} ranks, resumed on {after}: the bytes of an uninterrupted run")


def verbs(place, quick):
    place.fresh()
    place.train(1)
    kept = place.work / "run"
    data = ["--data", DATA + ",split=valid", "--length", 16, "--batch", 3, "--threads", 1]
    tables, traces = [], []
    for ranks in (1, 2) if quick else (1, 2, 3):
        out = place.run(ranks, "eval", kept, *data, "--format", "csv").stdout
        tables.append([line for line in out.splitlines() if "," in line])
        place.run(ranks, "trace", kept, *data, "--redundancy-tokens", 96, "-o", "t.moetrace.h5", "--force")
        traces.append(trace_of(place.work / "t.moetrace.h5"))
    check(all(t == tables[0] for t in tables) and len(tables[0]) > 1, "moe eval prints one table on any number of ranks")
    names = [n for t in traces for n in differing(traces[0], t)]
    check(not names, "moe trace writes one trace on any number of ranks" + (": differs in " + ", ".join(names[:4]) if names else ""))
    for what, code, sentence, words in REFUSED:
        done = subprocess.run(place.command(2, *words), cwd=place.work, env=environment(), capture_output=True, text=True)
        said = done.stderr.count(sentence)
        check(done.returncode == code and said == 1, f"{what}: exit code {done.returncode} of {code}, said {said} times"
              + ("" if said == 1 else "\n" + done.stderr))
        if quick:
            break
    text = place.run(2, "eval", kept, *data).stdout
    check("Loss by domain" in text and "\033" not in text, "moe eval under a launcher is not coloured")
    text = place.run(2, "train", "--help").stdout
    check(text.count("train a MoE language model") == 1, "help is printed once")
    unlike(place)


# What all ranks find, one says.
REFUSED = [("moe report under a launcher", 2, "runs in one process", ["report", "t.moetrace.h5"]),
           ("an option that cannot be", 2, "--zero: 5 is more than 3", ["train", "--zero", "5"]),
           ("lanes that do not divide", 2, "cannot be shared by 3 lanes",
            ["train", "--data", DATA, "--model", MODEL, "--lanes", 3, "--accumulate", 4, "-o", "none"]),
           ("a replay", 2, "a replay, which follows its trace",
            ["eval", "run", "--data", DATA + ",split=valid", "--router", "replay:trace=t.moetrace.h5"])]


def unlike(place):
    """Ranks that were started differently."""
    words = ["train", "--data", DATA, "--model", MODEL, "--steps", 2, "-o", "unlike"]
    command = launcher(place.mpi, 2)[:-1] + ["1", place.moe, *map(str, words), ":", "-np", "1", place.moe,
                                             *map(str, words), "--seed", "2"]
    done = subprocess.run(command, cwd=place.work, env=environment(), capture_output=True, text=True)
    sentence = '--seed is "1" on rank 0 and "2" on rank 1'
    check(done.returncode == 7 and done.stderr.count(sentence) == 1 and not (place.work / "unlike").exists(),
          f"ranks with different options are refused, exit code {done.returncode}"
          + ("" if sentence in done.stderr else "\n" + done.stderr))


def processes(place):
    """Processes of this test's program that still run."""
    out = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            here = os.readlink(entry / "cwd") == str(place.work)
        except OSError:
            continue
        if words and here and words[0].decode() == str(place.moe):
            out.append(int(entry.name))
    return sorted(out)


def rank_of(pid):
    for word in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        for name in (b"OMPI_COMM_WORLD_RANK=", b"PMI_RANK="):
            if word.startswith(name):
                return int(word[len(name):])
    return -1


def running(place, ranks, *more, patience=None):
    """A run that would take long, after its first checkpoint behind step 0."""
    place.fresh()
    words = training(steps=100000) + list(more)
    if patience:
        words += ["--patience", patience]
    run = place.start(ranks, *words)
    wait_for_checkpoint(place, run)
    return run, {rank_of(pid): pid for pid in processes(place)}


def ended(place, run, since, within, what, codes, says=()):
    """All ranks must have ended `within` seconds after `since`, and their launcher a second later."""
    began = False
    while time.time() < since + within + 30:
        ranks = processes(place)
        began = began or bool(ranks)
        if not ranks and (began or run.poll() is not None):
            break
        time.sleep(0.01)
    took = time.time() - since
    try:
        _, err = run.communicate(timeout=within + 30)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        check(False, what + ": still running after " + str(within + 30) + " s")
        return
    launcher = time.time() - since
    left = processes(place)
    code = run.returncode
    check(took <= within and launcher <= within + 1 and code in codes and not left,
          f"{what}: ended after {took:.2f} s, the launcher after {launcher:.2f} s with {code}, "
          f"{len(left)} processes left")
    for part in says:
        check(part in err, f"{what}: says '{part}'" + ("" if part in err else f"\n{err}"))
    newest = subprocess.run([place.moe, "verify", "run"], cwd=place.work, capture_output=True, text=True)
    check(newest.returncode == 0, f"{what}: the run's checkpoints are valid" + ("" if newest.returncode == 0 else newest.stdout + newest.stderr))


def faults(place, quick):
    ends_within = BUSY if quick else ENDS_WITHIN
    # a killed process: 128 + 9 by Open MPI's launcher, 9 by MPICH's
    shares = [[]] if quick else [[], ["--ep", "2"], ["--zero", "1"], ["--zero", "3"], ["--ep", "2", "--move", "weights"]]
    for more in shares:
        for rank in (1,) if quick else (0, 1):
            for name, number in [("killed", signal.SIGKILL)] + ([] if quick else [("crashed", signal.SIGSEGV)]):
                run, pids = running(place, 2, *more)
                since = time.time()
                os.kill(pids[rank], number)
                # MPICH's launcher ends the others before they notice
                gone = ()
                if place.mpi == "openmpi":
                    gone = ("step ", f"the process of rank {rank} has ended", "in exchange")
                ended(place, run, since, ends_within, f"{' '.join(more)} rank {rank} {name}",
                      (128 + number, number, 1), gone)
    for more in [["--ep", "2"]] if quick else shares:
        for rank in (1,) if quick else (0, 1):
            run, pids = running(place, 2, *more, patience=PATIENCE)
            since = time.time()
            os.kill(pids[rank], signal.SIGSTOP)
            ended(place, run, since, PATIENCE + ends_within, f"{' '.join(more)} rank {rank} stopped", (7,),
                  (f"has waited {PATIENCE:g} s for rank {rank}", "step "))
    # a NaN on every rank that computes it; and a disk that is full for rank 0
    for more in shares:
        place.fresh()
        since = time.time()
        run = place.start(2, *training(steps=100), "--lr", "1e30", "--clip", 0, "--schedule", "constant:warmup=0", *more)
        ended(place, run, since, 60, f"{' '.join(more)} a loss that is not finite", (6,), ("is not finite", "step "))
    if quick:
        return
    short_of(place, "no memory", resource.RLIMIT_AS, address_space, 5, "a smaller model")
    short_of(place, "no room to write", resource.RLIMIT_FSIZE, size_of_trace, 4, "cannot write")


def short_of(place, what, limit, size, code, says):
    """A rank may not take more than it has, or not write longer files, when a run has begun that will want more. (Limits
    for the launcher would meet MPI first, which makes shared memory of files; and oneDNN does not look whether it got
    memory for the code of its first product.)"""
    for rank in (0, 1) if limit == resource.RLIMIT_AS else (0,):
        place.fresh()
        run = place.start(2, *(large() + ["--device", "reference"] if limit == resource.RLIMIT_AS else training(steps=100000)))
        wait_for_checkpoint(place, run, 0)
        pids = {rank_of(pid): pid for pid in processes(place)}
        most = size(place, pids[rank])
        since = time.time()
        resource.prlimit(pids[rank], limit, (most, most))
        ended(place, run, since, 60, f"{what} for rank {rank}", (code,),
              (says, f"rank {rank}: ", "(step "))


def address_space(place, pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def size_of_trace(place, pid):
    return max(p.stat().st_size for p in place.work.glob("run.moetrace.h5*"))


def stopped(place, quick):
    run, _ = running(place, 2)
    since = time.time()
    os.kill(run.pid, signal.SIGUSR1)
    _, err = run.communicate(timeout=60)
    took = time.time() - since
    check("stopped at step" in err and not processes(place), f"SIGUSR1 to mpirun saves and stops within {took:.2f} s")
    steps = sorted(int(p.name[11:]) for p in place.work.glob("run/checkpoint-*"))
    check(steps[-1] > 2, f"the checkpoint is that of step {steps[-1]}")


UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def memory(place, quick):
    """The most that a rank holds in some steps, against the dry run: at most a tenth more."""
    if quick:
        return
    words = large()
    for more in ([], ["--zero", "1"], ["--zero", "2"], ["--zero", "3"], ["--ep", "4", "--zero", "1"]):
        place.fresh()
        told = place.run(4, *words, *more, "--dry-run").stdout
        line = [part for part in told.splitlines() if "memory in all" in part][0].split()
        at = line.index("about")
        said = float(line[at + 1]) * UNITS[line[at + 2]]
        run = place.start(4, *words, *more)
        while not (place.work / "run/checkpoint-00000002/MANIFEST.json").exists() and run.poll() is None:
            time.sleep(0.1)
        held = 0
        for pid in processes(place):
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
        time.sleep(8)
        for pid in processes(place):
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            held = max(held, int(status.split("VmHWM:")[1].split()[0]) * 1024)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        time.sleep(1.5)
        check(0 < held <= 1.1 * said, f"4 ranks {' '.join(more)}: a rank holds {held / 2**20:.0f} MiB, "
              f"the dry run says {said / 2**20:.0f} MiB")


def gpus(place, quick):
    """Ranks with a GPU each beside one process; where there is none, that all end with a sentence and 7."""
    def run(ranks, *more):
        place.fresh()
        return subprocess.run(place.command(ranks, *training(), "--device", "cuda", *more), cwd=place.work, env=environment(),
                              capture_output=True, text=True, timeout=300)
    alone = run(1)
    if alone.returncode == 7:
        sentence = next(line for line in alone.stderr.splitlines() if "CUDA" in line or "GPU" in line)
        since = time.time()
        both = run(2, "--ep", "2")
        took = time.time() - since
        said = sentence.split(": ", 1)[-1] in both.stderr
        time.sleep(0.5)  # the launcher is gone before the last of its processes is
        left = processes(place)
        check(both.returncode == 7 and said and took < 60 and not left,
              f"two ranks without a GPU end with exit code {both.returncode} of 7 after {took:.1f} s, {len(left)} processes left: {sentence}"
              + ("" if said else "\n" + both.stderr))
        return
    if alone.returncode != 0:
        raise SystemExit(alone.stderr)
    whole = place.state()
    both = run(2, "--ep", "2")
    check(both.returncode == 0, "two ranks on GPUs" + ("" if both.returncode == 0 else ": " + both.stderr))
    check("cross through the host" not in both.stderr, "rows cross from GPU to GPU")
    same(whole, place.state(), "two ranks on GPUs: the bytes of one process")


def speed_of(place, quick):
    import speed
    speed.measure(place, check, OPTIONS)


OPTIONS = argparse.Namespace()
HOSTS = pathlib.Path(__file__).resolve().parents[2] / "scripts/hosts.sh"


def on_hosts(place, *words, rate="full"):
    return subprocess.Popen([HOSTS, "4", rate, place.moe, *map(str, words)], cwd=place.work, env=environment(),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def hosts(place, quick):
    """The layouts that a machine of hosts has, over TCP between network namespaces."""
    if quick or place.mpi != "openmpi":
        return
    place.fresh()
    place.train(1)
    whole = place.state()
    for more in ([], ["--ep", "4"], ["--ep", "4", "--ep-send", "nodes", "--ep-nodes", "2"], ["--ep", "2", "--zero", "2"],
                 ["--zero", "3"], ["--ep", "4", "--move", "weights"]):
        place.fresh()
        run = on_hosts(place, *training(), *more)
        _, err = run.communicate(timeout=300)
        if run.returncode == 77:
            print("  " + err.strip())
            return
        if run.returncode:
            print(err)
        same(whole, place.state() if run.returncode == 0 else {}, f"4 hosts {' '.join(more)}: the bytes of one process")
    place.fresh()
    before = namespaces()
    run = on_hosts(place, *training(steps=100000), "--patience", PATIENCE)
    wait_for_checkpoint(place, run)
    number = next(name for name in namespaces() - before if name.endswith("h3")).removeprefix("moe")[:-2]
    cut = f"mv{number}_3"
    since = time.time()
    subprocess.run(["ip", "link", "set", cut, "down"], check=True)
    # Open MPI's launcher looks after its own links, too, and may be first: keepalive in scripts/hosts.sh
    ended(place, run, since, PATIENCE + 15, "a host that is cut off", (7, 205))


def namespaces():
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    return {line.split()[0] for line in listed.splitlines() if line}


def wait_for_checkpoint(place, run, step=2):
    deadline = time.time() + 60
    while not (place.work / f"run/checkpoint-{step:08d}/MANIFEST.json").exists():
        if run.poll() is not None or time.time() > deadline:
            print(run.communicate()[1])
            raise SystemExit("the run did not begin")
        time.sleep(0.02)


def kills(place, quick):
    """All ranks and the launcher killed at once, at any moment."""
    if quick:
        return
    steps = 24
    place.fresh()
    place.train(1, steps=steps)
    whole = place.state()
    rows = 0
    for point in range(20):
        place.fresh()
        run = place.start(2, *training(steps=steps), *(["--ep", "2"] if point % 2 else []))
        wait_for_checkpoint(place, run, 2 * (point % 8))
        time.sleep(0.017 * (point % 5))
        os.killpg(run.pid, signal.SIGKILL)
        for pid in processes(place):
            os.kill(pid, signal.SIGKILL)
        run.wait()
        while processes(place):
            time.sleep(0.05)
        newest = sorted(place.work.glob("run/checkpoint-*/MANIFEST.json"))[-1].parent
        named = json.loads((newest / "state.json").read_text())["trace"]["rows"]
        part = place.work / "run.moetrace.h5.part"
        kept = named
        if part.exists():
            place.run(1, "recover", part, "-o", "kept.moetrace.h5")
            with h5py.File(place.work / "kept.moetrace.h5") as f:
                kept = len(f["tokens/token_id"])
            (place.work / "kept.moetrace.h5").unlink()
        place.run(1 + point % 3, "train", "--resume", "run", "--threads", 1)
        names = differing(whole, place.state())
        rows += named
        check(kept >= named and not names, f"killed at point {point}: {kept} rows are there of {named} that step "
              f"{int(newest.name[11:])} names, and it goes on" + (": differs in " + ", ".join(names[:3]) if names else ""))
    check(rows > 0, "checkpoints named rows")


def real(place, quick):
    if quick or place.mpi != "openmpi":
        return
    words = ["train", "--data", "system", "--model", "small:experts=16", "--steps", 12, "--batch", 4, "--length", 256,
             "--lanes", 4, "--accumulate", 4, "--log-every", 1, "--save-every", 6, "--eval-every", 6, "--eval-tokens",
             8192, "--threads", 1, "-o", "run", "--trace", "run.moetrace.h5", "--trace-ranks"]
    states, seconds = [], []
    for ranks in (4, 1):
        place.fresh()
        since = time.time()
        if ranks == 1:
            place.run(1, *words, within=1500)
        else:
            run = on_hosts(place, *words, "--ep", 4, "--ep-send", "once", rate="1gbit")
            _, err = run.communicate(timeout=1500)
            print("  " + "\n  ".join(err.strip().splitlines()[-4:]))
            if run.returncode == 77:
                return
            check(run.returncode == 0, "four hosts made the run")
            report = place.run(1, "report", "run.moetrace.h5", "--metric", "ranks", "--all").stdout
            print(report)
        seconds.append(time.time() - since)
        state = place.state()
        for name in ("tokens/rank", "@expert_ranks", "commits"):  # a commit has a hash of its rows
            state["trace"].pop(name, None)
        states.append(state)
        digests = {}
        for name, value in state.items():
            part = "metrics.jsonl" if name.startswith("metrics ") else name
            digests.setdefault(part, hashlib.sha256()).update(value if isinstance(value, bytes) else repr(value).encode())
        for name, digest in digests.items():
            print(f"  {ranks} {'ranks' if ranks > 1 else 'rank '} {digest.hexdigest()[:16]} {name}")
    print(f"  {seconds[0]:.0f} s on four hosts, {seconds[1]:.0f} s in one process")
    same(states[1], states[0], "small with 16 experts on 4 hosts: the bytes of one process")


PARTS = {"bytes": bytes_of_layouts, "hosts": hosts, "resume": resumed, "verbs": verbs, "stop": stopped, "kills": kills, "faults": faults,
         "memory": memory, "gpus": gpus, "real": real, "speed": speed_of}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moe")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--mpi", choices=["openmpi", "mpich"])
    parser.add_argument("--only", default=",".join(name for name in PARTS if name not in ("speed", "real")))
    parser.add_argument("--before", help="of speed: the program of another build, to compare one process with")
    parser.add_argument("--torch", default=sys.executable, help="of speed: a Python that has PyTorch")
    o = parser.parse_args(namespace=OPTIONS)
    moe = pathlib.Path(o.moe).resolve()
    found = [m for m in ("openmpi", "mpich")
             if shutil.which("mpirun." + m) and (moe.parent / f"moe_mpi_{m}.so").exists()]
    found = [m for m in found if o.mpi in (None, m)]
    if not found:
        print("skipped: mpirun.openmpi or mpirun.mpich, or moe's module for it, is missing: "
              "apt-get install libopenmpi-dev openmpi-bin and build again")
        return int(os.environ.get("MOE_SKIP_CODE", "77"))
    for mpi in found:
        place = Place(str(moe), mpi)
        try:
            for name in o.only.split(","):
                print(f"{mpi}: {name}", flush=True)
                PARTS[name](place, o.quick)
        finally:
            shutil.rmtree(place.root, ignore_errors=True)
    print(f"{len(failures)} failed" if failures else "all passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
