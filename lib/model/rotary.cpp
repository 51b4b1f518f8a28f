#include "lib/model/rotary.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "lib/core/error.h"
#include "lib/core/spec.h"

namespace moe {
namespace {

using Frequencies = std::vector<double>;

// Long waves are stretched by `factor`, short ones stay, between them a mixture.
void llama3(Spec& s, Frequencies& all) {
  const double factor = s.get("factor", 8.0, 1e-9);
  const double low = s.get("low", 1.0, 1e-9);
  const double high = s.get("high", 4.0, 1e-9);
  const double original = s.get("original", 8192, 1);
  if (!(high > low))
    throw Error(Exit::usage, concat("llama3: high=", high, " must be above low=", low));
  for (double& f : all) {
    const double waves = original * f / (2 * std::numbers::pi);  // of the original context
    const double keep = std::clamp((waves - low) / (high - low), 0.0, 1.0);
    f = (1 - keep) * f / factor + keep * f;
  }
}

// YaRN (2309.00071): a ramp over the pairs, from those that turn beta_fast times in the original
// context to those that turn beta_slow times.
void yarn(Spec& s, Rotary& r, int dims, double theta) {
  const double factor = s.get("factor", 1.0, 1e-9);
  const double original = s.get("original", 4096, 1);
  const double fast = s.get("beta_fast", 32.0, 1e-9);
  const double slow = s.get("beta_slow", 1.0, 1e-9);
  const bool whole = s.get("truncate", true);
  r.scale = s.get("scale", yarn_magnitude(factor, 1));
  const auto pair_of = [&](double turns) {
    return dims * std::log(original / (turns * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  double first = pair_of(fast);
  double last = pair_of(slow);
  if (whole) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, double(dims - 1));
  if (first == last)
    last += 0.001;
  for (std::size_t j = 0; j < r.frequency.size(); ++j) {
    const double ramp = std::clamp((double(j) - first) / (last - first), 0.0, 1.0);
    r.frequency[j] *= ramp / factor + (1 - ramp);
  }
}

Frequencies divided(const Frequencies& all, const std::string& key, const std::string& list) {
  const std::vector<std::string> words = split(list, ';');
  if (words.size() != all.size()) {
    throw Error(Exit::usage, concat("longrope: ", key, " has ", words.size(), " factors for ",
                                    all.size(), " pairs"));
  }
  Frequencies out = all;
  for (std::size_t j = 0; j < words.size(); ++j) {
    double by = 0;
    const auto [end, failed] =
        std::from_chars(words[j].data(), words[j].data() + words[j].size(), by);
    if (failed != std::errc() || end != words[j].data() + words[j].size() || !(by > 0)) {
      throw Error(Exit::usage, concat("longrope: ", key, " has '", words[j],
                                      "' where a number above 0 is expected"));
    }
    out[j] /= by;
  }
  return out;
}
void longrope(Spec& s, Rotary& r) {
  r.original = s.get("original", 4096, 1);
  r.scale = s.get("short_scale", 1.0);
  r.far_scale = s.get("long_scale", 1.0);
  r.far_frequency = divided(r.frequency, "long", s.get("long", ""));
  r.frequency = divided(r.frequency, "short", s.get("short", ""));
}

// Gemma 4: of the pairs of a whole head only a share turns, with the exponents that they have in
// it.
void proportional(Spec& s, Frequencies& all) {
  const double share = s.get("share", 1.0, 0.0);
  const std::size_t turned = std::size_t(share * 2 * double(all.size()) / 2);
  for (std::size_t j = turned; j < all.size(); ++j)
    all[j] = 0;
}

}  // namespace

double yarn_magnitude(double factor, double weight) {
  return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1;
}

const std::vector<std::string>& rotary_rules() {
  static const std::vector<std::string> all{"default", "none",     "linear",  "llama3",
                                            "yarn",    "longrope", "fourier", "proportional"};
  return all;
}

Rotary rotary_of(const std::string& rule, int dims, double theta) {
  Spec s(rule);
  if (s.name() == rope_none) {
    s.done();
    return {};
  }
  Rotary r{.frequency = rotary_frequencies(dims, theta), .far_frequency = {}};
  if (s.name() == "linear") {
    const double factor = s.get("factor", 1.0, 1e-9);
    for (double& f : r.frequency)
      f /= factor;
  } else if (s.name() == "llama3") {
    llama3(s, r.frequency);
  } else if (s.name() == "yarn") {
    yarn(s, r, dims, theta);
  } else if (s.name() == "proportional") {
    proportional(s, r.frequency);
  } else if (s.name() == "longrope") {
    longrope(s, r);
  } else if (s.name() == "fourier") {
    const int all = int(r.frequency.size());
    const int pairs = s.get("pairs", 0, 0);
    if (pairs > all) {
      throw Error(Exit::usage,
                  concat("fourier: pairs=", pairs, " is more than the ", all, " of a head"))
          .hint("pairs=0 for all");
    }
    r.frequency.resize(std::size_t(pairs ? pairs : all));
    r.mixed = true;
    r.mixed_by_head = s.get("by_head", true);
  } else if (s.name() != "default") {
    no_such("rule of rotary embedding", s.name(), rotary_rules());
  }
  s.done();
  return r;
}

}  // namespace moe
