#include "datasets/text_domains.h"

namespace moe {
namespace {

bool is_text(const std::string& name) {
  return name == "text" || name == "system";
}

void each_training_stretch(const DomainText& domain,
                           const std::function<void(std::string_view)>& each) {
  for (const Stretch& s : split_blocks(domain.documents)) {
    const std::string_view text = domain.documents[s.document].text;
    if (s.split == Split::train)
      each(text.substr(std::size_t(s.first), std::size_t(s.last - s.first)));
  }
}

}  // namespace

SpecialText special_option(Spec& spec) {
  if (!spec.has("special"))
    return SpecialText::own;
  const std::string value = spec.choice("special", {"own", "text", "ids"});
  return value == "text" ? SpecialText::text : value == "ids" ? SpecialText::ids : SpecialText::own;
}

std::vector<std::string> with_special(const std::vector<std::string>& specs,
                                      const std::string& special) {
  std::vector<std::string> out;
  for (const std::string& text : specs) {
    Spec spec(text);
    const bool open = is_text(spec.name()) && !spec.has("special");
    if (open)
      spec.set("special", special);
    out.push_back(open ? spec.given_text() : text);
  }
  return out;
}

void each_text_domain(const std::vector<std::string>& specs, const DomainSink& sink) {
  for (const std::string& text : specs) {
    Spec spec(text);
    datasets().at(spec.name());
    if (!is_text(spec.name()))
      continue;
    spec.choice("split", {"train", "valid"});
    if (spec.has("task"))
      spec.get("task", "");
    if (spec.name() == "text")
      text_domains(text_options(spec), sink);
    else
      system_domains(system_options(spec), sink);
  }
}

void each_training_text(const std::vector<std::string>& specs,
                        const std::function<void(std::string_view)>& each) {
  each_text_domain(specs, [&](DomainText&& domain) { each_training_stretch(domain, each); });
}

}  // namespace moe
