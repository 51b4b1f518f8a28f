// A journal is the 8 bytes of its name, then records: u32 kind, u32 version, u64 bytes of the
// payload, u64 XXH3 over these 16 bytes and the payload, the payload. Everything is little-endian.
#include "lib/trace/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/trace/disk.h"
#include "lib/trace/filter.h"
#include "lib/trace/hash.h"
#include "lib/trace/rebuild.h"

namespace moe {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr char signature[9] = "moe-jrnl";
enum : std::uint32_t { start_record = 1, commit_record = 2 };
// of a record; a commit whose sequences have grids is of the second
constexpr std::uint32_t version = 1, version_with_grids = 2;
constexpr std::uint64_t large = 4096;          // constants of so many bytes stay in NAME.part alone
constexpr std::uint64_t most_bytes = 1 << 30;  // of a start without its holes
constexpr std::size_t head_bytes = 24;

template <class T>
void put_number(Bytes& out, T value) {
  const auto at = out.size();
  out.resize(at + sizeof value);
  std::memcpy(out.data() + at, &value, sizeof value);
}

void put_text(Bytes& out, std::string_view text) {
  put_number(out, std::uint32_t(text.size()));
  out.insert(out.end(), text.begin(), text.end());
}

// Reads what put_number and put_text wrote; what is not there throws.
class Cursor {
 public:
  explicit Cursor(std::span<const std::uint8_t> bytes) : left_(bytes) {}
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() {
    const auto bytes = take(number<std::uint32_t>());
    return {bytes.begin(), bytes.end()};
  }
  // How many follow, each of at least so many bytes.
  std::size_t count(std::size_t least) {
    const auto n = number<std::uint64_t>();
    if (n > left_.size() / least)
      cut();
    return std::size_t(n);
  }
  std::span<const std::uint8_t> rest() const {
    return left_;
  }

 private:
  [[noreturn]] static void cut() {
    throw Error(Exit::input, "a record of the journal ends early");
  }
  std::span<const std::uint8_t> take(std::size_t n) {
    if (n > left_.size())
      cut();
    const auto out = left_.first(n);
    left_ = left_.subspan(n);
    return out;
  }
  std::span<const std::uint8_t> left_;
};

std::uint64_t hash_of(const Bytes& head, std::span<const std::uint8_t> payload) {
  Xxh3 hash;
  hash.update({head.data(), head.size()});
  hash.update(payload);
  return hash.value();
}

// ---- the start -------------------------------------------------------------------------------

// Where the cells of a dataset lie, as far as that is known without its index.
void add_storage(hid_t dataset, std::vector<FileRange>& out) {
  const haddr_t at = H5Dget_offset(dataset);
  if (at != HADDR_UNDEF) {
    out.push_back({at, H5Dget_storage_size(dataset)});
    return;
  }
  H5Eclear2(H5E_DEFAULT);
  const h5::Handle list{H5Dget_create_plist(dataset), "read how a dataset is stored"};
  if (H5Pget_layout(list) != H5D_CHUNKED)
    return;
  const h5::Handle all{H5Dget_space(dataset), "read the shape of a dataset"};
  hsize_t chunks = 0;
  h5::must(H5Dget_num_chunks(dataset, all, &chunks), "count the chunks of a dataset");
  for (hsize_t i = 0; i < chunks; ++i) {
    haddr_t place = 0;
    hsize_t bytes = 0;
    h5::must(H5Dget_chunk_info(dataset, all, i, nullptr, nullptr, &place, &bytes),
             "find a chunk of a dataset");
    out.push_back({place, bytes});
  }
}

struct Walk {
  std::vector<FileRange> ranges;
  std::string failure;
};

herr_t visit(hid_t file, const char* name, const H5O_info_t* info, void* data) {
  auto& walk = *static_cast<Walk*>(data);
  if (info->type != H5O_TYPE_DATASET)
    return 0;
  try {
    const h5::Handle dataset{H5Dopen2(file, name, H5P_DEFAULT), "open a dataset"};
    add_storage(dataset, walk.ranges);
  } catch (const Error& e) {
    walk.failure = e.what();
    return -1;
  }
  return 0;
}

// Where large constants lie, in the order of the file.
std::vector<FileRange> holes_of(hid_t file) {
  Walk walk;
  const herr_t done = H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, visit, &walk, H5O_INFO_BASIC);
  if (!walk.failure.empty())
    throw Error(Exit::io, walk.failure);
  h5::must(done, "list the datasets");
  std::erase_if(walk.ranges, [](const FileRange& r) { return r.bytes < large; });
  std::ranges::sort(walk.ranges, {}, &FileRange::offset);
  return std::move(walk.ranges);
}

JournalStart start_of(const std::filesystem::path& part, hid_t file,
                      const std::vector<TraceColumn>& columns) {
  JournalStart out;
  for (const TraceColumn& c : columns)
    out.columns.push_back(c.path);
  haddr_t end = 0;
  h5::must(H5Fget_eoa(file, &end), "read where the file ends");
  out.end = end;
  out.holes = holes_of(file);
  const InputFile input(part);
  const auto map = input.map();
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(map.get());
  const std::uint64_t there = std::min<std::uint64_t>(std::uint64_t(input.size()), end);
  std::uint64_t at = 0;
  const auto keep_to = [&](std::uint64_t to) {
    out.bytes.insert(out.bytes.end(), bytes + std::min(at, there), bytes + std::min(to, there));
    out.bytes.resize(out.bytes.size() + (to - std::max(std::min(to, there), at)), 0);
  };
  for (const FileRange& hole : out.holes) {
    keep_to(hole.offset);
    at = hole.offset + hole.bytes;
  }
  keep_to(end);
  return out;
}

Bytes payload_of(const JournalStart& start) {
  Bytes out;
  put_number(out, start.end);
  put_number(out, std::uint64_t(start.columns.size()));
  for (const std::string& path : start.columns)
    put_text(out, path);
  put_number(out, std::uint64_t(start.holes.size()));
  for (const FileRange& hole : start.holes) {
    put_number(out, hole.offset);
    put_number(out, hole.bytes);
  }
  put_number(out, std::uint64_t(start.bytes.size()));
  const Bytes packed = pack(start.bytes, 1, false);
  out.insert(out.end(), packed.begin(), packed.end());
  return out;
}

JournalStart start_from(std::span<const std::uint8_t> payload) {
  Cursor in(payload);
  JournalStart out;
  out.end = in.number<std::uint64_t>();
  for (std::size_t n = in.count(sizeof(std::uint32_t)); n > 0; --n)
    out.columns.push_back(in.text());
  std::uint64_t all = 0;
  std::uint64_t last = 0;
  for (std::size_t n = in.count(2 * sizeof(std::uint64_t)); n > 0; --n) {
    FileRange hole;
    hole.offset = in.number<std::uint64_t>();
    hole.bytes = in.number<std::uint64_t>();
    if (hole.offset < last || hole.bytes > out.end || hole.offset > out.end - hole.bytes)
      throw Error(Exit::input, "the journal leaves out what is not in its file");
    last = hole.offset + hole.bytes;
    all += hole.bytes;
    out.holes.push_back(hole);
  }
  const auto kept = in.number<std::uint64_t>();
  if (kept > most_bytes || all > out.end || kept != out.end - all)
    throw Error(Exit::input, fmt::format("the journal keeps {} of {} bytes", kept, out.end));
  out.bytes.resize(kept);
  unpack(in.rest(), {Filter::deflate, Filter::fletcher32}, 0, 1, out.bytes);
  return out;
}

// ---- commits ---------------------------------------------------------------------------------

bool has_grids(const CommitJob& job) {
  return std::ranges::any_of(job.sequences,
                             [](const TraceSequence& s) { return s.grid != SignalGrid{}; });
}

void put_records(Bytes& out, const CommitJob& job, bool grids) {
  put_number(out, std::uint64_t(job.steps_from));
  put_number(out, std::uint64_t(job.steps.size()));
  for (const TraceStep& s : job.steps) {
    put_number(out, s.step);
    put_number(out, s.token_start);
    put_number(out, s.num_tokens);
    put_number(out, std::uint8_t(s.phase));
  }
  put_number(out, std::uint64_t(job.sequences_from));
  put_number(out, std::uint64_t(job.sequences.size()));
  for (const TraceSequence& s : job.sequences) {
    put_number(out, s.start);
    put_number(out, s.length);
    put_number(out, s.domain);
    if (grids) {
      put_number(out, s.grid.rows);
      put_number(out, s.grid.columns);
    }
  }
}

void read_records(Cursor& in, bool grids, JournalCommit& out) {
  constexpr std::size_t step_bytes = 8 + 8 + 4 + 1;
  const std::size_t sequence_bytes = 8 + 4 + 2 + (grids ? 2 + 2 : 0);
  out.steps_from = in.number<std::uint64_t>();
  for (std::size_t n = in.count(step_bytes); n > 0; --n) {
    TraceStep s;
    s.step = in.number<std::int64_t>();
    s.token_start = in.number<std::uint64_t>();
    s.num_tokens = in.number<std::uint32_t>();
    s.phase = Phase(in.number<std::uint8_t>());
    out.steps.push_back(s);
  }
  out.sequences_from = in.number<std::uint64_t>();
  for (std::size_t n = in.count(sequence_bytes); n > 0; --n) {
    TraceSequence s;
    s.start = in.number<std::uint64_t>();
    s.length = in.number<std::uint32_t>();
    s.domain = in.number<std::uint16_t>();
    if (grids) {
      s.grid.rows = in.number<std::uint16_t>();
      s.grid.columns = in.number<std::uint16_t>();
    }
    out.sequences.push_back(s);
  }
}

JournalCommit commit_from(std::span<const std::uint8_t> payload, bool grids) {
  Cursor in(payload);
  JournalCommit out;
  out.row = in.number<CommitRow>();
  read_records(in, grids, out);
  constexpr std::size_t chunk_bytes = 4 + 4 + 8 + 8 + 4 + 8;
  for (std::size_t n = in.count(chunk_bytes); n > 0; --n) {
    JournalChunk c;
    c.column = in.number<std::uint32_t>();
    c.plane = in.number<std::uint32_t>();
    c.row = in.number<std::uint64_t>();
    c.place.offset = in.number<std::uint64_t>();
    c.place.bytes = in.number<std::uint32_t>();
    c.xxh3 = in.number<std::uint64_t>();
    out.chunks.push_back(c);
  }
  return out;
}

[[noreturn]] void failed(const std::filesystem::path& path, const char* doing) {
  io_failure(doing, path, errno);
}

}  // namespace

std::filesystem::path journal_of(const std::filesystem::path& part) {
  return part.string() + ".journal";
}

Journal::Journal(const std::filesystem::path& part, hid_t file,
                 const std::vector<TraceColumn>& columns)
    : path_(journal_of(part)) {
  const Bytes start = payload_of(start_of(part, file, columns));
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0)
    failed(path_, "make");
  put(start_record, version, start);
}

Journal::~Journal() {
  if (fd_ >= 0)
    ::close(fd_);
}

Journal::Journal(Journal&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), written_(other.written_) {}

void Journal::put(std::uint32_t kind, std::uint32_t of_version, const Bytes& payload) {
  Bytes out;
  if (kind == start_record)
    out.insert(out.end(), signature, signature + 8);
  Bytes head;
  put_number(head, kind);
  put_number(head, of_version);
  put_number(head, std::uint64_t(payload.size()));
  put_number(head, hash_of(head, payload));
  out.insert(out.end(), head.begin(), head.end());
  out.insert(out.end(), payload.begin(), payload.end());
  written_ = true;
  for (std::size_t done = 0; done < out.size();) {
    const ssize_t n = ::write(fd_, out.data() + done, out.size() - done);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      failed(path_, "write");
    done += std::size_t(n);
  }
}

void Journal::add(const CommitRow& row, const CommitJob& job,
                  const std::vector<FileRange>& places) {
  Bytes out;
  put_number(out, row);
  const bool grids = has_grids(job);
  put_records(out, job, grids);
  put_number(out, std::uint64_t(job.chunks.size()));
  for (std::size_t i = 0; i < job.chunks.size(); ++i) {
    const CommitJob::Chunk& chunk = job.chunks[i];
    const CommitJob::Plane& plane = job.planes[chunk.plane];
    const FileRange& place = places.at(i);
    put_number(out, std::uint32_t(plane.column));
    put_number(out, std::uint32_t(plane.plane));
    put_number(out, chunk.row);
    put_number(out, place.offset);
    put_number(out, std::uint32_t(place.bytes));
    put_number(out, chunk.xxh3);
  }
  put(commit_record, grids ? version_with_grids : version, out);
}

void Journal::sync() {
  if (written_)
    sync_file(path_);
  written_ = false;
}

void Journal::follow(const std::filesystem::path& part) {
  const std::filesystem::path name = journal_of(part);
  rename_durably(path_, name);
  path_ = name;
}

void Journal::remove() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

JournalContent read_journal(const std::filesystem::path& part) {
  const std::filesystem::path path = journal_of(part);
  const InputFile file(path);
  const auto map = file.map();
  std::span<const std::uint8_t> left{reinterpret_cast<const std::uint8_t*>(map.get()),
                                     std::size_t(file.size())};
  const auto damaged = [&] {
    return Error(Exit::input, fmt::format("{} is not a whole journal", in_quotes(path)));
  };
  if (left.size() < 8 || std::memcmp(left.data(), signature, 8) != 0)
    throw damaged();
  left = left.subspan(8);
  JournalContent out;
  bool started = false;
  while (left.size() >= head_bytes) {
    Bytes head(left.begin(), left.begin() + head_bytes);
    Cursor fields(head);
    const auto kind = fields.number<std::uint32_t>();
    const auto of_version = fields.number<std::uint32_t>();
    const bool grids = of_version == version_with_grids && kind == commit_record;
    const bool known = of_version == version || grids;
    const auto bytes = fields.number<std::uint64_t>();
    const auto hash = fields.number<std::uint64_t>();
    left = left.subspan(head_bytes);
    head.resize(head_bytes - sizeof hash);
    if (!known || bytes > left.size() || hash_of(head, left.first(bytes)) != hash ||
        (kind == start_record) == started) {
      break;
    }
    if (kind == start_record)
      out.start = start_from(left.first(bytes));
    else
      out.commits.push_back(commit_from(left.first(bytes), grids));
    started = true;
    left = left.subspan(bytes);
  }
  if (!started)
    throw damaged();
  return out;
}

}  // namespace moe
