// bf16 products by oneDNN, which takes AMX where the processor has it and AVX-512 BF16 else. One
// primitive for each way of reading the operands, its sizes known only when it runs: a primitive
// for every shape would cost more than a small product takes.
#include <dnnl.h>

#include <array>

#include "lib/backend/gemm_half.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"

namespace moe {
namespace {

void check(dnnl_status_t status, const char* what) {
  if (status == dnnl_out_of_memory)
    throw Error(Exit::memory, concat("oneDNN found no memory to ", what));
  if (status != dnnl_success)
    throw Error(Exit::bug, concat("oneDNN could not ", what, " (status ", int(status), ")"));
}

dnnl_memory_desc_t matrix(Index rows, Index cols, Index step, Op op, dnnl_data_type_t type) {
  const dnnl_dims_t dims = {rows, cols};
  const dnnl_dims_t plain = {step, 1};
  const dnnl_dims_t turned = {1, step};
  dnnl_memory_desc_t d;
  check(dnnl_memory_desc_init_by_strides(&d, 2, dims, type, op == Op::plain ? plain : turned),
        "describe a matrix");
  return d;
}

// Lives as long as the program, like the code that oneDNN wrote for it.
struct Library {
  dnnl_engine_t engine = nullptr;
  std::array<dnnl_primitive_t, 8> product{};

  static int place(Op a, Op b, float beta) {
    return (a == Op::plain ? 0 : 1) + (b == Op::plain ? 0 : 2) + (beta == 0 ? 0 : 4);
  }
  Library() {
    check(dnnl_engine_create(&engine, dnnl_cpu, 0), "find the processor");
    for (const Op a : {Op::plain, Op::transposed}) {
      for (const Op b : {Op::plain, Op::transposed}) {
        for (const float beta : {0.0f, 1.0f})
          product[place(a, b, beta)] = make(a, b, beta);
      }
    }
  }
  dnnl_primitive_t make(Op a, Op b, float beta) const {
    const OneThread alone;  // what it is made for
    constexpr Index any = DNNL_RUNTIME_DIM_VAL;
    const dnnl_memory_desc_t ma = matrix(any, any, any, a, dnnl_bf16);
    const dnnl_memory_desc_t mb = matrix(any, any, any, b, dnnl_bf16);
    const dnnl_memory_desc_t mc = matrix(any, any, any, Op::plain, dnnl_f32);
    dnnl_matmul_desc_t d;
    check(dnnl_matmul_desc_init(&d, &ma, &mb, nullptr, &mc), "describe a product");
    dnnl_primitive_attr_t attributes;
    dnnl_post_ops_t after;
    check(dnnl_primitive_attr_create(&attributes), "describe a product");
    check(dnnl_post_ops_create(&after), "describe a product");
    if (beta != 0)
      check(dnnl_post_ops_append_sum(after, beta), "describe a product");
    check(dnnl_primitive_attr_set_post_ops(attributes, after), "describe a product");
    dnnl_primitive_desc_t chosen;
    check(dnnl_primitive_desc_create(&chosen, &d, attributes, engine, nullptr),
          "make a bf16 product");
    dnnl_primitive_t made;
    check(dnnl_primitive_create(&made, chosen), "make a bf16 product");
    dnnl_primitive_desc_destroy(chosen);
    dnnl_post_ops_destroy(after);
    dnnl_primitive_attr_destroy(attributes);
    return made;
  }
};

const Library& library() {
  static const Library* one = new Library;
  return *one;
}

// A thread's own stream and memories, given back when the thread ends.
struct Lane {
  dnnl_stream_t stream = nullptr;
  Lane() {
    check(dnnl_stream_create(&stream, library().engine, dnnl_stream_default_flags),
          "make a stream");
  }
  ~Lane() {
    dnnl_stream_destroy(stream);
  }
};

class Argument {
 public:
  Argument(const dnnl_memory_desc_t& d, const void* data) {
    check(dnnl_memory_create(&memory_, &d, library().engine, const_cast<void*>(data)),
          "name a matrix");
  }
  ~Argument() {
    dnnl_memory_destroy(memory_);
  }
  Argument(const Argument&) = delete;
  Argument& operator=(const Argument&) = delete;
  dnnl_memory_t get() const {
    return memory_;
  }

 private:
  dnnl_memory_t memory_ = nullptr;
};

}  // namespace

std::string no_half_products() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") ? ""
                                              : "this processor has none (AVX-512 BF16 or AMX)";
#else
  return "they are there on x86-64 alone";
#endif
}

void gemm(Index m, Index n, Index k, HalfOperand a, HalfOperand b, float beta, float* c,
          Index c_step) {
  if (detail::gemm_trivial(m, n, k, beta, c, c_step))
    return;
  if (beta != 0 && beta != 1) {
    detail::scale(m, n, beta, c, c_step);
    beta = 1;
  }
  const OneThread alone;
  thread_local const Lane lane;
  const Argument ma(matrix(m, k, a.step, a.op, dnnl_bf16), a.data);
  const Argument mb(matrix(k, n, b.step, b.op, dnnl_bf16), b.data);
  const Argument mc(matrix(m, n, c_step, Op::plain, dnnl_f32), c);
  const dnnl_exec_arg_t arguments[] = {
      {DNNL_ARG_SRC, ma.get()}, {DNNL_ARG_WEIGHTS, mb.get()}, {DNNL_ARG_DST, mc.get()}};
  check(dnnl_primitive_execute(library().product[Library::place(a.op, b.op, beta)], lane.stream, 3,
                               arguments),
        "multiply");
  check(dnnl_stream_wait(lane.stream), "multiply");
}

}  // namespace moe
