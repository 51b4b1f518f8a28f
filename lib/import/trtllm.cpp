// TensorRT-LLM's expert statistic: meta_info.json and rankR.safetensors with a key
// ITERATION_LAYER for counts [E]; one version also token_selected_experts_rankR.safetensors
// [tokens, K], which is a trace without sequences.
#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/text.h"
#include "lib/files/json.h"
#include "lib/import/array_bundle.h"
#include "lib/import/count_files.h"

namespace moe {
namespace {

const char* const as_written = "the folder of EXPERT_STATISTIC_PATH";

struct Key {
  std::int64_t iteration = 0;
  int layer = 0;
  auto operator<=>(const Key&) const = default;
};

using Arrays = std::map<Key, NumberArray>;

Key key_of(const std::string& name, const std::string& where) {
  Key k;
  const char* end = name.data() + name.size();
  const auto [middle, wrong] = std::from_chars(name.data(), end, k.iteration);
  bool right = wrong == std::errc() && middle < end && *middle == '_';
  if (right) {
    const auto [stop, bad] = std::from_chars(middle + 1, end, k.layer);
    right = bad == std::errc() && stop == end && k.layer >= 0 && k.iteration >= 0;
  }
  if (!right)
    refuse_import(where, concat("has the key ", in_quotes(name), ", not ITERATION_LAYER"),
                  as_written);
  return k;
}

// All arrays of a rank's file, by iteration and layer as numbers.
Arrays arrays_of(const ImportFile& f) {
  const Tensors tensors(f.path);
  Arrays out;
  for (const TensorInfo& info : tensors.list()) {
    auto owner = std::make_shared<Tensor>(tensors.get(info.name));
    const Bytes bytes{{owner, owner->bytes().data()}, owner->bytes()};
    NumberArray a =
        checked_array(concat(f.quoted(), " ", info.name), owner->dtype(), owner->dims(), bytes);
    a.must_be_whole();
    out.emplace(key_of(info.name, f.quoted()), std::move(a));
  }
  return out;
}

// Every iteration has every layer.
void check_layers(const Arrays& arrays, const std::string& where) {
  std::map<std::int64_t, std::vector<int>> layers;
  std::vector<int> all;
  for (const auto& [key, array] : arrays) {
    layers[key.iteration].push_back(key.layer);
    if (std::find(all.begin(), all.end(), key.layer) == all.end())
      all.push_back(key.layer);
  }
  for (const auto& [iteration, own] : layers) {
    for (const int layer : all) {
      if (std::find(own.begin(), own.end(), layer) == own.end()) {
        refuse_import(where, concat("has no counts of layer ", layer, " in iteration ", iteration),
                      as_written);
      }
    }
  }
}

class Trtllm final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return std::any_of(in.files().begin(), in.files().end(),
                       [](const ImportFile& f) {
                         return f.name() == "meta_info.json" && f.mentions("num_experts_per_token");
                       }) &&
           !in.of_kind(FileKind::safetensors).empty();
  }
  void read(const ImportInputs& in, ImportSink& sink) const override;

 private:
  static void read_meta(const ImportInputs&, ImportSink&, int& topk);
  static bool read_tokens(const ImportInputs&, ImportSink&);
  static void say_tokens(ImportSink&, const std::map<int, Arrays>& ranks);
};

void Trtllm::read_meta(const ImportInputs& in, ImportSink& sink, int& topk) {
  for (const ImportFile& f : in.files()) {
    if (f.name() != "meta_info.json")
      continue;
    const Json meta = read_json(f.path);
    const auto number = [&](const char* name, std::int64_t most) {
      if (!meta.is_object() || !meta.contains(name) || !meta[name].is_number_integer() ||
          meta[name].get<std::int64_t>() < 1 || meta[name].get<std::int64_t>() > most)
        refuse_import(f.quoted(), concat("has no sound ", name), as_written);
      return meta[name].get<int>();
    };
    sink.facts.experts = number("num_experts", 65534);
    topk = number("num_experts_per_token", sink.facts.experts);
  }
}

void Trtllm::say_tokens(ImportSink& sink, const std::map<int, Arrays>& ranks) {
  std::map<std::int64_t, std::map<int, std::vector<std::pair<int, const NumberArray*>>>> steps;
  for (const auto& [rank, arrays] : ranks) {
    for (const auto& [key, array] : arrays)
      steps[key.iteration][rank].emplace_back(key.layer, &array);
  }
  for (const auto& [iteration, by_rank] : steps) {
    sink.step(iteration);
    for (const auto& [rank, layers] : by_rank) {
      ImportBlock b;
      const Index rows = layers[0].second->axes() == 2 ? layers[0].second->shape[0] : 0;
      for (const auto& [layer, array] : layers) {
        array->must_have(2, "[tokens, choices]");
        if (array->shape[0] != rows)
          array->refuse(concat("has ", array->shape[0], " tokens, and another layer ", rows),
                        as_written);
        b.where = array->name;
        b.layers.push_back(layer);
        Matrix<int>& ids = b.rows.layer.emplace_back().expert;
        ids = Matrix<int>(rows, array->shape[1]);
        for (Index t = 0; t < rows; ++t) {
          for (Index k = 0; k < array->shape[1]; ++k)
            ids(t, k) =
                int(std::clamp<std::int64_t>(array->whole(array->place(t, k)), -2, INT32_MAX));
        }
      }
      b.rows.rank.assign(std::size_t(rows), std::uint16_t(rank));
      sink.sequence();
      sink.rows(std::move(b));
    }
  }
}

bool Trtllm::read_tokens(const ImportInputs& in, ImportSink& sink) {
  std::map<int, Arrays> ranks;
  for (const ImportFile* f : in.of_kind(FileKind::safetensors)) {
    if (f->name().starts_with("token_selected_experts")) {
      const std::int64_t rank = std::clamp<std::int64_t>(number_in(f->name(), "rank"), 0, 65535);
      ranks[int(rank)] = arrays_of(*f);
    }
  }
  if (ranks.empty())
    return false;
  say_tokens(sink, ranks);
  sink.say("sequence boundaries are not in the file");
  return true;
}

void Trtllm::read(const ImportInputs& in, ImportSink& sink) const {
  sink.facts.engine = "trtllm";
  int topk = 0;
  read_meta(in, sink, topk);
  if (read_tokens(in, sink))
    return;
  int ranks = 0;
  for (const ImportFile* f : in.of_kind(FileKind::safetensors)) {
    if (!f->name().starts_with("rank"))
      continue;
    ++ranks;
    const Arrays arrays = arrays_of(*f);
    check_layers(arrays, f->quoted());
    for (const auto& [key, a] : arrays) {
      a.must_have(1, "[experts]");
      if (sink.experts() > 0 && a.shape[0] != sink.experts())
        a.refuse(concat("has counts of ", a.shape[0], " experts, and meta_info.json says ",
                        sink.experts()),
                 as_written);
      std::vector<std::int64_t> counts;
      for (Index e = 0; e < a.shape[0]; ++e)
        counts.push_back(a.whole(a.place(e)));
      if (topk > 0)
        sink.facts.topk[key.layer] = topk;
      sink.counts(key.iteration, key.layer, counts, a.name);
    }
  }
  if (ranks > 1)
    sink.say("sums over ranks assume that ranks saw different tokens (attention data-parallel)");
}

}  // namespace

std::unique_ptr<Importer> make_trtllm_importer() {
  return std::make_unique<Trtllm>();
}

}  // namespace moe
