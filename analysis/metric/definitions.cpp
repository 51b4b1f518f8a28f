#include "analysis/metric/definitions.h"

#include "analysis/metric/metric.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr Definition all[] = {
#define DEFINE(id, metric, shape, formula, range, chance, needs) {#id, #metric, shape, formula, range, chance, needs},
#include "analysis/metric/definitions.def"
#undef DEFINE
};

std::string cell(std::string_view text) {  // a bar would end the column
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

constexpr const char* head = R"(# Metrics

Every number of a report carries the id of its definition. An id never changes its meaning; another definition gets another id.
This page is written from the program's own table (`analysis/metric/definitions.def`); a test keeps the two in step.

**Letters.** T valid tokens (padding counts nowhere), L MoE layers, E experts of a layer, K choices a token, D domains, V token ids.
Choices are logical experts before capacity, best first; a token may have fewer than K. c_e = assignments to expert e in a layer,
N = their sum, m = N/E, q_e = c_e/N, q_d(e) = the share of e among the assignments of domain d; n_v = occurrences of token id v, n_ve =
those that chose e; p = softmax of the router's logits. CV0 = sqrt((E/K-1)/T).

**Random routing** is what every token drawing K distinct experts by lot would give on a trace of this size: closed forms, or the mean
of simulated traces with a fixed seed ("simulated"). It is not zero: E=256, K=8, T=4096 gives a load CV of 0.087 and a MaxVio of 0.25.
Plug-in information exceeds 0 by about (labels-1)(E-K)/(2 N ln 2) bits. Tokens are not independent; error bars would resample sequences.

**Shape.** [L] is one number a layer; a list parameter (`topn`, `lags`, ...) adds an axis. Redundancy by weights or outputs is computed
once by `moe trace` and stored in the trace.

**Same idea, other number.** NeMo and TensorRT-LLM print load_cv_sample; the loss-free balancing paper's MaxVio is load_maxvio_global or
_batch; OLMoE's domain specialisation is domain_hit_rate, its co-activation code coactivation_adjacent, its layer counters
crosslayer_rank_zip; Megatron's balance loss is aux_switch (1 at balance), Hugging Face's aux_concat (K at balance).
)";

}  // namespace

std::span<const Definition> definitions() { return all; }

const Definition* find_definition(std::string_view id) {
  for (const Definition& d : all)
    if (d.id == id) return &d;
  return nullptr;
}

namespace {
std::string table(std::string_view metric) {
  std::string out = "| id | shape | definition | range | random routing | needs |\n|---|---|---|---|---|---|\n";
  for (const Definition& d : all)
    if (d.metric == metric)
      out += concat("| `", d.id, "` | ", d.shape.empty() ? std::string("one number") : concat("[", d.shape, "]"), " | ", cell(d.formula), " | ", cell(d.range), " | ", cell(d.chance), " | ", d.needs, " |\n");
  return out;
}
}  // namespace

std::string definitions_page() {
  std::string out = head;
  for (const auto& entry : metrics().entries()) {
    std::string examples;
    for (const std::string& e : split(entry.examples, ' ')) examples += concat(examples.empty() ? "`" : ", `", e, "`");
    out += concat("\n## ", entry.name, "\n", entry.about, ". For example ", examples, ".\n\n", table(entry.name));
  }
  return out + "\n## two traces\na checkpoint against a reference, or one engine against another, over the same tokens.\n\n" + table("two traces");
}

}  // namespace moe
