#include "lib/run/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/load.h"
#include "lib/files/file.h"
#include "lib/router/router.h"

namespace moe {
namespace {

using Line = nlohmann::ordered_json;

Line number(double v) {
  return std::isfinite(v) ? Line(v) : std::isinf(v) ? Line("inf") : Line(nullptr);
}

// Names of domains come from names of files, which may be no characters.
std::string text_of(const Line& line) {
  return line.dump(-1, ' ', false, Line::error_handler_t::replace) + "\n";
}

// The lines of steps up to `last`; those behind belong to work that is done again.
std::string kept_lines(const std::filesystem::path& path, Index last) {
  std::ifstream in(path);
  std::string out, line;
  while (std::getline(in, line)) {
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (!j.is_discarded() && j.contains("step") && j["step"].is_number_integer() &&
        j["step"].get<Index>() <= last) {
      out += line + "\n";
    }
  }
  return out;
}

Line layer_line(const LayerStep& s, int number_of_layer, const MoeLayer<float>& layer,
                const std::vector<std::int64_t>& with_gradient, Index steps) {
  const LoadFigures f = load_figures(s.counts);
  std::int64_t chosen = 0;
  std::int64_t kept = 0;
  for (std::size_t e = 0; e < s.counts.size(); ++e) {
    chosen += s.counts[e];
    kept += s.kept[e];
  }
  Line out = {{"layer", number_of_layer},
              {"cv", number(f.cv)},
              {"maxvio", number(f.maxvio)},
              {"max_over_min", number(f.max_over_min)},
              {"entropy_norm", number(f.entropy_norm)},
              {"dead", f.dead},
              {"dropped", number(chosen ? 1 - double(kept) / double(chosen) : 0)},
              {"router_entropy", number(s.entropy)},
              {"counts", s.counts}};
  for (std::size_t b = 0; b < s.losses.size(); ++b)
    out["balance"][layer.balancers()[b]->name()] = number(s.losses[b]);
  if (layer.router().temperature_schedule.moves())
    out["temperature"] = number(s.temperature);
  Line norms = Line::array();
  Line shares = Line::array();
  for (const double v : s.gradient_norm)
    norms.push_back(number(v));
  for (const auto n : with_gradient)
    shares.push_back(number(double(n) / double(steps)));
  out["gradient_norm"] = norms;
  out["steps_with_gradient"] = shares;
  return out;
}

// Seconds of a step, in the mean over those since the last line, and how they are made up.
Line time_line(const StepTimes& t) {
  const double steps = 1e9 * double(std::max<Index>(1, t.steps));
  Line out = {{"steps", t.steps}, {"seconds", double(t.times.sum()) / steps}};
  for (std::size_t p = 0; p < time_parts; ++p)
    out[name_of(TimePart(p))] = double(t.times.part[p]) / steps;
  return out;
}

// Estimates of each expert, in two lists.
void add_noise(Line& layer, const std::vector<NoiseEstimate>& of_experts) {
  if (of_experts.empty())
    return;
  Line squares = Line::array();
  Line traces = Line::array();
  for (const NoiseEstimate& n : of_experts) {
    squares.push_back(number(n.square));
    traces.push_back(number(n.trace));
  }
  layer["noise_square"] = squares;
  layer["noise_trace"] = traces;
}

// What ranks sent, and the share of their time that they spent in exchanges, where they wait.
Line rank_line(const RankFigures& f) {
  Line shares = Line::array();
  for (std::size_t r = 0; r < f.seconds.size(); ++r)
    shares.push_back(number(f.seconds[r] > 0 ? f.exchanging[r] / f.seconds[r] : 0));
  Line out = {{"count", f.seconds.size()}, {"bytes", f.bytes}, {"exchange_share", shares}};
  if (f.rows.choices > 0) {
    out["rows"] = {{"tokens", f.rows.tokens},
                   {"choices", f.rows.choices},
                   {"to_experts", {{"same_node", f.rows.near}, {"other_nodes", f.rows.far}}},
                   {"back", {{"same_node", f.rows.back_near}, {"other_nodes", f.rows.back_far}}}};
  }
  if (f.experts.all > 0)
    out["experts_brought"] = double(f.experts.asked) / double(f.experts.all);
  return out;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, Index steps_done) : path_(path) {
  // whole or not at all
  write_file(path, std::filesystem::exists(path) ? kept_lines(path, steps_done) : "");
  file_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file_ < 0)
    io_failure("write", path, errno);
}
MetricsLog::MetricsLog(MetricsLog&& o) noexcept
    : path_(std::move(o.path_)),
      file_(std::exchange(o.file_, -1)),
      tokens_(o.tokens_),
      start_(o.start_) {}
MetricsLog::~MetricsLog() {
  if (file_ >= 0)
    ::close(file_);
}

void MetricsLog::refuse(int error) const {
  throw Error(Exit::io, concat("cannot write '", path_.string(), "': ", std::strerror(error)))
      .safe("checkpoints written so far are whole")
      .hint("free space, then moe train --resume");
}

void MetricsLog::write(const std::string& text) {
  if (file_ < 0)
    return;
  for (std::string_view left = text; !left.empty();) {
    const ssize_t n = ::write(file_, left.data(), left.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      refuse(n < 0 ? errno : ENOSPC);
    left.remove_prefix(std::size_t(n));
  }
}

void MetricsLog::sync() {
  while (file_ >= 0 && ::fsync(file_) != 0) {
    if (errno != EINTR)
      refuse(errno);
  }
}

double MetricsLog::tokens_per_second() const {
  const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  return s > 0 ? tokens_ / s : 0;
}

void MetricsLog::step(const StepResult& r, Decoder<float>& model, Trainer& trainer,
                      const StepTimes* times, const RankFigures* ranks) {
  Line line = {{"step", r.step},
               {"loss", number(r.loss)},
               {"total_loss", number(r.total_loss)},
               {"gradient_norm", number(r.gradient_norm)},
               {"lr", r.lr},
               {"tokens_per_second", number(tokens_per_second())}};
  if (r.noise) {
    line["noise_square"] = number(r.noise->square);
    line["noise_trace"] = number(r.noise->trace);
  }
  if (times)
    line["profile"] = time_line(*times);
  if (ranks)
    line["ranks"] = rank_line(*ranks);
  Line layers = Line::array();
  const auto moe = model.moe_layers();
  for (std::size_t l = 0; l < r.layer.size(); ++l) {
    layers.push_back(layer_line(r.layer[l], model.layer_of(int(l)), *moe[l],
                                trainer.steps_with_gradient()[l], r.step));
    add_noise(layers.back(), r.layer[l].noise);
  }
  line["layers"] = layers;
  write(text_of(line));
}

void MetricsLog::warning(const std::string& sentence) {
  write(text_of({{"step", 0}, {"warning", sentence}}));
}

void MetricsLog::validation(Index step, const std::vector<DomainLoss>& losses) {
  Line domains = Line::object();
  for (const DomainLoss& d : losses) {
    if (!d.tokens)
      continue;
    domains[d.name] = {{"loss", number(d.loss())}, {"tokens", d.tokens}};
    for (const AnswerCount& a : d.answers)
      domains[d.name]["answers"][a.question] = {{"asked", a.asked}, {"exact", a.exact}};
  }
  write(text_of({{"step", step}, {"valid_loss", number(mean_loss(losses))}, {"domains", domains}}));
}

}  // namespace moe
