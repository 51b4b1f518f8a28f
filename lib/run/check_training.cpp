#include "lib/run/check_training.h"

#include <unistd.h>

#include <cmath>
#include <cstring>

#include "lib/backend/difference.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/run/run_folder.h"

namespace moe {
namespace {

constexpr int words = 31;
constexpr const char* models[] = {
    "router={softmax:k=2},balance={switch:coef=0.01;z:coef=0.001}",
    "router={sigmoid:k=2,bias=1},balance={bias:rate=0.001},shared_width=12,qk_norm=head",
    "router={softmax:k=2},capacity={position:factor=1.25},balance={switch:coef=0.01}"};
const TrainOptions ten{.steps = 10, .accumulate = 2, .lr = 0.01, .schedule = "constant"};

ModelConfig config_of(const std::string& model) {
  return model_config(
      concat("custom:vocabulary=", words,
             ",hidden=32,layers=2,heads=4,kv_heads=2,width=24,experts=6,context=32,", model));
}

// A text that can be learned: mostly one word after another, of two sequences, the last row
// padding.
Batch batch_of(std::uint64_t number) {
  Rng rng = Rng(8).stream(number);
  Batch b;
  for (const Index length : {20, 31}) {
    int word = int(rng.below(words));
    for (Index t = 0; t < length; ++t) {
      b.token.push_back(word);
      word = rng.below(8) == 0 ? int(rng.below(words)) : (word + 1) % words;
      b.target.push_back(word);
    }
    b.start.push_back(b.tokens());
  }
  b.valid.assign(b.token.size(), 1);
  b.valid.back() = 0;
  return b;
}

struct Run {
  Decoder<float> model;
  Solo comm;
  Trainer trainer;
  std::vector<double> numbers;  // total loss and gradient norm of each step
  Run(Backend<float>& b, const std::string& spec)
      : model(config_of(spec), b), trainer((model.initialise(4), model), ten, comm) {}
  void steps(Index n) {
    for (Index i = 0; i < n; ++i) {
      const StepResult r = trainer.step(batch_of, false);
      numbers.insert(numbers.end(), {r.total_loss, r.gradient_norm});
    }
  }
};

// What a number may be off after so many rounded products, as for the cases: sums may cancel.
double allowed_after(int products, const Backend<float>& device, double plain) {
  const double rounding = 20 * device.rounding();
  return plain + products * rounding * rounding;
}
TrainingVerdict judged(std::string what, const std::string& model, double error, double allowed,
                       std::string sentence) {
  // a NaN fails
  return {std::move(what), model, error, allowed, error <= allowed, std::move(sentence)};
}

struct Step {
  double loss = 0;
  std::vector<std::pair<std::string, Matrix<float>>> gradient;
};
Step one_step(Backend<float>& b, const std::string& spec) {
  Decoder<float> model(config_of(spec), b);
  model.initialise(4);
  model.want_grads();
  model.clear_grads();
  const Batch batch = batch_of(0);
  Rng rng(9);
  const Pass pass{.batch = batch, .training = true, .rng = &rng};
  Decoder<float>::Tape tape;
  model.forward(pass, tape);
  model.backward(pass, tape);
  Step s{.loss = tape.loss};
  for (auto* p : model.parameters()) {
    Matrix<float> g(p->value().rows, p->value().cols);
    b.to_host(p->grad().data, g.data(), std::size_t(g.size()) * sizeof(float));
    s.gradient.emplace_back(p->name(), std::move(g));
  }
  return s;
}

void check_step(Backend<float>& device, Backend<float>& definition, const std::string& spec,
                std::vector<TrainingVerdict>& out) {
  const Step got = one_step(device, spec);
  const Step want = one_step(definition, spec);
  const double off = (got.loss - want.loss) / want.loss;
  out.push_back(judged("model loss", spec, off * off, allowed_after(1, device, 1e-10),
                       concat("loss ", got.loss, " instead of ", want.loss)));
  Difference worst;
  std::string name;
  for (std::size_t i = 0; i < want.gradient.size(); ++i) {
    const Difference d = difference(got.gradient[i].second.view(), want.gradient[i].second.view());
    if (name.empty() || !(d.error <= worst.error)) {
      worst = d;
      name = want.gradient[i].first;
    }
    if (std::isnan(worst.error))
      break;
  }
  out.push_back(judged("model gradients", spec, worst.error, allowed_after(20, device, 1e-8),
                       concat(name, ": ", text_of(worst))));
}

void check_losses(Backend<float>& device, Backend<float>& definition, const std::string& spec,
                  std::vector<TrainingVerdict>& out) {
  Run got(device, spec), want(definition, spec);
  got.steps(10);
  want.steps(10);
  double apart = 0;
  double size = 0;
  for (std::size_t i = 0; i < want.numbers.size(); i += 2) {
    apart += std::pow(got.numbers[i] - want.numbers[i], 2);
    size += std::pow(want.numbers[i], 2);
  }
  const bool learns = got.numbers[18] < 0.9 * got.numbers[0];
  out.push_back(judged("ten losses", spec, apart / size, allowed_after(1, device, 1e-8),
                       concat("from ", got.numbers[0], " to ", got.numbers[18],
                              ", by the definition to ", want.numbers[18])));
  if (!learns) {
    out.back().passed = false;
    out.back().sentence += ": the loss does not fall";
  }
}

struct Folder {  // of this process, removed in the end
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / concat("moe-verify-", ::getpid());
  Folder() {
    std::filesystem::create_directories(path);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

// Numbers whose bits differ between two models and their moments.
Index other_bits(Run& whole, Decoder<float>& model, Trainer& trainer) {
  Index n = 0;
  const auto compare = [&](const Matrix<float>& a, const Matrix<float>& b) {
    for (Index i = 0; i < a.size(); ++i)
      n += a.size() != b.size() || std::memcmp(a.data() + i, b.data() + i, sizeof(float)) != 0;
  };
  const auto p = whole.model.parameters();
  const auto q = model.parameters();
  for (std::size_t i = 0; i < p.size(); ++i)
    compare(p[i]->to_host(), q[i]->to_host());
  const auto m = whole.trainer.moments();
  const auto k = trainer.moments();
  for (std::size_t i = 0; i < m.size(); ++i)
    compare(m[i].read(), k[i].read());
  return n;
}

void check_resume(Backend<float>& device, const std::string& spec,
                  std::vector<TrainingVerdict>& out) {
  const Folder folder;
  Run whole(device, spec), first(device, spec);
  whole.steps(6);
  first.steps(3);
  RunState state{.step = 3, .train = ten, .model = to_spec(first.model.config())};
  state.steps_with_gradient = first.trainer.steps_with_gradient();
  save_checkpoint(folder.path, first.model, &first.trainer, state,
                  {.json = "{}", .config_json = "{}"});
  const LoadedModel loaded = load_model(folder.path, device);
  Solo comm;
  Trainer second(*loaded.model, ten, comm);
  load_training(loaded, second);
  Index differ = 0;
  for (std::size_t i = 6; i < whole.numbers.size(); i += 2) {
    const StepResult r = second.step(batch_of, false);
    differ += (r.total_loss != whole.numbers[i]) + (r.gradient_norm != whole.numbers[i + 1]);
  }
  const Index numbers = other_bits(whole, *loaded.model, second);
  out.push_back(judged("save and resume", spec, double(differ + numbers), 0,
                       concat(differ, " losses and norms, ", numbers,
                              " weights and moments have other bits than without the stop")));
}

}  // namespace

std::vector<TrainingVerdict> check_training(Backend<float>& device, Backend<float>& definition) {
  std::vector<TrainingVerdict> out;
  for (const char* spec : models) {
    check_step(device, definition, spec, out);
    check_losses(device, definition, spec, out);
    check_resume(device, spec, out);
  }
  return out;
}

}  // namespace moe
