#include "lib/study/claim.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <set>

#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/core/text.h"

namespace moe {

struct Condition::Node {
  enum class Kind { number, measure, negative, add, subtract, multiply, divide, call } kind;
  double number = 0;
  std::string name, arm;  // of a measure; name: of a function
  std::vector<std::shared_ptr<const Node>> inside = {};
};

namespace {

using Node = Condition::Node;
using Part = std::shared_ptr<const Node>;

bool is_letter(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_';
}

double called(const std::string& name, const std::vector<double>& v) {
  if (std::ranges::any_of(v, [](double x) { return std::isnan(x); }))
    return std::numeric_limits<double>::quiet_NaN();
  if (name == "abs")
    return std::abs(v[0]);
  if (name == "ln")
    return std::log(v[0]);
  return name == "min" ? *std::ranges::min_element(v) : *std::ranges::max_element(v);
}

double value_of(const Node& n, const Condition::Values& values) {
  const auto in = [&](std::size_t i) {
    return value_of(*n.inside[i], values);
  };
  switch (n.kind) {
    case Node::Kind::number:
      return n.number;
    case Node::Kind::measure:
      return values(n.name, n.arm);
    case Node::Kind::negative:
      return -in(0);
    case Node::Kind::add:
      return in(0) + in(1);
    case Node::Kind::subtract:
      return in(0) - in(1);
    case Node::Kind::multiply:
      return in(0) * in(1);
    case Node::Kind::divide:
      return in(0) / in(1);
    case Node::Kind::call:
      break;
  }
  std::vector<double> all;
  for (std::size_t i = 0; i < n.inside.size(); ++i)
    all.push_back(in(i));
  return called(n.name, all);
}

void visit(const Node& n, const std::function<void(const Node&)>& seen) {
  seen(n);
  for (const Part& p : n.inside)
    visit(*p, seen);
}

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  Part sum() {
    Part out = product();
    for (;;) {
      if (take('+'))
        out = pair(Node::Kind::add, out, product());
      else if (take('-'))
        out = pair(Node::Kind::subtract, out, product());
      else
        return out;
    }
  }

  bool take(char c) {
    blanks();
    if (at_ >= text_.size() || text_[at_] != c)
      return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view word) {
    blanks();
    if (text_.compare(at_, word.size(), word) != 0)
      return false;
    at_ += word.size();
    return true;
  }
  double number() {
    blanks();
    const char* from = text_.c_str() + at_;
    char* to = nullptr;
    const double v = std::strtod(from, &to);
    if (to == from || !std::isfinite(v))
      fail("a number");
    at_ += std::size_t(to - from);
    return v;
  }
  void end() {
    blanks();
    if (at_ < text_.size())
      fail("the end");
  }
  [[noreturn]] void fail(const std::string& expected) const {
    throw Error(Exit::usage,
                concat("the claim '", text_, "' has no meaning at '",
                       text_.substr(std::min(at_, text_.size())), "': ", expected, " was expected"))
        .hint("loss[arm a] - loss[arm b] > 0.01, or a / b < 1, or a = b within 0.02");
  }

 private:
  void blanks() {
    while (at_ < text_.size() && text_[at_] == ' ')
      ++at_;
  }
  static Part pair(Node::Kind kind, Part a, Part b) {
    return std::make_shared<Node>(Node{.kind = kind, .inside = {std::move(a), std::move(b)}});
  }

  Part product() {
    Part out = factor();
    for (;;) {
      if (take('*'))
        out = pair(Node::Kind::multiply, out, factor());
      else if (take('/'))
        out = pair(Node::Kind::divide, out, factor());
      else
        return out;
    }
  }

  Part factor() {
    if (++depth_ > 64)
      fail("fewer brackets");
    Part out = inner();
    --depth_;
    return out;
  }

  Part inner() {
    if (take('('))
      return closed(sum());
    if (take('-'))
      return std::make_shared<Node>(Node{.kind = Node::Kind::negative, .inside = {factor()}});
    if (at_ < text_.size() && is_letter(text_[at_]))
      return named();
    return std::make_shared<Node>(Node{.kind = Node::Kind::number, .number = number()});
  }

  Part closed(Part inside) {
    if (!take(')'))
      fail("a closing bracket");
    return inside;
  }

  Part named() {
    const std::size_t from = at_;
    while (at_ < text_.size() &&
           (is_letter(text_[at_]) || std::isdigit(static_cast<unsigned char>(text_[at_])))) {
      ++at_;
    }
    const std::string name = text_.substr(from, at_ - from);
    if (take('('))
      return call(name);
    if (!take('['))
      fail("an arm in brackets, [arm]");
    const std::size_t close = text_.find(']', at_);
    if (close == text_.npos)
      fail("a closing ]");
    const std::string arm = text_.substr(at_, close - at_);
    at_ = close + 1;
    return std::make_shared<Node>(Node{.kind = Node::Kind::measure, .name = name, .arm = arm});
  }

  Part call(const std::string& name) {
    static const std::vector<std::string> known = {"abs", "ln", "min", "max"};
    if (std::ranges::find(known, name) == known.end())
      no_such("function of claims", name, known);
    Node out{.kind = Node::Kind::call, .name = name, .inside = {sum()}};
    while (take(','))
      out.inside.push_back(sum());
    if ((name == "abs" || name == "ln") && out.inside.size() > 1)
      fail("one value");
    return closed(std::make_shared<Node>(std::move(out)));
  }

  const std::string& text_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

Condition::Condition(const std::string& text) : text_(text) {
  Parser p(text_);
  left_ = p.sum();
  if (p.take('>'))
    relation_ = Relation::above;
  else if (p.take('<'))
    relation_ = Relation::below;
  else if (p.take('='))
    relation_ = Relation::within;
  else
    p.fail("> or < or =");
  right_ = p.sum();
  if (relation_ == Relation::within) {
    if (!p.take_word("within"))
      p.fail("'within' and a number");
    width_ = p.number();
    if (!(width_ > 0))
      p.fail("a width above 0");
  }
  p.end();
  if (measures().empty())
    throw Error(Exit::usage, concat("the claim '", text_, "' speaks of no measure"))
        .hint("loss[arm] > 1");
}

void Condition::refuse_unknown(const Study& s) const {
  std::vector<std::string> names;
  for (const MeasureSpec& m : s.measures)
    names.push_back(m.name);
  for (const Part& side : {left_, right_}) {
    visit(*side, [&](const Node& n) {
      if (n.kind != Node::Kind::measure)
        return;
      if (std::ranges::find(names, n.name) == names.end())
        no_such("measure", n.name, names);
      s.arm(n.arm);
    });
  }
}

std::vector<std::string> Condition::measures() const {
  std::set<std::string> out;
  for (const Part& side : {left_, right_}) {
    visit(*side, [&](const Node& n) {
      if (n.kind == Node::Kind::measure)
        out.insert(n.name);
    });
  }
  return {out.begin(), out.end()};
}

double Condition::left(const Values& values) const {
  return value_of(*left_, values);
}

double Condition::right(const Values& values) const {
  return value_of(*right_, values);
}

bool Condition::right_is_constant() const {
  bool constant = true;
  visit(*right_, [&](const Node& n) { constant = constant && n.kind != Node::Kind::measure; });
  return constant;
}

}  // namespace moe
