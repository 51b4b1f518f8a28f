// Where the time of a training step goes. Whoever computes says with a TimeSpan what it is at; a
// Profile that is at work on the thread adds up the time of each part, and keeps the spans
// themselves where they are recorded. Without a Profile a span is one look at a pointer. Nothing
// that is computed depends on it.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

namespace moe {

// Every moment of a step belongs to one part: that of the innermost span around it.
enum class TimePart {
  routing,    // router scores, choices, weights, balance losses, and their backwards
  plan,       // who sits in which slot: the sort by expert
  exchange,   // rows of tokens to slots and back, and to the ranks of the experts and back
  products,   // experts, shared experts, dense feed-forwards
  mixer,      // attention and what stands in its place
  output,     // embedding, output matrix, cross-entropy
  optimiser,  // gradient norm and the update
  data,       // batches from the data
  ranks,      // sums of gradients over lanes and ranks
  rest        // norms, residuals, and whatever is not above
};
inline constexpr std::size_t time_parts = 10;
// "routing", ...: as in metrics.jsonl and docs/probes.md
const char* name_of(TimePart);

class Profile {
 public:
  using Clock = std::chrono::steady_clock;

  // `settle` waits until a device has done what it was asked for: then the time of its work falls
  // into the span that asked for it. Empty = operations are done when they return.
  explicit Profile(std::function<void()> settle = {});

  // Nanoseconds in each part since the last take(); their sum is the time in outermost spans.
  struct Times {
    std::array<std::int64_t, time_parts> part{};
    std::int64_t sum() const;
  };
  Times take();

  // A span, or what one thread did of a parallel loop.
  struct Event {
    const char* name = "";
    int number = -1;  // of the layer or micro-batch; -1 = none
    TimePart part = TimePart::rest;
    int thread = 0;                   // 0 = the thread that the profile is at work on
    std::int64_t begin = 0, end = 0;  // nanoseconds since the profile was made
  };
  // From now on spans that end, and shares of parallel loops, are kept as events.
  void record(bool on) {
    recording_ = on;
  }
  bool recording() const {
    return recording_;
  }
  // What was recorded, by thread and begin; nothing is left.
  std::vector<Event> take_events();

  // The one at work on this thread, or null.
  static Profile* at_work() {
    return at_work_;
  }

  // For TimeSpan and parallel_for.
  void enter(TimePart, const char* name, int number);
  void enter(const char* name, int number);  // the part is that of the span around it
  void leave();
  std::int64_t now() const {
    return std::chrono::nanoseconds(Clock::now() - start_).count();
  }
  // Of a parallel loop: makes room for its threads, then each adds its own share.
  void expect_threads(int);
  void add_share(int thread, std::int64_t begin);

 private:
  friend class ProfileAtWork;
  struct Open {
    const char* name;
    int number;
    TimePart part;
    std::int64_t begin;
  };
  std::int64_t pass_time();  // to the part that is open; returns now()

  inline static thread_local Profile* at_work_ = nullptr;
  std::function<void()> settle_;
  Clock::time_point start_ = Clock::now();
  std::vector<Open> open_;
  std::int64_t mark_ = 0;
  Times times_;
  bool recording_ = false;
  std::vector<std::vector<Event>> events_;  // by thread
};

// While it lives, spans of this thread are the profile's; null = nobody's.
class ProfileAtWork {
 public:
  explicit ProfileAtWork(Profile* p) : before_(Profile::at_work_) {
    Profile::at_work_ = p;
  }
  ~ProfileAtWork() {
    Profile::at_work_ = before_;
  }
  ProfileAtWork(const ProfileAtWork&) = delete;
  ProfileAtWork& operator=(const ProfileAtWork&) = delete;

 private:
  Profile* before_;
};

// From its beginning to its end the thread is at this.
class TimeSpan {
 public:
  TimeSpan(TimePart part, const char* name, int number = -1) : profile_(Profile::at_work()) {
    if (profile_)
      profile_->enter(part, name, number);
  }
  // A stretch with a name, of the part that the span around it has.
  explicit TimeSpan(const char* name, int number = -1) : profile_(Profile::at_work()) {
    if (profile_)
      profile_->enter(name, number);
  }
  ~TimeSpan() {
    if (profile_)
      profile_->leave();
  }
  TimeSpan(const TimeSpan&) = delete;
  TimeSpan& operator=(const TimeSpan&) = delete;

 private:
  Profile* profile_;
};

}  // namespace moe
