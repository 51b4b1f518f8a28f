#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/tokenizer/fields.h"
#include "lib/tokenizer/post_processor.h"

namespace moe {
namespace {

using Json = nlohmann::json;

int read_id(const Fields& f, const Json& value) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() >= (1u << 31))
    throw f.error("names an id that is no whole number from 0 to 2147483647");
  return value.get<int>();
}

// ids of a special token of a template
void add_special(const Fields& f, const Json& item, std::vector<int>& out) {
  const Fields part(item, f.source(), "a special token of the template");
  const Fields all(f.at("special_tokens"), f.source(), "the list special_tokens of the template");
  const std::string name = part.text("id");
  const Fields special(all.at(name.c_str()), f.source(), concat("the special token ", name));
  for (const Json& id : special.list("ids"))
    out.push_back(read_id(f, id));
}

// Around what is there already: a template behind another one goes outside.
void read_template(const Fields& f, PostProcessor& out) {
  std::vector<int> before, after;
  bool behind = false;
  for (const Json& item : f.list("single")) {
    const Fields part(item, f.source(), "an item of the template");
    if (part.has("Sequence")) {
      if (behind)
        throw f.error("has the text twice in the template of one text, which is not read");
      behind = true;
    } else {
      add_special(f, part.at("SpecialToken"), behind ? after : before);
    }
  }
  if (!behind)
    throw f.error("has no text in the template of one text");
  out.before.insert(out.before.begin(), before.begin(), before.end());
  out.after.insert(out.after.end(), after.begin(), after.end());
}

// ["[SEP]", 102]
int read_pair(const Fields& f, const char* name) {
  const Json& pair = f.list(name);
  if (pair.size() != 2)
    throw f.error(concat("has a field '", name, "' that is no pair of text and id"));
  return read_id(f, pair[1]);
}

void read_frame(const Fields& f, PostProcessor& out) {
  out.before.insert(out.before.begin(), read_pair(f, "cls"));
  out.after.push_back(read_pair(f, "sep"));
}

void read_step(const Json& value, std::string_view source, PostProcessor& out, int depth) {
  const Fields f = stage_fields(value, source, "post_processor");
  const std::string type = f.text("type");
  if (type == "Sequence") {
    if (depth > 8)
      throw f.error("stands in itself more than 8 deep");
    for (const Json& step : f.list("processors"))
      read_step(step, source, out, depth + 1);
  } else if (type == "TemplateProcessing") {
    read_template(f, out);
  } else if (type == "ByteLevel") {
    if (f.flag("trim_offsets", true))
      out.trims.push_back(f.flag("add_prefix_space", true));
  } else if (type == "BertProcessing") {
    read_frame(f, out);
  } else if (type == "RobertaProcessing") {
    if (f.flag("trim_offsets", true))
      out.trims.push_back(f.flag("add_prefix_space", true));
    read_frame(f, out);
  } else {
    throw no_such_stage(
        source, "post_processor", type,
        "Sequence, TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing");
  }
}

}  // namespace

PostProcessor read_post_processor(const Json& value, std::string_view source) {
  PostProcessor out;
  if (!value.is_null())
    read_step(value, source, out, 0);
  return out;
}

}  // namespace moe
