#pragma once

#include <stdexcept>
#include <string>

#if !defined(__cpp_exceptions)
#include <cstdio>
#include <cstdlib>
#endif

#include "moe_mamba/core/standard.hpp"

/// The library's exceptions. std::invalid_argument is for values and sizes of arguments, std::out_of_range for token ids and
/// indices, std::bad_alloc for memory; these are for all other errors.
namespace moe_mamba::inline v0_2 {

/// A call at the wrong time, for example on a moved-from model or during another call.
class OrderError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// A file that cannot be read or written, or has invalid content.
class FileError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {

/// Throws. Inference also compiles without exceptions (-fno-exceptions): the message is then written to standard error, and the
/// program aborts.
template <class Error>
[[noreturn, gnu::cold, gnu::noinline]] inline void raise(const std::string& text) {
#if defined(__cpp_exceptions)
  throw Error(text);
#else
  std::fprintf(stderr, "%s\n", text.c_str());
  std::abort();
#endif
}

}  // namespace detail

}  // namespace moe_mamba::inline v0_2
