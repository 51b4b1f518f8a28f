// Texts in JSON lines, as corpora are published: {"text": "...", "meta": {"set": "arxiv"}}, a
// document a line. A key with dots (meta.set) names a value inside of objects where the line has no
// key of that very name.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "datasets/files.h"

namespace moe {

// Adds the text of every line, up to the domain's limit. Throws Error(input) naming file and line
// where one has no text at `field`.
void add_json_texts(DomainCollector& out, const std::filesystem::path&, const std::string& field);

// The domains that the lines name by the text or whole number at `domain`, in the order in which
// they first come; the limit of `reading` counts for each. Throws Error(input) as above, where a
// line names no domain, and for more than 4096 of them.
std::vector<DomainText> read_json_domains(const Paths&, const Reading&, const std::string& domain);

}  // namespace moe
