// The one table that maps the names of tensors in GGUF files to those in Hugging Face checkpoints.
// Stateless.
#pragma once

#include <string>
#include <string_view>

namespace octavo {

// The Hugging Face name of a tensor of GGUF architecture `architecture` ("llama", "gpt2"). A name
// that is not in the table stays as it is.
std::string hugging_face_name(std::string_view architecture, std::string_view gguf_name);

}  // namespace octavo
