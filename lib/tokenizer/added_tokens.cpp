#include "lib/tokenizer/added_tokens.h"

#include <algorithm>

#include "lib/tokenizer/unicode.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

// The character that ends at `end`.
Utf8Char char_before(std::string_view text, std::size_t end) {
  std::size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80)
    --at;
  return utf8_at(text.data() + at);
}

bool has_class(char32_t c, char_class::Bits bits) {
  return classes_of(c) & bits;
}

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  const bool before = begin > 0 && has_class(char_before(text, begin).code, char_class::word);
  const bool after =
      end < text.size() && has_class(utf8_at(text.data() + end).code, char_class::word);
  return !before && !after;
}

std::size_t before_blanks(std::string_view text, std::size_t begin) {
  while (begin > 0) {
    const Utf8Char c = char_before(text, begin);
    if (!has_class(c.code, char_class::space))
      break;
    begin -= std::size_t(c.bytes);
  }
  return begin;
}

std::size_t after_blanks(std::string_view text, std::size_t end) {
  while (end < text.size()) {
    const Utf8Char c = utf8_at(text.data() + end);
    if (!has_class(c.code, char_class::space))
      break;
    end += std::size_t(c.bytes);
  }
  return end;
}

}  // namespace

void AddedTokenFinder::add(std::string_view content, const AddedToken& token) {
  if (content.empty() || longest(content).bytes == content.size())
    return;  // the first of two counts
  trie_.add(content, int(tokens_.size()));
  tokens_.push_back(token);
  first_[static_cast<unsigned char>(content[0])] = true;
}

AddedTokenFinder::Found AddedTokenFinder::longest(std::string_view text) const {
  Found out;
  trie_.prefixes(text, [&](std::size_t bytes, int token) { out = {bytes, token}; });
  return out;
}

void AddedTokenFinder::split(std::string_view text, bool special_is_text,
                             std::vector<TextStretch>& out) const {
  std::size_t done = 0;
  for (std::size_t at = 0; !empty() && at < text.size();) {
    if (!first_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    const Found found = longest(text.substr(at));
    if (found.token < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[std::size_t(found.token)];
    std::size_t begin = at;
    std::size_t end = at + found.bytes;
    at = end;  // a match that is refused is passed over all the same
    if (special_is_text && token.special)
      continue;
    if (token.single_word && !stands_alone(text, begin, end))
      continue;
    if (token.left)
      begin = std::max(before_blanks(text, begin), done);
    if (token.right)
      end = after_blanks(text, end);
    if (done < begin)
      out.push_back({std::uint32_t(done), std::uint32_t(begin), -1});
    out.push_back({std::uint32_t(begin), std::uint32_t(end), token.id});
    done = end;
  }
  if (done < text.size())
    out.push_back({std::uint32_t(done), std::uint32_t(text.size()), -1});
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer* normalizer)
    : tokens_(std::move(tokens)) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    place_[token.id] = i;
    if (token.special)
      special_.insert(token.content);
    if (!token.normalized) {
      plain_.add(token.content, token);
      continue;
    }
    Aligned content(token.content, 0, false);
    if (normalizer)
      normalizer->apply(content);
    normalized_.add(content.text(), token);
  }
}

const AddedToken* AddedTokens::find(int id) const {
  const auto found = place_.find(id);
  return found == place_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = std::ranges::find(tokens_, content, &AddedToken::content);
  return found == tokens_.end() ? nullptr : &*found;
}

int AddedTokens::size() const {
  int out = 0;
  for (const AddedToken& token : tokens_)
    out = std::max(out, token.id + 1);
  return out;
}

}  // namespace moe
