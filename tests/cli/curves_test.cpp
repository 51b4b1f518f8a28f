// moe report RUN: curves of training on the screen, in long form, and as TensorBoard's event files.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <sstream>

#include "tests/cli/program.h"
#include "tests/skip.h"

namespace moe::cli {
namespace {

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

// An independent reader of event files, down to their checksums.
constexpr const char* read_events = R"py(
import glob, struct, sys
def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8): crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
def masked(data):
    c = crc32c(data)
    return (((c >> 15) | (c << 17)) + 0xA282EAD8) & 0xFFFFFFFF
assert crc32c(b'123456789') == 0xE3069283
def fields(data):
    at = 0
    def varint():
        nonlocal at
        out = shift = 0
        while True:
            b = data[at]; at += 1
            out |= (b & 0x7F) << shift; shift += 7
            if b < 0x80: return out
    while at < len(data):
        key = varint(); kind = key & 7
        if kind == 0: yield key >> 3, varint()
        else:
            n = {1: 8, 5: 4}.get(kind) or varint()
            yield key >> 3, data[at:at + n]; at += n
scalars = {}
for path in glob.glob(sys.argv[1] + '/*/events.out.tfevents.*'):
    data = open(path, 'rb').read(); at = 0; first = True
    while at < len(data):
        length, = struct.unpack_from('<Q', data, at)
        assert struct.unpack_from('<I', data, at + 8)[0] == masked(data[at:at + 8])
        body = data[at + 12:at + 12 + length]
        assert struct.unpack_from('<I', data, at + 12 + length)[0] == masked(body)
        at += 16 + length
        event = dict(fields(body))
        if first: assert event[3] == b'brain.Event:2'
        else:
            value = dict(fields(dict(fields(event[5]))[1]))
            scalars[value[1].decode(), event[2]] = struct.unpack('<f', value[2])[0]
        first = False
print(len(scalars), scalars['loss', 4])
)py";

}  // namespace

TEST_CASE("runs are shown by their curves, seeds of one spec as a band") {
  const Folder f;
  for (const std::string seed : {"1", "2"}) {
    REQUIRE(f.run(nano + " --steps 4 --eval-every 2 --seed " + seed + " -o runs/s" + seed).code ==
            0);
  }
  REQUIRE(f.run(nano + " --steps 4 --eval-every 2 --dense -o runs/dense").code == 0);
  const Result one = f.run("report runs/s1", {.environment = {"COLUMNS=80"}});
  INFO(one.out << one.err);
  CHECK(one.code == 0);
  CHECK(std::ranges::count(one.out, '\n') <= 50);
  CHECK(holds(one.out, "Training of runs/s1"));
  CHECK(holds(one.out, "validation loss"));
  const Result all = f.run("report runs/s1 runs/s2 runs/dense --all");
  CHECK(all.code == 0);
  CHECK(holds(all.out, "runs/s1 and 1 other seed"));
  CHECK(holds(all.out, "cannot be ranked"));  // the dense run has one seed
  CHECK(holds(all.out, "Load CV"));
  CHECK(f.run("report runs/s1 runs/s2 runs/dense -o curves.html").code == 0);
  CHECK(holds(text_of(f / "curves.html"), "class=\"band"));
  CHECK(f.run("report runs/s1 --metric load").err.find("options about routing") !=
        std::string::npos);
  put(f / "no.moetrace.h5", "");
  CHECK(f.run("report runs/s1 no.moetrace.h5").err.find("given together") != std::string::npos);
}

TEST_CASE("logged numbers are written in long form, and as event files with their checksums") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 4 --eval-every 2 -o runs/a").code == 0);
  REQUIRE(f.run("report runs/a -o a.csv").code == 0);
  std::istringstream lines(text_of(f / "a.csv"));
  std::string head, line;
  std::getline(lines, head);
  CHECK(head == "run,seed,step,figure,domain,layer,value");
  std::string loss;
  int rows = 0;
  while (std::getline(lines, line)) {
    ++rows;
    CHECK(std::ranges::count(line, ',') == 6);
    if (line.starts_with("runs/a,1,4,loss,,,"))
      loss = line.substr(line.rfind(',') + 1);
  }
  REQUIRE_FALSE(loss.empty());
  const auto json = nlohmann::json::parse(f.run("report runs/a --format json").out);
  CHECK(int(json.size()) == rows);
  REQUIRE(f.run("report runs/a -o events --format tensorboard").code == 0);
  CHECK(f.run("report runs/a -o events --format tensorboard").code == 2);  // it exists
  CHECK(f.run("report runs/a --format tensorboard").code == 2);            // where?
  if (std::system("/usr/bin/python3 -c '' 2> /dev/null") != 0)
    return test::skip("no python3");
  put(f / "read.py", read_events);
  const std::string command =
      "cd '" + f.path().string() + "' && /usr/bin/python3 read.py events > said 2> trouble";
  CHECK(std::system(command.c_str()) == 0);
  INFO(text_of(f / "trouble"));
  std::istringstream said(text_of(f / "said"));
  int scalars = 0;
  double value = 0;
  said >> scalars >> value;
  CHECK(scalars == rows);
  CHECK(value == Approx(std::stod(loss)).epsilon(1e-6));
}

}  // namespace moe::cli
