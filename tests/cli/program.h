// Runs the built program as a person would: in a folder of its own that holds a small corpus, with
// everything it said and the way it ended.
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace moe::cli {

namespace fs = std::filesystem;

struct Result {
  int code = -1;  // exit code; 128 + signal where one killed it
  std::string out, err;
  double seconds = 0;
};

struct Start {
  std::vector<std::string> environment;  // NAME=value, on top of ours
  // bytes a file may grow to: a disk that is full, without being root
  long file_limit = -1;
  long address_limit = -1;  // bytes of addresses, in which the stacks of threads lie too
  std::string program;      // another name than moe
  fs::path input;           // what it reads from standard input; empty = nothing
};

class Process {  // a running moe; ~ kills and collects it
 public:
  Process(const fs::path& folder, const std::vector<std::string>& words, const Start& = {});
  Process(const Process&) = delete;
  ~Process();
  void signal(int) const;
  pid_t id() const {
    return pid_;
  }
  bool running();
  Result wait();  // ends the test program where it takes more than two minutes

 private:
  // in the child: runs the program there, and never comes back
  [[noreturn]] void become(char** argv, const fs::path& folder, const Start&) const;
  void collect(int flags);
  fs::path out_, err_;
  pid_t pid_ = -1;
  int status_ = 0;
  bool ended_ = false;
  double start_ = 0;
  Result result_;
};

class Folder {  // temporary; corpus/{english,numbers}.txt
 public:
  Folder();
  Folder(const Folder&) = delete;
  ~Folder();
  const fs::path& path() const {
    return path_;
  }
  fs::path operator/(const std::string& name) const {
    return path_ / name;
  }
  // split at blanks; '...' keeps them
  Result run(const std::string& words, const Start& = {}) const;
  std::vector<std::string> names() const;  // every file and folder below, sorted

 private:
  fs::path path_;
};

std::vector<std::string> words_of(const std::string& line);
std::string text_of(const fs::path&);
void put(const fs::path&, const std::string& text);
double now();  // seconds

// Options of a run that takes a moment: nano, 64 tokens a step.
inline const std::string nano =
    "train --data text:path=corpus --model nano --batch 2 --length 32 --eval-tokens 128 "
    "--log-every 1 --threads 1";

}  // namespace moe::cli
