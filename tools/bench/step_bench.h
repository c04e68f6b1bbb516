// spin_bench step: prefill and decode step times of a model in this process, without a server: the executor alone.
//
// Takes the server's own flags (--model, --set KEY=VALUE, ...), loads the model (load_format: dummy needs no weights),
// prefills random prompts and decodes growing batches of them.
//
// What random weights select says little about which pages a trained model fetches. --selection chooses: `model`
// (their own), `random` (drawn anew at each step), `trace:FILE` (what a real model selected while it read a text:
// spin_bench trace record). Several are measured one after another, each on a model of its own, and printed side by
// side. The replacement is a kernel of the captured step; Select itself still runs.
#pragma once

#include <span>
#include <string>

namespace spin::bench {

// Own arguments, before the server's: --context=TOKENS, --batches=1,8,22, --steps=N (counted, after --warmup=N that are
// not), --prefill=TOKENS,TOKENS (timed alone first, with and without Index and Offload at the end of each layer: what
// they add), --selection=NAME,NAME. Returns the exit status.
int RunStep(std::span<const std::string> args);

}  // namespace spin::bench
