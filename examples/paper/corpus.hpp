#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <unistd.h>
#include <unordered_set>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/io/text.hpp"
#include "support/terminal.hpp"

/// The text that all systems are trained and compared on.
namespace paper {

using moe_mamba::Index;

/// Whole files are held out: `tuning` chooses learning rates, `held_out` measures what is reported.
struct Corpus {
  std::vector<unsigned char> training, tuning, held_out;
  Index files = 0;                ///< different ones
  std::string label;              ///< what it was read from
  std::uint64_t fingerprint = 0;  ///< of all bytes, in order

  std::size_t size() const { return training.size() + tuning.size() + held_out.size(); }
};

namespace detail {

/// FNV-1a, 64 bits.
inline std::uint64_t hash(const unsigned char* bytes, std::size_t count, std::uint64_t value = 0xcbf29ce484222325u) {
  for (std::size_t i = 0; i < count; ++i) value = (value ^ bytes[i]) * 0x100000001b3u;
  return value;
}

/// Documentation and sources, where packages of Linux distributions put them.
inline std::vector<std::filesystem::path> default_folders() {
  namespace fs = std::filesystem;
  std::vector<fs::path> folders;
  for (const char* folder : {"/usr/include", "/usr/share/doc", "/usr/lib/python3", "/usr/local/include"}) {
    if (fs::is_directory(folder)) folders.emplace_back(folder);
  }
  for (const char* parent : {"/usr/lib", "/usr/local/lib"}) {
    std::error_code error;
    std::vector<fs::path> versions;
    for (fs::directory_iterator entry(parent, error), end; !error && entry != end; entry.increment(error)) {
      if (entry->path().filename().string().starts_with("python3.")) versions.push_back(entry->path());
    }
    std::sort(versions.begin(), versions.end());
    folders.insert(folders.end(), versions.begin(), versions.end());
  }
  return folders;
}

inline bool is_source_or_documentation(const std::filesystem::path& path) {
  static const std::unordered_set<std::string> suffixes = {".py",  ".pyi",  ".h",   ".hh",  ".hpp", ".hxx",
                                                           ".inl", ".c",    ".cc",  ".cpp", ".cuh", ".cu",
                                                           ".md",  ".html", ".rst", ".txt"};
  return suffixes.contains(path.extension().string()) || path.extension().empty();
}

/// Collects different files, and splits them.
class Collector {
 public:
  static constexpr std::size_t largest_default_file = std::size_t{1} << 20;  // larger ones are mostly tables

  explicit Collector(std::filesystem::path except) : except_(std::move(except)) {}

  void add(const std::filesystem::path& path, bool chosen_by_us) {
    namespace fs = std::filesystem;
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      add_file(path);
      return;
    }
    std::vector<fs::path> files;
    fs::recursive_directory_iterator entry(path, fs::directory_options::skip_permission_denied, error);
    for (const fs::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
      std::error_code ignored;
      if (entry->is_directory(ignored) && fs::equivalent(entry->path(), except_, ignored)) {
        entry.disable_recursion_pending();
      }
      if (!entry->is_regular_file(ignored)) continue;
      if (chosen_by_us && ::access(entry->path().c_str(), R_OK) != 0) continue;  // private files of other users
      const bool wanted = !chosen_by_us || (is_source_or_documentation(entry->path()) &&
                                            entry->file_size(ignored) <= largest_default_file);
      if (wanted) files.push_back(entry->path());
    }
    if (error) throw std::runtime_error(path.string() + ": the folder cannot be read: " + error.message());
    std::sort(files.begin(), files.end());  // the same order on every machine
    for (const fs::path& file : files) add_file(file);
  }

  /// Bytes of all files.
  std::size_t size() const { return size_; }

  /// Holds out at least `tuning` and `held_out` bytes in whole files, chosen by their contents' hashes, of at most 64 KiB
  /// each where there are enough of them.
  Corpus split(std::size_t tuning, std::size_t held_out) && {
    std::vector<std::size_t> order(files_.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      const auto large = [&](std::size_t i) { return files_[i].bytes.size() > largest_held_out; };
      return large(a) != large(b) ? large(b) : files_[a].hash < files_[b].hash;
    });
    Corpus corpus;
    corpus.files = static_cast<Index>(files_.size());
    const auto take = [](std::vector<unsigned char>& part, File& file) {
      part.insert(part.end(), file.bytes.begin(), file.bytes.end());
      file.bytes = {};
    };
    std::size_t next = 0;
    while (next < order.size() && corpus.held_out.size() < held_out) take(corpus.held_out, files_[order[next++]]);
    while (next < order.size() && corpus.tuning.size() < tuning) take(corpus.tuning, files_[order[next++]]);
    for (File& file : files_) take(corpus.training, file);
    corpus.held_out.resize(std::min(corpus.held_out.size(), held_out));
    corpus.tuning.resize(std::min(corpus.tuning.size(), tuning));
    for (const auto* part : {&corpus.training, &corpus.tuning, &corpus.held_out}) {
      corpus.fingerprint = hash(part->data(), part->size(), corpus.fingerprint);
    }
    return corpus;
  }

 private:
  static constexpr std::size_t largest_held_out = std::size_t{64} << 10;

  struct File {
    std::uint64_t hash;
    std::vector<unsigned char> bytes;
  };

  void add_file(const std::filesystem::path& path) {
    std::vector<unsigned char> bytes = moe_mamba::read_text(path);
    if (bytes.empty() || std::memchr(bytes.data(), 0, bytes.size()) != nullptr) return;
    const std::uint64_t value = hash(bytes.data(), bytes.size());
    if (!known_.insert(value).second) return;
    size_ += bytes.size();
    files_.push_back({value, std::move(bytes)});
  }

  std::filesystem::path except_;
  std::vector<File> files_;
  std::unordered_set<std::uint64_t> known_;
  std::size_t size_ = 0;
};

}  // namespace detail

/// Bytes held out: to measure by, and to choose learning rates by.
inline constexpr std::size_t held_out_bytes = (std::size_t{1} << 20) + 1, tuning_bytes = (std::size_t{1} << 18) + 1;

/// Reads the files and folders, or without any the documentation and sources of this machine's packages, each different file
/// once. For a `trial`, little text will do, of which a twentieth is held out. Throws std::invalid_argument for too little text
/// and std::runtime_error for an unreadable path.
inline Corpus read_corpus(const std::vector<std::filesystem::path>& paths, const std::filesystem::path& out,
                          bool trial) {
  const bool chosen_by_us = paths.empty();
  const auto roots = chosen_by_us ? detail::default_folders() : paths;
  detail::Collector collector(out);
  std::string label;
  for (const auto& path : roots) {
    label += (label.empty() ? "" : ", ") + path.string();
    collector.add(path, chosen_by_us);
  }
  const std::size_t least = trial ? 100'000 : chosen_by_us ? 100'000'000 : 20 * held_out_bytes;
  moe_mamba::require(collector.size() >= least, "the text's length",
                     support::grouped(static_cast<long long>(collector.size())) + " bytes", [&] {
                       return support::grouped(static_cast<long long>(least)) + " bytes or more" +
                              (chosen_by_us ? ": the Debian packages libboost-dev, llvm-dev and python3-doc have more, "
                                              "or give files and folders of your own"
                                            : "");
                     });
  const std::size_t held_out = std::min(held_out_bytes, collector.size() / 20);
  Corpus corpus = std::move(collector).split(std::min(tuning_bytes, held_out / 4), held_out);
  corpus.label = label;
  return corpus;
}

}  // namespace paper
