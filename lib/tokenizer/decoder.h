// How texts of tokens become one text: the `decoder` of a tokenizer.json.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace moe {

class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  // Rewrites the texts of tokens; all of them joined are the text.
  virtual void decode(std::vector<std::string>& tokens) const = 0;
};

// From the value of the key `decoder`; nothing for null. Throws Error(input), naming `source`, for
// a type that we do not have.
std::unique_ptr<TokenDecoder> read_decoder(const nlohmann::json&, std::string_view source);

// The byte of a byte piece <0x41>; -1 = another piece.
int byte_of_piece(std::string_view piece);
std::string byte_piece(unsigned char byte);

}  // namespace moe
