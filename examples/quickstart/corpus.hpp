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

/// The text that the quickstart learns from, and the part of it that it is tested on.
namespace quickstart {

/// Where the headers of Eigen lie; the build says so.
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

/// Every twentieth block is held out. Blocks have 16 KiB, or a twentieth of a shorter text.
inline constexpr std::size_t block_size = std::size_t{16} << 10, held_out_every = 20;

/// Reads the files and folders and holds out a twentieth. Throws std::runtime_error for what cannot be read and
/// std::invalid_argument for a text of which a twentieth is shorter than a window and the byte after it.
inline Corpus read_corpus(std::vector<std::filesystem::path> paths, std::size_t window) {
  Corpus corpus;
  if (paths.empty()) {
    const std::filesystem::path eigen = QUICKSTART_EIGEN;
    paths.push_back(eigen / "Eigen");
    if (std::filesystem::exists(eigen / "unsupported" / "Eigen")) paths.push_back(eigen / "unsupported" / "Eigen");
  }
  for (const auto& path : paths) corpus.label += (corpus.label.empty() ? "" : ", ") + path.string();
  const std::vector<unsigned char> text = moe_mamba::read_text(paths, &corpus.files);
  const std::size_t block = std::min(block_size, text.size() / held_out_every);
  moe_mamba::require(block > window, "the text's length", std::to_string(text.size()) + " bytes", [&] {
    return std::to_string(held_out_every * (window + 1)) + " bytes or more, for a held-out twentieth of a window of " +
           std::to_string(window) + " bytes and the byte after it";
  });

  corpus.fingerprint = 0xcbf29ce484222325u;  // FNV-1a
  for (const unsigned char byte : text) corpus.fingerprint = (corpus.fingerprint ^ byte) * 0x100000001b3u;
  for (std::size_t first = 0, number = 0; first < text.size(); first += block, ++number) {
    auto& part = number % held_out_every == held_out_every / 2 ? corpus.held_out : corpus.training;
    const auto begin = text.begin() + static_cast<std::ptrdiff_t>(first);
    part.insert(part.end(), begin, begin + static_cast<std::ptrdiff_t>(std::min(block, text.size() - first)));
  }
  return corpus;
}

/// The first lines of the held-out text that have 40 bytes together: what generated text begins with by default.
inline std::string default_prompt(const Corpus& corpus) {
  const auto& text = corpus.held_out;
  const auto first_line = std::find(text.begin(), text.end(), '\n');
  const auto begin = text.end() - first_line > 100 ? first_line + 1 : text.begin();
  auto end = begin + std::min<std::ptrdiff_t>(40, text.end() - begin);
  const auto newline = std::find(end, begin + std::min<std::ptrdiff_t>(120, text.end() - begin), '\n');
  if (newline != text.end() && *newline == '\n') end = newline + 1;
  return std::string(begin, end);
}

/// Writes a file whole or not at all.
inline void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  moe_mamba::AtomicFile file(path);
  file.write(bytes);
  file.commit();
}
inline void write_file(const std::filesystem::path& path, std::string_view text) {
  write_file(path, std::as_bytes(std::span(text.data(), text.size())));
}

/// Bits for each byte of a file after `program -9`, or a negative number where the program is missing.
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
