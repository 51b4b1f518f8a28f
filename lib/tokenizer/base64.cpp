#include "lib/tokenizer/base64.h"

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/base64.h"
#include "lib/files/file.h"

namespace moe {
namespace {

// With the '=' that some files leave out.
bool read_padded(std::string_view text, Bytes& out) {
  std::string padded(text);
  padded.append((4 - text.size() % 4) % 4, '=');
  return text.size() % 4 != 1 && read_base64(padded, out);
}

}  // namespace

bool is_base64(std::string_view text) {
  Bytes ignored;
  return read_padded(text, ignored);
}

std::string from_base64(std::string_view text, std::string_view source) {
  Bytes bytes;
  if (!read_padded(text, bytes)) {
    throw Error(Exit::input,
                concat(in_quotes(source), ": ", in_quotes(text.substr(0, 40)), " is not base64"))
        .hint("fetch the file again");
  }
  return std::string(bytes.text());
}

}  // namespace moe
