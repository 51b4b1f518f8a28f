"""PyTorch's all_to_all_single over gloo, as a yardstick: BYTES a rank, of two ranks on this machine.

  gloo_speed.py BYTES ROUNDS

Prints [best, median] in seconds; a round is as slow as its slower rank.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time

import torch
import torch.distributed as distributed


def rank(number, file, size, rounds):
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    distributed.init_process_group("gloo", init_method="file://" + file, rank=number, world_size=2)
    out = torch.ones(size // 4)
    into = torch.empty_like(out)
    times = []
    for n in range(rounds + 1):
        distributed.barrier()
        start = time.perf_counter()
        distributed.all_to_all_single(into, out)
        took = torch.tensor([time.perf_counter() - start])
        distributed.all_reduce(took, distributed.ReduceOp.MAX)
        if n > 0:
            times.append(took.item())
    if number == 0:
        times.sort()
        print(json.dumps([times[0], times[len(times) // 2]]))
    distributed.destroy_process_group()


def main():
    size, rounds = int(sys.argv[1]) // 8 * 8, int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        both = [multiprocessing.Process(target=rank, args=(n, folder + "/meet", size, rounds)) for n in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
    return max(one.exitcode for one in both)


if __name__ == "__main__":
    sys.exit(main())
