// Damaged files of each binary kind: thousands of mutants, each imported or refused in a sentence,
// none of them a crash, and nothing left behind by a refusal.
#include <catch2/catch.hpp>

#include "tests/import/made.h"

using namespace moe;
using namespace moe::test;

namespace {

std::string sample_torch() {
  const Pickle dict =
      Pickle().dict({{Pickle().text("expert_ids"), Pickle().tensor("Int", 0, {3, 1, 2})},
                     {Pickle().text("token_ids"), Pickle().tensor("Long", 1, {3})}});
  return torch_file(
      dict, {bytes_of<std::int32_t>({0, 1, 2, 3, 1, 0}), bytes_of<std::int64_t>({4, 5, 6})});
}

std::string sample_npz() {
  return stored_zip(
      {{"expert_ids.npy", npy("<i4", {3, 1, 2}, bytes_of<std::int32_t>({0, 1, 2, 3, 1, 0}))}});
}

std::string sample_records() {
  return bytes_of<std::int32_t>({0, 2, 2, 1, 2, 3, 0, 1, 2, 2, 3, 1, 0, 2});
}

std::string mutant(std::string bytes, std::uint64_t seed) {
  std::uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
  const auto next = [&] {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  };
  const int changes = 1 + int(next() % 3);
  for (int i = 0; i < changes; ++i)
    bytes[std::size_t(next() % bytes.size())] = char(next() >> 32);
  if (next() % 4 == 0)
    bytes.resize(std::size_t(next() % bytes.size()));
  return bytes;
}

void try_mutants(const std::string& name, const std::string& bytes, int count) {
  int refused = 0;
  for (int i = 0; i < count; ++i) {
    const Imported out = import_files({{name, mutant(bytes, std::uint64_t(i))}});
    refused += !out.refusal.empty();
    CHECK(out.refusal.find('\n') == std::string::npos);
  }
  CHECK(refused > 0);
}

}  // namespace

TEST_CASE("mutants of torch files end in a sentence or a trace") {
  try_mutants("t.pt", sample_torch(), 400);
}
TEST_CASE("mutants of npz files end in a sentence or a trace") {
  try_mutants("t.npz", sample_npz(), 300);
}
TEST_CASE("mutants of binary records end in a sentence or a trace") {
  try_mutants("t.bin", sample_records(), 300);
}

TEST_CASE("a pickle may not claim more than there is") {
  const auto refusal = [](const Pickle& p) {
    return import_files({{"t.pt", torch_file(p, {bytes_of<std::int32_t>({1})})}}).refusal;
  };
  CHECK_THAT(refusal(Pickle().dict({{Pickle().text("expert_ids"),
                                     Pickle().tensor("Int", 0, {1 << 20, 1 << 10, 2})}})),
             Catch::Contains("storage") || Catch::Contains("shape"));
  CHECK_THAT(refusal(Pickle().raw("h\x07")), Catch::Contains("damaged pickle"));
  CHECK_THAT(refusal(Pickle().raw("X\xff\xff\xff\x7f")), Catch::Contains("ends inside"));
  CHECK_THAT(refusal(Pickle().raw("i")), Catch::Contains("operation"));
}
