#include "lib/trace/arrays.h"

#include <unistd.h>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/trace/h5.h"

namespace moe {
namespace {

void note_all(hid_t object, const Notes& notes) {
  for (const auto& [name, text] : notes)
    h5::put(object, name.c_str(), text);
}

void write_file(const std::filesystem::path& path, const std::vector<NamedArray>& arrays,
                const Notes& notes, const std::vector<NamedTexts>& texts) {
  const h5::Handle creation{H5Pcreate(H5P_FILE_CREATE), "prepare the file"};
  h5::must(H5Pset_obj_track_times(creation, false), "prepare the file");
  h5::Handle file{H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, h5::file_access(true)),
                  "make the file"};
  for (const NamedArray& a : arrays) {
    h5::Handle data =
        h5::dataset(file, "/" + a.name, H5T_IEEE_F64LE, {.dims = a.dims, .chunk = {}});
    if (!a.values.empty())
      h5::write(data, H5T_NATIVE_DOUBLE, a.values.data(), a.name);
    note_all(data, a.notes);
    data.close("close " + a.name);
  }
  for (const NamedTexts& t : texts)
    h5::texts(file, "/" + t.name, t.values);
  {
    const h5::Handle root{H5Gopen2(file, "/", H5P_DEFAULT), "open the root"};
    note_all(root, notes);
  }
  file.close("close the file");
}

}  // namespace

void write_arrays(const std::filesystem::path& path, const std::vector<NamedArray>& arrays,
                  const Notes& notes, const std::vector<NamedTexts>& texts) {
  h5::start();
  std::filesystem::path beside = path;
  beside += concat(".", ::getpid(), ".tmp");
  std::error_code ignored;
  try {
    write_file(beside, arrays, notes, texts);
    std::filesystem::rename(beside, path);
  } catch (const std::filesystem::filesystem_error& e) {
    std::filesystem::remove(beside, ignored);
    throw Error(Exit::io, concat("cannot write '", path.string(), "': ", e.code().message()));
  } catch (...) {
    std::filesystem::remove(beside, ignored);
    throw;
  }
}

}  // namespace moe
