#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/io/atomic_file.hpp"
#include "moe_mamba/io/text.hpp"

/// The training text of the quickstart, and the held-out part of it.
namespace quickstart {

/// The folder of Eigen's headers, set by the build.
#if !defined(QUICKSTART_EIGEN)
#define QUICKSTART_EIGEN "/usr/include/eigen3"
#endif

struct Corpus {
  std::vector<unsigned char> training, held_out;
  moe_mamba::TextFiles files;
  std::string label;              ///< what it was read from
  std::uint64_t fingerprint = 0;  ///< of all bytes

  std::size_t size() const { return training.size() + held_out.size(); }
};

/// A twentieth of the text is held out, at most 96 KiB, in twelve evenly spaced blocks; in fewer if a block would be
/// shorter than a window.
inline constexpr std::size_t share = 20, most_blocks = 12, largest_block = std::size_t{8} << 10;

/// Reads the files and folders, except an earlier run's output in `out`. Throws std::runtime_error for an unreadable
/// path and std::invalid_argument if a twentieth of the text is shorter than a window and the byte after it.
inline Corpus read_corpus(std::vector<std::filesystem::path> paths, const std::filesystem::path& out,
                          std::size_t window) {
  Corpus corpus;
  if (paths.empty()) {
    const std::filesystem::path eigen = QUICKSTART_EIGEN;
    paths.push_back(eigen / "Eigen");
    if (std::filesystem::exists(eigen / "unsupported" / "Eigen")) paths.push_back(eigen / "unsupported" / "Eigen");
  }
  for (const auto& path : paths) corpus.label += (corpus.label.empty() ? "" : ", ") + path.string();
  const std::vector<unsigned char> text = moe_mamba::read_text(paths, &corpus.files, out);
  const std::size_t least = share * (window + 1), blocks = std::min(most_blocks, text.size() / least);
  moe_mamba::require(blocks > 0, "the text's length", std::to_string(text.size()) + " bytes", [&] {
    return std::to_string(least) + " bytes or more: the held-out twentieth must have a window of " +
           std::to_string(window) + " bytes and the byte after it";
  });
  const std::size_t block = std::min(largest_block, text.size() / (share * blocks));

  corpus.fingerprint = 0xcbf29ce484222325u;  // FNV-1a
  for (const unsigned char byte : text) corpus.fingerprint = (corpus.fingerprint ^ byte) * 0x100000001b3u;
  const auto append = [&](std::vector<unsigned char>& part, std::size_t begin, std::size_t end) {
    part.insert(part.end(), text.begin() + static_cast<std::ptrdiff_t>(begin),
                text.begin() + static_cast<std::ptrdiff_t>(end));
  };
  std::size_t done = 0;
  for (std::size_t number = 0; number < blocks; ++number) {
    const std::size_t begin = (2 * number + 1) * text.size() / (2 * blocks) - block / 2;
    append(corpus.training, done, begin);
    append(corpus.held_out, begin, begin + block);
    done = begin + block;
  }
  append(corpus.training, done, text.size());
  return corpus;
}

/// The first lines of the held-out text, 40 bytes or more in total: the default prompt.
inline std::string default_prompt(const Corpus& corpus) {
  const auto& text = corpus.held_out;
  const auto first_line = std::find(text.begin(), text.end(), '\n');
  const auto begin = text.end() - first_line > 100 ? first_line + 1 : text.begin();
  auto end = begin + std::min<std::ptrdiff_t>(40, text.end() - begin);
  const auto newline = std::find(end, begin + std::min<std::ptrdiff_t>(120, text.end() - begin), '\n');
  if (newline != text.end() && *newline == '\n') end = newline + 1;
  return std::string(begin, end);
}

/// Atomically writes a file.
inline void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  moe_mamba::AtomicFile file(path);
  file.write(bytes);
  file.commit();
}
inline void write_file(const std::filesystem::path& path, std::string_view text) {
  write_file(path, std::as_bytes(std::span(text.data(), text.size())));
}

/// Bits per byte of a file compressed by `program -9`, or a negative number if the program is missing.
inline double compressed_bits(const char* program, const std::filesystem::path& path, std::size_t bytes) {
  std::string quoted = "'";
  for (const char character : path.string())
    quoted += character == '\'' ? std::string("'\\''") : std::string(1, character);
  const std::string command = std::string("command -v ") + program + " >/dev/null && " + program + " -9 -c <" + quoted +
                              "' 2>/dev/null | wc -c";
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return -1;
  long long size = 0;
  const bool read = std::fscanf(pipe, "%lld", &size) == 1;
  return ::pclose(pipe) == 0 && read && size > 0 ? 8.0 * static_cast<double>(size) / static_cast<double>(bytes) : -1;
}

}  // namespace quickstart
