// Continues token ids greedily with the installed C++ library: consumer <model> <id>...
#include <octavo/engine.h>

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) try {
  std::vector<int32_t> prompt;
  for (int i = 2; i < argc; ++i) prompt.push_back(std::atoi(argv[i]));

  octavo::Engine engine(
      {.model = argc > 1 ? argv[1] : "", .dtype = "float32", .num_kv_blocks = 64});
  octavo::SamplingParams params{.temperature = 0.0f, .max_tokens = 8, .ignore_eos = true};
  engine.add_request(prompt, params);
  while (engine.has_unfinished_requests()) {
    for (const octavo::RequestOutput& output : engine.step()) {
      for (int32_t id : output.new_token_ids) std::cout << id << '\n';
    }
  }
} catch (const octavo::Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
