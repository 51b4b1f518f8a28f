#include "datasets/json_ids.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "datasets/stream.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/lines.h"

namespace moe {
namespace {

using Json = nlohmann::json;

class Line {
 public:
  Line(const JsonLineReader& lines, const Json& line, const IdCheck& check)
      : lines_(lines), line_(line), check_(check) {}

  IdDocument document() {
    if (line_.is_array()) {
      out_.ids = ids(line_);
      return std::move(out_);
    }
    if (!line_.is_object() || !line_.contains("input_ids"))
      lines_.refuse("has no input_ids");
    out_.ids = ids(line_["input_ids"]);
    attention_mask();
    for (const auto& [key, value] : line_.items())
      field(key, value);
    return std::move(out_);
  }

 private:
  std::vector<int> ids(const Json& list) const {
    if (!list.is_array())
      lines_.refuse("is no list of ids");
    std::vector<int> out;
    for (std::size_t i = 0; i < list.size(); ++i) {
      const bool whole =
          list[i].is_number_unsigned() && list[i].get<std::uint64_t>() <= std::uint64_t(INT64_MAX);
      const std::int64_t id = whole ? list[i].get<std::int64_t>() : -1;
      if (!check_.fits(id)) {
        check_.wrong_id(list[i].dump().substr(0, 40),
                        concat("line ", lines_.number(), ", position ", i));
      }
      out.push_back(int(id));
    }
    return out;
  }
  // Whole numbers, one an id.
  std::vector<std::int64_t> numbers(const std::string& key, const Json& list) const {
    if (!list.is_array() || list.size() != out_.ids.size())
      lines_.refuse(concat("has ", key, " that is not a list of as many numbers as input_ids"));
    std::vector<std::int64_t> out;
    for (const Json& number : list) {
      if (!number.is_number_integer())
        lines_.refuse(concat("has ", number.dump().substr(0, 40), " in ", key));
      out.push_back(number.get<std::int64_t>());
    }
    return out;
  }
  void mark(std::size_t place, std::uint8_t as) {
    out_.marks.resize(out_.ids.size());
    out_.marks[place] |= as;
  }
  bool is_padding(std::size_t place) const {
    return !out_.marks.empty() && out_.marks[place] & token_mark::padding;
  }

  void attention_mask() {
    if (!line_.contains("attention_mask"))
      return;
    const auto mask = numbers("attention_mask", line_["attention_mask"]);
    for (std::size_t i = 0; i < mask.size(); ++i) {
      if (mask[i] != 0 && mask[i] != 1)
        lines_.refuse(concat("has ", mask[i], " in attention_mask, which is 0 or 1"));
      if (mask[i] == 0)
        mark(i, token_mark::padding);
    }
  }
  void labels(const std::vector<std::int64_t>& label) {
    for (std::size_t i = 0; i < label.size(); ++i) {
      if (label[i] == -100) {
        mark(i, token_mark::not_predicted);
      } else if (label[i] != out_.ids[i] && !is_padding(i)) {
        lines_.refuse(concat("has the label ", label[i], " for the id ", out_.ids[i],
                             " at position ", i, "; labels are the ids themselves or -100"));
      }
    }
  }
  void position_ids(const std::vector<std::int64_t>& position) const {
    std::int64_t next = 0;
    for (std::size_t i = 0; i < position.size(); ++i) {
      if (is_padding(i))
        continue;
      if (position[i] != next) {
        lines_.refuse(concat("has the position ", position[i], " where ", next,
                             " comes next: other positions than 0, 1, 2, ... are not supported"));
      }
      ++next;
    }
  }
  void field(const std::string& key, const Json& value) {
    if (key == "input_ids" || key == "attention_mask")
      return;
    if (key == "domain") {
      if (!value.is_string())
        lines_.refuse("has a domain that is not text");
      out_.domain = value;
    } else if (key == "labels") {
      labels(numbers(key, value));
    } else if (key == "position_ids") {
      position_ids(numbers(key, value));
    } else if (key == "token_type_ids") {
      if (!std::ranges::all_of(numbers(key, value), [](std::int64_t type) { return type == 0; }))
        lines_.refuse("has token_type_ids other than 0, which no model here reads");
    } else if (value.is_structured()) {
      lines_.refuse(concat("has the key ", in_quotes(key),
                           ", which is not supported; of lists input_ids, attention_mask, labels, "
                           "position_ids and token_type_ids are read"));
    }
  }

  const JsonLineReader& lines_;
  const Json& line_;
  const IdCheck& check_;
  IdDocument out_;
};

}  // namespace

void IdCheck::refuse(const std::string& why, const std::string& hint) const {
  throw Error(Exit::input, concat(in_quotes(path), " ", why)).hint(hint);
}

void IdCheck::wrong_id(const std::string& id, const std::string& where) const {
  if (vocabulary > 0) {
    refuse(concat("has the id ", id, " at ", where, ", which is not from 0 to ", vocabulary - 1),
           "the ids of the model's own tokenizer, or vocabulary= of a larger one");
  }
  refuse(concat("has ", id, " at ", where, ", which is not a token id"),
         "ids are whole numbers from 0 on");
}

bool IdCheck::fits(std::int64_t id) const {
  return id >= 0 && id < (vocabulary > 0 ? vocabulary : Index(std::numeric_limits<int>::max()));
}

IdDocument id_document(const JsonLineReader& lines, const Json& line, const IdCheck& check) {
  return Line(lines, line, check).document();
}

}  // namespace moe
