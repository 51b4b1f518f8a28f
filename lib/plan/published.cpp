// The table of published models, and finding one by the names people write.
#include "lib/plan/published.h"

#include <nlohmann/json.hpp>

#include "lib/core/text.h"

namespace moe::plan {
namespace {

std::string bare(std::string_view name) {
  if (const auto slash = name.rfind('/'); slash != name.npos)
    name.remove_prefix(slash + 1);
  std::string out;
  for (const char c : name) {
    if (c != '-' && c != '_' && c != '.' && c != ' ')
      out += c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  }
  return out;
}

}  // namespace

const std::vector<PublishedModel>& published_models() {
  static const std::vector<PublishedModel> all{
#define PUBLISHED(name, total, published, active, source, config) \
  {name, total, published, active, source, config},
#include "lib/plan/published.def"
#undef PUBLISHED
  };
  return all;
}

const PublishedModel* find_published(const std::string& name) {
  const std::string wanted = bare(name);
  for (const PublishedModel& m : published_models()) {
    if (bare(m.name) == wanted)
      return &m;
  }
  return nullptr;
}

Architecture describe(const PublishedModel& m) {
  const Json config = parse_json(m.config, m.name);
  Architecture a = describe(config, std::string(m.name), std::string(m.name));
  // the default of a class is not the context of a model whose sizes are listed without one
  if (!config.contains("max_position_embeddings"))
    a.context = 0;
  return a;
}

}  // namespace moe::plan
