#include "lib/run/golden_models.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "lib/core/error.h"
#include "lib/run/run_folder.h"
#include "lib/trace/golden.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

// Expected values in either kind of file, by the same names.
class Expected {
 public:
  explicit Expected(const fs::path& folder) {
    if (fs::exists(folder / "expected.h5"))
      file_.emplace(folder / "expected.h5");
    else
      tensors_.emplace(folder / "expected.safetensors");
  }
  bool has(const std::string& name) const {
    return file_ ? file_->has(name) : tensors_->find(name) != nullptr;
  }
  std::vector<double> numbers(const std::string& name) const {
    if (file_ && name.ends_with("ids")) {
      const auto whole = file_->integers(name).values;
      return {whole.begin(), whole.end()};
    }
    if (file_)
      return file_->reals(name).values;
    const Tensor t = tensors_->get(name);
    if (t.dtype() == DType::i32) {
      const Tensor aligned = t.copy();
      const auto v = aligned.view<std::int32_t>().flat();
      return {v.begin(), v.end()};
    }
    const Matrix<float> m = t.to_float();
    return {m.flat().begin(), m.flat().end()};
  }
  std::vector<Index> dims(const std::string& name) const {
    return file_ ? file_->integers(name).dims : tensors_->at(name).dims;
  }

 private:
  std::optional<GoldenFile> file_;
  std::optional<Tensors> tensors_;
};

// The largest difference; infinite where a number is not one.
template <class T>
double apart(std::span<const T> got, const std::vector<double>& want) {
  if (got.size() != want.size())
    return std::numeric_limits<double>::infinity();
  double most = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = std::abs(double(got[i]) - want[i]);
    if (!(d <= most))
      most = std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
  }
  return most;
}

Batch batch_of(const Expected& e) {
  const std::vector<Index> dims = e.dims("input_ids");
  const std::vector<double> ids = e.numbers("input_ids");
  Batch b;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    b.token.push_back(int(ids[i]));
    b.target.push_back((Index(i) + 1) % dims[1] ? int(ids[i + 1]) : -1);
  }
  b.start.clear();
  for (Index q = 0; q <= dims[0]; ++q)
    b.start.push_back(q * dims[1]);
  return b;
}

// Experts of each token as a set with their weights: published routers do not all order them.
void compare_choices(const Routing& r, const std::vector<double>& ids,
                     const std::vector<double>& weights, GoldenModelResult& out) {
  const Index k = r.choices();
  if (ids.size() != std::size_t(r.tokens() * k))
    return void(out.wrong_choices += long(ids.size()) + 1);
  for (Index t = 0; t < r.tokens(); ++t) {
    for (Index j = 0; j < k; ++j) {
      const std::size_t at = std::size_t(t * k + j);
      const auto row = r.expert.row(t);
      const auto mine = std::ranges::find(row, int(ids[at]));
      ++out.choices;
      if (mine == row.end()) {
        ++out.wrong_choices;
      } else {
        out.weights =
            std::max(out.weights, std::abs(r.weight(t, mine - row.begin()) - weights[at]));
      }
    }
  }
}

void compare(Decoder<float>& model, const Expected& e, GoldenModelResult& out) {
  const Batch batch = batch_of(e);
  Decoder<float>::Tape tape;
  model.infer({.batch = batch}, tape, [&](int place, const MoeTape<float>& t, View<const float>) {
    const std::string at = concat("moe/layer_", model.layer_of(place), "/");
    if (!e.has(at + "router_logits"))
      return;
    out.router_logits = std::max(
        out.router_logits,
        apart(std::span<const double>(t.routing.logits.flat()), e.numbers(at + "router_logits")));
    if (e.has(at + "topk_ids"))
      compare_choices(t.routing, e.numbers(at + "topk_ids"), e.numbers(at + "topk_weights"), out);
  });
  Array<float> z(model.backend(), batch.tokens(), model.config().vocabulary);
  model.logits(tape.normed.view(), z.view());
  const Matrix<float> logits = z.to_host();
  const Matrix<float> hidden = tape.normed.to_host();
  out.logits = apart(std::span<const float>(logits.flat()), e.numbers("logits"));
  if (e.has("hidden_states"))
    out.hidden = apart(std::span<const float>(hidden.flat()), e.numbers("hidden_states"));
  if (e.has("loss"))
    out.loss = std::abs(tape.loss - e.numbers("loss")[0]);
}

std::string judge(const GoldenModelResult& r, double scale) {
  const auto wrong = [](double v, double allowed) {
    return !(v <= allowed);
  };
  if (wrong(r.logits, 2e-5))
    return concat("logits differ by ", r.logits, ", 2e-5 are allowed");
  if (r.wrong_choices > 0)
    return concat(r.wrong_choices, " of ", r.choices, " choices of experts differ");
  if (wrong(r.router_logits, 1e-5))
    return concat("router logits differ by ", r.router_logits, ", 1e-5 are allowed");
  if (wrong(r.hidden, 2e-5))
    return concat("hidden states differ by ", r.hidden, ", 2e-5 are allowed");
  if (wrong(r.weights, 1e-6 * std::max(1.0, scale)))
    return concat("weights of experts differ by ", r.weights);
  if (wrong(r.loss, 1e-5))
    return concat("the loss differs by ", r.loss, ", 1e-5 are allowed");
  return "";
}

bool mentions(const std::string& text, const Json& any) {
  return any.empty() || std::ranges::any_of(any, [&](const Json& word) {
           return text.find(word.get<std::string>()) != text.npos;
         });
}

// A malformed checkpoint: the sentence of its error, or of its notes where it loads all the same.
GoldenModelResult malformed(const fs::path& bad, const Json& spec, Backend<float>& backend) {
  GoldenModelResult r;
  r.name = "bad/" + spec.at("dir").get<std::string>();
  const std::string outcome = spec.at("outcome");
  const Json& words = spec.at("mentions_any_of");
  try {
    const LoadedModel loaded = load_model(bad / spec.at("dir").get<std::string>(), backend);
    r.family = loaded.family;
    r.why = join(loaded.checkpoint.notes, "; ");
    const bool warned = !loaded.checkpoint.notes.empty() && mentions(r.why, words);
    r.passed = outcome == "accept" || (outcome != "error" && warned);
    const fs::path expected = bad / "control";  // all come from this one
    if (r.passed && fs::exists(expected / "expected.h5")) {
      compare(*loaded.model, Expected(expected), r);
      if (!(r.logits <= 2e-5)) {
        r.passed = false;
        r.why = concat("logits differ by ", r.logits, " from those of the whole one");
      }
    }
    if (!r.passed && r.why.empty())
      r.why = concat("was read without a word; right would be: ", outcome);
  } catch (const Error& e) {
    r.why = e.what();
    r.passed = outcome.starts_with("error") && mentions(r.why, words) && e.code() != Exit::bug &&
               e.code() != Exit::memory;
    if (!r.passed)
      r.why = concat("right would be: ", outcome, "; came: ", r.why);
  }
  return r;
}

bool has_expected(const fs::path& folder) {
  return fs::exists(folder / "config.json") &&
         (fs::exists(folder / "expected.h5") || fs::exists(folder / "expected.safetensors"));
}
std::vector<fs::path> inside(const fs::path& folder) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory() && has_expected(entry.path()))
      out.push_back(entry.path());
  }
  std::ranges::sort(out);
  return out;
}

}  // namespace

bool is_golden_models(const fs::path& folder) {
  return fs::is_directory(folder) && (has_expected(folder) || !inside(folder).empty());
}

GoldenModelResult verify_golden_model(const fs::path& folder, Backend<float>& backend) {
  GoldenModelResult r;
  r.name = folder.filename().string();
  try {
    const LoadedModel loaded = load_model(folder, backend);
    r.family = loaded.family;
    compare(*loaded.model, Expected(folder), r);
    Spec router(loaded.model->config().moe.router);
    r.why = judge(r, router.get("scale", 1.0));
    r.passed = r.why.empty();
  } catch (const Error& e) {
    r.why = e.what();
  }
  return r;
}

std::vector<GoldenModelResult> verify_golden_models(const fs::path& folder,
                                                    Backend<float>& backend) {
  if (has_expected(folder))
    return {verify_golden_model(folder, backend)};
  std::vector<GoldenModelResult> out;
  for (const fs::path& one : inside(folder))
    out.push_back(verify_golden_model(one, backend));
  if (fs::exists(folder / "bad" / "expected.json")) {
    const Json cases = read_json(folder / "bad" / "expected.json").at("cases");
    for (const Json& c : cases)
      out.push_back(malformed(folder / "bad", c, backend));
  }
  return out;
}

}  // namespace moe
