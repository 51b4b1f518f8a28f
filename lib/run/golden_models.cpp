#include "lib/run/golden_models.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "lib/core/error.h"
#include "lib/files/gguf.h"
#include "lib/run/golden_differences.h"
#include "lib/run/golden_modal_models.h"
#include "lib/run/run_folder.h"
#include "lib/run/run_tokenizer.h"
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
  // texts with their ids, where the case has some
  const GoldenFile* texts() const {
    return file_ && file_->has("tokens/texts") ? &*file_ : nullptr;
  }
  // of a model of several modalities; null = text alone
  const GoldenFile* modal() const {
    return file_ && is_modal_case(*file_) ? &*file_ : nullptr;
  }
  // a tolerance that the case states: an attribute, or a tensor of one number
  std::optional<double> stated(const char* name) const {
    if (tensors_)
      return has(name) ? std::optional(numbers(name).at(0)) : std::nullopt;
    return file_->has_attribute(name) ? std::optional(file_->real(name)) : std::nullopt;
  }

 private:
  std::optional<GoldenFile> file_;
  std::optional<Tensors> tensors_;
};

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

// The largest difference in rows of `valid` ones.
template <class T>
double apart_in(View<const T> got, const std::vector<double>& want, const Batch& valid) {
  if (std::size_t(got.size()) != want.size() || got.rows != valid.tokens())
    return std::numeric_limits<double>::infinity();
  double most = 0;
  for (Index t = 0; t < got.rows; ++t) {
    const auto row = want.begin() + std::ptrdiff_t(t * got.cols);
    if (valid.is_valid(t))
      most = std::max(most, apart(std::span<const T>(&got(t, 0), std::size_t(got.cols)),
                                  std::vector<double>(row, row + std::ptrdiff_t(got.cols))));
  }
  return most;
}

std::vector<int> ids_of(const Expected& e, const char* name) {
  const std::vector<double> all = e.numbers(name);
  return {all.begin(), all.end()};
}
std::vector<Index> sequences(const std::vector<Index>& dims) {
  std::vector<Index> start;
  for (Index q = 0; q <= dims.at(0); ++q)
    start.push_back(q * dims.at(1));
  return start;
}

// A source with its mask, what the decoder reads, and the labels.
Batch pairs_of(const Expected& e) {
  auto source = std::make_shared<Batch>();
  source->token = ids_of(e, "input_ids");
  source->start = sequences(e.dims("input_ids"));
  for (const int m : ids_of(e, "attention_mask"))
    source->valid.push_back(std::uint8_t(m));
  Batch b;
  b.token = ids_of(e, "decoder_input_ids");
  b.start = sequences(e.dims("decoder_input_ids"));
  for (const int label : ids_of(e, "labels"))
    b.target.push_back(label < 0 ? -1 : label);
  b.source = std::move(source);
  return b;
}

// The same choices, the same of them dropped, and the weights of what is computed; the class
// multiplies what experts put out by `scale` and says weights without it.
void compare_kept(const MoeTape<float>& t, const Expected& e, const std::string& at, double scale,
                  GoldenModelResult& out) {
  const Routing& r = t.routing;
  const std::vector<double> ids = e.numbers(at + "topk_ids");
  const std::vector<double> weights = e.numbers(at + "topk_weights");
  const std::vector<double> dropped = e.numbers(at + "dropped");
  const Index k = r.choices();
  if (ids.size() != std::size_t(r.tokens() * k) || ids.size() != dropped.size())
    return void(out.wrong_choices += long(ids.size()) + 1);
  for (Index n = 0; n < r.tokens(); ++n) {
    if (!t.input.batch.is_valid(n))
      continue;
    for (Index j = 0; j < k; ++j) {
      const std::size_t i = std::size_t(n * k + j);
      const bool kept = r.computed()(n, j) >= 0;
      ++out.choices;
      out.wrong_choices += r.expert(n, j) != int(ids[i]) || kept == (dropped[i] != 0);
      out.weights = std::max(out.weights, std::abs(r.combined()(n, j) / scale - weights[i]));
    }
  }
}

void compare_outputs(Decoder<float>& model, const Decoder<float>::Tape& tape, const Batch& batch,
                     const Expected& e, GoldenModelResult& out) {
  Array<float> z(model.backend(), batch.tokens(), model.config().vocabulary);
  model.logits(tape.normed.view(), z.view());
  const Matrix<float> logits = z.to_host();
  const Matrix<float> hidden = tape.normed.to_host();
  const Matrix<float> memory = tape.source.memory.to_host();
  out.logits = apart(std::span<const float>(logits.flat()), e.numbers("logits"));
  out.hidden = std::max(
      {out.hidden, apart(std::span<const float>(hidden.flat()), e.numbers("hidden_states")),
       apart_in(memory.view(), e.numbers("encoder_hidden_states"), *batch.source)});
  out.loss = std::abs(tape.loss - e.numbers("loss")[0]);
}

void compare_pairs(Decoder<float>& model, const Expected& e, GoldenModelResult& out) {
  const ModelConfig& c = model.config();
  const Batch batch = pairs_of(e);
  Spec router(c.moe.router);
  const double scale = router.get("scale", 1.0);
  Decoder<float>::Tape tape;
  model.infer({.batch = batch}, tape, [&](int place, const MoeTape<float>& t, View<const float> x) {
    const int layer = model.layer_of(place);
    const std::string at = c.in_encoder(layer)
                               ? concat("moe/encoder_layer_", layer, "/")
                               : concat("moe/decoder_layer_", layer - c.encoder_layers, "/");
    if (!e.has(at + "router_logits"))
      return void(out.wrong_choices += 1);
    const Batch& rows = t.input.batch;
    out.router_logits =
        std::max(out.router_logits,
                 apart_in(t.routing.logits.view(), e.numbers(at + "router_logits"), rows));
    if (e.has(at + "moe_input"))
      out.hidden = std::max(out.hidden, apart_in(x, e.numbers(at + "moe_input"), rows));
    compare_kept(t, e, at, scale, out);
  });
  compare_outputs(model, tape, batch, e, out);
}

void compare(Decoder<float>& model, const Expected& e, GoldenModelResult& out) {
  if (model.config().encoder_layers > 0)
    return compare_pairs(model, e, out);
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

// Largest differences that pass. A case with `tolerance` was computed on dequantised numbers in
// double precision, and allows ten times the usual for all else too; one with `tolerance_logits`
// states four times the noise of its class where that is more than the usual.
struct Allowed {
  double logits = 2e-5, router_logits = 1e-5, hidden = 2e-5, weights = 1e-6, loss = 1e-5;
};
Allowed allowed_by(const Expected& e) {
  if (const auto logits = e.stated("tolerance_logits")) {
    const double hidden = std::max(3e-5, *logits);
    return {.logits = *logits, .router_logits = hidden, .hidden = hidden, .weights = 4e-6};
  }
  const std::optional<double> said = e.stated("tolerance");
  if (!said)
    return {};
  return {.logits = *said, .router_logits = 1e-4, .hidden = *said, .weights = 1e-5, .loss = 1e-4};
}

// `scale`: factor of the routed experts' weights.
std::string judge(const GoldenModelResult& r, const Allowed& allowed, double scale) {
  const auto wrong = [](double v, double most) {
    return !(v <= most);
  };
  if (wrong(r.logits, allowed.logits))
    return concat("logits differ by ", r.logits, ", ", allowed.logits, " are allowed");
  if (r.wrong_choices > 0)
    return concat(r.wrong_choices, " of ", r.choices, " choices of experts differ");
  if (wrong(r.router_logits, allowed.router_logits)) {
    return concat("router logits differ by ", r.router_logits, ", ", allowed.router_logits,
                  " are allowed");
  }
  if (wrong(r.hidden, allowed.hidden))
    return concat("hidden states differ by ", r.hidden, ", ", allowed.hidden, " are allowed");
  if (wrong(r.weights, allowed.weights * std::max(1.0, scale)))
    return concat("weights of experts differ by ", r.weights);
  if (wrong(r.loss, allowed.loss))
    return concat("the loss differs by ", r.loss, ", ", allowed.loss, " are allowed");
  return "";
}

// The first text whose ids the model's own tokenizer gives otherwise, special tokens left as text.
std::string judge_texts(const LoadedModel& loaded, const GoldenFile& file) {
  const auto tokenizer = tokenizer_of(loaded);
  if (!tokenizer)
    return "there are texts with their ids, and the model holds no tokenizer";
  const std::vector<std::string> texts = file.texts("tokens/texts").values;
  const std::vector<std::int64_t> offsets = file.integers("tokens/offsets").values;
  const std::vector<std::int64_t> all = file.integers("tokens/ids").values;
  if (offsets.size() != texts.size() + 1 || !std::ranges::is_sorted(offsets) || offsets[0] < 0 ||
      offsets.back() > std::int64_t(all.size()))
    return "the offsets of the recorded ids do not fit their texts";
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::vector<int> want(all.begin() + offsets[i], all.begin() + offsets[i + 1]);
    if (tokenizer->encode(texts[i], {.special = SpecialText::text}).ids != want)
      return concat("the ids of text ", i, " differ");
  }
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
      const Expected values(expected);
      compare(*loaded.model, values, r);
      r.allowed = allowed_by(values).logits;
      if (!(r.logits <= r.allowed)) {
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
  return (fs::exists(folder / "config.json") || gguf_file_of(folder)) &&
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

// A folder of malformed cases, or one of them.
bool holds_malformed(const fs::path& folder) {
  return fs::exists(folder / "expected.json");
}
bool is_malformed(const fs::path& folder) {
  const fs::path name = folder.has_filename() ? folder : folder.parent_path();
  return holds_malformed(name.parent_path()) && name.parent_path().filename() == "bad";
}

// Those of one folder; with `only` the one of that name.
std::vector<GoldenModelResult> malformed_in(const fs::path& bad, const std::string& only,
                                            Backend<float>& backend) {
  std::vector<GoldenModelResult> out;
  const Json all = read_json(bad / "expected.json").at("cases");
  for (const Json& c : all) {
    if (only.empty() || c.at("dir") == only)
      out.push_back(malformed(bad, c, backend));
  }
  return out;
}

}  // namespace

bool is_golden_models(const fs::path& folder) {
  return fs::is_directory(folder) && (has_expected(folder) || !inside(folder).empty() ||
                                      holds_malformed(folder) || is_malformed(folder));
}

GoldenModelResult verify_golden_model(const fs::path& folder, Backend<float>& backend) {
  GoldenModelResult r;
  r.name = folder.filename().string();
  try {
    const LoadedModel loaded = load_model(folder, backend);
    r.family = loaded.family;
    const Expected expected(folder);
    if (const GoldenFile* modal = expected.modal()) {
      compare_modal(*loaded.model, *modal, r);
      r.why = judge_modal(r);
      const std::string encoders = judge_encoders(folder, *modal, backend, r);
      if (r.why.empty())
        r.why = encoders;
      r.passed = r.why.empty();
      return r;
    }
    compare(*loaded.model, expected, r);
    const Allowed allowed = allowed_by(expected);
    r.allowed = allowed.logits;
    Spec router(loaded.model->config().moe.router);
    r.why = judge(r, allowed, router.get("scale", 1.0));
    if (const GoldenFile* texts = expected.texts(); texts && r.why.empty())
      r.why = judge_texts(loaded, *texts);
    r.passed = r.why.empty();
  } catch (const Error& e) {
    r.why = e.what();
  }
  return r;
}

std::vector<GoldenModelResult> verify_golden_models(const fs::path& folder,
                                                    Backend<float>& backend) {
  const fs::path name = folder.has_filename() ? folder : folder.parent_path();
  if (is_malformed(name))
    return malformed_in(name.parent_path(), name.filename().string(), backend);
  if (holds_malformed(name))
    return malformed_in(name, "", backend);
  if (has_expected(name))
    return {verify_golden_model(name, backend)};
  std::vector<GoldenModelResult> out;
  for (const fs::path& one : inside(name))
    out.push_back(verify_golden_model(one, backend));
  if (holds_malformed(name / "bad")) {
    for (GoldenModelResult& r : malformed_in(name / "bad", "", backend))
      out.push_back(std::move(r));
  }
  return out;
}

}  // namespace moe
