// The one exception. what() is one sentence with the values that made it wrong; hint() says what
// the user can do about it; safe() says what was kept, where something could have been lost. Only
// apps/main.cpp catches; the code is the exit status.
#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace moe {

enum class Exit {
  done = 0,
  failed = 1,
  usage = 2,
  input = 3,
  io = 4,
  memory = 5,
  numeric = 6,
  environment = 7,
  bug = 70
};

class Error : public std::runtime_error {
 public:
  Error(Exit code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}

  Error& hint(std::string text) & {
    hint_ = std::move(text);
    return *this;
  }
  Error&& hint(std::string text) && {
    hint_ = std::move(text);
    return std::move(*this);
  }
  Error&& safe(std::string text) && {
    safe_ = std::move(text);
    return std::move(*this);
  }
  Exit code() const {
    return code_;
  }
  const std::string& hint() const& {
    return hint_;
  }
  const std::string& safe() const& {
    return safe_;
  }

 private:
  Exit code_;
  std::string hint_, safe_;
};

}  // namespace moe
