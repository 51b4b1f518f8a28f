// constants_xxh3: a bit that changes in what no row holds is named; files without the hash are
// read.
#include <hdf5.h>

#include <catch2/catch.hpp>

#include "lib/trace/constants_hash.h"
#include "tests/trace/sample.h"

namespace moe {
namespace {

TraceHeader labelled(const sample::Shape& s) {
  TraceHeader h = sample::header(s);
  h.domains = {"code", "prose"};
  h.pieces = {"a", "bc", "d"};
  for (int l = 0; l < s.layers; ++l) {
    Matrix<float> weight(s.experts, 4);
    Matrix<float> cosine(s.experts, s.experts);
    for (Index i = 0; i < weight.size(); ++i)
      weight.data()[i] = float(l) + float(i) / 8;
    for (Index i = 0; i < cosine.size(); ++i)
      cosine.data()[i] = float(i % 7) / 8;
    h.router_weight.push_back(std::move(weight));
    if (h.pairs.empty())
      h.pairs.push_back({"expert_weight_cosine", {}});
    h.pairs[0].layer.push_back(std::move(cosine));
  }
  return h;
}

void write_labelled(const std::filesystem::path& path, bool modalities = false) {
  sample::Shape s;
  s.fields.modality = modalities;
  TraceWriterOptions options;
  options.fields = s.fields;
  TraceWriter w(path, labelled(s), options);
  sample::append(w, s, 0, 5000);
  w.finish();
}

// Where the cells of a contiguous dataset lie.
std::pair<haddr_t, hsize_t> place_of(const std::filesystem::path& path, const char* dataset) {
  const hid_t f = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t d = H5Dopen2(f, dataset, H5P_DEFAULT);
  const std::pair<haddr_t, hsize_t> out{H5Dget_offset(d), H5Dget_storage_size(d)};
  H5Dclose(d);
  H5Fclose(f);
  return out;
}

bool names_constants(const std::vector<std::string>& findings) {
  for (const std::string& f : findings) {
    if (f.find("constants_xxh3") != f.npos)
      return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a changed bit in what is constant is named by verify and by readers") {
  const sample::Folder folder;
  const auto path = folder / "t.h5";
  write_labelled(path, true);
  REQUIRE(verify_trace(path).empty());
  CHECK(TraceReader(path).state().warnings.empty());
  CHECK(check_trace(path).remarks.empty());
  const std::string sound = sample::bytes(path);
  for (const char* dataset :
       {"/router/weight", "/experts/expert_weight_cosine", "/domains/name", "/modalities/name",
        "/vocab/piece", "/model/expert_bytes", "/model/routed_scale"}) {
    INFO(dataset);
    const auto [at, size] = place_of(path, dataset);
    REQUIRE(at != HADDR_UNDEF);
    std::string bytes = sound;
    bytes[at + size - 1] = char(bytes[at + size - 1] ^ 1);
    sample::put_bytes(path, bytes);
    CHECK(names_constants(verify_trace(path)));
  }
  sample::put_bytes(path, sound);
  CHECK(verify_trace(path).empty());
}

TEST_CASE(
    "a finished trace of format 1.3 without its hash of constants is named, an older one "
    "remarked on") {
  const sample::Folder folder;
  const auto path = folder / "t.h5";
  write_labelled(path);
  const hid_t f = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  REQUIRE(H5Adelete(f, "constants_xxh3") >= 0);
  H5Fclose(f);
  CHECK(names_constants(verify_trace(path)));
  const hid_t g = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t a = H5Aopen(g, "format_version", H5P_DEFAULT);
  const hid_t type = H5Aget_type(a);
  H5Awrite(a, type, "1.2");
  H5Tclose(type);
  H5Aclose(a);
  H5Fclose(g);
  CHECK(!names_constants(verify_trace(path)));
  const TraceCheck older = check_trace(path);
  REQUIRE(older.remarks.size() == 1);
  CHECK(older.remarks[0].starts_with("format 1.2 holds no hash of attributes"));
  CHECK(TraceReader(path).state().remarks == older.remarks);
}

}  // namespace moe
