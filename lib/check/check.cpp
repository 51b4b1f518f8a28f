#include "lib/check/check.h"

#include <cmath>

#include "lib/check/inputs.h"
#include "lib/core/text.h"

namespace moe {
namespace {

std::vector<Case> gathered(bool bench) {
  std::vector<Case> all;
  for (const auto& part :
       {check::product_cases(bench), check::routing_cases(bench), check::expert_cases(bench),
        check::row_cases(bench), check::attention_cases(bench),
        check::biased_attention_cases(bench), check::head_cases(bench),
        check::sequence_cases(bench), check::layer_cases(bench), check::on_device_cases(bench)}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

// How many rounded products a number has gone through on its way.
int products_in(const std::string& operation) {
  if (operation.starts_with("linear") || operation.starts_with("grouped_linear"))
    return 1;
  return operation == "experts"            ? 2
         : operation == "experts_backward" ? 4
         : operation == "layer"            ? 6
                                           : 0;
}

bool worse(const Difference& a, const Difference& b) {
  return std::isnan(a.error) ? !std::isnan(b.error) : a.error > b.error;
}

}  // namespace

std::vector<Case> cases() {
  return gathered(false);
}
std::vector<Case> bench_cases() {
  return gathered(true);
}

std::vector<Output> outcome(const Case& c, Backend<float>& backend) {
  const Trial trial = c.prepare(backend);
  trial.run();
  return trial.results();
}

Verdict compare(const Case& c, Backend<float>& device, Backend<float>& definition) {
  const std::vector<Output> got = outcome(c, device);
  const std::vector<Output> want = outcome(c, definition);
  const double rounding = 20 * device.rounding() /* sums may cancel */,
               allowed = c.allowed + products_in(c.operation) * rounding * rounding;
  Verdict v{.passed = !want.empty() && got.size() == want.size(),
            .allowed = allowed,
            .what = concat(c.operation, " ", c.shape)};
  for (std::size_t i = 0; v.passed && i < want.size(); ++i) {
    const Difference d = difference(got[i].value.view(), want[i].value.view());
    v.passed = d.within(allowed);
    if (v.output.empty() || worse(d, v.difference)) {
      v.output = want[i].name;
      v.difference = d;
    }
  }
  return v;
}

std::string Verdict::sentence() const {
  return concat(what, ": ", output, ": ", text_of(difference), ", allowed ", allowed);
}

}  // namespace moe
