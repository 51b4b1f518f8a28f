// The operations of a pickle, protocols 2 to 5: a stack of nodes, marks and a memo. Calls are
// interpreted by pickle_arrays.cpp.
#include "lib/files/pickle.h"

#include <cstring>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/pickle_tree.h"

namespace moe {
namespace {

constexpr std::size_t most_nodes = 16'000'000, most_text = std::size_t(192) << 20;

class Machine {
 public:
  Machine(PickleTree& tree, std::string_view bytes, const PickleStorage& storage)
      : tree_(tree), bytes_(bytes), storage_(storage) {}

  void run() {
    while (step())
      check_size();
  }

 private:
  using Node = std::uint32_t;

  void check_size() const {
    if (tree_.nodes.size() > most_nodes || tree_.lists.size() > most_nodes)
      tree_.refuse(concat("has more than ", most_nodes, " values in its pickle"));
  }
  std::string_view take(std::uint64_t n) {
    if (n > bytes_.size() - at_)
      tree_.refuse("ends inside its pickle");
    const auto out = bytes_.substr(at_, std::size_t(n));
    at_ += std::size_t(n);
    return out;
  }
  std::uint64_t number(int bytes) {
    std::uint64_t v = 0;
    const auto from = take(std::uint64_t(bytes));
    std::memcpy(&v, from.data(), from.size());
    return v;
  }
  std::string_view line() {
    const auto end = bytes_.find('\n', at_);
    if (end == bytes_.npos)
      tree_.refuse("ends inside its pickle");
    const auto out = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return out;
  }

  void push(Node n) {
    stack_.push_back(n);
  }
  void push(PickleNode n) {
    push(add_node(tree_, n));
  }
  void push_whole(std::int64_t v) {
    PickleNode n{PickleKind::whole, 0, {}};
    n.whole = v;
    push(n);
  }
  void push_text(PickleKind kind, std::string_view text) {
    push(add_text(tree_, kind, std::string(text)));
  }
  Node pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back()))
      tree_.refuse("has a damaged pickle: it takes more from its stack than there is");
    const Node n = stack_.back();
    stack_.pop_back();
    return n;
  }
  Node top() {
    const Node n = pop();
    push(n);
    return n;
  }
  std::vector<Node> pop_mark() {
    if (marks_.empty())
      tree_.refuse("has a damaged pickle: a mark is missing");
    std::vector<Node> out(stack_.begin() + std::ptrdiff_t(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return out;
  }
  void pop_tuple(int n) {
    std::vector<Node> items(std::size_t(n), 0);
    for (int i = n; i-- > 0;)
      items[std::size_t(i)] = pop();
    push(add_list(tree_, PickleKind::tuple, std::move(items)));
  }
  void extend(Node container, const std::vector<Node>& items, PickleKind kind) {
    const PickleNode& n = tree_.nodes[container];
    if (n.kind == PickleKind::opaque || n.kind == PickleKind::global)
      tree_.refuse(concat("holds an object of the class ", tree_.texts[n.at],
                          ", which is not read: nothing in the file was executed"));
    if (n.kind != kind)
      tree_.refuse("has a damaged pickle: it adds to what is no list or dict");
    auto& all = tree_.lists[n.at];
    held_ += items.size();
    if (held_ > most_nodes)
      tree_.refuse(concat("has more than ", most_nodes, " values in its pickle"));
    all.insert(all.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<Node>& items) {
    if (items.size() % 2 != 0)
      tree_.refuse("has a damaged pickle: a dict's key has no value");
    extend(top(), items, PickleKind::dict);
  }
  void put(std::uint64_t slot) {
    if (slot > most_nodes)
      tree_.refuse("has a damaged pickle: its memo is too long");
    if (memo_.size() <= slot)
      memo_.resize(std::size_t(slot) + 1, missing);
    memo_[std::size_t(slot)] = top();
  }
  void get(std::uint64_t slot) {
    if (slot >= memo_.size() || memo_[std::size_t(slot)] == missing)
      tree_.refuse("has a damaged pickle: it refers to what was not stored");
    push(memo_[std::size_t(slot)]);
  }
  void global(std::string_view module, std::string_view name) {
    push_text(PickleKind::global, concat(module, ".", name));
  }
  void stack_global() {
    const PickleNode name = tree_.nodes[pop()];
    const PickleNode module = tree_.nodes[pop()];
    if (name.kind != PickleKind::text || module.kind != PickleKind::text)
      tree_.refuse("has a damaged pickle: the name of a class is no text");
    global(tree_.texts[module.at], tree_.texts[name.at]);
  }
  void new_object() {
    pop();
    const PickleNode n = tree_.nodes[pop()];
    if (n.kind != PickleKind::global)
      tree_.refuse("has a damaged pickle: an object's class has no name");
    push_text(PickleKind::opaque, tree_.texts[n.at]);
  }
  void long_number(std::uint64_t bytes) {
    if (bytes > 8)
      tree_.refuse("has a whole number of more than 64 bits in its pickle");
    std::uint64_t v = number(int(bytes));
    if (bytes > 0 && bytes < 8 && v >> (8 * bytes - 1))
      v |= ~std::uint64_t(0) << (8 * bytes);
    push_whole(std::int64_t(v));
  }

  bool step();
  bool step_container(unsigned char op);
  bool step_number(unsigned char op);
  bool step_text(unsigned char op);
  bool step_memo(unsigned char op);
  bool step_object(unsigned char op);

  static constexpr Node missing = 0xFFFFFFFF;
  PickleTree& tree_;
  std::string_view bytes_;
  const PickleStorage& storage_;
  std::size_t at_ = 0, held_ = 0;
  std::vector<Node> stack_, memo_;
  std::vector<std::size_t> marks_;
};

bool Machine::step_container(unsigned char op) {
  switch (op) {
    case '(':
      marks_.push_back(stack_.size());
      if (marks_.size() > most_nodes)
        tree_.refuse("has a damaged pickle: too many marks");
      return true;
    case '}':
      push(add_list(tree_, PickleKind::dict, {}));
      return true;
    case ']':
      push(add_list(tree_, PickleKind::list, {}));
      return true;
    case ')':
      push(add_list(tree_, PickleKind::tuple, {}));
      return true;
    case 't':
      push(add_list(tree_, PickleKind::tuple, pop_mark()));
      return true;
    case 0x85:
    case 0x86:
    case 0x87:
      pop_tuple(op - 0x84);
      return true;
    case 'a': {
      const Node item = pop();
      extend(top(), {item}, PickleKind::list);
      return true;
    }
    case 'e': {
      const auto items = pop_mark();
      extend(top(), items, PickleKind::list);
      return true;
    }
    case 's': {
      const Node value = pop();
      const Node key = pop();
      set_items({key, value});
      return true;
    }
    case 'u':
      set_items(pop_mark());
      return true;
    default:
      return false;
  }
}

bool Machine::step_number(unsigned char op) {
  switch (op) {
    case 'N':
      push(PickleNode{});
      return true;
    case 0x88:
    case 0x89: {
      PickleNode n{PickleKind::boolean, 0, {}};
      n.whole = op == 0x88;
      push(n);
      return true;
    }
    case 'J':
      push_whole(std::int32_t(std::uint32_t(number(4))));
      return true;
    case 'K':
      push_whole(std::int64_t(number(1)));
      return true;
    case 'M':
      push_whole(std::int64_t(number(2)));
      return true;
    case 0x8a:
      long_number(number(1));
      return true;
    case 'G': {
      PickleNode n{PickleKind::real, 0, {}};
      n.real = std::bit_cast<double>(__builtin_bswap64(number(8)));
      push(n);
      return true;
    }
    default:
      return false;
  }
}

bool Machine::step_text(unsigned char op) {
  switch (op) {
    case 'X':
      push_text(PickleKind::text, take(number(4)));
      return true;
    case 0x8c:
      push_text(PickleKind::text, take(number(1)));
      return true;
    case 'C':
      push_text(PickleKind::bytes, take(number(1)));
      return true;
    case 'B':
      push_text(PickleKind::bytes, take(number(4)));
      return true;
    case 0x8e:
      push_text(PickleKind::bytes, take(number(8)));
      return true;
    default:
      return false;
  }
}

bool Machine::step_memo(unsigned char op) {
  switch (op) {
    case 'q':
      put(number(1));
      return true;
    case 'r':
      put(number(4));
      return true;
    case 0x94:
      put(memo_.size());
      return true;
    case 'h':
      get(number(1));
      return true;
    case 'j':
      get(number(4));
      return true;
    default:
      return false;
  }
}

bool Machine::step_object(unsigned char op) {
  switch (op) {
    case 'c': {
      const auto module = line();
      global(module, line());
      return true;
    }
    case 0x93:
      stack_global();
      return true;
    case 'Q':
      push(pickle_storage(tree_, pop()));
      return true;
    case 'R': {
      const Node arguments = pop();
      push(pickle_call(tree_, pop(), arguments, storage_));
      return true;
    }
    case 0x81:
      new_object();
      return true;
    case 'b': {
      const Node state = pop();
      pickle_build(tree_, top(), state);
      return true;
    }
    default:
      return false;
  }
}

// False at the end of the pickle.
bool Machine::step() {
  const auto op = static_cast<unsigned char>(take(1)[0]);
  if (op == '.') {
    tree_.root = pop();
    return false;
  }
  if (op == 0x80) {
    if (const auto version = number(1); version < 2 || version > 5)
      tree_.refuse(concat("has a pickle of protocol ", version, ", not 2 to 5"));
    return true;
  }
  if (op == 0x95) {  // the length of what follows, which says nothing new
    number(8);
    return true;
  }
  if (!step_number(op) && !step_text(op) && !step_container(op) && !step_memo(op) &&
      !step_object(op))
    tree_.refuse(concat("has a pickle with the operation ", int(op),
                        ", which is none of those that this reader interprets"));
  return true;
}

}  // namespace

void PickleTree::refuse(const std::string& why) const {
  throw Error(Exit::input, concat(name, " ", why))
      .hint(
          "plain tensors in a dict: torch.save(dict(router_logits=out.router_logits, "
          "input_ids=input_ids), 'a.pt')");
}

std::uint32_t add_node(PickleTree& tree, PickleNode n) {
  tree.nodes.push_back(n);
  return std::uint32_t(tree.nodes.size() - 1);
}
std::uint32_t add_text(PickleTree& tree, PickleKind kind, std::string text) {
  tree.text_bytes += text.size();
  if (tree.text_bytes > most_text)
    tree.refuse("has more than 192 MiB of text in its pickle");
  tree.texts.push_back(std::move(text));
  return add_node(tree, {kind, std::uint32_t(tree.texts.size() - 1), {}});
}
std::uint32_t add_list(PickleTree& tree, PickleKind kind, std::vector<std::uint32_t> items) {
  tree.lists.push_back(std::move(items));
  return add_node(tree, {kind, std::uint32_t(tree.lists.size() - 1), {}});
}

std::shared_ptr<const PickleTree> read_pickle(std::string_view bytes, const std::string& name,
                                              const PickleStorage& storage) {
  auto tree = std::make_shared<PickleTree>();
  tree->name = name;
  Machine(*tree, bytes, storage).run();
  return tree;
}

PickleValue root_of(const PickleTree& tree) {
  return {tree, tree.root};
}

PickleKind PickleValue::kind() const {
  return tree_->nodes[at_].kind;
}

std::string PickleValue::about() const {
  static constexpr const char* names[] = {"None",      "a truth value", "a whole number",
                                          "a number",  "a text",        "bytes",
                                          "a list",    "a tuple",       "a dict",
                                          "an array",  "the name ",     "an object of the class ",
                                          "a storage", "a type"};
  const PickleNode& n = tree_->nodes[at_];
  const std::string text = names[std::size_t(n.kind)];
  const bool named = n.kind == PickleKind::global || n.kind == PickleKind::opaque;
  return named ? text + tree_->texts[n.at] : text;
}

void PickleValue::wrong(const char* wanted) const {
  tree_->refuse(concat("has ", about(), " where ", wanted, " should stand"));
}

std::int64_t PickleValue::whole() const {
  if (!is(PickleKind::whole) && !is(PickleKind::boolean))
    wrong("a whole number");
  return tree_->nodes[at_].whole;
}
double PickleValue::real() const {
  return is(PickleKind::real) ? tree_->nodes[at_].real : double(whole());
}
const std::string& PickleValue::text() const {
  if (!is(PickleKind::text))
    wrong("a text");
  return tree_->texts[tree_->nodes[at_].at];
}
Index PickleValue::size() const {
  if (!is_list() && !is(PickleKind::dict))
    wrong("a list or a dict");
  return Index(tree_->lists[tree_->nodes[at_].at].size()) / (is(PickleKind::dict) ? 2 : 1);
}
PickleValue PickleValue::item(Index i) const {
  if (!is_list())
    wrong("a list");
  return {*tree_, tree_->lists[tree_->nodes[at_].at].at(std::size_t(i))};
}
PickleValue PickleValue::key(Index i) const {
  if (!is(PickleKind::dict))
    wrong("a dict");
  return {*tree_, tree_->lists[tree_->nodes[at_].at].at(std::size_t(2 * i))};
}
PickleValue PickleValue::value(Index i) const {
  if (!is(PickleKind::dict))
    wrong("a dict");
  return {*tree_, tree_->lists[tree_->nodes[at_].at].at(std::size_t(2 * i + 1))};
}
std::optional<PickleValue> PickleValue::find(std::string_view name) const {
  for (Index i = 0; i < size(); ++i) {
    if (const PickleValue k = key(i); k.is(PickleKind::text) && k.text() == name)
      return value(i);
  }
  return std::nullopt;
}
const NumberArray& PickleValue::array() const {
  if (!is(PickleKind::array))
    wrong("an array");
  return tree_->arrays[tree_->nodes[at_].at];
}

}  // namespace moe
