"""What ranks cost, each figure beside its yardstick in turn: part `speed` of ranks.py.

Times are worth something on a machine that does nothing else, and in an optimised build. Best of the rounds, and
the median in brackets; what is checked is the better of the two ratios, since other work only ever slows.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# tokens, hidden, width, experts, k, rounds; least share of the speed of processes of their own, by moving rows, and
# by moving what is fewer bytes (docs/ranks.md: weights, where an expert gets more than 9 / 4 of its width in rows)
LAYERS = [((2048, 512, 1024, 8, 2, 40), "shared out", 0.95),
          ((2048, 512, 128, 64, 8, 40), "shared out", 0.85),
          ((2048, 512, 128, 64, 8, 40), "cheaper", 0.88),
          ((2048, 1024, 2816, 8, 2, 12), "shared out", 0.98)]
# the same shapes; least share of the speed that one rank has with the machine to itself
WEAK = [0.90, 0.80, 0.92]
MIB = 2**20


def ranks_py():
    """The program that runs this part, whatever name it has."""
    return sys.modules["__main__"]


def mpirun(place, ranks):
    own = ranks_py()
    words = own.launcher(place.mpi, 2)[:-1] + [str(ranks)]
    if place.mpi == "openmpi" and (os.cpu_count() or 1) >= ranks:  # a core for each rank, and no giving way
        words = ["mpirun.openmpi", "--bind-to", "core", "-np", str(ranks)]
    return words


def timed(place, *words, launcher=None):
    """The line of JSON that moe_ranks_speed prints: {name: [best, median]} in seconds."""
    own = ranks_py()
    program = pathlib.Path(place.moe).parent / f"moe_ranks_speed_{place.mpi}"
    command = (launcher or mpirun(place, 2)) + [str(program), *map(str, words)]
    done = subprocess.run(command, cwd=place.work, env=own.environment(), capture_output=True, text=True, timeout=900)
    if done.returncode == 77:
        return None
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ratios(times, of, to):
    return [times[to][i] / times[of][i] for i in (0, 1)]


def steps_of_a_layer(place, check):
    seen = {}
    for shape, what, least in LAYERS:
        times = seen.get(shape) or timed(place, "layer", *shape)
        seen[shape] = times
        if what == "cheaper":
            tokens, _, width, experts, k, _ = shape
            what = "weights move" if tokens * k / experts > 9 * width / 4 else "shared out"
        best, median = ratios(times, what, "alone")
        check(max(best, median) >= least,
              "a step of a layer with T{} H{} I{} E{} k{}, {}: ".format(*shape[:5], what)
              + f"{best:.3f} [{median:.3f}] of the speed of two processes of their own, wanted {least}"
              + f" ({1e3 * times[what][0]:.1f} against {1e3 * times['alone'][0]:.1f} ms)")


def weak_scaling(place, check):
    """Two ranks with as many tokens each as one has that is alone on the machine."""
    shapes = list(dict.fromkeys(shape for shape, _, _ in LAYERS))
    for shape, least in zip(shapes, WEAK):
        seen = {1: [], 2: []}
        for _ in range(4):
            for ranks in (1, 2):
                rounds = max(2, shape[5] // 4)
                times = timed(place, "layer", *shape[:5], rounds, ranks - 1,
                              launcher=mpirun(place, ranks))
                seen[ranks] += [of_way[0] for of_way in times.values()]
        share = min(seen[1]) / min(seen[2])
        check(share >= least, "two ranks of T{} H{} I{} E{} k{} each: ".format(*shape[:5])
              + f"{share:.3f} of the speed of one that is alone, wanted {least}")


def rows_beside_gloo(place, check, python):
    probe = subprocess.run([python, "-c", "import torch.distributed"], capture_output=True)
    if probe.returncode != 0:
        print("  skipped: the exchange beside PyTorch's gloo, for " + python + " has no torch (--torch PYTHON)")
        return
    for size in (8.4e6, 33.6e6, 16.8e6):
        ours, library, theirs = [], [], []
        for _ in range(4):
            times = timed(place, "rows", int(size), 60)
            ours.append(times["exchange"])
            library.append(times["MPI_Alltoallv"])
            done = subprocess.run([python, str(HERE / "gloo_speed.py"), str(int(size)), "60"], cwd=place.work,
                                  capture_output=True, text=True, timeout=300)
            if done.returncode != 0:
                raise SystemExit("gloo_speed.py: " + done.stderr)
            theirs.append(json.loads(done.stdout.strip().splitlines()[-1]))
        best, median = (min(t[i] for t in theirs) / min(t[i] for t in ours) for i in (0, 1))
        check(max(best, median) >= 3, f"an exchange of {size / 1e6:.1f} MB a rank: {best:.1f} [{median:.1f}] times as fast as gloo's "
              f"all_to_all_single, wanted 3 ({1e3 * min(t[0] for t in ours):.2f} against "
              f"{1e3 * min(t[0] for t in theirs):.2f} ms; MPI_Alltoallv alone "
              f"{1e3 * min(t[0] for t in library):.2f})")


def sums_beside_mpi(place, check):
    for mib in (0.25, 4, 16):
        times = timed(place, "sum", int(mib * MIB / 4), 60)
        best, median = (times["tree of lanes"][i] / times["MPI_Allreduce"][i] for i in (0, 1))
        check(min(best, median) <= 1.3, f"gradients of {mib} MiB summed by exchange: {best:.2f} [{median:.2f}] times the time of "
              f"MPI_Allreduce, wanted 1.3 ({1e3 * times['tree of lanes'][0]:.2f} ms)")


def rate(place, launcher, program, *words):
    """Tokens a second of a short run: the median of its logged steps behind the first."""
    own = ranks_py()
    place.fresh()
    command = launcher + [str(program), "train", "--data", own.DATA, "--model", "tiny", "--steps", "60", "--batch", "8",
                          "--length", "128", "--log-every", "5", "-o", "run", *map(str, words)]
    done = subprocess.run(command, cwd=place.work, env=own.environment(), capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise SystemExit(" ".join(command) + "\n" + done.stderr)
    lines = [json.loads(line) for line in (place.work / "run/metrics.jsonl").read_text().splitlines()]
    return statistics.median([l["tokens_per_second"] for l in lines if "tokens_per_second" in l][2:])


def in_turn(rounds, *runs):
    """The best of each, run one after the other."""
    seen = [[] for _ in runs]
    for _ in range(rounds):
        for of_run, run in zip(seen, runs):
            of_run.append(run())
    return [max(s) for s in seen]


def whole_runs(place, check, before):
    two = ["--lanes", 2, "--accumulate", 2]
    ranks, threads = in_turn(4, lambda: rate(place, mpirun(place, 2), place.moe, *two, "--threads", 1),
                             lambda: rate(place, [], place.moe, *two, "--threads", 2))
    check(ranks / threads >= 0.95, f"two ranks of one thread: {ranks / threads:.3f} of the tokens/s of one process of two threads, "
          f"wanted 0.95 ({ranks:.0f} against {threads:.0f})")
    traced, plain = in_turn(4, lambda: rate(place, mpirun(place, 2), place.moe, *two, "--threads", 1, "--trace", "t.moetrace.h5"),
                            lambda: rate(place, mpirun(place, 2), place.moe, *two, "--threads", 1))
    check(plain / traced <= 1.05, f"a trace recorded on two ranks: {plain / traced:.3f} of the time without, wanted 1.05")
    own = ranks_py()
    place.fresh()
    place.run(1, *own.training())
    whole = place.state()
    place.fresh()
    alone = own.launcher(place.mpi, 2)[:-1] + ["1"]
    subprocess.run(alone + [place.moe, *map(str, own.training())], cwd=place.work, env=own.environment(), check=True,
                   capture_output=True)
    own.same(whole, place.state(), "one process under a launcher: the bytes of one without")
    launched, hand = in_turn(5, lambda: rate(place, alone, place.moe, "--threads", 1),
                             lambda: rate(place, [], place.moe, "--threads", 1))
    check(hand / launched <= 1.01, f"one process under a launcher: {hand / launched:.3f} of the time of one without, wanted 1.01")
    if not before:
        print("  skipped: one process beside the program of another build (--before MOE)")
        return
    now, then = in_turn(5, lambda: rate(place, [], place.moe, "--threads", 1),
                        lambda: rate(place, [], pathlib.Path(before).resolve(), "--threads", 1))
    check(then / now <= 1.01, f"one process: {then / now:.3f} of the time that {before} takes, wanted 1.01")


def between_hosts(place, check):
    """How much of an exchange is hidden behind products, over a link of 1 Gbit/s."""
    if place.mpi != "openmpi":
        return
    script = HERE.parent.parent / "scripts/hosts.sh"
    for width, rounds in ((1024, 20), (2048, 20), (4096, 10)):
        shape = (2048, 512, width, 8, 2, rounds)
        times = timed(place, "layer", *shape, launcher=[str(script), "2", "1gbit"])
        if times is None:
            print("  skipped: two hosts as network namespaces (scripts/hosts.sh says why)")
            return
        alone, shared, at_once = (times[n][1] for n in ("alone", "shared out", "moved at once"))
        hidden = (at_once - shared) / (at_once - alone)
        check(hidden >= 0.6 or (at_once - alone) / alone > 0.25,
              "two hosts at 1 Gbit/s, a step of T{} H{} I{} E{} k{}: ".format(*shape[:5])
              + f"{1e3 * shared:.0f} ms, {1e3 * at_once:.0f} ms where all is moved at once, {1e3 * alone:.0f} ms alone: "
              + f"{100 * hidden:.0f} % of the exchanges are hidden, which are {100 * (at_once - alone) / alone:.0f} % of the products; "
              + "wanted 60 % up to 25 %")


def measure(place, check, options):
    place.fresh()
    steps_of_a_layer(place, check)
    weak_scaling(place, check)
    sums_beside_mpi(place, check)
    rows_beside_gloo(place, check, options.torch)
    whole_runs(place, check, options.before)
    between_hosts(place, check)
