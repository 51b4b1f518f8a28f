// One model in the layouts in which it is found: packed as its class holds it, without its prefix,
// wrapped, without its head, with one of two tied matrices.
#include <catch2/catch.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>

#include "lib/core/error.h"
#include "lib/family/families.h"
#include "lib/family/layouts.h"
#include "lib/model/decoder.h"
#include "lib/router/router.h"

using namespace moe;

namespace {

using Files = std::map<std::string, Tensor>;

Json record_of(std::string_view family) {
  return read_json(std::filesystem::path(MOE_SOURCE_DIR) / "tests/model/families" /
                   concat(family, ".json"));
}

bool is_recorded(const Family& f) {
  return f.verified == Verified::by_class || f.verified == Verified::remade;
}

Matrix<float> logits_of(Decoder<float>& model) {
  Batch batch;
  for (int t = 0; t < 12; ++t)
    batch.token.push_back(t * 7 % 100);
  batch.start = {0, batch.tokens()};
  if (model.config().encoder_layers > 0)
    batch.source = std::make_shared<const Batch>(batch);
  Decoder<float>::Tape tape;
  Matrix<float> out;
  model.infer({.batch = batch}, tape, {}, nullptr, &out);
  return out;
}

// A model of the family with every number its own, correction biases too.
std::unique_ptr<Decoder<float>> model_of(const ModelConfig& config, Backend<float>& backend) {
  auto model = std::make_unique<Decoder<float>>(config, backend);
  model->initialise(3);
  for (MoeLayer<float>* layer : model->moe_layers()) {
    double v = 0;
    for (double& beta : layer->router().correction_bias())
      beta = 0.01 * ++v;
  }
  return model;
}

Files files_of(Decoder<float>& model, const Names& names) {
  Files out;
  for (const NamedTensor& t : store(model, names))
    out.emplace(t.name, t.make());
  return out;
}

std::vector<std::string> names_in(const Files& files) {
  std::vector<std::string> out;
  for (const auto& [name, tensor] : files)
    out.push_back(name);
  return out;
}

Files renamed(const Files& files, const std::string& from, const std::string& to) {
  Files out;
  for (const auto& [name, tensor] : files)
    out.emplace(std::regex_replace(name, std::regex(from), to), tensor);
  return out;
}

// The logits of a model read from the files as they are found.
Matrix<float> read_logits(const std::string& family, const ModelConfig& config, const Files& files,
                          Backend<float>& backend) {
  Decoder<float> model(config, backend);
  const FoundNames found = names_as_found(family, config.tied, names_in(files));
  CHECK_FALSE(found.headless);
  load(model, found.names, [&](const std::string& name, const Dims& dims) {
    INFO(name);
    REQUIRE(files.contains(name));
    CHECK(files.at(name).dims() == dims);
    return files.at(name);
  });
  return logits_of(model);
}

struct Sample {
  std::string family;
  ModelConfig config;
  std::unique_ptr<Decoder<float>> model;
  Files files;
  Sample(const std::string& name, Backend<float>& backend)
      : family(name),
        config(config_from_json(record_of(name).at("config")).config),
        model(model_of(config, backend)),
        files(files_of(*model, names_of(name))) {}
};

}  // namespace

TEST_CASE("the packed layout of every family has the names and shapes that its class saves") {
  const auto backend = make_reference<float>();
  int packed = 0;
  for (const Family& f : families()) {
    const std::string family(f.name);
    INFO(family);
    if (!is_recorded(f)) {
      CHECK_FALSE(has_packed_layout(family));
      continue;
    }
    const Json record = record_of(family);
    CHECK(has_packed_layout(family) == record.contains("packed"));
    if (!has_packed_layout(family)) {
      CHECK_THROWS_WITH(packed_names(family), Catch::Contains("no packed experts of " + family));
      continue;
    }
    ++packed;
    const Sample s(family, *backend);
    std::map<std::string, std::vector<Index>> shapes;
    const Files files = files_of(*s.model, packed_names(family));
    for (const auto& [name, tensor] : files)
      shapes[name] = {tensor.dims().begin(), tensor.dims().end()};
    CHECK(shapes == record.at("packed").get<decltype(shapes)>());
    CHECK(read_logits(family, s.config, files, *backend) == logits_of(*s.model));
  }
  CHECK(packed >= 14);
}

namespace {

// "experts.*." of a record as the names of so many experts.
std::vector<std::string> listed(const Json& lines) {
  std::vector<std::string> out;
  for (const auto& [line, dims] : lines.items()) {
    const auto star = line.find('*');
    if (star == line.npos)
      out.push_back(line);
    for (int e = 0; star != line.npos && e < dims.at(0).get<int>(); ++e)
      out.push_back(std::string(line).replace(star, 1, concat(e)));
  }
  std::ranges::sort(out);
  return out;
}

}  // namespace

TEST_CASE("names as save_pretrained mixes them are read") {
  const auto backend = make_reference<float>();
  const Sample s("deepseek_v4", *backend);
  const std::vector<std::string> saved = listed(record_of(s.family).at("saved"));
  const Names names = names_as_found(s.family, s.config.tied, saved).names;
  const Files files = files_of(*s.model, names);
  CHECK(names_in(files) == saved);
  CHECK(names_in(files) != names_in(s.files));
  CHECK(read_logits(s.family, s.config, files, *backend) == logits_of(*s.model));
}

TEST_CASE("a model saved without its head's name is found by its layers") {
  const auto backend = make_reference<float>();
  int seen = 0;
  for (const Family& f : families()) {
    if (!is_recorded(f))
      continue;
    const Sample s(std::string(f.name), *backend);
    INFO(s.family);
    const std::string prefix = "^" + names_of(s.family).prefix;
    const Matrix<float> right = logits_of(*s.model);
    CHECK(read_logits(s.family, s.config, renamed(s.files, prefix, ""), *backend) == right);
    CHECK(read_logits(s.family, s.config, renamed(s.files, "^", "_orig_mod.module."), *backend) ==
          right);
    ++seen;
  }
  CHECK(seen >= 23);
}

TEST_CASE("a model without output matrix is called that, but for a tied one") {
  const auto backend = make_reference<float>();
  for (const bool tied : {false, true}) {
    Sample s("qwen3_moe", *backend);
    s.files.erase("lm_head.weight");
    CHECK(names_as_found(s.family, tied, names_in(s.files)).headless == !tied);
  }
  Sample tied("mixtral", *backend);  // recorded with tied matrices
  REQUIRE(tied.config.tied);
  auto node = tied.files.extract("model.embed_tokens.weight");
  node.key() = "lm_head.weight";
  tied.files.insert(std::move(node));
  CHECK(read_logits(tied.family, tied.config, tied.files, *backend) == logits_of(*tied.model));
}

TEST_CASE("layers of another tower do not hide those of the model") {
  const auto backend = make_reference<float>();
  const Sample s("qwen3_moe", *backend);
  Files files = renamed(s.files, "^model", "model.language_model");
  files.emplace("vision.layers.0.weight", Tensor(DType::f32, {1}));
  CHECK(read_logits(s.family, s.config, files, *backend) == logits_of(*s.model));
}

TEST_CASE("what lies in no known layout is missing under its published name") {
  const auto backend = make_reference<float>();
  const Sample s("mixtral", *backend);
  const Files files = renamed(s.files, "^model.layers", "blocks");
  const FoundNames found = names_as_found(s.family, true, names_in(files));
  CHECK(found.names.prefix == "model.");
  Decoder<float> model(s.config, *backend);
  CHECK_THROWS_WITH(load(model, found.names,
                         [&](const std::string& name, const Dims&) -> Tensor {
                           if (!files.contains(name))
                             throw Error(Exit::input, name + " is missing");
                           return files.at(name);
                         }),
                    "model.layers.0.input_layernorm.weight is missing");
}
