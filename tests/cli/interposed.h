// The program with tests/faults/interpose.cpp between it and the calls that change files.
#pragma once
#include "tests/cli/program.h"

namespace moe::cli {

// Calls on files below `root` count from 0; the one at `at` is met by `kind` (kill, enospc, eio,
// eintr, short, signal:N), and with `sticky` every one from there on.
inline Start interposed(const fs::path& root, const std::string& kind, int at,
                        bool sticky = false) {
  Start s;
  std::vector<std::string>& e = s.environment;
  e.emplace_back("LD_PRELOAD=" MOE_INTERPOSE);
  e.emplace_back("ASAN_OPTIONS=verify_asan_link_order=0");
  e.emplace_back("MOE_FAULT_ROOT=").append(root.string());
  e.emplace_back("MOE_FAULT_KIND=").append(kind);
  e.emplace_back("MOE_FAULT_AT=").append(std::to_string(at));
  if (sticky)
    e.emplace_back("MOE_FAULT_STICKY=1");
  return s;
}

// How many such calls the words make.
inline int calls_of(const Folder& f, const std::string& words, const fs::path& root) {
  Start s = interposed(root, "kill", -1);
  const fs::path count = f / "calls.txt";
  s.environment.emplace_back("MOE_FAULT_COUNT=").append(count.string());
  f.run(words, s);
  const int n = std::stoi(text_of(count));
  fs::remove(count);
  return n;
}

}  // namespace moe::cli
