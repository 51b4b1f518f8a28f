// What would answer a question: a comparison of arithmetic over measures of arms, evaluated seed by
// seed, so that what seeds have in common falls out. "loss[softmax] - loss[sigmoid] > 0",
// "tokens_per_second[moe] / tokens_per_second[dense] < 0.7", "loss[k=2] = loss[k=1] within 0.01".
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/study/study.h"

namespace moe {

// condition := sum ('>' | '<') sum | sum '=' sum 'within' number
// sum       := product (('+' | '-') product)*
// product   := factor (('*' | '/') factor)*
// factor    := number | '-' factor | '(' sum ')' | measure '[' arm ']' | function '(' sum, ... ')'
// function  := abs | ln | min | max
class Condition {
 public:
  enum class Relation { above, below, within };
  // The value of a measure of an arm in one repetition; NaN = it has none.
  using Values = std::function<double(const std::string& measure, const std::string& arm)>;

  explicit Condition(const std::string& text);  // throws Error(usage) with the place in the text

  void refuse_unknown(const Study&) const;  // throws Error(usage) for names the study lacks
  // Measures that it reads, each once.
  std::vector<std::string> measures() const;
  Relation relation() const {
    return relation_;
  }
  // Left and right side in one repetition.
  double left(const Values&) const;
  double right(const Values&) const;
  bool right_is_constant() const;
  double width() const {
    return width_;
  }  // of "within"

  struct Node;

 private:
  std::string text_;
  std::shared_ptr<const Node> left_, right_;
  Relation relation_ = Relation::above;
  double width_ = 0;
};

}  // namespace moe
