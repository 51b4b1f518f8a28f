// Each family against what its class gave: a tiny configuration, the names and shapes of its
// tensors and the logits of two sequences, recorded by tests/peers/record_families.py. The weights
// are the same function of a tensor's name there and here, so a family that is read under a wrong
// name, in a wrong layout or with a wrong formula has other logits.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>

#include "lib/core/error.h"
#include "lib/core/fnv.h"
#include "lib/family/config_like.h"
#include "lib/family/family.h"
#include "lib/model/decoder.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

using Shapes = std::map<std::string, std::vector<Index>>;

fs::path record_of(std::string_view family) {
  return fs::path(MOE_SOURCE_DIR) / "tests/model/families" / concat(family, ".json");
}

// Numbers in [-1, 1): splitmix64 from the FNV-1a hash of the name.
class Uniform {
 public:
  explicit Uniform(const std::string& name) : state_(fnv1a(name)) {}
  double next() {
    state_ += 0x9E3779B97F4A7C15ull;
    std::uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    x ^= x >> 31;
    return double(x >> 40) / double(1 << 23) - 1;
  }

 private:
  std::uint64_t state_;
};

// Norms around 1, vectors and biases around 0, matrices of variance 1/inputs.
Tensor weights(const std::string& name, const Dims& dims) {
  Tensor out(DType::f32, dims);
  if (name.ends_with("tid2eid")) {  // distinct experts of each token
    for (Index t = 0; t < dims[0]; ++t) {
      for (Index j = 0; j < dims[1]; ++j)
        out.mutable_view<float>()(t, j) = float((7 * t + j) % (dims[1] + 2));
    }
    return out;
  }
  Uniform uniform(name);
  const bool norm = dims.size() == 1 && name.find("norm") != name.npos && name.ends_with("weight");
  const bool correction = name.find("correction_bias") != name.npos;
  double scale = dims.size() == 1 ? 0.5 : std::sqrt(3.0 / double(dims.back()));
  if (norm)
    scale = 0.3;
  else if (correction)
    scale = 0.2;
  for (float& v : out.mutable_view<float>().flat()) {
    const double u = uniform.next() * scale;
    v = float(norm ? 1 + u : u);
  }
  return out;
}

// Experts of one layer that are alike in one entry "experts.*.", their number before the shape.
class Collapsed {
 public:
  void add(const std::string& name, const Dims& dims) {
    static const std::regex expert("experts\\.[0-9]+\\.");
    const std::string line = std::regex_replace(name, expert, "experts.*.");
    std::vector<Index>& shape = shapes_[line];
    if (line == name) {
      shape = {dims.begin(), dims.end()};
      return;
    }
    if (shape.empty())
      shape.push_back(0);
    ++shape[0];
    shape.resize(1);
    shape.insert(shape.end(), dims.begin(), dims.end());
  }
  const Shapes& shapes() const {
    return shapes_;
  }

 private:
  Shapes shapes_;
};

Batch batch_of(const Json& ids) {
  Batch batch;
  for (const Json& row : ids) {
    for (const int id : row.get<std::vector<int>>())
      batch.token.push_back(id);
    batch.start.push_back(batch.tokens());
  }
  return batch;
}

// Of an encoder-decoder the source stands beside what the decoder reads, filled up with padding.
Matrix<float> logits_of(Decoder<float>& model, const Json& record) {
  Batch batch = batch_of(record.at("ids"));
  if (record.contains("source")) {
    Batch source = batch_of(record.at("source"));
    for (const int id : source.token)
      source.valid.push_back(id != model.config().pad_token);
    batch.source = std::make_shared<const Batch>(std::move(source));
  }
  Decoder<float>::Tape tape;
  Matrix<float> out;
  model.infer({.batch = batch}, tape, {}, nullptr, &out);
  return out;
}

void check_logits(Decoder<float>& model, const Json& record) {
  const Matrix<float> out = logits_of(model, record);
  const double allowed = record.value("allowed", 2e-5);  // of classes that round more
  double largest = 0, apart = 0;
  for (Index q = 0; q < out.rows(); ++q) {
    const auto expected = record.at("last_logits").at(std::size_t(q)).get<std::vector<double>>();
    REQUIRE(Index(expected.size()) == out.cols());
    for (Index v = 0; v < out.cols(); ++v) {
      apart = std::max(apart, std::abs(double(out(q, v)) - expected[std::size_t(v)]));
      largest = std::max(largest, std::abs(expected[std::size_t(v)]));
    }
  }
  CHECK(apart <= allowed);
  CHECK(largest > 0.5);  // logits that depend on something
}

// What we write of the loaded model: the same tensors bit for bit, and a configuration that says
// the same when it is read and written again.
void check_written(Decoder<float>& model, const Family& family, const Shapes& shapes) {
  const std::string name(family.name);
  Collapsed written;
  for (const NamedTensor& t : store(model, name)) {
    const Tensor made = t.make();
    written.add(t.name, made.dims());
    const Tensor wanted = weights(t.name, made.dims());
    INFO(t.name);
    CHECK(made.to_float() == wanted.to_float());
  }
  CHECK(written.shapes() == shapes);
  Json j = config_json(model.config(), name);
  CHECK(j.at("architectures").at(0) == std::string(family.architecture));
  CHECK(j.at("model_type") == name);
  j.erase("moe_training");
  Json again = config_json(config_from_json(j).config, name);
  again.erase("moe_training");
  CHECK(again == j);
  CHECK(fit_like(model.config(), name).family == name);
}

void check_source(const Family& family, const Json& record) {
  const std::string source = record.at("recorded_from");
  if (family.verified == Verified::by_class) {
    CHECK(source.starts_with("transformers "));
    CHECK(record.at("class") == std::string(family.architecture));
  } else {
    CHECK(family.verified == Verified::remade);
    CHECK(source == "tests/peers/remake_family.py");
  }
  CHECK(record.at("config").at("model_type") == std::string(family.name));
}

}  // namespace

TEST_CASE("every family gives the logits that were recorded, under the recorded names") {
  const auto backend = make_reference<float>();
  int seen = 0;
  for (const Family& family : families()) {
    const std::string name(family.name);
    INFO(name);
    const bool compared =
        family.verified == Verified::by_class || family.verified == Verified::remade;
    REQUIRE(fs::exists(record_of(name)) == compared);
    if (!compared)
      continue;
    ++seen;
    const Json record = read_json(record_of(name));
    check_source(family, record);
    const Published published = config_from_json(record.at("config"));
    CHECK(published.family == name);
    Decoder<float> model(published.config, *backend);
    Collapsed asked;
    load(model, name, [&](const std::string& tensor, const Dims& dims) {
      asked.add(tensor, dims);
      return weights(tensor, dims);
    });
    CHECK(asked.shapes() == record.at("tensors").get<Shapes>());
    check_logits(model, record);
    if (rules_of(name).write)
      check_written(model, family, asked.shapes());
  }
  CHECK(seen >= 22);
}

TEST_CASE("no record is left of a family that is gone") {
  for (const auto& entry : fs::directory_iterator(record_of("x").parent_path())) {
    const std::string name = entry.path().stem().string();
    INFO(name);
    CHECK(std::ranges::count(families(), name, &Family::name) == 1);
  }
}
