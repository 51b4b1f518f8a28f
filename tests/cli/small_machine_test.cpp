// Machines with little: no room for the stacks of threads, and files that become shorter while they
// are read. A sentence and its exit code, never the end of a library or of the kernel.
#include <catch2/catch.hpp>
#include <fstream>
#include <thread>

#include "tests/cli/program.h"
#include "tests/skip.h"

namespace moe::cli {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

bool has_mapped(const Process& p, const std::string& name) {
  std::ifstream maps("/proc/" + std::to_string(p.id()) + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.ends_with(name))
      return true;
  }
  return false;
}

}  // namespace

TEST_CASE("threads that cannot be started end in a sentence") {
  if (sanitized)
    return test::skip("the address sanitizer needs all addresses");
  const Folder f;
  REQUIRE(f.run("synth uniform --tokens 20000 -o t.h5").code == 0);
  Start little;
  little.address_limit = 700L << 20;
  little.environment.emplace_back("OMP_NUM_THREADS=500");
  for (const std::string words :
       {"report t.h5", "train --data text:path=corpus --model nano --steps 1 -o run"}) {
    const Result r = f.run(words, little);
    INFO(words << " ended with " << r.code << ": " << r.err);
    CHECK(r.code == 5);
    CHECK(r.err.find("a thread cannot be started") != r.err.npos);
    CHECK(r.err.find("libgomp") == r.err.npos);
  }
}

TEST_CASE("a checkpoint that is cut while it is read is named") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 1 -o run").code == 0);
  const std::string weights = "run/checkpoint-00000001/model.safetensors";
  Process process(f.path(), words_of("eval run --data text:path=corpus,split=train --tokens "
                                     "100000000 --expert-memory 1KB --threads 1"));
  for (const double until = now() + 60; now() < until && !has_mapped(process, weights);)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  REQUIRE(has_mapped(process, weights));
  fs::resize_file(f / weights, 1000);
  const Result r = process.wait();
  INFO(r.out << r.err);
  CHECK(r.code == 4);
  CHECK(r.err.find("model.safetensors' became shorter while it was read") != r.err.npos);
}

}  // namespace moe::cli
