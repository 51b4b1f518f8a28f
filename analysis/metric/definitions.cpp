#include "analysis/metric/definitions.h"

#include "analysis/metric/metric.h"
#include "analysis/metric/thresholds.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr Definition all[] = {
#define DEFINE(id, metric, shape, formula, range, chance, needs) \
  {#id, #metric, shape, formula, range, chance, needs},
#include "analysis/metric/definitions.def"
#undef DEFINE
};

constexpr std::size_t page_width = 98;

std::string cell(std::string_view text) {  // a bar would end the column
  std::string out;
  for (const char c : text)
    out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

constexpr const char* head_before_lights = R"(# Metrics

Every number of a report carries the id of its definition. An id never changes its meaning;
another definition gets another id. This page is written from the program's own table
(`analysis/metric/definitions.def`); a test keeps the two in step.

**Letters.** T valid tokens (padding counts nowhere), L MoE layers, E experts of a layer, K
choices a token, D domains, M modalities, V token ids. Choices are logical experts before capacity,
best first; a token may have fewer than K. c_e = assignments to expert e in a layer, N = their sum,
m = N/E, q_e = c_e/N, q_d(e) = the share of e among the assignments of domain d; n_v = occurrences
of token id v, n_ve = those that chose e; p = softmax of the router's logits. CV0 =
sqrt((E/K-1)/T).

A count of nothing is 0. A share, a mean or an information of nothing is NaN (a dash in reports):
of a domain without tokens, of blocks or pairs where there are none, of a layer without
assignments, where no line below says otherwise.

Rows flagged as padding are left out of every figure, and so are rows that no router can have made,
with one expert in several slots of a layer, or with logits that are NaN or infinite; weights that
are negative, or whose sum is not what the trace says, are left out of sums of weights. A report
begins with how many there are.

Where a trace lists choices by expert id (`order` is id_asc, or it states none and ids rise in 99 of
100 of its first rows), no token's first choice is known: every figure of first choices is left out,
because low ids would look preferred even under random routing. Where it promises no order and its
rows show none by id, "first" is the one listed first, and the report says so.

**Counts only.** A trace of an engine that only counts holds the tokens per expert of each step
(/counts/per_step of docs/trace-format.md) and no tokens. Figures that need "ids or counts" are
computed from them and equal those of the full trace of the same routing; one remark at the head of
the report names the metrics that need tokens. T is N/K where top_k is recorded and divides the
assignments of every step, or the sum of the steps' own num_tokens. Else it is not known: figures
have no value of random routing beside them, and lights are judged as if every token had made one
choice, for N assignments at random are never less even than that; "too few" is then said of
assignments. So it is with counts taken behind capacity. Counts of a step and layer that no router
can have given are left out and named: an expert with more tokens than the step has (zeros in the
place of routing that was not recorded look like this), and 4294967295, which is -1.

**Random routing** is what every token choosing K distinct experts at random would give on a trace
of this size: closed forms, or the mean of simulated traces with a fixed seed ("simulated"). It is
not zero: E=256, K=8, T=4096 gives a load CV of 0.087 and a MaxVio of 0.25. Plug-in information
exceeds 0 by about (labels-1)(E-K)/(2 N ln 2) bits, by less where labels are rare. Lists of the
closest, busiest or most travelled stand beside what the first, second, ... of such a list shows
at random. A test holds the chance values of a report to traces drawn at random and lists the
exceptions (tests/metric/chance_test.cpp).

**Intervals.** Tokens are not independent, sequences nearly are: `moe report --bootstrap N` (200;
0 = none) weighs every sequence Poisson(1) in each of N replicas, in the same pass. The interval
is the middle 95 % of the replicas, moved so that their mean lies on the figure (resampling adds
noise of its own to a CV), for what a trace of this size from the same source gives on average. It
takes 4 bytes a layer, domain, expert and replica, within a metric's share of --memory; at least 8
sequences. Figures that have one: load_cv, load_maxvio_global, load_dead_fraction,
load_entropy_norm, load_effective_experts, load_gini, ep_balancedness, capacity_drop_rate (factors
1, 1.25, 2), domain_expert_mi_bits, router_entropy (where it is stored), repeat_first,
a2a_dedup_factor, and router_saturation of two traces. Not yet: figures whose counts a replica
cannot hold (token_uncertainty, crosslayer_predictability) and caches. "≈ chance": the interval
holds the value of random routing; a figure without an interval lies within two standard
deviations of random routing, where those are known.

**Findings** in words go by the same rule: a sentence says that something stands out only where
random routing of this size would rarely show as much in the best of the layers (one of a hundred
traces, with the tail of a maximum). Where it does not, it says so if a difference of a twentieth of
the figure's range would have been seen, and else that there are too few tokens to judge, and about
how many it takes. Experts without a token are called dead where random routing would rarely leave
any. Losses without an expert (`moe eval --without-expert`) have intervals by sequences.

**Loss.** Where a trace holds the log-probability of the true next token, means of the loss have
intervals by sequences (a ratio of sums, Student's quantile), and rank correlations with the
router's entropy are taken inside sequences first, so that neither domains nor hard sequences make
one. Nothing of this says what causes what: an expert with a high loss may be given hard text.

)";

constexpr const char* head_after_lights =
    R"(**Two traces and more.** `moe report a --against b` compares token by token, over the same )"
    R"(text
only; `moe report a b c` puts the headline figures side by side. Expert ids mean the same in both
where the traces share an origin (weights_xxh3, run_id or lineage of docs/trace-format.md). Where
they do not, or where that is not known, the experts of each layer are matched one to one first, so
that as many choices as possible are common (Hungarian method on joint counts), and figures have ids
that end in `_matched`. Matching finds likeness in noise too: chance values are those of the same
reference with its tokens in another order within windows, on at most 131,072 tokens, matched the
same way. `--by-id` takes ids as they are. expert_partition_ami and _ari need no matching. Replicas
of traces over the same text weigh the same sequences alike, so their differences are paired. A
finding tells those that the largest of as many figures would rarely show.

**Shape.** [L] is one number a layer; a list parameter (`topn`, `lags`, ...) adds an axis.
Redundancy by weights or outputs is computed once by `moe trace` and stored in the trace.

**Same idea, other number.** `moe report a --convention NAME` gives the figures of olmoe, mixtral,
llava, sglang, vllm, trtllm, hf, megatron or nemo by their own definitions, quirks included, beside
ours, with a line on how they differ; `moe list conventions` names them. NeMo and TensorRT-LLM print
load_cv_sample; the loss-free balancing paper's MaxVio is load_maxvio_global or _batch; OLMoE's
domain specialisation is domain_hit_rate, its co-activation code coactivation_adjacent, its layer
counters crosslayer_rank_zip; Megatron's balance loss is aux_switch (1 at balance), Hugging Face's
aux_concat (K at balance). MoE-LLaVA's "pathways" are not offered: a principal component analysis
of expert numbers changes with the numbering, which means nothing; modality_path_coverage counts
the paths that rows took.
)";

// At blanks, no line longer than `width` letters.
std::string wrapped(const std::string& text, std::size_t width) {
  std::string out;
  std::size_t line = 0;
  for (const std::string& word : split(text, ' ')) {
    const bool fits = line + 1 + word.size() <= width;
    out += concat(line == 0 ? "" : fits ? " " : "\n", word);
    line = line > 0 && fits ? line + 1 + word.size() : word.size();
  }
  return out;
}

std::string lights_paragraph() {
  std::string figures;
  const std::vector<Threshold> lights = thresholds({});
  for (const Threshold& t : lights) {
    const bool low_is_bad = t.red < t.yellow;
    figures +=
        concat(&t == &lights.front()  ? ""
               : &t == &lights.back() ? " and "
                                      : ", ",
               t.id, " (",
               &t == &lights.front() ? concat("yellow from ", t.yellow, ", red from ", t.red)
                                     : concat(low_is_bad ? "below " : "", t.yellow, ", ", t.red),
               ")");
  }
  static_assert(chance_slack == 2, "the page says twice");
  return wrapped(
      concat("**Lights.** The report of a trace opens with the worst layer of ", figures,
             ". Grey where there is too little to judge: random routing on so many tokens would "
             "reach the yellow threshold in the worst of the layers in more than one of a hundred "
             "traces (chi-squared for the CV, binomial and Poisson tails for the others; of drops, "
             "in steps of this size at the capacity in force), and the value does not lie beyond "
             "that reach by as much as the threshold above what random routing gives; or the "
             "interval holds the value of random routing. How many tokens it would take stands "
             "beside. Green also where random routing gives half as much or more. Thresholds are "
             "house rules but for balancedness "
             "(SGLang rebalances below 0.8, vLLM's example alert is 0.7) and dead experts "
             "(ik_llama.cpp tolerates 5 % without data); `--threshold load_cv=0.5,1` sets them, "
             "`--fail-on red` makes red an exit code of 1, grey is none."),
      page_width);
}

}  // namespace

std::span<const Definition> definitions() {
  return all;
}

const Definition* find_definition(std::string_view id) {
  for (const Definition& d : all) {
    if (d.id == id)
      return &d;
  }
  return nullptr;
}

namespace {
std::string table(std::string_view metric) {
  std::string out =
      "| id | shape | definition | range | random routing | needs |\n|---|---|---|---|---|---|\n";
  for (const Definition& d : all) {
    if (d.metric == metric) {
      out += concat("| `", d.id, "` | ",
                    d.shape.empty() ? std::string("one number") : concat("[", d.shape, "]"), " | ",
                    cell(d.formula), " | ", cell(d.range), " | ", cell(d.chance), " | ", d.needs,
                    " |\n");
    }
  }
  return out;
}
}  // namespace

std::string definitions_page() {
  std::string out = concat(head_before_lights, lights_paragraph(), "\n\n", head_after_lights);
  for (const auto& entry : metrics().entries()) {
    std::string examples;
    for (const std::string& e : split(entry.examples, ' '))
      examples += concat(examples.empty() ? "`" : ", `", e, "`");
    out += concat("\n## ", entry.name, "\n", entry.about, ". For example ", examples, ".\n\n",
                  table(entry.name));
  }
  return out +
         "\n## two traces\na checkpoint against a reference, or one engine against another, over "
         "the same tokens.\n\n" +
         table(of_two_traces) +
         "\n## missing experts\nwhat the loss is without an expert, or two: `moe eval "
         "--without-expert`. Intervals are by "
         "sequences.\n\n" +
         table(of_missing_experts);
}

}  // namespace moe
