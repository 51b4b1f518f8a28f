#include "lib/check/check.h"

#include <cmath>

#include "lib/check/inputs.h"
#include "lib/core/text.h"

namespace moe {
namespace {

std::vector<Case> gathered(bool bench) {
  std::vector<Case> all;
  for (const auto& part : {check::product_cases(bench), check::routing_cases(bench), check::expert_cases(bench), check::row_cases(bench),
                           check::attention_cases(bench), check::layer_cases(bench)})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

bool worse(const Difference& a, const Difference& b) { return std::isnan(a.error) ? !std::isnan(b.error) : a.error > b.error; }

}  // namespace

std::vector<Case> cases() { return gathered(false); }
std::vector<Case> bench_cases() { return gathered(true); }

std::vector<Output> outcome(const Case& c, Backend<float>& backend) {
  const Trial trial = c.prepare(backend);
  trial.run();
  return trial.results();
}

Verdict compare(const Case& c, Backend<float>& device, Backend<float>& definition) {
  const std::vector<Output> got = outcome(c, device), want = outcome(c, definition);
  Verdict v{.passed = !want.empty() && got.size() == want.size(), .allowed = c.allowed, .what = concat(c.operation, " ", c.shape)};
  for (std::size_t i = 0; v.passed && i < want.size(); ++i) {
    const Difference d = difference(got[i].value.view(), want[i].value.view());
    v.passed = d.within(c.allowed);
    if (v.output.empty() || worse(d, v.difference)) v.output = want[i].name, v.difference = d;
  }
  return v;
}

std::string Verdict::sentence() const { return concat(what, ": ", output, ": ", text_of(difference), ", allowed ", allowed); }

}  // namespace moe
