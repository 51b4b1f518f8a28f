// `zipf`: independent ids whose frequency falls as 1/(id+1)^alpha, as words in a language do.
// Nothing but the frequencies can be learnt, so their entropy is the loss of a perfect model.
#include "datasets/generated.h"
#include "lib/core/error.h"

namespace moe {
namespace {

class Zipf final : public Generated {
 public:
  explicit Zipf(Spec& spec) {
    const int vocabulary = spec.get("vocabulary", 256, 1);
    const double alpha = spec.get("alpha", 1.1, 0.0);
    if (!(alpha <= 64)) {
      throw Error(Exit::usage, concat("zipf: alpha=", alpha, " must be at most 64"))
          .hint("languages have about 1");
    }
    const int seed = spec.get("seed", 0);
    open(spec, vocabulary);
    double sum = 0;
    double weighted = 0;
    for (int i = 0; i < vocabulary; ++i) {
      const double weight = std::pow(i + 1, -alpha);
      cumulative_.push_back(sum += weight);
      if (weight > 0)
        weighted += weight * std::log(weight);
    }
    info_.notes.push_back(concat("zipf: entropy ",
                                 number_text(float(std::log(sum) - weighted / sum)),
                                 " nats a token, the loss of a perfect model"));
    fill(std::uint64_t(seed));
  }

 private:
  std::vector<int> generate(Split, Index count, Rng& rng) const override {
    std::vector<int> ids(std::size_t(count), 0);
    for (int& id : ids)
      id = draw(cumulative_, rng);
    return ids;
  }
  std::vector<double> cumulative_;
};

}  // namespace

std::unique_ptr<Dataset> make_zipf_dataset(Spec& spec, const Tokenizer&) {
  return std::make_unique<Zipf>(spec);
}

}  // namespace moe
