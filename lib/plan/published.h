// Published models by name, so that a plan needs no file: their sizes are data (published.def),
// held to the published totals by tests/plan.
#pragma once
#include "lib/plan/describe.h"

namespace moe::plan {

struct PublishedModel {
  std::string_view name;
  Count total;                 // 0 = none is known to the last parameter
  std::string_view published;  // as its authors rounded it
  std::string_view active;     // A0, A1 or A2: the count that the published active figure is
  std::string_view source;     // config, total, paper
  std::string_view config;     // JSON
};
const std::vector<PublishedModel>& published_models();
// case, blanks, - _ . and an owner in front do not matter
const PublishedModel* find_published(const std::string& name);
Architecture describe(const PublishedModel&);

}  // namespace moe::plan
