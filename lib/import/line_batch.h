// Lines of JSON parsed ahead by threads of their own, while those before are taken: results come
// one after the other in the order of the file, so that what is said and refused does not depend on
// the number of threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/files/mapped_lines.h"

namespace moe {

struct JsonText {
  std::string_view text;
  std::string where;        // "'a.jsonl' line 3"
  bool unfinished = false;  // the last line, without its end
};

// What became of one text: a value, or the Error that parsing it threw.
template <class Parsed>
struct ParsedText {
  Parsed value;
  std::exception_ptr failure;
};

// The next lines that are not blank; empty at the end of the file. At most 32 lines, or those with
// which 4 MiB are passed; a line at a time where the file is compressed. Valid until the next call.
std::vector<JsonText> next_batch(MappedLines&);

// The threads that parse, shared by all files of an import. Where a program may use one thread
// alone there are none, and who asks for a batch parses it.
class ParseThreads {
 public:
  ParseThreads();
  bool none() const {
    return workers_.empty();
  }
  std::size_t count() const {
    return workers_.size();
  }
  void give(std::function<void()> work);  // to each thread in turn

 private:
  std::vector<std::unique_ptr<Worker>> workers_;
  std::size_t next_ = 0;
};

// Batches of lines, of which some are read and parsed ahead. parse(JsonText) must touch nothing
// that another call touches.
template <class Parsed>
class ParsedBatches {
 public:
  using Parse = std::function<Parsed(const JsonText&)>;
  struct Batch {
    std::vector<JsonText> texts;
    std::vector<ParsedText<Parsed>> parsed;  // of each text
  };

  // `ahead`: batches that wait, at least one.
  ParsedBatches(MappedLines& lines, ParseThreads& threads, std::size_t ahead, Parse parse)
      : lines_(lines),
        threads_(threads),
        ahead_(lines.lasting() && !threads.none() ? ahead : 0),
        parse_(std::move(parse)) {}
  // What waits is parsed to its end: the lines it looks at live as long.
  ~ParsedBatches() {
    for (const auto& task : waiting_)
      task->done.wait(false);
  }
  ParsedBatches(const ParsedBatches&) = delete;
  ParsedBatches& operator=(const ParsedBatches&) = delete;

  // The next batch, to be taken apart; nullptr at the end of the file. Valid until the next call.
  Batch* next();

 private:
  struct Task {
    Batch batch;
    std::exception_ptr failure;  // what is no Error: no memory
    std::atomic<bool> begun = false, done = false;

    void work(const Parse& parse);  // once, whoever comes first
  };
  void read_ahead();
  void wait_for(Task&);

  MappedLines& lines_;
  ParseThreads& threads_;
  std::size_t ahead_;
  Parse parse_;
  std::deque<std::shared_ptr<Task>> waiting_;
  std::shared_ptr<Task> taken_;
};

template <class Parsed>
void ParsedBatches<Parsed>::Task::work(const Parse& parse) {
  if (begun.exchange(true))
    return;
  try {
    for (const JsonText& text : batch.texts) {
      ParsedText<Parsed>& one = batch.parsed.emplace_back();
      try {
        one.value = parse(text);
      } catch (const Error&) {
        one.failure = std::current_exception();
      }
    }
  } catch (...) {
    failure = std::current_exception();
  }
  done = true;
  done.notify_all();
}

template <class Parsed>
void ParsedBatches<Parsed>::read_ahead() {
  while (waiting_.size() < std::max<std::size_t>(ahead_, 1)) {
    auto task = std::make_shared<Task>();
    task->batch.texts = next_batch(lines_);
    if (task->batch.texts.empty())
      return;
    waiting_.push_back(task);
    if (ahead_ == 0)
      task->work(parse_);
    else
      threads_.give([task, parse = parse_] { task->work(parse); });
  }
}

// Parses what nobody has begun while another thread is busy with the task.
template <class Parsed>
void ParsedBatches<Parsed>::wait_for(Task& task) {
  task.work(parse_);
  for (const auto& other : waiting_) {
    if (task.done)
      return;
    other->work(parse_);
  }
  task.done.wait(false);
}

template <class Parsed>
typename ParsedBatches<Parsed>::Batch* ParsedBatches<Parsed>::next() {
  read_ahead();
  if (waiting_.empty())
    return nullptr;
  taken_ = std::move(waiting_.front());
  waiting_.pop_front();
  if (ahead_ > 0)
    read_ahead();
  wait_for(*taken_);
  if (taken_->failure)
    std::rethrow_exception(taken_->failure);
  return &taken_->batch;
}

}  // namespace moe
