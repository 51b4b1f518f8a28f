// Traces with known content for the tests: row t of a sample is a function of t alone, so any
// prefix can be checked anywhere.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <string>

#include "lib/core/rng.h"
#include "lib/trace/reader.h"
#include "lib/trace/writer.h"

namespace moe::sample {

struct Folder {  // a folder of its own, removed at the end
  Folder();
  ~Folder();
  std::filesystem::path operator/(const char* name) const {
    return path / name;
  }
  std::filesystem::path path;
};

struct Shape {
  int layers = 3, experts = 8, k = 2;
  TraceFields fields;
};

TraceFields every_field();
TraceHeader header(const Shape&);
TraceRows rows(const Shape&, std::uint64_t first, std::uint64_t count);  // floats are exact in f16

// Writes rows first..last in batches of 96 rows, a sequence each 32 rows, a step each batch.
void append(TraceWriter&, const Shape&, std::uint64_t first, std::uint64_t last);
void write(const std::filesystem::path&, const Shape&, std::uint64_t tokens, bool force = false);

// The first difference between what a reader holds in rows first..first+count and the sample; "" =
// none.
std::string difference(const TraceReader&, const Shape&, std::uint64_t first, std::uint64_t count);
std::string bytes(const std::filesystem::path&);
void put_bytes(const std::filesystem::path&, const std::string&);
// of their bytes; "" = none
std::string first_difference(const std::filesystem::path&, const std::filesystem::path&);
int env(const char* name, int fallback);

}  // namespace moe::sample
