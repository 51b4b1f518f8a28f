#!/usr/bin/python3
"""Planted mistakes: each is built into a copy of the tree, where the tests of ranks must turn red.

  mutations.py SOURCE [--jobs N] [--only NAME,...]

A test that cannot see these four would pass whatever ranks compute: sums that are made in an order of ranks
(an all-reduce) or of arrival, rows of several ranks in one sum, and a norm whose order depends on the ranks, which
shows in its last digits alone. The copy lies in a new folder below /tmp and is removed. Exit code 1 where a mistake is
not found, or where the tests are red without one.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

TESTS = "every number of ranks*,lanes of several*"

# name, file, what stands there, what is planted
MISTAKES = [
    ("all-reduce", "lib/model/ownership.cpp", "  return tree.sum({0, lanes});\n",
     "  static_cast<void>(lanes);\n"
     "  const std::span<float> all = in[0].span().first(std::size_t(count));\n"
     "  for (std::size_t r = 0; r < in.size(); ++r) {\n"
     "    const std::span<float> of_rank = in[r].span();\n"
     "    for (std::size_t i = r == 0 ? all.size() : 0; i < of_rank.size(); ++i)\n"
     "      all[i % all.size()] += of_rank[i];\n"
     "  }\n"
     "  return all;\n"),
    ("lanes as they arrive", "lib/model/lanes.cpp",
     "    if (!make_a_node({0, lanes_}, left.lanes, right.lanes))\n      continue;\n",
     "    static_cast<void>(make_a_node({0, lanes_}, left.lanes, right.lanes));\n"),
    ("rows of ranks in one sum", "lib/layer/crossing.cpp", "weights, gradients(block.rank), xs",
     "weights, gradients(0), xs"),
    ("norm in an order of ranks", "lib/model/trainer_ranks.cpp",
     "    for (std::size_t i = 0; i < squares_.size(); ++i) {\n",
     "    for (std::size_t n = 0; n < squares_.size(); ++n) {\n"
     "      const std::size_t i = (n + std::size_t(comm_.size())) % squares_.size();\n"),
]


def run(*words, cwd):
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True)


def built(tree, jobs):
    done = run("cmake", "--build", "build/dev", "--target", "test_training", "--", f"-j{jobs}", cwd=tree)
    if done.returncode != 0:
        print(done.stdout[-3000:] + done.stderr[-3000:])
        raise SystemExit("the copy does not build")


def red(tree):
    done = run("build/dev/tests/test_training", TESTS, cwd=tree)
    if "No test cases matched" in done.stdout:
        raise SystemExit("there are no tests named " + TESTS)
    return done.returncode != 0, done.stdout


def planted(tree, mistake, jobs):
    name, file, old, new = mistake
    path = tree / file
    text = path.read_text()
    if text.count(old) != 1:
        raise SystemExit(f"{name}: {file} does not say once:\n{old}")
    path.write_text(text.replace(old, new))
    try:
        built(tree, jobs)
        return red(tree)
    finally:
        path.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--only", default="")
    o = parser.parse_args()
    chosen = [m for m in MISTAKES if not o.only or m[0] in o.only.split(",")]
    root = pathlib.Path(tempfile.mkdtemp(prefix="moe-mutations-"))
    tree = root / "tree"
    missed = 0
    try:
        shutil.copytree(o.source, tree, ignore=shutil.ignore_patterns("build", ".git"))
        for words in (("git", "init", "-q"), ("cmake", "--preset", "dev")):
            done = run(*words, cwd=tree)
            if done.returncode != 0:
                print(done.stdout[-2000:] + done.stderr[-2000:])
                raise SystemExit(" ".join(words) + " failed")
        built(tree, o.jobs)
        bad, said = red(tree)
        if bad:
            print(said[-3000:])
            raise SystemExit("the tests are red without a mistake")
        print("  ok      without a mistake: green", flush=True)
        for mistake in chosen:
            since = time.time()
            found, said = planted(tree, mistake, o.jobs)
            missed += not found
            print(("  ok      " if found else "  FAILED  ") + f"{mistake[0]}: " +
                  ("red" if found else "not found") + f" ({time.time() - since:.0f} s)", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{missed} mistakes were not found" if missed else "every mistake was found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
