#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/tokenizer/decoder.h"
#include "lib/tokenizer/model.h"

namespace moe {
namespace {

constexpr std::int64_t kMostIds = 1 << 24;

}  // namespace

void Vocabulary::add(std::string text, std::int64_t id, std::string_view source) {
  if (id < 0 || id >= kMostIds) {
    throw Error(Exit::input, concat(in_quotes(source), " gives ", in_quotes(text), " the id ", id,
                                    ", which is not from 0 to ", kMostIds - 1))
        .hint("fetch the file again");
  }
  if (has(int(id)) && texts_[std::size_t(id)]->compare(text) != 0) {
    throw Error(Exit::input, concat(in_quotes(source), " gives ", in_quotes(text), " the id ", id,
                                    ", which ", in_quotes(this->text(int(id))), " has"))
        .hint("fetch the file again");
  }
  if (id >= size()) {
    static const std::string nothing;
    texts_.resize(std::size_t(id) + 1, &nothing);
    present_.resize(std::size_t(id) + 1, false);
  }
  const auto entry = ids_.insert_or_assign(std::move(text), int(id)).first;
  texts_[std::size_t(id)] = &entry->first;
  present_[std::size_t(id)] = true;
}

int Vocabulary::find(std::string_view text) const {
  const auto found = ids_.find(text);
  return found == ids_.end() ? -1 : found->second;
}

std::vector<int> Vocabulary::byte_pieces() const {
  std::vector<int> out;
  for (int b = 0; b < 256; ++b)
    out.push_back(find(byte_piece(static_cast<unsigned char>(b))));
  return out;
}

}  // namespace moe
