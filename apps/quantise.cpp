#include "apps/quantise.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// "10%" or "0.1" as a share.
double share_of(const std::string& text, const char* key) {
  const bool percent = text.ends_with("%");
  double value = -1;
  try {
    std::size_t used = 0;
    value = std::stod(text, &used);
    if (used + (percent ? 1 : 0) != text.size())
      value = -1;
  } catch (const std::exception&) {
    value = -1;
  }
  value = percent ? value / 100 : value;
  if (value < 0 || value >= 1)
    throw Error(Exit::usage, concat(key, " is '", text, "' and must be a share below 1"))
        .hint("10% or 0.1");
  return value;
}

// One format, or several with | between.
std::vector<FewBitsFormat> formats_of(std::string rest) {
  std::vector<FewBitsFormat> out;
  while (!rest.empty()) {
    const auto end = rest.find('|');
    out.push_back(few_bits_format(rest.substr(0, end)));
    rest = end == rest.npos ? "" : rest.substr(end + 1);
  }
  return out;
}

QuantiseBy by_of(const std::string& word) {
  const std::vector<std::string> words = {"", "load", "importance"};
  const auto at = std::ranges::find(words, word) - words.begin();
  if (at == std::ssize(words))
    no_such("way to weigh experts", word, {words.begin() + 1, words.end()});
  return QuantiseBy(at);
}

void refuse_contradictions(const QuantiseOptions& o) {
  const bool several = o.formats.size() > 1;
  if (o.formats.empty()) {
    throw Error(Exit::usage, "--quantise does not say in which format")
        .hint("experts=int8, int8:block=32, int4, fp8 or mxfp4");
  }
  const auto is_fp8 = [](const FewBitsFormat& f) {
    return f.kind == FewBits::fp8;
  };
  if (several && std::ranges::any_of(o.formats, is_fp8)) {
    throw Error(Exit::usage, "fp8 blocks stand alone in a checkpoint, not beside other formats")
        .hint("experts=fp8, or several of int8, int4 and mxfp4");
  }
  if (o.keep > 0 && o.by == QuantiseBy::nothing)
    throw Error(Exit::usage, "keep= does not say which experts stay")
        .hint("by=load or by=importance");
  if (o.by != QuantiseBy::nothing && o.keep == 0 && o.bytes == 0) {
    throw Error(Exit::usage, "by= weighs experts, and nothing is chosen by their weight")
        .hint("keep=10%, or --bytes 0.3 beside it");
  }
  if (several && o.bytes == 0) {
    throw Error(Exit::usage,
                "several formats need a limit under which one is chosen for each expert")
        .hint("--bytes 0.3, a share of the bytes that the experts take now");
  }
  if (o.bytes > 0 && o.keep > 0) {
    throw Error(Exit::usage, "--bytes chooses what stays, and so does keep=")
        .hint("one of the two");
  }
}

}  // namespace

QuantiseOptions quantise_options(const std::string& text, double bytes) {
  Spec spec("quantise:" + text);
  QuantiseOptions out{.formats = formats_of(spec.get("experts", std::string())), .bytes = bytes};
  out.by = by_of(spec.get("by", std::string()));
  const std::string keep = spec.get("keep", std::string());
  out.keep = keep.empty() ? 0 : share_of(keep, "keep=");
  spec.done();
  refuse_contradictions(out);
  return out;
}

}  // namespace moe
