// write_model FOLDER [SPEC...]: a folder for each model that a published class can hold, or for
// those named; for check_logits.py. Built on request (target peers_write_model).
#include <iostream>

#include "tests/peers/write_model.h"

using namespace moe;

int main(int argc, char** argv) try {
  if (argc < 2)
    throw Error(Exit::usage, "write_model FOLDER [SPEC...]");
  const std::vector<std::string> specs =
      argc > 2 ? std::vector<std::string>(argv + 2, argv + argc) : test::written_models();
  for (std::size_t i = 0; i < specs.size(); ++i)
    test::write_model(specs[i], std::filesystem::path(argv[1]) / concat("model-", 100 + i));
} catch (const Error& e) {
  std::cerr << e.what() << '\n';
  return int(e.code());
}
