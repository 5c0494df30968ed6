#pragma once

#include <cerrno>
#include <cstdarg>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <functional>
#include <set>
#include <stdexcept>
#include <string>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "support/catch.hpp"

/// Makes system calls fail in a program that includes this; to be included in one file only.
namespace test {

/// Which call is to fail, and which one did.
struct Fault {
  long calls_left = 0;  // 0: none fails
  int error = 0;
  std::string call;  // the one that failed
  std::set<std::string> seen;
};

inline Fault fault;

inline bool fails(const char* call) {
  if (fault.calls_left == 0) return false;
  fault.seen.insert(call);
  if (--fault.calls_left > 0) return false;
  fault.call = call;
  errno = fault.error;
  return true;
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace test

// These override the system library's. Calls that release a resource do so even when they report an error.

extern "C" {
int open(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return test::fails("open") ? -1 : test::next<int(const char*, int, ...)>("open")(path, flags, mode);
}
int lstat(const char* path, struct stat* status) noexcept {
  return test::fails("lstat") ? -1 : test::next<int(const char*, struct stat*)>("lstat")(path, status);
}
int stat(const char* path, struct stat* status) noexcept {
  return test::fails("stat") ? -1 : test::next<int(const char*, struct stat*)>("stat")(path, status);
}
int fstat(int file, struct stat* status) noexcept {
  return test::fails("fstat") ? -1 : test::next<int(int, struct stat*)>("fstat")(file, status);
}
ssize_t readlink(const char* path, char* target, size_t size) noexcept {
  return test::fails("readlink") ? -1 : test::next<ssize_t(const char*, char*, size_t)>("readlink")(path, target, size);
}
int flock(int file, int operation) noexcept {
  return test::fails("flock") ? -1 : test::next<int(int, int)>("flock")(file, operation);
}
int fchmod(int file, mode_t mode) noexcept {
  return test::fails("fchmod") ? -1 : test::next<int(int, mode_t)>("fchmod")(file, mode);
}
ssize_t read(int file, void* bytes, size_t size) {
  return test::fails("read") ? -1 : test::next<ssize_t(int, void*, size_t)>("read")(file, bytes, size);
}
ssize_t write(int file, const void* bytes, size_t size) {
  return test::fails("write") ? -1 : test::next<ssize_t(int, const void*, size_t)>("write")(file, bytes, size);
}
int fsync(int file) { return test::fails("fsync") ? -1 : test::next<int(int)>("fsync")(file); }
int rename(const char* from, const char* to) noexcept {
  return test::fails("rename") ? -1 : test::next<int(const char*, const char*)>("rename")(from, to);
}
int unlink(const char* path) noexcept {
  return test::fails("unlink") ? -1 : test::next<int(const char*)>("unlink")(path);
}
void* mmap(void* at, size_t size, int protection, int flags, int file, off_t offset) noexcept {
  if (file >= 0 && test::fails("mmap")) return MAP_FAILED;
  return test::next<void*(void*, size_t, int, int, int, off_t)>("mmap")(at, size, protection, flags, file, offset);
}
int close(int file) {
  const bool failed = test::fails("close");
  const int result = test::next<int(int)>("close")(file);
  if (failed) errno = test::fault.error;
  return failed ? -1 : result;
}
int openat(int folder, const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return test::fails("openat") ? -1 : test::next<int(int, const char*, int, ...)>("openat")(folder, path, flags, mode);
}
struct dirent* readdir(DIR* folder) {
  return test::fails("readdir") ? nullptr : test::next<struct dirent*(DIR*)>("readdir")(folder);
}
}

namespace test {

inline constexpr int errors[] = {EIO, EACCES, ENOSPC, EMFILE, EINTR};

/// Runs `call` after a fresh `prepare()` once for each system call in it, with that one failing, for each of some
/// errors; `check(message)` inspects the result; the message is "" if the call returned. Returns the names of the calls
/// seen.
inline std::set<std::string> fail_each_call(const std::function<void()>& prepare, const std::function<void()>& call,
                                            const std::function<void(const std::string&)>& check) {
  std::set<std::string> seen;
  for (const int error : errors) {
    for (long n = 1;; ++n) {
      prepare();
      fault = {n, error, "", {}};
      std::string message;
      try {
        call();
      } catch (const std::runtime_error& failure) {
        message = failure.what();
      }
      fault.calls_left = 0;
      seen.merge(fault.seen);
      INFO("call " << n << ", " << fault.call << ", fails with " << std::generic_category().message(error) << ": "
                   << message);
      if (fault.call.empty()) {
        REQUIRE(message.empty());
        break;
      }
      if (!message.empty()) {
        REQUIRE(message.find(std::generic_category().message(error)) != message.npos);
        REQUIRE(message.find('/') != message.npos);
      }
      check(message);
    }
  }
  return seen;
}

}  // namespace test
