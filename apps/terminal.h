// What the person at the other end sees: colours where there is a terminal, a progress line that
// redraws itself there and plain lines elsewhere, notes on stderr.
#pragma once
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

#include "lib/files/file.h"

namespace moe {

struct Style {  // escape sequences, empty where there is no terminal, NO_COLOR is set or TERM=dumb
  std::string red, yellow, dim, bold, plain;
  static Style of(std::FILE*);
};

bool is_terminal(std::FILE*);
int terminal_width(std::FILE*);  // columns; 80 where unknown

// on stderr as it is; that nobody reads it any more stops nothing
void write_stderr(const std::string& text);
// With \xNN in the place of characters that end a line or steer a terminal: sentences quote files.
std::string in_one_line(std::string_view text);
// From here on nothing is noted, warned of or drawn: another rank does. Errors are said.
void be_silent();
void note(const std::string& sentence);     // "moe: ..." on stderr
void warning(const std::string& sentence);  // the same, in yellow

void next_step(const std::string& command);  // "  next:  moe report ..." on stderr

// A duration as people say it: "0.4 s", "12 s", "3 min 20 s", "2 h 05 min".
std::string duration_text(double seconds);
// A count as people say it: 950, 12.3k, 4.56M.
std::string count_text(double n);

// Progress of a known amount of work. On a terminal one line from the first second on, at most ten
// times a second; elsewhere a plain line every 10 % or 30 s. Nothing at all where the work took
// less than a second.
class Progress {
 public:
  Progress(std::string what, double total, std::string unit);
  ~Progress();                                                // removes the line
  void update(double done, const std::string& figures = {});  // figures: what else to show
  // a line that stays, above the progress
  void line(const std::string& text);
  double seconds() const;
  double rate() const {
    return seconds() > 0 ? (done_ - started_at_) / seconds() : 0;
  }
  void start_at(double done) {
    done_ = started_at_ = next_share_ = done;
  }  // resumed work

 private:
  void draw(const std::string& figures);
  std::string what_, unit_;
  double total_, done_ = 0, started_at_ = 0, next_share_ = 0;
  bool terminal_, drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

// Writes text to a file whole or not at all; "-" is stdout. Refuses an existing file unless
// `force`.
void write_result(const std::string& path, const std::string& text, bool force);

// On a terminal through $PAGER, `less -R` where it is not set; elsewhere, with PAGER= or =cat, and
// where the pager cannot be run: as it is.
void show_in_pager(const std::string& text);

// SIGINT, SIGTERM, SIGHUP (unless it is ignored, as under nohup) and SIGUSR1 set a flag; after a
// SIGINT or SIGTERM another one ends the program at once.
void catch_stop_signals();
// A file that is read where it lies and is cut meanwhile ends the program with a sentence.
void catch_cut_files();
int stop_signal();  // 0, or the signal that asked to stop

}  // namespace moe
