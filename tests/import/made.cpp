// Files and results for the tests of importers: see made.h.
#include "tests/import/made.h"

#include <zlib.h>

#include <cmath>

namespace moe::test {
namespace {

std::string little(std::uint64_t v, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i)
    out += char(v >> (8 * i) & 255);
  return out;
}

std::string ids_text(const Matrix<int>& ids) {
  std::string out;
  for (Index t = 0; t < ids.rows(); ++t) {
    out += t > 0 ? " " : "";
    for (Index k = 0; k < ids.cols(); ++k)
      out += concat(k > 0 ? "," : "", ids(t, k) < 0 ? "-" : std::to_string(ids(t, k)));
  }
  return out;
}

void describe(const TraceReader& reader, Imported& out) {
  const TraceRows rows = reader.read(0, reader.tokens(), reader.fields());
  for (std::size_t l = 0; l < rows.layer.size(); ++l) {
    out.routes += concat(l > 0 ? "; " : "", "layer ", reader.header().layers[l].index, ": ",
                         ids_text(rows.layer[l].expert));
  }
  for (const TraceSequence& s : reader.sequences())
    out.sequences += concat(out.sequences.empty() ? "" : " ", s.start, "+", s.length);
  for (const std::uint32_t id : rows.token_id)
    out.tokens +=
        concat(out.tokens.empty() ? "" : " ", id == withheld_token ? "?" : std::to_string(id));
  if (rows.layer.empty())
    return;
  for (Index i = 0; i < rows.layer[0].weight.size(); ++i) {
    const float w = rows.layer[0].weight.data()[i];
    out.weights += concat(i > 0 ? " " : "", std::round(double(w) * 100) / 100);
  }
}

}  // namespace

bool Imported::says(const std::string& sentence) const {
  return join(result.said, "\n").find(sentence) != std::string::npos;
}

Imported import_files(const Files& files, ImportOptions options) {
  const Folder folder;
  for (const auto& [name, bytes] : files)
    folder.put("in/" + name, bytes);
  if (!options.config.empty())
    options.config = folder / "in" / options.config;
  if (options.inputs.empty()) {
    for (const auto& [name, bytes] : files) {
      if (name != "config.json")
        options.inputs.push_back(folder / "in" / name);
    }
  }
  Imported out;
  const auto target = folder / "t.moetrace.h5";
  try {
    out.result = import_trace(options, target, {}, false);
  } catch (const Error& e) {
    out.refusal = e.what();
    INFO(e.what());
    CHECK(!e.hint().empty());
    CHECK(!std::filesystem::exists(target));
    CHECK(!std::filesystem::exists(folder / "t.moetrace.h5.part"));
    return out;
  }
  const TraceReader reader(target);
  describe(reader, out);
  return out;
}

std::string stored_zip(const Files& files) {
  std::string out;
  std::string list;
  for (const auto& [name, bytes] : files) {
    const auto crc = crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), uInt(bytes.size()));
    const std::string common = little(0, 2) + little(0, 2) + little(0, 4) + little(crc, 4) +
                               little(bytes.size(), 4) + little(bytes.size(), 4) +
                               little(name.size(), 2) + little(0, 2);
    list += "PK\x01\x02" + little(20, 2) + little(20, 2) + common + little(0, 2) + little(0, 2) +
            little(0, 2) + little(0, 4) + little(out.size(), 4) + name;
    out += "PK\x03\x04" + little(20, 2) + common + name + bytes;
  }
  const std::size_t at = out.size();
  out += list + "PK\x05\x06" + little(0, 4) + little(files.size(), 2) + little(files.size(), 2) +
         little(list.size(), 4) + little(at, 4) + little(0, 2);
  return out;
}

std::string npy(const std::string& type, const std::vector<int>& shape, const std::string& bytes) {
  std::string dims;
  for (const int n : shape)
    dims += std::to_string(n) + ",";
  const std::string header =
      "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + dims + "), }\n";
  return std::string("\x93NUMPY\x01", 7) + little(0, 1) + little(header.size(), 2) + header + bytes;
}

std::string base64(const std::string& bytes) {
  static constexpr std::string_view alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t v = 0;
    for (std::size_t k = 0; k < 3; ++k)
      v = v << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
    for (std::size_t k = 0; k < 4; ++k)
      out += i + k <= bytes.size() ? alphabet[v >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

Pickle& Pickle::whole(std::int64_t v) {
  if (v != std::int32_t(v))
    return raw("\x8a\x08" + little(std::uint64_t(v), 8));
  return raw("J" + little(std::uint32_t(v), 4));
}
Pickle& Pickle::text(const std::string& t) {
  return raw("X" + little(t.size(), 4) + t);
}
Pickle& Pickle::none() {
  return raw("N");
}
Pickle& Pickle::list(const std::vector<Pickle>& items) {
  raw("](");
  for (const Pickle& p : items)
    raw(p.bytes_);
  return raw("e");
}
Pickle& Pickle::tuple(const std::vector<Pickle>& items) {
  raw("(");
  for (const Pickle& p : items)
    raw(p.bytes_);
  return raw("t");
}
Pickle& Pickle::dict(const std::vector<std::pair<Pickle, Pickle>>& items) {
  raw("}(");
  for (const auto& [key, value] : items)
    raw(key.bytes_ + value.bytes_);
  return raw("u");
}

Pickle& Pickle::tensor(const std::string& type, int key, const std::vector<int>& shape) {
  std::vector<Pickle> sizes, strides;
  std::int64_t numbers = 1;
  for (const int n : shape) {
    sizes.push_back(Pickle().whole(n));
    numbers *= n;
  }
  std::int64_t step = numbers;
  for (const int n : shape) {
    step /= std::max(n, 1);
    strides.push_back(Pickle().whole(step));
  }
  const Pickle storage =
      Pickle()
          .tuple({Pickle().text("storage"), Pickle().raw("ctorch\n" + type + "Storage\n"),
                  Pickle().text(std::to_string(key)), Pickle().text("cpu"),
                  Pickle().whole(numbers)})
          .raw("Q");
  raw("ctorch._utils\n_rebuild_tensor_v2\n");
  tuple({storage, Pickle().whole(0), Pickle().tuple(sizes), Pickle().tuple(strides),
         Pickle().raw("\x89"), Pickle().dict({})});
  return raw("R");
}

std::string torch_file(const Pickle& pickle, const std::vector<std::string>& storages) {
  Files files{{"archive/data.pkl", pickle.file()}, {"archive/byteorder", "little"}};
  for (std::size_t i = 0; i < storages.size(); ++i)
    files["archive/data/" + std::to_string(i)] = storages[i];
  return stored_zip(files);
}

}  // namespace moe::test
