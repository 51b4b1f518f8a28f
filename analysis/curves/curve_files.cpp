// Logged numbers as files: long tables, and TensorBoard's event files.
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "analysis/curves/curves.h"
#include "lib/core/text.h"

namespace moe {
namespace {

std::string quoted(const std::string& text) {  // RFC 4180
  if (text.find_first_of(",\"\n\r") == text.npos)
    return text;
  std::string out = "\"";
  for (const char c : text)
    out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

// CRC-32C (Castagnoli), reflected polynomial 0x82F63B78, as RFC 3720 appendix B.4 has it.
std::uint32_t crc32c(std::string_view bytes) {
  static const std::array<std::uint32_t, 256> table = [] {
    constexpr std::uint32_t polynomial = 0x82F63B78;
    std::array<std::uint32_t, 256> out{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit)
        c = (c >> 1) ^ ((c & 1) ? polynomial : 0);
      out[i] = c;
    }
    return out;
  }();
  std::uint32_t crc = 0xFFFFFFFF;
  for (const char b : bytes)
    crc = table[(crc ^ static_cast<unsigned char>(b)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

// So that a checksum of data that holds checksums means something (TFRecord).
std::uint32_t masked(std::uint32_t crc) {
  constexpr std::uint32_t delta = 0xA282EAD8;
  return ((crc >> 15) | (crc << 17)) + delta;
}

template <class T>
std::string little_endian(T value) {
  std::string out;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    out += char(value >> (8 * i) & 0xFF);
  return out;
}

std::string record(const std::string& data) {
  const std::string length = little_endian(std::uint64_t(data.size()));
  return concat(length, little_endian(masked(crc32c(length))), data,
                little_endian(masked(crc32c(data))));
}

// Protocol buffers: a number in groups of seven bits, and fields by their number and wire type.
std::string varint(std::uint64_t v) {
  std::string out;
  while (v >= 0x80) {
    out += char((v & 0x7F) | 0x80);
    v >>= 7;
  }
  return out + char(v);
}
enum class Wire { varint = 0, eight_bytes = 1, bytes = 2, four_bytes = 5 };
std::string tag(int field, Wire wire) {
  return varint(std::uint64_t(field) << 3 | std::uint64_t(wire));
}
std::string bytes_field(int field, const std::string& bytes) {
  return tag(field, Wire::bytes) + varint(bytes.size()) + bytes;
}

// Of tensorflow/core/util/event.proto and framework/summary.proto.
namespace event {
constexpr int wall_time = 1;
constexpr int step = 2;
constexpr int file_version = 3;
constexpr int summary = 5;
}  // namespace event
namespace summary {
constexpr int value = 1;
constexpr int value_tag = 1;
constexpr int simple_value = 2;
}  // namespace summary

std::string begin_event() {
  return tag(event::wall_time, Wire::eight_bytes) +
         little_endian(std::bit_cast<std::uint64_t>(0.0));
}

std::string scalar(const std::string& name, std::int64_t step, double v) {
  const std::string value =
      concat(bytes_field(summary::value_tag, name), tag(summary::simple_value, Wire::four_bytes),
             little_endian(std::bit_cast<std::uint32_t>(float(v))));
  return concat(begin_event(), tag(event::step, Wire::varint), varint(std::uint64_t(step)),
                bytes_field(event::summary, bytes_field(summary::value, value)));
}

}  // namespace

std::string event_file(const TrainingLog& log) {
  std::string out = record(begin_event() + bytes_field(event::file_version, "brain.Event:2"));
  for (const LogPoint& p : log.points) {
    std::string name = p.figure;
    if (!p.domain.empty())
      name += "/" + p.domain;
    if (p.layer >= 0)
      name += concat("/layer ", p.layer);
    out += record(scalar(name, p.step, p.value));
  }
  return out;
}

std::string long_csv(const std::vector<TrainingLog>& logs) {
  std::string out = "run,seed,step,figure,domain,layer,value\n";
  for (const TrainingLog& log : logs) {
    for (const LogPoint& p : log.points) {
      out += concat(quoted(log.name), ",", log.seed, ",", p.step, ",", p.figure, ",",
                    quoted(p.domain), ",", p.layer < 0 ? "" : concat(p.layer), ",", p.value, "\n");
    }
  }
  return out;
}

std::string long_json(const std::vector<TrainingLog>& logs) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const TrainingLog& log : logs) {
    for (const LogPoint& p : log.points) {
      nlohmann::ordered_json row = {
          {"run", log.name}, {"seed", log.seed}, {"step", p.step}, {"figure", p.figure}};
      if (!p.domain.empty())
        row["domain"] = p.domain;
      if (p.layer >= 0)
        row["layer"] = p.layer;
      if (std::isfinite(p.value))
        row["value"] = p.value;
      else
        row["value"] = p.value < 0 ? "-inf" : "inf";
      out.push_back(std::move(row));
    }
  }
  return out.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace moe
