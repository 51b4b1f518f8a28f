// Routing that other engines recorded, as a trace of ours. One file a format (importers.def) says
// what it reads to a sink; what holds for all of them (nothing is made up, ids are checked, dense
// layers and padding are found, what is absent is said) is decided in the sink alone.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lib/core/registry.h"
#include "lib/trace/trace.h"

namespace moe {

class ImportInputs;
class ImportSink;

// What the person says because files do not. 0, -1 and "" = not said.
struct ImportOptions {
  std::vector<std::filesystem::path> inputs;  // files and folders
  std::string from;                           // a format of importers.def, or "": look at the files
  std::filesystem::path config;               // config.json of the model
  std::string domain_by;                      // "folder", "file" or ""
  int experts = 0, topk = 0, layers = 0, micro_batch = 0, pipeline = 0, expert_parallel = 0;
  std::int64_t pad_id = -1;
  std::string tokenizer;  // its name, written as tokenizer_id
  bool append = false;    // to a finished trace of the same layers
};

class Importer {
 public:
  virtual ~Importer() = default;
  // Whether the files are of this format, by what is in them.
  virtual bool recognises(const ImportInputs&) const = 0;
  // Says everything that is in the files to the sink. Called twice: the first time the sink looks,
  // the second time it writes; both times the same has to be said.
  virtual void read(const ImportInputs&, ImportSink&) const = 0;
};

using MakeImporter = std::unique_ptr<Importer>();
const Registry<MakeImporter>& importers();

struct ImportResult {
  std::string format;
  std::vector<std::string> said;  // one sentence each: what is absent, left out or derived
  TraceHeader header;
  std::uint64_t tokens = 0, sequences = 0, steps = 0;
};

struct ImportWatcher {
  std::function<void(const std::string& format)> recognised;
  // rows written of how many
  std::function<void(std::uint64_t rows, std::uint64_t total)> wrote;
};

// Reads the inputs and writes `target`, whole or not at all. `header` holds what the caller knows
// (producer, command, config); the rest comes from the files. Throws Error(input) in one sentence
// for what is no such file, is damaged or contradicts itself, before anything is written.
ImportResult import_trace(const ImportOptions&, const std::filesystem::path& target,
                          const TraceHeader& header, bool force, const ImportWatcher& = {});

}  // namespace moe
