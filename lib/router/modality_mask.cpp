#include "lib/router/modality_mask.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "lib/core/error.h"
#include "lib/core/modality.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe {
namespace {

struct Range {
  int first = 0, last = 0;
};

int id_of(std::string_view text, const std::string& whole, const std::string& where) {
  int id = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (code != std::errc{} || end != text.data() + text.size() || id < 0) {
    throw Error(Exit::usage, concat(where, ": '", whole, "' is not a range of expert ids"))
        .hint("ids from 0, such as 0-3 or 5");
  }
  return id;
}

Range range_of(const std::string& text, int experts, const std::string& where) {
  const std::size_t dash = text.find('-');
  const std::string_view all(text);
  Range r;
  r.first = id_of(all.substr(0, dash), text, where);
  r.last = dash == text.npos ? r.first : id_of(all.substr(dash + 1), text, where);
  if (r.last < r.first || r.last >= experts) {
    throw Error(Exit::usage, concat(where, ": there are no experts ", text, " among ", experts))
        .hint(concat("ids from 0 to ", experts - 1));
  }
  return r;
}

}  // namespace

ModalityMask::ModalityMask(const std::string& text, int experts, const std::string& router) {
  const std::string where = router + ": experts";
  Matrix<std::uint8_t> allowed(modality_kinds, experts);
  for (const auto& [name, ids] : parts_by_modality(text, where)) {
    const Range r = range_of(ids, experts, where);
    const int first = name == "all" ? 0 : modality_of(name, where);
    const int last = name == "all" ? modality_kinds - 1 : first;
    if (first == last)
      named_.push_back(std::uint8_t(first));
    for (int m = first; m <= last; ++m)
      std::fill(&allowed(m, r.first), &allowed(m, r.last) + 1, std::uint8_t(1));
  }
  for (int e = 0; e < experts; ++e) {
    int users = 0;
    for (int m = 0; m < modality_kinds; ++m)
      users += allowed(m, e);
    if (users == 0) {
      throw Error(Exit::usage, concat(where, "=", text, " leaves expert ", e, " to nobody"))
          .hint(concat("all:", e, " for an expert that every modality shares"));
    }
  }
  allowed_ = std::move(allowed);
}

int ModalityMask::count(std::uint8_t modality) const {
  const auto row = allowed_.row(modality);
  return int(std::ranges::count(row, std::uint8_t(1)));
}

std::vector<int> ModalityMask::sets() const {
  std::vector<int> out;
  std::vector<Index> first;  // expert of each set
  for (Index e = 0; e < allowed_.cols(); ++e) {
    const auto alike = [&](Index other) {
      for (Index m = 0; m < allowed_.rows(); ++m) {
        if (allowed_(m, e) != allowed_(m, other))
          return false;
      }
      return true;
    };
    const auto at = std::ranges::find_if(first, alike);
    out.push_back(int(at - first.begin()));
    if (at == first.end())
      first.push_back(e);
  }
  return out;
}

void ModalityMask::check_k(int k, const std::string& router) const {
  if (empty() || k > allowed_.cols())
    return;
  for (const std::uint8_t m : named_) {
    const int n = count(m);
    if (n < k) {
      throw Error(Exit::usage, concat(router, ": rows of ", modality_names()[m],
                                      " may choose among ", n, " experts, fewer than k=", k))
          .hint(concat("k=", n, ", or more experts in experts="));
    }
  }
}

Matrix<std::uint8_t> ModalityMask::barred(const Batch& batch, int k) const {
  if (empty())
    return {};
  Matrix<std::uint8_t> out(batch.tokens(), allowed_.cols());
  for (Index t = 0; t < batch.tokens(); ++t) {
    if (!batch.is_valid(t))
      continue;
    const std::uint8_t m = batch.modality_of(t);
    const int open = m < modality_kinds ? count(m) : 0;
    if (open < k) {
      const std::string name =
          m < modality_kinds ? modality_names()[m] : std::string("unknown modality");
      throw Error(Exit::usage, concat("a row of ", name, " may choose ", open, " of the ",
                                      allowed_.cols(), " experts and needs ", k))
          .hint("name its modality in the router's experts=, or add experts for all:");
    }
    const auto allowed = allowed_.row(m);
    std::ranges::transform(allowed, out.row(t).begin(),
                           [](std::uint8_t a) { return std::uint8_t(1 - a); });
  }
  return out;
}

ModalityMask modality_mask(Spec& spec, int experts) {
  if (!spec.has("experts"))
    return {};
  return ModalityMask(spec.get("experts", ""), experts, spec.name());
}

void with_bars(std::span<const double> row, std::span<const std::uint8_t> barred,
               std::span<double> out) {
  std::ranges::copy(row, out.begin());
  for (std::size_t e = 0; e < barred.size(); ++e) {
    if (barred[e])
      out[e] = -std::numeric_limits<double>::infinity();
  }
}

}  // namespace moe
