// A backend that overrides nothing beyond memory has every operation by the definitions, on host
// copies; and what a backend says is native is what it overrides.
#include <catch2/catch.hpp>

#include "lib/check/check.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "tests/backend/strict_memory.h"

using namespace moe;

namespace {

class MemoryOnly : public Backend<float> {
 public:
  std::string name() const override {
    return "memory only";
  }
  void* allocate(std::size_t bytes) override {
    return memory_.allocate(bytes);
  }
  void release(void* p, std::size_t bytes) noexcept override {
    memory_.release(p, bytes);
  }
  void to_device(const void* host, void* device, std::size_t bytes) override {
    memory_.to_device(host, device, bytes);
  }
  void to_host(const void* device, void* host, std::size_t bytes) override {
    memory_.to_host(device, host, bytes);
  }
  void zero(void* p, std::size_t bytes) override {
    memory_.zero(p, bytes);
  }

 private:
  StrictMemory memory_;
};

void pass_all_cases(Backend<float>& device) {
  const auto definition = make_backend("reference");
  for (const Case& c : cases()) {
    if (c.flops > 1e8)
      continue;  // slow, and nothing new: shapes that only tiles can tell apart
    const Verdict v = compare(c, device, *definition);
    INFO(device.name() << ": " << v.sentence());
    CHECK(v.passed);
  }
}

std::vector<std::string> not_native(const Backend<float>& backend) {
  std::vector<std::string> out;
  for (const Operation op : operations()) {
    if (!backend.native(op))
      out.emplace_back(name_of(op));
  }
  return out;
}

}  // namespace

TEST_CASE("a backend that overrides nothing passes every case by the definitions") {
  MemoryOnly device;
  pass_all_cases(device);
  CHECK(not_native(device).size() == operations().size());
}
TEST_CASE("the check backend passes every case beside a backend that overrides nothing") {
  const auto checked = make_check(std::make_unique<MemoryOnly>());
  pass_all_cases(*checked);
}

TEST_CASE("a backend says what it overrides") {
  const auto reference = make_backend("reference");
  CHECK(not_native(*reference).size() == operations().size());
  for (const char* name : {"cpu", "check:of={cpu}"})
    CHECK(not_native(*make_backend(name)).empty());
}

TEST_CASE("operations have names, and names for their arguments") {
  CHECK(name_of(Operation::linear) == "linear");
  CHECK(arguments_of(Operation::linear) == std::vector<std::string>{"x", "w", "y", "beta"});
  CHECK(arguments_of(Operation::sum_squares) == std::vector<std::string>{"x"});
  CHECK(is_composed(Operation::experts));
  CHECK_FALSE(is_composed(Operation::causal_conv));
}
