// spin_bench step: prefill and decode step times of a model in this process, without a server: the executor alone.
//
// Takes the server's own flags (--model, --set KEY=VALUE, ...), loads the model (load_format: dummy needs no weights),
// prefills random prompts and decodes growing batches of them.
#pragma once

#include <span>
#include <string>

namespace spin::bench {

// Own arguments, before the server's: --context=TOKENS, --batches=1,8,22, --steps=N, --prefill=TOKENS,TOKENS (timed
// alone first, with and without Index and Offload at the end of each layer: what they add). Returns the exit status.
int RunStep(std::span<const std::string> args);

}  // namespace spin::bench
