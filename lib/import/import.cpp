// Recognises what the files are, and lets their importer speak twice: once to look, once to write.
#include "lib/import/import.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/import/inputs.h"
#include "lib/import/sink.h"
#include "lib/trace/reader.h"

namespace moe {

#define IMPORTER(id, name, about) std::unique_ptr<Importer> make_##id##_importer();
#include "lib/import/importers.def"
#undef IMPORTER

const Registry<MakeImporter>& importers() {
  static const Registry<MakeImporter> all("format", {
#define IMPORTER(id, name, about) {name, about, "", make_##id##_importer},
#include "lib/import/importers.def"
#undef IMPORTER
                                                    });
  return all;
}

namespace {

const Entry<MakeImporter>& entry_for(const ImportInputs& inputs) {
  if (!inputs.options().from.empty())
    return importers().at(inputs.options().from);
  const ImportFile& first = inputs.first();
  for (const ImportFile& f : inputs.files()) {
    if (f.kind == FileKind::empty)
      refuse_import(f.quoted(), "is empty", "the file that an engine recorded");
  }
  for (const auto& entry : importers().entries()) {
    if (entry.make()->recognises(inputs))
      return entry;
  }
  const bool named = first.kind == FileKind::torch || first.kind == FileKind::npz ||
                     first.kind == FileKind::safetensors;
  refuse_import(first.quoted(),
                concat("has no format that can be imported",
                       named ? ": it has none of records, samples, logical_count, expert_ids, "
                               "router_logits and topk_indices"
                             : ""),
                concat("--from NAME, one of: ", join(importers().names())));
}

// --force replaces what stands at the target: never a file that is read, under whatever name.
void refuse_own_input(const ImportInputs& inputs, const std::filesystem::path& target) {
  std::error_code missing;
  for (const ImportFile& f : inputs.files()) {
    if (std::filesystem::equivalent(f.path, target, missing))
      throw Error(Exit::usage, concat(f.quoted(), " is read and cannot be the output too"))
          .hint("another name for the trace");
  }
}

}  // namespace

ImportResult import_trace(const ImportOptions& options, const std::filesystem::path& target,
                          const TraceHeader& header, bool force, const ImportWatcher& watcher) {
  const bool continues = options.append && std::filesystem::exists(target);
  refuse_existing(target.string(), force || continues);
  const ImportInputs inputs(options);
  refuse_own_input(inputs, target);
  const auto& entry = entry_for(inputs);
  const std::string name(entry.name);
  if (watcher.recognised)
    watcher.recognised(name);
  const auto importer = entry.make();
  ImportSink sink(options, inputs.config());
  if (continues)
    sink.continue_from(TraceReader(target).header());
  importer->read(inputs, sink);
  sink.survey_done(name);
  sink.write_to(target, header, force, watcher.wrote);
  if (!sink.replay())
    importer->read(inputs, sink);
  ImportResult out = sink.finish();
  out.format = name;
  return out;
}

}  // namespace moe
