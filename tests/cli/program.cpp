#include "tests/cli/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace moe::cli {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return std::move(out).str();
}

void put(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> out;
  bool inside = false;
  bool open = false;
  for (const char c : line) {
    if (c == '\'') {
      inside = !inside;
      if (!open)
        out.emplace_back();
      open = true;
    } else if (c == ' ' && !inside) {
      open = false;
    } else {
      if (!open)
        out.emplace_back();
      open = true;
      out.back() += c;
    }
  }
  return out;
}

// In the child: a file as one of the three streams.
void redirect(int to, const char* path, int flags) {
  const int file = ::open(path, flags, 0600);
  if (file < 0 || ::dup2(file, to) < 0)
    ::_exit(99);
  if (file != to)
    ::close(file);
}

Process::Process(const fs::path& folder, const std::vector<std::string>& words, const Start& how)
    : start_(now()) {
  static int number = 0;
  const std::string id = std::to_string(::getpid()) + "-" + std::to_string(++number);
  out_ = fs::temp_directory_path() / ("moe-cli-out-" + id);
  err_ = fs::temp_directory_path() / ("moe-cli-err-" + id);
  const fs::path program = how.program.empty() ? fs::path(MOE_PROGRAM)
                                               : fs::path(MOE_PROGRAM).parent_path() / how.program;
  std::vector<std::string> all = {program.string()};
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& w : all)
    argv.push_back(w.data());
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ < 0)
    throw std::runtime_error("no fork");
  if (pid_ == 0)
    become(argv.data(), folder, how);
}

void Process::become(char** argv, const fs::path& folder, const Start& how) const {
  for (const char* name : {"NO_COLOR", "COLUMNS", "MOE_DEVICE", "MOE_THREADS"})
    ::unsetenv(name);
  for (const std::string& e : how.environment)
    ::putenv(const_cast<char*>(e.c_str()));
  redirect(0, how.input.empty() ? "/dev/null" : how.input.c_str(), O_RDONLY);
  redirect(1, out_.c_str(), O_CREAT | O_TRUNC | O_WRONLY);
  redirect(2, err_.c_str(), O_CREAT | O_TRUNC | O_WRONLY);
  if (::chdir(folder.c_str()) != 0)
    ::_exit(99);
  if (how.file_limit >= 0) {
    const rlimit limit{rlim_t(how.file_limit), rlim_t(how.file_limit)};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0)
      ::_exit(99);
  }
  if (how.address_limit >= 0) {
    const rlimit limit{rlim_t(how.address_limit), rlim_t(how.address_limit)};
    if (::setrlimit(RLIMIT_AS, &limit) != 0)
      ::_exit(99);
  }
  ::execv(argv[0], argv);
  ::_exit(99);
}

Process::~Process() {
  if (!ended_) {
    signal(SIGKILL);
    collect(0);
  }
  std::error_code ignored;
  fs::remove(out_, ignored);
  fs::remove(err_, ignored);
}

void Process::signal(int which) const {
  if (!ended_)
    ::kill(pid_, which);
}

void Process::collect(int flags) {
  if (ended_ || ::waitpid(pid_, &status_, flags) != pid_)
    return;
  ended_ = true;
  result_.seconds = now() - start_;
}

bool Process::running() {
  collect(WNOHANG);
  return !ended_;
}

Result Process::wait() {
  while (running()) {
    if (now() - start_ > 120)
      signal(SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  result_.code = WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  result_.out = text_of(out_);
  result_.err = text_of(err_);
  return result_;
}

Folder::Folder() {
  std::string name = (fs::temp_directory_path() / "moe-cli-XXXXXX").string();
  if (!::mkdtemp(name.data()))
    throw std::runtime_error("no temporary folder");
  path_ = name;
  std::string english, numbers;
  for (int i = 0; i < 1500; ++i) {
    english += "the house number " + std::to_string(i) + " stands by the river\n";
    numbers += std::to_string(i) + "+1=" + std::to_string(i + 1) + "\n";
  }
  put(path_ / "corpus/english.txt", english);
  put(path_ / "corpus/numbers.txt", numbers);
}

Folder::~Folder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

Result Folder::run(const std::string& words, const Start& how) const {
  return Process(path_, words_of(words), how).wait();
}

std::vector<std::string> Folder::names() const {
  std::vector<std::string> out;
  for (const auto& e : fs::recursive_directory_iterator(path_))
    out.push_back(fs::relative(e.path(), path_).string());
  std::ranges::sort(out);
  return out;
}

}  // namespace moe::cli
