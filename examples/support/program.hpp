#pragma once

#include <atomic>
#include <csignal>
#include <exception>
#include <iostream>
#include <new>
#include <stdexcept>
#include <string_view>

/// What the example programs have in common: Ctrl-C, and errors as one line.
namespace support {

/// Set by Ctrl-C. A second one ends the program at once, which loses only what came after the last file was written.
inline std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free);

inline void watch_for_interrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted.store(true); };
  action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
}

/// Calls run(parse()), or prints the help text if the options ask for it. Returns the program's status: 1, after one line on the
/// standard error, if something is thrown.
template <class Parse, class Run>
int run_program(const char* name, std::string_view help_text, const Parse& parse, const Run& run) {
  try {
    const auto options = parse();
    if (options.help) {
      std::cout << help_text;
      return 0;
    }
    watch_for_interrupts();
    run(options);
    std::cout.flush();
    if (!std::cout) throw std::runtime_error("the standard output cannot be written");
    return 0;
  } catch (const std::bad_alloc&) {
    std::cerr << name << ": out of memory\n";
  } catch (const std::exception& problem) {
    std::cerr << name << ": " << problem.what() << '\n';
  }
  return 1;
}

}  // namespace support
