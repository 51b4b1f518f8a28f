// Values of a config.json with the sentences that refuse them. Sizes are bounded, so that no
// product of a few of them overflows unseen.
#pragma once
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/plan/description.h"

namespace moe::plan {

struct Keys {
  const Json& j;
  std::string file;

  static constexpr Count largest = 100'000'000, most_layers = 10'000;

  [[noreturn]] void refuse(const std::string& what, const std::string& hint = "") const {
    throw Error(Exit::input, concat(file, ": ", what)).hint(hint);
  }
  bool has(const char* key) const {
    return j.contains(key) && !j[key].is_null();
  }
  Count whole(const char* key) const {
    if (!has(key))
      refuse(concat(key, " is missing"));
    return number(key, j[key]);
  }
  Count whole(const char* key, Count fallback) const {
    return has(key) ? whole(key) : fallback;
  }
  Count first_of(std::initializer_list<const char*> keys) const {
    for (const char* key : keys) {
      if (has(key))
        return whole(key);
    }
    refuse(concat(*keys.begin(), " is missing"));
  }
  Count positive(const char* key) const {
    const Count v = whole(key);
    if (v < 1)
      refuse(concat(key, " is ", v, " and must be at least 1"));
    return v;
  }
  Count layers(const char* key) const {
    const Count v = positive(key);
    if (v > most_layers)
      refuse(concat(key, " is ", v, ", more than the ", most_layers, " that are believed"));
    return v;
  }
  bool flag(const char* key, bool fallback) const {
    if (!has(key))
      return fallback;
    if (!j[key].is_boolean())
      refuse(concat(key, " is ", j[key].dump(), " and must be true or false"));
    return j[key];
  }
  std::string text(const char* key, const std::string& fallback) const {
    if (!has(key))
      return fallback;
    if (!j[key].is_string())
      refuse(concat(key, " is ", j[key].dump(), " and must be text"));
    return j[key];
  }
  std::vector<Count> list(const char* key) const {  // empty where absent
    std::vector<Count> out;
    if (!has(key))
      return out;
    if (!j[key].is_array() || j[key].size() > std::size_t(most_layers))
      refuse(concat(key, " must be a list of whole numbers"));
    for (const Json& v : j[key])
      out.push_back(number(key, v));
    return out;
  }
  Keys below(const char* key) const {
    if (!has(key) || !j[key].is_object())
      refuse(concat(key, " is missing"));
    return {j[key], concat(file, ", ", key)};
  }

 private:
  Count number(const char* key, const Json& v) const {
    if (!v.is_number_integer() || v < 0 || v > largest) {
      refuse(concat(key, " is ", v.dump().substr(0, 40), " and must be a whole number from 0 to ",
                    largest));
    }
    return v;
  }
};

// The readers of the kinds of families; each fills everything but the name.
// attention in every layer, grouped-query or latent
Description read_decoder(const Keys&, const std::string& type);
Description read_hybrid(const Keys&, const std::string& type);  // jamba, nemotron_h, minimax
// encoders, encoder-decoders, the systems before them
Description read_other(const Keys&, const std::string& type);

// What all decoders say under the same keys: sizes, tied embeddings, context; no layers yet.
Description read_sizes(const Keys&);
void check_choices(const Keys&, const char* k_key, Count k, const char* experts_key, Count experts);

}  // namespace moe::plan
