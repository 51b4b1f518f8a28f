// Intern-S1-Pro, the text part: Qwen3's layers, experts chosen alike in every group of them, and
// the rotary embedding mixed by Fourier matrices. What its own code does with them decides:
// frequencies whose wave is longer than the context are left out, and the pairs of a head that this
// leaves over have 1 for cosine and sine.
#include <numbers>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

void read_fourier(const ConfigReader& r, ModelConfig& c) {
  if (!r.has("rope_scaling"))
    return;
  const ConfigReader s = r.in("rope_scaling");
  const bool by_head = s.flag("fope_sep_head", false);
  if (!s.has("fope_init_factor") && !s.has("num_inv_freq")) {
    if (s.has("fope_sep_head")) {
      s.refuse(
          "fope_sep_head needs fope_init_factor and its matrices, which are "
          "missing",
          "remove fope_sep_head");
    }
    return;
  }
  if (c.rope != "default")
    s.refuse("a rule for longer contexts beside the Fourier matrices is not supported",
             "rope_type default");
  const std::vector<double> all = rotary_frequencies(c.head_dim, c.rope_theta);
  const auto below = [&](double f) {
    return f > 2 * std::numbers::pi / c.context;
  };
  const int pairs =
      s.has("num_inv_freq") ? s.whole("num_inv_freq") : int(std::ranges::count_if(all, below));
  if (pairs < 1)
    s.refuse("no frequency is kept", "num_inv_freq=1 or a longer max_position_embeddings");
  c.rope = concat("fourier:pairs=", std::min(pairs, int(all.size())), ",by_head=", int(by_head));
}

void read(const ConfigReader& whole, ModelConfig& c) {
  const ConfigReader r = text_part(whole);
  read_common(r, c);
  c.tied = whole.flag("tie_word_embeddings", c.tied);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  c.qk_norm = QkNorm::head;
  read_qwen_moe(r, c);
  read_fourier(r, c);
  const int groups = r.whole("router_n_groups", r.only_sizes() ? 1 : -1);
  const int k = r.whole("num_experts_per_tok");
  if (groups > 1 && (c.moe.experts % groups != 0 || k % groups != 0)) {
    r.refuse(concat("router_n_groups is ", groups, ", which does not divide num_experts ",
                    c.moe.experts, " and num_experts_per_tok ", k));
  }
  if (groups > 1)
    c.moe.router += concat(",groups=", groups, ",group_mode=one");
}

}  // namespace

FamilyRules interns1_pro_family() {
  return {read, nullptr, {.prefix = "model.language_model."}};
}

}  // namespace moe
