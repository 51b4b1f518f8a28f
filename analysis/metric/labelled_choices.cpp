#include "analysis/metric/labelled_choices.h"

namespace moe {

void LabelledChoices::begin(std::size_t labels) {
  for (const int e : shape_.experts) {
    state_.push_back(
        {Counts(Index(labels), e), Counts(Index(labels), e), std::vector<std::int64_t>(labels, 0)});
  }
}

bool LabelledChoices::labelled() const {
  for (const LabelCounts& s : state_) {
    for (const std::int64_t n : s.tokens) {
      if (n)
        return true;
    }
  }
  return false;
}

Matrix<double> LabelledChoices::first_rates(const LabelCounts& s) {
  return s.ranked ? rates(s.first, s.tokens)
                  : Matrix<double>(s.first.rows(), s.first.cols(), no_value);
}

Matrix<double> LabelledChoices::rates(const Counts& c, const std::vector<std::int64_t>& tokens) {
  Matrix<double> out(c.rows(), c.cols(), no_value);
  for (Index d = 0; d < c.rows(); ++d) {
    for (Index e = 0; e < c.cols(); ++e) {
      if (tokens[std::size_t(d)])
        out(d, e) = double(c(d, e)) / double(tokens[std::size_t(d)]);
    }
  }
  return out;
}

int LabelledChoices::choices(std::size_t l) const {
  const auto n = row_sums(state_[l].chosen);
  const double all = std::accumulate(n.begin(), n.end(), 0.0);
  return whole_choices(all / state_[l].all_tokens(), shape_.experts[l]);
}

LabelledChoices::Figures LabelledChoices::figures(std::size_t l, ChanceStore& store) const {
  const LabelCounts& s = state_[l];
  const double mi = mutual_information_bits(s.chosen);
  const double h = entropy_bits(row_sums(s.chosen));
  return {mi,
          h > 0 ? mi / h : no_value,
          max_lift(s.chosen),
          h,
          s.ranked ? adjusted_mutual_information(s.first) : no_value,
          store.labels(shape_.experts[l], choices(l)).mi_bits(s.tokens)};
}

double LabelledChoices::excess_bits(std::size_t l) const {
  const LabelCounts& s = state_[l];
  const auto per_label = row_sums(s.chosen);
  double n = 0;
  double tokens = 0;
  double seen = 0;
  for (std::size_t d = 0; d < per_label.size(); ++d) {
    n += double(per_label[d]);
    tokens += double(s.tokens[d]);
    seen += per_label[d] > 0;
  }
  return mutual_information_bits(s.chosen) -
         chance::mi_bits(seen, shape_.experts[l], n / tokens, n);
}

Standing LabelledChoices::tells_apart(std::size_t l, ChanceStore& store) const {
  const Figures f = figures(l, store);
  return standing(f.mi, f.null_mi,
                  {.tokens = state_[l].all_tokens(),
                   .figures = double(state_.size()),
                   .worth = worth_telling * f.entropy,
                   .falls = 1});
}

}  // namespace moe
