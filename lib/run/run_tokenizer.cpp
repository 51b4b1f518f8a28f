#include "lib/run/run_tokenizer.h"

#include <nlohmann/json.hpp>

#include "datasets/text_domains.h"
#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/files/sha256.h"
#include "lib/tokenizer/open.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/read.h"
#include "lib/tokenizer/trainer.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

// Words of a sequence do not reach over its end, and lines are sequences, as `moe tokenizer train`
// has it.
void add_lines(BpeTrainer& trainer, std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    trainer.add(text.substr(at, end - at));
    at = end;
  }
}

std::string file_id(const std::string& json) {
  return concat("tokenizer.json sha256:", sha256_hex(json).substr(0, 16));
}

// The file that a checkpoint will keep, read as it will be read there.
std::shared_ptr<const Tokenizer> read_trained(const std::string& json, const std::string& end) {
  const nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                         {"bos_token", end},
                                         {"eos_token", end},
                                         {"clean_up_tokenization_spaces", false}};
  TokenizerConfig read{.bos = end, .eos = end, .json = config.dump(1) + "\n"};
  return read_tokenizer_json({.bytes = json,
                              .name = "the trained tokenizer",
                              .id = file_id(json),
                              .config = std::move(read)});
}

BpeTraining training_of(Spec& spec) {
  BpeTraining out{.vocabulary = spec.get("vocab", 4096, 257),
                  .frequency = spec.get("frequency", 2, 0)};
  const std::string pattern = spec.get("pattern", "gpt2");
  spec.done();
  out.pattern = known_pattern(pattern);
  if (out.pattern.empty())
    no_such("pattern", pattern, known_pattern_names());
  return out;
}

std::shared_ptr<const Tokenizer> train_bpe(Spec& spec, const std::vector<std::string>& data) {
  const BpeTraining training = training_of(spec);
  BpeTrainer trainer(training);
  each_training_text(data, [&](std::string_view text) { add_lines(trainer, text); });
  if (trainer.words() == 0) {
    throw Error(Exit::usage, "a tokenizer is trained on text, and the data have none")
        .hint("--data text:path=FOLDER, or --tokenizer bytes");
  }
  return read_trained(trainer.train([](int) {}), training.special.front());
}

std::shared_ptr<const Tokenizer> open_for_training(const std::string& path) {
  auto out = open_tokenizer(path);
  if (out->tokenizer_json().empty()) {
    throw Error(Exit::input, concat("training keeps a tokenizer.json in its checkpoints, and ",
                                    in_quotes(tokenizer_file(path)), " is none"))
        .hint(
            "transformers writes one: AutoTokenizer.from_pretrained('FOLDER').save_pretrained("
            "'NEW')");
  }
  return out;
}

bool is_registered(const std::string& name) {
  return tokenizers().find(name) != nullptr;
}

// "tokenizer.model" of "tokenizer.model sha256:0123456789abcdef"; of other names all.
std::string file_of(const std::string& id) {
  return id.substr(0, id.find(" sha256:"));
}

// The file in a checkpoint of a run, which must be the one that the run was trained with.
std::shared_ptr<const Tokenizer> kept_tokenizer(const fs::path& folder, const std::string& id) {
  auto out = open_tokenizer(folder / file_of(id));
  const std::string found = out->tokenizer_json().empty() ? out->id() : kept_name(*out);
  if (found != id) {
    throw Error(Exit::input, concat("the tokenizer of ", in_quotes(folder), " is ", found,
                                    ", and the run was trained with ", id))
        .hint(concat("bring back the ", file_of(id),
                     " of the run; other checkpoints of it have the same"));
  }
  return out;
}

std::shared_ptr<const Tokenizer> of_run(const fs::path& folder, const std::string& name) {
  const bool file = name.find(" sha256:") != name.npos;
  return file ? kept_tokenizer(folder, name) : make_tokenizer(name);
}

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_for_run(const std::string& name,
                                                   const std::vector<std::string>& data) {
  if (fs::exists(name))
    return open_for_training(name);
  Spec spec(name);
  if (spec.name() == "bpe")
    return train_bpe(spec, data);
  if (is_registered(spec.name()))
    return make_tokenizer(name);
  std::vector<std::string> names = tokenizers().names();
  names.emplace_back("bpe");
  if (name.find_first_of("/.") == name.npos)
    no_such("tokenizer", spec.name(), names);
  throw Error(Exit::input, concat("there is no tokenizer ", in_quotes(name)))
      .hint("a tokenizer.json, a folder with one, bpe:vocab=4096, or bytes");
}

bool is_trained_first(const std::string& name) {
  return !fs::exists(name) && Spec(name).name() == "bpe";
}

int vocabulary_for_run(const std::string& name) {
  if (is_trained_first(name)) {
    Spec spec(name);
    return training_of(spec).vocabulary;
  }
  return tokenizer_for_run(name, {})->vocabulary();
}

std::shared_ptr<const Tokenizer> initial_tokenizer(const std::string& checkpoint) {
  const CheckpointConfig initial = read_checkpoint_config(checkpoint);
  if (tokenizer_file(initial.path).empty())
    return make_tokenizer("bytes");
  if (initial.of_run)
    return of_run(initial.path, initial.tokenizer);
  // a folder's files stay with the run, whatever they are
  return fs::is_directory(initial.path) ? open_tokenizer(initial.path)
                                        : open_for_training(initial.path.string());
}

std::shared_ptr<const Tokenizer> tokenizer_of(const LoadedModel& loaded) {
  const fs::path& path = loaded.checkpoint.path;
  if (loaded.state)
    return has_tokenizer(loaded) ? of_run(path, loaded.tokenizer) : nullptr;
  return tokenizer_file(path).empty() ? nullptr : open_tokenizer(path);
}

std::shared_ptr<const Tokenizer> training_tokenizer(const LoadedModel& loaded) {
  auto own = tokenizer_of(loaded);
  return own ? own : make_tokenizer("bytes");
}

bool has_tokenizer(const LoadedModel& loaded) {
  return loaded.state && !tokenizer_file(loaded.checkpoint.path).empty();
}

std::string kept_name(const Tokenizer& tokenizer, const KeptFiles& kept) {
  if (is_registered(tokenizer.id()))
    return tokenizer.id();
  const std::string json = tokenizer.tokenizer_json();
  if (!json.empty())
    return file_id(json);
  // a file that no checkpoint keeps leaves the run without
  return kept.has(file_of(tokenizer.id())) ? tokenizer.id() : "bytes";
}

TokenizerFiles tokenizer_files(const Tokenizer& tokenizer, bool bare,
                               std::shared_ptr<const KeptFiles> kept) {
  TokenizerFiles out;
  out.kept = std::move(kept);
  if (bare || (out.kept && out.kept->has(file_of(kept_name(tokenizer, *out.kept)))))
    return out;
  const int bos = tokenizer.special().bos;
  out.json = tokenizer.tokenizer_json();
  out.config_json = tokenizer.tokenizer_config_json();
  out.bos = bos >= 0 ? bos : tokenizer.boundary();
  out.boundary = tokenizer.boundary();
  return out;
}

std::shared_ptr<const KeptFiles> files_kept(const fs::path& checkpoint,
                                            const Tokenizer& tokenizer) {
  KeptFiles kept = kept_files(checkpoint);
  const fs::path own = fs::is_directory(checkpoint) ? tokenizer_file(checkpoint) : fs::path();
  const bool same = !own.empty() && open_tokenizer(own)->id() == tokenizer.id();
  return std::make_shared<const KeptFiles>(same ? std::move(kept)
                                                : without_tokenizer(std::move(kept)));
}

}  // namespace moe
