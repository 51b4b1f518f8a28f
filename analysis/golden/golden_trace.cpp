#include "analysis/golden/golden_trace.h"

#include "analysis/metric/definitions.h"

#include <map>

#include "lib/core/error.h"
#include "lib/core/similarity.h"
#include "lib/core/text.h"

namespace moe {
namespace {

template <class T>
std::vector<T> column_of(const GoldenFile& f, const std::string& name, std::size_t tokens) {
  std::vector<T> out(tokens, T{});
  if (!f.has(name))
    return out;
  const auto values = f.integers(name).values;
  if (values.size() != tokens) {
    throw Error(Exit::input,
                concat(name, " has ", values.size(), " values for ", tokens, " tokens"));
  }
  for (std::size_t t = 0; t < tokens; ++t)
    out[t] = T(values[t]);
  return out;
}

template <class T>
void slice(const GoldenFile& f, const std::string& name, Index l, Matrix<T>& into) {
  if (!f.has(name))
    return;
  const auto all = f.reals(name);  // [T,L,n]
  into = Matrix<T>(all.dims[0], all.dims[2]);
  for (Index t = 0; t < all.dims[0]; ++t) {
    for (Index j = 0; j < all.dims[2]; ++j)
      into(t, j) = T(all.values[std::size_t((t * all.dims[1] + l) * all.dims[2] + j)]);
  }
}

LayerRows layer_of(const GoldenFile& f, const std::string& g, Index l, Index layers) {
  LayerRows r;
  slice(f, g + "expert_ids", l, r.expert);
  slice(f, g + "weights", l, r.weight);
  slice(f, g + "logits", l, r.logits);
  slice(f, g + "out_norm", l, r.out_norm);
  slice(f, g + "predicted_ids", l, r.predicted);
  if (f.has(g + "dropped")) {
    const auto bits = f.integers(g + "dropped").values;
    r.dropped = Matrix<std::uint8_t>(r.expert.rows(), r.expert.cols());
    for (Index t = 0; t < r.expert.rows(); ++t) {
      for (Index j = 0; j < r.expert.cols(); ++j)
        r.dropped(t, j) = bits[std::size_t(t * layers + l)] >> j & 1;
    }
  }
  return r;
}

// The cases label tokens; a trace labels sequences: one sequence for every run of one (sequence,
// domain).
void sequences_of(TraceRows& rows, const std::vector<int>& domain, bool has_sequences,
                  std::vector<TraceSequence>& out) {
  const auto before = rows.sequence;
  for (std::size_t t = 0; t < rows.tokens(); ++t) {
    if (t == 0 || (has_sequences && before[t] != before[t - 1]) || domain[t] != domain[t - 1])
      out.push_back({t, 0, domain[t] < 0 ? no_domain : std::uint16_t(domain[t])});
    ++out.back().length;
    rows.sequence[t] = std::uint32_t(out.size() - 1);
  }
}

template <class T>
// the last dimension is the columns
Matrix<T> matrix_of(const GoldenFile& f, const std::string& name) {
  const auto a = f.reals(name);
  if (a.dims.empty() || a.dims.back() < 1)
    throw Error(Exit::input, concat(name, " is no matrix"));
  Matrix<T> out(a.size() / a.dims.back(), a.dims.back());
  std::copy(a.values.begin(), a.values.end(), out.data());
  return out;
}

// what `moe trace` would have stored beside the rows
void experts_of(const GoldenFile& f, TraceHeader& h) {
  if (f.has("router/weight"))
    h.router_weight = {matrix_of<float>(f, "router/weight")};
  for (const auto& [name, m] : golden_pairs(f)) {
    Matrix<float> stored(m.rows(), m.cols());
    std::copy(m.flat().begin(), m.flat().end(), stored.data());
    h.pairs.push_back({name, {stored}});
  }
}

}  // namespace

std::vector<std::pair<std::string, Matrix<double>>> golden_pairs(const GoldenFile& f) {
  std::vector<std::pair<std::string, Matrix<double>>> out;
  const Index experts = f.integer("num_experts");
  if (f.has("experts/up")) {
    const auto gate = matrix_of<double>(f, "experts/gate");
    const auto up = matrix_of<double>(f, "experts/up");
    const auto down = matrix_of<double>(f, "experts/down");
    const ExpertMatrices<double> w{experts, gate.view(), up.view(), down.view()};
    WeightCosines of_weights = expert_weight_cosines(w);
    out.emplace_back("expert_weight_cosine", std::move(of_weights.all));
    out.emplace_back("expert_up_cosine", std::move(of_weights.up));
    out.emplace_back("expert_neuron_mean_cosine", expert_neuron_mean_cosine(w));
    out.emplace_back("expert_matched_cosine", expert_matched_cosine(w));
  }
  if (!f.has("outputs/expert_outputs"))
    return out;
  const auto y = matrix_of<double>(f, "outputs/expert_outputs");
  LayerRows rows;
  slice(f, "trace/expert_ids", 0, rows.expert);
  const View<const int> chosen = std::as_const(rows.expert).view();
  const View<const double> all = y.view();
  out.emplace_back("expert_output_cosine", expert_output_cosine(all, experts));
  out.emplace_back("expert_output_cka", expert_output_cka(all, experts));
  out.emplace_back("expert_mean_output_angle", expert_mean_output_angle(all, experts));
  out.emplace_back("expert_ttm_distance", expert_ttm_distance(all, experts, chosen));
  return out;
}

namespace {

TraceHeader header_of(const GoldenFile& f, Index layers, bool domains) {
  TraceHeader h;
  for (Index l = 0; l < layers; ++l) {
    TraceLayer layer;
    layer.index = int(l);
    layer.experts = int(f.integer("num_experts"));
    layer.top_k = int(f.integer("top_k"));
    h.layers.push_back(layer);
  }
  for (int d = 0; domains && d < f.integer("param_num_domains"); ++d)
    h.domains.push_back(concat("d", d));
  return h;
}

TraceRows rows_of(const GoldenFile& f, const std::string& g, std::size_t tokens, Index layers) {
  TraceRows rows;
  rows.token_id = column_of<std::uint32_t>(f, g + "token_id", tokens);
  rows.position = column_of<std::uint32_t>(f, g + "position", tokens);
  rows.sequence = column_of<std::uint32_t>(f, g + "sequence", tokens);
  rows.step = column_of<std::uint32_t>(f, g + "step", tokens);
  if (f.has(g + "rank"))
    rows.rank = column_of<std::uint16_t>(f, g + "rank", tokens);
  if (!f.has(g + "valid")) {
    rows.flags.assign(tokens, 0);
  } else {
    for (const int valid : column_of<int>(f, g + "valid", tokens))
      rows.flags.push_back(valid ? 0 : std::uint8_t(token_flag::padding));
  }
  for (Index l = 0; l < layers; ++l)
    rows.layer.push_back(layer_of(f, g, l, layers));
  return rows;
}

}  // namespace

namespace {

TraceRows modality_rows(const GoldenFile& f, std::size_t tokens, Index layers) {
  TraceRows rows;
  rows.token_id.assign(tokens, withheld_token);
  rows.position.assign(tokens, 0);
  rows.step.assign(tokens, 0);
  rows.sequence = column_of<std::uint32_t>(f, "input/sequence", tokens);
  rows.modality = column_of<std::uint8_t>(f, "input/modality", tokens);
  for (const int valid : column_of<int>(f, "input/valid", tokens))
    rows.flags.push_back(valid ? 0 : std::uint8_t(token_flag::padding));
  const auto entropy = f.reals("input/entropy").values;
  for (Index l = 0; l < layers; ++l) {
    LayerRows& layer = rows.layer.emplace_back();
    slice(f, "input/expert_ids", l, layer.expert);
    slice(f, "input/dropped", l, layer.dropped);
    for (std::size_t t = 0; t < tokens; ++t)
      layer.entropy.push_back(float(entropy.at(t * std::size_t(layers) + std::size_t(l))));
  }
  return rows;
}

}  // namespace

MemoryTrace golden_modality_trace(const GoldenFile& f) {
  const auto ids = f.integers("input/expert_ids");
  if (ids.dims.size() != 3)
    throw Error(Exit::input, "input/expert_ids is not tokens by layers by choices");
  const std::size_t tokens = std::size_t(ids.dims[0]);
  const Index modalities = f.integer("num_modalities");
  if (modalities < 1 || modalities > modality_kinds)
    throw Error(Exit::input, concat("num_modalities is ", modalities));
  TraceHeader h = header_of(f, ids.dims[1], false);
  h.modalities.assign(modality_names().begin(), modality_names().begin() + modalities);
  TraceRows rows = modality_rows(f, tokens, ids.dims[1]);
  std::vector<TraceSequence> sequences(std::size_t(f.integer("num_sequences")));
  for (std::size_t t = tokens; t-- > 0;) {
    TraceSequence& s = sequences.at(rows.sequence[t]);
    s.start = t;
    ++s.length;
  }
  return MemoryTrace(std::move(h), std::move(sequences), {}, std::move(rows));
}

MemoryTrace golden_trace(const GoldenFile& f, const char* group) {
  const std::string g = std::string(group) + "/";
  const auto ids = f.integers(g + "expert_ids");
  if (ids.dims.size() != 3) {
    throw Error(Exit::input, concat(g, "expert_ids has ", ids.dims.size(),
                                    " dimensions, not tokens, layers and choices"));
  }
  const std::size_t tokens = std::size_t(ids.dims[0]);
  const bool domains = f.has(g + "domain");
  TraceHeader h = header_of(f, ids.dims[1], domains);
  TraceRows rows = rows_of(f, g, tokens, ids.dims[1]);
  experts_of(f, h);
  const std::vector<int> domain =
      domains ? column_of<int>(f, g + "domain", tokens) : std::vector<int>(tokens, -1);
  std::vector<TraceSequence> sequences;
  sequences_of(rows, domain, f.has(g + "sequence"), sequences);
  return MemoryTrace(std::move(h), std::move(sequences), {}, std::move(rows));
}

namespace {

// The options of metrics that a case may set, and the figures that depend on each; a list is an
// axis of its figures, and named in their shapes.
struct Parameter {
  std::string_view metric, key;
  std::vector<std::string_view> figures;
};
const std::vector<Parameter>& parameters() {
  static const std::vector<Parameter> all = {
      {"load", "topn", {}},
      {"load", "tile_sizes", {}},
      {"drops", "capacity_factors", {}},
      {"context", "position_bucket", {"position_expert_mi_bits"}},
      {"vocabulary", "min_count", {"vocab_spec_min_count", "token_context_std"}},
      {"repeats", "lags", {}},
      {"repeats", "batch_sizes", {}},
      {"cache", "cache_sizes", {}},
      {"prefetch", "prefetch_sizes", {}},
      {"ranks",
       "ep_size",
       {"ep_rank_imbalance", "ep_balancedness", "ep_balancedness_sum_ratio",
        "ep_balancedness_eps_mean", "a2a_distinct_ranks", "a2a_dedup_factor", "a2a_distinct_nodes",
        "a2a_matrix", "a2a_matrix_copies", "a2a_internode_sends"}},
      {"ranks", "num_nodes", {"a2a_distinct_nodes", "a2a_internode_sends"}}};
  return all;
}

bool depends_on(const Definition& d, const Parameter& p) {
  return d.metric == p.metric && (d.shape.find(p.key) != d.shape.npos ||
                                  std::ranges::find(p.figures, d.id) != p.figures.end());
}

std::string option_text(const GoldenFile& f, const Parameter& p) {
  std::vector<std::string> list;
  for (const double v : f.real_list(concat("param_", p.key)))
    list.push_back(number_text(v));
  return concat(p.key, "={", join(list, ","), "}");
}

}  // namespace

// Of the metrics that compute what the case lists, with the options that those figures depend on:
// what a case says of others must not refuse it.
std::vector<std::string> golden_specs(const GoldenFile& f) {
  std::vector<const Definition*> wanted;
  for (const std::string& id : split(f.text("metric_ids"), ',')) {
    if (const Definition* d = find_definition(id))
      wanted.push_back(d);
  }
  std::vector<std::string> out;
  for (const std::string& name : metrics().names()) {
    if (std::ranges::none_of(wanted, [&](const Definition* d) { return d->metric == name; }))
      continue;
    std::vector<std::string> options;
    for (const Parameter& p : parameters()) {
      const auto needs = [&](const Definition* d) {
        return depends_on(*d, p);
      };
      if (p.metric == name && f.has_attribute(concat("param_", p.key)) &&
          std::ranges::any_of(wanted, needs))
        options.push_back(option_text(f, p));
    }
    out.push_back(concat(name, options.empty() ? "" : ":", join(options, ",")));
  }
  return out;
}

}  // namespace moe
