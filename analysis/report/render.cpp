#include "analysis/report/render.h"

namespace moe {

#define RENDERER(name, about, examples) Render render_##name;
#include "analysis/report/renderers.def"
#undef RENDERER

const Registry<Render>& renderers() {
  static const Registry<Render> all("format", {
#define RENDERER(name, about, examples) {#name, about, examples, render_##name},
#include "analysis/report/renderers.def"
#undef RENDERER
                                              });
  return all;
}

std::string_view format_of(std::string_view path) {
  const auto dot = path.find_last_of("./");
  if (dot == path.npos || path[dot] == '/')
    return "";
  const std::string_view ending = path.substr(dot + 1);
  if (ending == "txt")
    return "text";
  if (ending == "htm")
    return "html";
  if (ending == "markdown")
    return "md";
  const auto* entry = renderers().find(ending);
  return entry ? entry->name : "";
}

}  // namespace moe
