// The few HDF5 calls the trace needs, each checked: what went wrong is said in HDF5's own words.
// Only .cpp files of lib/trace include this; HDF5 types stay behind it. The library is told not to
// clean up at exit (that crashed on a full disk) and never to load a plugin.
#pragma once
#include <hdf5.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moe::h5 {

// element types of the format, little-endian
enum class Cell : std::uint8_t { u8, u16, u32, u64, i32, i64, f16, f32 };
constexpr std::size_t bytes_of(Cell c) {
  constexpr std::size_t bytes[] = {1, 2, 4, 8, 4, 8, 2, 4};
  return bytes[std::size_t(c)];
}
std::string_view name_of(Cell);
hid_t type_of(Cell);  // shared; not to be closed

void start();  // before the first call, on every thread

// Passes a result on, or throws Error saying what could not be done and why; Exit::io where the
// disk is to blame, else Exit::input.
std::int64_t must(std::int64_t result, std::string_view doing);
// Whether the call that just failed met a file that another program holds open for writing, or left
// so when it died: a lock, or the mark that HDF5 keeps in the file.
bool met_writer();

class Handle {  // any HDF5 identifier; closes itself
 public:
  Handle() = default;
  Handle(hid_t id, std::string_view doing) : id_(hid_t(must(id, doing))) {}
  Handle(Handle&& o) noexcept : id_(std::exchange(o.id_, -1)) {}
  Handle& operator=(Handle&& o) noexcept {
    std::swap(id_, o.id_);
    return *this;
  }
  ~Handle();
  operator hid_t() const {
    return id_;
  }
  bool open() const {
    return id_ >= 0;
  }
  void close(std::string_view doing);  // checked
  // leaves the file as a crash would: the committed rows stay readable
  void abandon() {
    id_ = -1;
  }

 private:
  hid_t id_ = -1;
};

// property list; edit = to write by the v1.10 format
Handle file_access(bool edit);
Handle group(hid_t file, const std::string& path);  // makes it, without times
Handle text_type(std::size_t bytes);                // fixed-length UTF-8
// grows: the first axis has no limit
Handle space(const std::vector<std::uint64_t>& dims, bool grows = false);

// Attributes of fixed size. put() makes one; set() gives a new value of at most the size it was
// made with.
void put(hid_t object, const char* name, std::string_view text, std::size_t room = 0);
void put(hid_t object, const char* name, Cell, const void* value);
void set(hid_t object, const char* name, std::string_view text);
void set(hid_t object, const char* name, Cell, const void* value);

// Makes a dataset without times. chunk 0 = contiguous, space taken at once. filtered = shuffle,
// deflate, fletcher32.
struct Layout {
  std::vector<std::uint64_t> dims, chunk;
  bool grows = false, filtered = false;
  int deflate = 1;  // level
};
Handle dataset(hid_t file, const std::string& path, hid_t type, const Layout&);
void resize(hid_t dataset, const std::vector<std::uint64_t>& dims, std::string_view path);
void write(hid_t dataset, hid_t type, const void* cells, std::string_view path);
// Makes a dataset of text, of the longest's length, padded with zeros.
void texts(hid_t file, const std::string& path, const std::vector<std::string>& values);
// rank 1
void write_rows(hid_t dataset, hid_t type, std::uint64_t first, std::uint64_t count,
                const void* cells, std::string_view path);
std::vector<std::uint64_t> dims_of(hid_t dataset);

}  // namespace moe::h5
