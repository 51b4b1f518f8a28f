// `arithmetic`: lines like 12+7=19. A problem (a, operation, b) is held out of training by a hash
// of it, so the valid split asks for sums that were never seen: learning by heart does not help
// there.
#include "datasets/generated.h"
#include "lib/core/error.h"

namespace moe {
namespace {

struct Problem {
  std::int64_t a, b;
  char operation;

  Split split() const {  // one in ten is valid
    return Rng(std::uint64_t(operation), std::uint64_t(a), std::uint64_t(b)).below(10) == 0
               ? Split::valid
               : Split::train;
  }
  std::string line() const {
    const std::int64_t result = operation == '+' ? a + b : operation == '-' ? a - b : a * b;
    return concat(a, operation, b, "=", result, "\n");
  }
};

class Arithmetic final : public Generated {
 public:
  Arithmetic(Spec& spec, const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
    digits_ = spec.get("digits", 2, 1);
    operations_ = spec.get("operations", "+");
    const int seed = spec.get("seed", 0);
    if (digits_ > 9) {
      throw Error(Exit::usage, concat("arithmetic: digits=", digits_, " must be at most 9"))
          .hint("products of longer numbers do not fit 64 bits");
    }
    if (operations_.empty() || operations_.find_first_not_of("+-*") != operations_.npos) {
      throw Error(Exit::usage, concat("arithmetic: operations=", operations_, " is not known"))
          .hint("some of + - *, like operations=+-");
    }
    open(spec, tokenizer.vocabulary());
    fill(std::uint64_t(seed));
  }

 private:
  // each length equally often, so that small numbers are not rare
  std::int64_t number(Rng& rng) const {
    std::int64_t below = 10;
    for (Index more = rng.below(digits_); more > 0; --more)
      below *= 10;
    return rng.below(below);
  }

  std::vector<int> generate(Split split, Index count, Rng& rng) const override {
    std::string text;
    const auto line = [&] {
      for (;;) {
        const std::int64_t a = number(rng);
        const std::int64_t b = number(rng);
        const Problem p{a, b, operations_[rng.below(Index(operations_.size()))]};
        if (p.split() == split)
          return p.line();
      }
    };
    const std::string first = line();  // a training piece starts anywhere in a line
    text =
        split == Split::train ? first.substr(std::size_t(rng.below(Index(first.size())))) : first;
    while (Index(text.size()) < count)
      text += line();
    std::vector<int> ids = tokenizer_.encode(text);
    while (Index(ids.size()) < count) {  // where a token is longer than a byte
      const auto more = tokenizer_.encode(line());
      ids.insert(ids.end(), more.begin(), more.end());
    }
    ids.resize(std::size_t(count));
    return ids;
  }

  const Tokenizer& tokenizer_;
  int digits_ = 2;
  std::string operations_;
};

}  // namespace

std::unique_ptr<Dataset> make_arithmetic_dataset(Spec& spec, const Tokenizer& tokenizer) {
  return std::make_unique<Arithmetic>(spec, tokenizer);
}

}  // namespace moe
