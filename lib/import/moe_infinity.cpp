// MoE-Infinity's expert tracer: .npy of floats [capacity, layers, experts], a matrix of counts a
// sequence, rows of zeros unused. And REAP's observer: .pt {layer: {expert_frequency, total_tokens,
// ...}} with objects that are read over; its pairwise_expert_frequency is n_i + n_j and no
// co-activation.
#include <cmath>

#include "lib/core/text.h"
#include "lib/import/array_bundle.h"
#include "lib/import/count_files.h"

namespace moe {
namespace {

class MoeInfinity final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return in.first().kind == FileKind::npy;
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "transformers";
    std::int64_t step = 0;
    for (const ImportFile& f : in.files()) {
      const ArrayBundle bundle(f);
      const NumberArray* a = bundle.whole("expert_ids");
      if (!a)
        refuse_import(f.quoted(), "is no array", "a .npy file of counts");
      NumberArray counts = *a;
      counts.name = f.quoted();
      step = say(counts, step, sink);
    }
  }

 private:
  static std::int64_t say(const NumberArray&, std::int64_t step, ImportSink&);
};

std::int64_t MoeInfinity::say(const NumberArray& a, std::int64_t step, ImportSink& sink) {
  a.must_have(3, "[sequences, layers, experts]");
  Index empty = 0;
  for (Index q = 0; q < a.shape[0]; ++q) {
    bool any = false;
    for (Index l = 0; l < a.shape[1]; ++l) {
      for (Index e = 0; e < a.shape[2]; ++e)
        any = count_at(a, a.place(q, l, e)) != 0 || any;
    }
    empty += !any;
    if (any)
      say_count_array(a.at(q), step++, sink);
  }
  if (empty > 0)
    sink.say(concat(empty, " empty rows were left out"));
  sink.say("each step stands for a sequence");
  return step;
}

const char* const as_observed = "the state as REAP's observer saved it";

class Reap final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    const ImportFile& f = in.first();
    if (f.kind != FileKind::torch || !f.torch->root().is(PickleKind::dict))
      return false;
    const PickleValue root = f.torch->root();
    return root.size() > 0 && root.key(0).is(PickleKind::whole) &&
           root.value(0).is(PickleKind::dict);
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "transformers";
    std::int64_t step = 0;
    for (const ImportFile* f : in.of_kind(FileKind::torch)) {
      const PickleValue root = f->torch->root();
      for (Index i = 0; i < root.size(); ++i)
        say(root.key(i), root.value(i), concat(f->quoted(), " layer ", i), step, sink);
      ++step;
    }
    sink.say("pairwise_expert_frequency is no co-activation and was left out");
  }

 private:
  static void say(const PickleValue& key, const PickleValue& layer, const std::string& where,
                  std::int64_t step, ImportSink&);
};

void Reap::say(const PickleValue& key, const PickleValue& layer, const std::string& where,
               std::int64_t step, ImportSink& sink) {
  const auto frequency = layer.find("expert_frequency");
  if (!frequency || !frequency->is(PickleKind::array))
    refuse_import(where, "has no expert_frequency", as_observed);
  const NumberArray& a = frequency->array();
  a.must_have(1, "[experts]");
  const int number = int(key.whole());
  std::vector<std::int64_t> counts;
  double sum = 0;
  for (Index e = 0; e < a.shape[0]; ++e) {
    counts.push_back(count_at(a, a.place(e)));
    sum += double(counts.back());
  }
  const auto total = layer.find("total_tokens");
  if (total && total->is(PickleKind::array) && total->array().axes() == 0) {
    const double tokens = total->array().real(0);
    const double k = tokens > 0 ? sum / tokens : 0;
    if (k >= 1 && k <= double(counts.size()) && std::floor(k) == k)
      sink.facts.topk[number] = int(k);
    else
      sink.say("the counts are no whole number of choices a token: top-k stays unknown");
  }
  sink.counts(step, number, counts, where);
}

}  // namespace

std::unique_ptr<Importer> make_moe_infinity_importer() {
  return std::make_unique<MoeInfinity>();
}
std::unique_ptr<Importer> make_reap_importer() {
  return std::make_unique<Reap>();
}

}  // namespace moe
