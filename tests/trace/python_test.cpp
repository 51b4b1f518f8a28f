// Stock h5py reads a trace in three lines, and its own hash over the rows is the one in /commits.
#include <sys/wait.h>

#include <catch2/catch.hpp>

#include <fstream>

#include "lib/core/text.h"
#include "tests/skip.h"
#include "tests/trace/sample.h"

using namespace moe;

namespace {
int shell(const std::string& command) {
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
bool has_h5py() {
  if (shell("/usr/bin/python3 -c 'import h5py' 2>/dev/null") == 0)
    return true;
  test::skip("/usr/bin/python3 has no h5py");
  return false;
}
// Runs a script with the path as its argument; what it says lies in the folder.
std::string python(const sample::Folder& folder, const std::filesystem::path& path,
                   const std::string& script) {
  std::ofstream(folder / "script.py") << script;
  const int code = shell(concat("/usr/bin/python3 ", (folder / "script.py").string(), " ",
                                path.string(), " >", (folder / "said").string(), " 2>&1"));
  return concat(sample::bytes(folder / "said"), code == 0 ? "" : concat("exit code ", code));
}
}  // namespace

TEST_CASE("h5py reads a trace in three lines") {
  if (!has_h5py())
    return;
  const sample::Folder folder;
  const auto s = sample::Shape{};
  sample::write(folder / "a.h5", s, 5000);
  const std::string said = python(folder, folder / "a.h5", R"(import h5py, sys
f = h5py.File(sys.argv[1])
ids = f["routing/expert_ids"][:, 1, :]
weights = f["routing/weights"]
print(ids.shape, ids.dtype, *ids[4097], weights.dtype, f.attrs["format"],
      f["tokens/token_id"][4999])
)");
  const auto row = sample::rows(s, 4097, 1).layer[1].expert;
  const auto last = sample::rows(s, 4999, 1).token_id[0];
  CHECK(said == concat("(5000, 2) uint16 ", row(0, 0), " ", row(0, 1), " float16 b'moe-trace' ",
                       last, "\n"));
}

TEST_CASE("h5py sees the scales, the texts and every filter's result") {
  if (!has_h5py())
    return;
  const sample::Folder folder;
  sample::Shape s;
  s.fields = sample::every_field();
  sample::write(folder / "a.h5", s, 4500);
  const std::string said = python(folder, folder / "a.h5", R"(import h5py, sys
f = h5py.File(sys.argv[1])
d = f["routing/weights"]
names = [f[d.dims[i][0].name].name for i in range(3)]
print(names, d.chunks, d.shuffle, d.compression_opts, d.fletcher32)
a = f.attrs
print(f["domains/name"][1].decode(), f["commits"]["rows"][:], a["complete"], a["num_tokens"],
      len(a["corpus_sha256"]))
total = 0
def visit(name, o):
    global total
    if isinstance(o, h5py.Dataset) and o.shape[:1] == (4500,) and o.dtype.kind in "uif":
        total += int((o[...].view("u1").astype("u8")).sum())
f.visititems(visit)
print("sum", total > 0)
)");
  CHECK(said ==
        "['/token', '/layer', '/choice'] (4096, 1, 2) True 1 True\n中文 [4096 4500] 1 4500 64\nsum "
        "True\n");
}

TEST_CASE("h5py reads beside the writer what is committed") {
  if (!has_h5py())
    return;
  const sample::Folder folder;
  const sample::Shape s;
  TraceWriter w(folder / "a.h5", sample::header(s));
  sample::append(w, s, 0, 4096);
  w.commit(0);
  sample::append(w, s, 4096, 4200);
  CHECK(python(folder, folder / "a.h5.part", R"(import h5py, sys
f = h5py.File(sys.argv[1], "r", libver="latest", swmr=True)
print(f["commits"]["rows"][-1], f["tokens/token_id"].shape)
)") == "4096 (4096,)\n");
}

TEST_CASE("h5py, h5netcdf and netCDF4 open every group") {
  if (!has_h5py())
    return;
  if (shell("/usr/bin/python3 -c 'import netCDF4, h5netcdf, xarray' 2>/dev/null") != 0)
    return test::skip("/usr/bin/python3 has no xarray, h5netcdf or netCDF4");
  const sample::Folder folder;
  sample::Shape s;
  s.fields = sample::every_field();
  sample::write(folder / "a.h5", s, 500);
  // netCDF4 knows no 16-bit floats: docs/reading-traces.md says so
  const std::string said = python(folder, folder / "a.h5", R"(import h5py, netCDF4, sys
import numpy as np
import xarray as xr
path, groups = sys.argv[1], []
is_group = lambda o: isinstance(o, h5py.Group)
h5py.File(path).visititems(lambda name, o: groups.append(name) if is_group(o) else None)
for name in groups:
    expected = h5py.File(path)[name]
    read = xr.open_dataset(path, group=name, engine="h5netcdf", phony_dims="sort").load()
    other = netCDF4.Dataset(path)[name]
    for key, data in expected.items():
        if data.dtype.kind in "iuf" and key in read.variables:
            assert np.array_equal(read[key].values, data[:], equal_nan=data.dtype.kind == "f"), key
        if data.dtype.kind in "iu" and key in other.variables:
            assert np.array_equal(np.asarray(other[key]), data[:]), key
print(*groups)
)");
  CHECK(said == "domains modalities model routing sequences steps tokens vocab\n");
}
