#include "apps/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "lib/comm/launcher.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/mapped_files.h"

namespace moe {

// Open MPI's launcher gives its processes a terminal of its own, wherever their output goes.
bool is_terminal(std::FILE* f) {
  static const bool launched = is_launched();
  return !launched && isatty(fileno(f)) == 1;
}

int terminal_width(std::FILE* f) {
  winsize size{};
  if (ioctl(fileno(f), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return size.ws_col;
  if (const char* columns = std::getenv("COLUMNS"))
    return std::clamp(std::atoi(columns), 20, 1000);
  return 80;
}

Style Style::of(std::FILE* f) {
  const char* no = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  if (!is_terminal(f) || (no && *no) || (term && std::string_view(term) == "dumb"))
    return {};
  return {"\033[31m", "\033[33m", "\033[2m", "\033[1m", "\033[0m"};
}

void write_stderr(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
}
namespace {

// Bytes of the control character that begins here; 0 = none does. Beside those of ASCII: U+0080 to
// U+009F, and the line and paragraph separators.
std::size_t control_bytes(std::string_view text) {
  const auto at = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  if (at(0) < 0x20 || at(0) == 0x7F)
    return 1;
  if (at(0) == 0xC2 && at(1) >= 0x80 && at(1) < 0xA0)
    return 2;
  return at(0) == 0xE2 && at(1) == 0x80 && (at(2) == 0xA8 || at(2) == 0xA9) ? 3 : 0;
}

}  // namespace

std::string in_one_line(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t control = control_bytes(text);
    for (std::size_t i = 0; i < control; ++i)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
    if (control == 0)
      out += text[0];
    text.remove_prefix(std::max<std::size_t>(control, 1));
  }
  return out;
}

namespace {

bool silent = false;

void say(const std::string& text) {
  if (!silent)
    write_stderr(text);
}

}  // namespace

void be_silent() {
  silent = true;
}
void note(const std::string& sentence) {
  say(concat("moe: ", in_one_line(sentence), "\n"));
}
void warning(const std::string& sentence) {
  const Style s = Style::of(stderr);
  say(concat(s.yellow, "moe: ", in_one_line(sentence), s.plain, "\n"));
}

void next_step(const std::string& command) {
  say(concat("  next:  ", in_one_line(command), "\n"));
}

std::string duration_text(double s) {
  if (!std::isfinite(s))
    return "?";
  if (s < 10)
    return fmt::format("{:.1f} s", s);
  const long n = std::lround(s);
  if (n < 100)
    return fmt::format("{} s", n);
  if (n < 3600)
    return fmt::format("{} min {:02} s", n / 60, n % 60);
  return fmt::format("{} h {:02} min", n / 3600, n % 3600 / 60);
}
std::string count_text(double n) {
  if (n < 1000)
    return fmt::format("{:.0f}", n);
  if (n < 1e6)
    return fmt::format("{:.1f}k", n / 1e3);
  if (n < 1e9)
    return fmt::format("{:.2f}M", n / 1e6);
  return fmt::format("{:.2f}G", n / 1e9);
}

Progress::Progress(std::string what, double total, std::string unit)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      terminal_(is_terminal(stderr)),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}
Progress::~Progress() {
  if (drawn_)
    say("\r\033[K");
}
double Progress::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void Progress::update(double done, const std::string& figures) {
  done_ = done;
  const auto now = std::chrono::steady_clock::now();
  const double since = std::chrono::duration<double>(now - last_).count();
  if (terminal_ ? seconds() < 1 || (since < 0.1 && done < total_)
                : seconds() < 1 || (done - next_share_ < total_ / 10 && since < 30)) {
    return;
  }
  last_ = now;
  next_share_ = done;
  draw(figures);
}

void Progress::draw(const std::string& figures) {
  const double left = rate() > 0 ? std::max(0.0, total_ - done_) / rate() : NAN;
  const auto exact = [&](double n) {
    return total_ < 1e5 ? fmt::format("{:.0f}", n) : count_text(n);
  };
  const std::string pace = rate() < 10 ? fmt::format("{:.1f}", rate()) : count_text(rate());
  std::string text = fmt::format("{} {}/{}  {} {}/s  {} left", what_, exact(done_), exact(total_),
                                 pace, unit_, duration_text(left));
  if (!figures.empty())
    text = fmt::format("{}  {}", text, in_one_line(figures));
  if (!terminal_)
    return say(text + "\n");
  const std::size_t width = std::size_t(std::max(20, terminal_width(stderr)) - 1);
  say("\r\033[K" + text.substr(0, width));
  drawn_ = true;
}

void Progress::line(const std::string& text) {
  if (drawn_)
    say("\r\033[K");
  drawn_ = false;
  say(in_one_line(text) + "\n");
}

void write_result(const std::string& path, const std::string& text, bool force) {
  if (path.empty() || path == "-")
    return fmt::print("{}", text);
  refuse_existing(path, force);
  write_file(path, text);
}

void show_in_pager(const std::string& text) {
  const char* asked = std::getenv("PAGER");
  const std::string pager = asked ? asked : "less -R";
  if (!is_terminal(stdout) || pager.empty() || pager == "cat")
    return fmt::print("{}", text);
  // colours as they are, unless whoever set LESS wants it otherwise
  setenv("LESS", "R", 0);
  std::fflush(stdout);
  std::FILE* to = popen(pager.c_str(), "w");
  if (!to)
    return fmt::print("{}", text);
  std::fwrite(text.data(), 1, text.size(), to);  // whoever leaves early has read enough
  constexpr int not_found = 127;                 // of the shell
  if (const int status = pclose(to); WIFEXITED(status) && WEXITSTATUS(status) == not_found)
    fmt::print("{}", text);
}

namespace {
std::atomic<int> asked_to_stop{0};
// A warning (USR1, as batch systems send it) or a closed terminal may be followed by SIGTERM; who
// asks twice means it.
std::atomic<bool> asked_by_hand{false};
void remember(int signal) {
  const bool by_hand = signal == SIGINT || signal == SIGTERM;
  if (by_hand && asked_by_hand.exchange(true))
    _exit(128 + signal);
  int none = 0;
  asked_to_stop.compare_exchange_strong(none, signal);
}
// Only what a signal handler may call.
void say_cut(int, siginfo_t* info, void*) {
  const auto put = [](std::string_view text) {
    if (::write(2, text.data(), text.size()) < 0)
      return;
  };
  const char* path = mapped_file_at(info->si_addr);
  if (!path) {
    std::signal(SIGBUS, SIG_DFL);
    return;  // the same access again, as if nobody had looked
  }
  put("moe: ");
  put(path);
  put(" became shorter while it was read, or its disk failed\n  try:  the same again, once nobody "
      "writes the file\n");
  _exit(int(Exit::io));
}

}  // namespace

void catch_cut_files() {
  struct sigaction action {};
  action.sa_sigaction = say_cut;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGBUS, &action, nullptr);
}

// On a stack of its own: oneDNN's f32 kernels put the stack pointer into their workspace on the
// heap while they sum over more than 256 numbers, and a handler that ran there would write over
// what lies before it (seen as "corrupted size vs. prev_size" in one of some 230 runs that were
// stopped). Signals to the process go to the main thread, which is the one that calls this.
void catch_stop_signals() {
  static char stack[1 << 16];
  stack_t own{};
  own.ss_sp = stack;
  own.ss_size = sizeof stack;
  sigaltstack(&own, nullptr);
  struct sigaction action {};
  action.sa_handler = remember;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) {
    struct sigaction before {};
    // nohup
    if (signal == SIGHUP && sigaction(signal, nullptr, &before) == 0 &&
        before.sa_handler == SIG_IGN) {
      continue;
    }
    sigaction(signal, &action, nullptr);
  }
}
int stop_signal() {
  return asked_to_stop.load();
}

}  // namespace moe
