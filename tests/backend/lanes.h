// A group of lanes on the host, as a warp is one on the device: each lane has a stack of its own
// and runs until it meets a collective operation, then the next one does. Lanes that do not all
// meet the same collective operation are caught.
#pragma once
#include <ucontext.h>

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#include "lib/core/view.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace moe {

// Tells the address sanitizer that the stack changes; nothing without it.
struct Fiber {
  void* fake = nullptr;  // what the sanitizer keeps of this stack while another one runs
  const void* bottom = nullptr;
  std::size_t size = 0;

#ifdef __SANITIZE_ADDRESS__
  // null: for good
  static void leave(Fiber* from, const Fiber& to) {
    __sanitizer_start_switch_fiber(from ? &from->fake : nullptr, to.bottom, to.size);
  }
  static void arrive(Fiber& here, Fiber* from) {
    __sanitizer_finish_switch_fiber(here.fake, from ? &from->bottom : nullptr,
                                    from ? &from->size : nullptr);
  }
#else
  static void leave(Fiber*, const Fiber&) {}
  static void arrive(Fiber&, Fiber*) {}
#endif
};

template <int W>
class RowLanes {
 public:
  class Group {  // what a body sees
   public:
    static constexpr int width = W;
    Group(RowLanes& all, int lane) : all_(&all), lane_(lane) {}
    int lane() const {
      return lane_;
    }
    template <class T>
    T sum(T v) const {
      const std::array<T, W> values = all_->exchange(lane_, 's', v);
      T total = values[0];
      for (int i = 1; i < W; ++i)
        total += values[std::size_t(i)];
      return total;
    }
    template <class T>
    T max(T v) const {
      const std::array<T, W> values = all_->exchange(lane_, 'm', v);
      T most = values[0];
      for (int i = 1; i < W; ++i)
        most = most < values[std::size_t(i)] ? values[std::size_t(i)] : most;
      return most;
    }
    template <class T>
    T from(T v, int lane) const {
      return all_->exchange(lane_, 'f', v)[std::size_t(lane)];
    }

   private:
    RowLanes* all_;
    int lane_;
  };

  RowLanes() {
    for (auto& lane : lanes_)
      lane.stack = std::make_unique<char[]>(stack_bytes);
  }

  // body(row, group) for all rows, the last one first, for no order may matter.
  template <class Body>
  void run(const Body& body, Index rows) {
    const std::function<void(int)> work = [&](int lane) {
      for (Index r = rows; r-- > 0;)
        body(r, Group(*this, lane));
    };
    work_ = &work;
    for (int i = 0; i < W; ++i)
      start(i);
    while (true) {  // from one collective operation to the next
      int done = 0;
      for (int i = 0; i < W; ++i) {
        now_ = i;
        Lane& lane = lanes_[std::size_t(i)];
        if (!lane.done) {
          Fiber::leave(&main_fiber_, lane.fiber);
          swapcontext(&main_, &lane.context);
          Fiber::arrive(main_fiber_, nullptr);
        }
        done += lane.done;
      }
      if (done == W)
        return;
      for (const Lane& l : lanes_) {
        if (l.done || l.what != lanes_[0].what || l.met != lanes_[0].met)
          throw std::logic_error("lanes of a group went different ways");
      }
    }
  }

 private:
  static constexpr std::size_t stack_bytes = 256 * 1024;  // a sanitizer makes frames larger
  struct Lane {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    Fiber fiber;
    bool done = false;
    char what = 0;        // the collective operation it waits in,
    std::size_t met = 0;  // and how many it has met
    // its number there, a float or a double; two, so that the next operation does not overwrite
    // what others still read
    double value[2] = {};
  };

  void start(int i) {
    Lane& l = lanes_[std::size_t(i)];
    l.done = false;
    l.met = 0;
    l.fiber = {nullptr, l.stack.get(), stack_bytes};
    getcontext(&l.context);
    l.context.uc_stack.ss_sp = l.stack.get();
    l.context.uc_stack.ss_size = stack_bytes;
    l.context.uc_link = &main_;
    const auto self = reinterpret_cast<std::uintptr_t>(this);
    makecontext(&l.context, reinterpret_cast<void (*)()>(&RowLanes::enter), 2, unsigned(self),
                unsigned(self >> 32));
  }
  static void enter(unsigned low, unsigned high) {
    auto* self = reinterpret_cast<RowLanes*>(std::uintptr_t(low) | std::uintptr_t(high) << 32);
    const int lane = self->now_;
    Fiber::arrive(self->lanes_[std::size_t(lane)].fiber, &self->main_fiber_);
    (*self->work_)(lane);
    self->lanes_[std::size_t(lane)].done = true;
    Fiber::leave(nullptr, self->main_fiber_);
  }
  template <class T>
  std::array<T, W> exchange(int lane, char what, T v) {
    static_assert(sizeof(T) <= sizeof(double));
    Lane& mine = lanes_[std::size_t(lane)];
    const std::size_t side = mine.met++ % 2;
    std::memcpy(&mine.value[side], &v, sizeof(T));
    mine.what = what;
    Fiber::leave(&mine.fiber, main_fiber_);
    swapcontext(&mine.context, &main_);
    Fiber::arrive(mine.fiber, &main_fiber_);
    std::array<T, W> all;
    for (int i = 0; i < W; ++i)
      std::memcpy(&all[std::size_t(i)], &lanes_[std::size_t(i)].value[side], sizeof(T));
    return all;
  }

  std::array<Lane, W> lanes_;
  ucontext_t main_;
  Fiber main_fiber_;
  const std::function<void(int)>* work_ = nullptr;
  int now_ = 0;
};

}  // namespace moe
