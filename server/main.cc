// spind: the daemon. Flags, configuration, signals; everything else is App's.
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "common/logging.h"
#include "server/app.h"
#include "server/command_line.h"
#include "server/config_loader.h"
#include "server/config_schema.h"

namespace spin {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "spind: %s\n", MessageOf(status).c_str());
  return 1;
}

// SIGTERM and SIGINT are blocked in every thread and taken here, one at a time.
int WaitForSignal(const sigset_t& signals) {
  int signal = 0;
  while (::sigwait(&signals, &signal) != 0) {
  }
  return signal;
}

int Serve(const LoadedConfig& loaded, const std::string& ready_file) {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);

  // Static: the watcher may outlive this call.
  static std::atomic<bool> started = false;
  static std::atomic<bool> stop = false;
  static std::atomic<bool> abort = false;
  std::thread watcher([signals] {
    const int first = WaitForSignal(signals);
    if (!started) std::_Exit(128 + first);  // nothing to drain while loading
    stop = true;
    stop.notify_all();
    WaitForSignal(signals);
    abort = true;
  });
  watcher.detach();

  auto app = App::Start(loaded.config, ready_file);
  if (!app.ok()) return Fail(WithSource(loaded, app.status()));
  started = true;
  stop.wait(false);
  SPIN_LOG(INFO, "stopping: running requests may finish; signal again to stop at once");
  (*app)->Stop(abort);
  SPIN_LOG(INFO, "stopped");
  return 0;
}

int Run(const std::vector<std::string>& args) {
  const auto line = ParseCommandLine(args);
  if (!line.ok()) return Fail(line.status());
  if (line->help || line->help_config || line->version) {
    const std::string text = line->help          ? CommandLineHelp()
                             : line->help_config ? ConfigHelp()
                                                 : std::string("spind ") + kVersion + "\n";
    std::fputs(text.c_str(), stdout);
    return 0;
  }
  const auto loaded = LoadConfig(line->sources);
  if (!loaded.ok()) return Fail(loaded.status());
  SetUpLogging(loaded->config.log_level, loaded->config.log_format);
  if (line->print_config) {
    std::fputs(PrintConfig(*loaded).c_str(), stdout);
    return 0;
  }
  if (line->check_config) {
    const auto text = CheckConfig(loaded->config);
    if (!text.ok()) return Fail(WithSource(*loaded, text.status()));
    std::fputs(text->c_str(), stdout);
    return 0;
  }
  return Serve(*loaded, line->ready_file);
}

}  // namespace
}  // namespace spin

int main(int argc, char** argv) {
  return spin::Run(std::vector<std::string>(argv + 1, argv + argc));
}
