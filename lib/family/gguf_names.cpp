#include "lib/family/gguf_names.h"

#include "lib/core/text.h"

namespace moe {
namespace {

void add_attention(std::map<std::string, std::string>& below) {
  const std::map<std::string, std::string> bases = {
      {"q", "attn_q"},     {"k", "attn_k"},     {"v", "attn_v"},       {"o", "attn_output"},
      {"q_a", "attn_q_a"}, {"q_b", "attn_q_b"}, {"kv_b", "attn_kv_b"}, {"kv_a", "attn_kv_a_mqa"}};
  for (const auto& [ours, theirs] : bases) {
    below["attention." + ours] = theirs + ".weight";
    below["attention." + ours + "_bias"] = theirs + ".bias";
  }
  for (const char* norm : {"q_norm", "k_norm", "q_a_norm", "kv_a_norm"})
    below[concat("attention.", norm)] = concat("attn_", norm, ".weight");
  below["attention.sinks"] = "attn_sinks.weight";
}

}  // namespace

Names gguf_names(const std::string& feed_norm, bool always_corrected) {
  Names n{.prefix = "",
          .layers = "blk.",
          .embedding = "token_embd.weight",
          .final_norm = "output_norm",
          .output = "output",
          .correction_bias = "exp_probs_b.bias",
          .always_corrected = always_corrected};
  n.below = {{"attention_norm", "attn_norm.weight"},
             {"attention_norm_bias", "attn_norm.bias"},
             {"feed_norm", feed_norm + ".weight"},
             {"feed_norm_bias", feed_norm + ".bias"},
             {"moe.router.weight", "ffn_gate_inp.weight"},
             {"moe.router.bias", "ffn_gate_inp.bias"},
             {"moe.shared_gate.weight", "ffn_gate_inp_shexp.weight"}};
  add_attention(n.below);
  for (const std::string part : {"gate", "up", "down"}) {
    n.below["dense." + part] = concat("ffn_", part, ".weight");
    n.below["moe.shared." + part] = concat("ffn_", part, "_shexp.weight");
    n.joined.push_back(
        {.name = concat("ffn_", part, "_exps.weight"), .parts = {"moe.experts." + part}});
    n.joined.push_back({.name = concat("ffn_", part, "_exps.bias"),
                        .parts = {concat("moe.experts.", part, "_bias")}});
  }
  return n;
}

}  // namespace moe
