// Weights out of GGUF files as the published model has them: laced rows, fused and split tensors,
// latent keys, rows read one at a time, and what does not fit refused by name.
#include "lib/checkpoint/gguf_weights.h"

#include "lib/core/text.h"
#include "tests/checkpoint/help.h"
#include "tests/gguf_bytes.h"

using namespace moe;
using namespace moe::test;

namespace {

// 0, 1, 2, ... from `first` on
std::vector<float> counted(Index n, float first = 0) {
  std::vector<float> out;
  for (Index i = 0; i < n; ++i)
    out.push_back(first + float(i));
  return out;
}

struct Opened {
  Scratch folder;
  std::unique_ptr<const Weights> weights;
  Opened(const GgufBytes& bytes, const GgufLayout& layout) {
    put(folder / "x.gguf", bytes.bytes());
    weights = gguf_weights(std::make_shared<GgufFile>(folder / "x.gguf"), layout);
  }
  std::vector<float> all(const std::string& name, const Dims& dims) const {
    const auto rows = weights->open(name, dims);
    const Tensor whole = rows->numbers();
    const auto flat = whole.view<float>().flat();
    // one row at a time gives the same
    Matrix<float> one(1, rows->cols());
    for (Index r = 0; r < rows->rows(); ++r) {
      rows->to_float(r, one.view());
      for (Index c = 0; c < rows->cols(); ++c)
        CHECK(one(0, c) == flat[std::size_t(r * rows->cols() + c)]);
      rows->forget(r, 1);
    }
    return {flat.begin(), flat.end()};
  }
  std::string refusal(const std::string& name, const Dims& dims) const {
    const Outcome o = outcome([&] { weights->open(name, dims); });
    CHECK(o.code == Exit::input);
    return o.what;
  }
};

bool has(const std::string& text, const std::string& words) {
  return text.find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("rows of queries and keys go back to two halves") {
  GgufBytes g;
  g.floats("blk.0.attn_q.weight", {1, 8}, counted(8));  // two heads of four rows
  g.floats("blk.0.attn_q.bias", {8}, counted(8));
  g.floats("blk.0.attn_v.weight", {1, 8}, counted(8));
  const Opened o(g, {.laced_head = 4});
  const std::vector<float> want{0, 2, 1, 3, 4, 6, 5, 7};
  CHECK(o.all("blk.0.attn_q.weight", {8, 1}) == want);
  CHECK(o.all("blk.0.attn_q.bias", {8}) == want);
  CHECK(o.all("blk.0.attn_v.weight", {8, 1}) == counted(8));
  CHECK(has(Opened(g, {.laced_head = 3}).refusal("blk.0.attn_q.weight", {8, 1}), "heads of 3"));
}

TEST_CASE("one tensor for queries, keys and values") {
  GgufBytes g;
  g.floats("blk.0.attn_qkv.weight", {2, 8}, counted(16));
  g.floats("blk.0.attn_qkv.bias", {8}, counted(8));
  const Opened o(g, {.query_rows = 4, .key_rows = 2});
  CHECK(o.all("blk.0.attn_q.weight", {4, 2}) == counted(8));
  CHECK(o.all("blk.0.attn_k.weight", {2, 2}) == counted(4, 8));
  CHECK(o.all("blk.0.attn_v.weight", {2, 2}) == counted(4, 12));
  CHECK(o.all("blk.0.attn_v.bias", {2}) == counted(2, 6));
  CHECK(o.weights->open("blk.0.attn_k.weight", {2, 2})->tensors() ==
        std::vector<std::string>{"blk.0.attn_qkv.weight"});
  const Opened laced(g, {.laced_head = 4, .query_rows = 4, .key_rows = 2});
  CHECK(laced.all("blk.0.attn_q.bias", {4}) == std::vector<float>{0, 2, 1, 3});
  CHECK(has(Opened(g, {.query_rows = 4, .key_rows = 4}).refusal("blk.0.attn_q.weight", {4, 2}),
            "'blk.0.attn_qkv.weight'"));
}

TEST_CASE("experts of one tensor for gates and ups, and of one tensor each") {
  GgufBytes g;
  g.floats("blk.0.ffn_gate_up_exps.weight", {2, 2, 3}, counted(12));
  g.floats("blk.0.ffn_down.0.weight", {1, 2}, counted(2));
  g.floats("blk.0.ffn_down.1.weight", {1, 2}, counted(2, 10));
  const Opened o(g, {});
  CHECK(o.all("blk.0.ffn_gate_exps.weight", {3, 1, 2}) == std::vector<float>{0, 1, 4, 5, 8, 9});
  CHECK(o.all("blk.0.ffn_up_exps.weight", {3, 1, 2}) == std::vector<float>{2, 3, 6, 7, 10, 11});
  CHECK(o.all("blk.0.ffn_down_exps.weight", {2, 2, 1}) == std::vector<float>{0, 1, 10, 11});
  CHECK(has(o.refusal("blk.0.ffn_down_exps.weight", {3, 2, 1}), "'blk.0.ffn_down.2.weight'"));
  CHECK(has(o.refusal("blk.1.ffn_down_exps.weight", {2, 2, 1}), "'blk.1.ffn_down_exps.weight'"));
}

TEST_CASE("keys and values of latent attention become one matrix again") {
  const Index heads = 2;
  const Index rank = 3;
  const Index nope = 2;
  const Index value = 1;
  GgufBytes g;
  g.floats("blk.0.attn_k_b.weight", {2, 3, 2}, counted(heads * rank * nope));
  g.floats("blk.0.attn_v_b.weight", {3, 1, 2}, counted(heads * value * rank, 100));
  const Opened o(g, {.heads = heads, .nope = nope, .value = value});
  CHECK(o.all("blk.0.attn_kv_b.weight", {heads * (nope + value), rank}) ==
        std::vector<float>{0, 2, 4, 1, 3, 5, 100, 101, 102, 6, 8, 10, 7, 9, 11, 103, 104, 105});
  CHECK(
      has(Opened(g, {.heads = 2, .nope = 1, .value = 2}).refusal("blk.0.attn_kv_b.weight", {6, 3}),
          "'blk.0.attn_k_b.weight'"));
}

TEST_CASE("rows of blocks are decoded alone, and sizes of one in front do not count") {
  GgufBytes g;
  std::string blocks;
  for (int r = 0; r < 4; ++r)
    blocks += raw(std::uint16_t(0x3c00)) + std::string(32, char(r));
  g.tensor("blk.0.ffn_up_exps.weight", {32, 2, 2}, 8, blocks);
  g.floats("blk.0.ffn_gate_inp_shexp.weight", {2}, {3, 4});
  g.tensor("ints", {2}, 26, std::string(8, '\0'));
  g.tensor("vector", {32}, 8, blocks.substr(0, 34));
  const Opened o(g, {});
  const auto all = o.all("blk.0.ffn_up_exps.weight", {2, 2, 32});
  for (std::size_t i = 0; i < all.size(); ++i)
    CHECK(all[i] == float(i / 32));
  CHECK(o.all("blk.0.ffn_gate_inp_shexp.weight", {1, 2}) == std::vector<float>{3, 4});
  CHECK(o.all("vector", {32}) == std::vector<float>(32, 0));
  CHECK(has(o.refusal("ints", {2}), "no format of weights"));
  CHECK(has(o.refusal("vector", {31}), "[31] is expected"));
  CHECK(has(o.refusal("nothing", {31}), "'nothing' is missing"));
  CHECK(o.weights->most_numbers() == 4 * (128 + 2 + 2 + 32));
}
