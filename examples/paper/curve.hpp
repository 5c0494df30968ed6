#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/io/atomic_file.hpp"
#include "support/terminal.hpp"

/// The curve of a training run, kept as CSV: in the file of a finished run, and in the checkpoint of another.
namespace paper {

using moe_mamba::Index;

/// Writes a file, all of it or nothing.
inline void write_text(const std::filesystem::path& path, const std::string& text) {
  moe_mamba::AtomicFile file(path);
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

/// The state of a run at an evaluation.
struct Point {
  Index step = 0;
  double seconds = 0;        ///< of training, evaluations left out
  double training_loss = 0;  ///< mean since the previous point, in nats per byte, without auxiliary losses
  double held_out = 0;       ///< in nats per byte, likewise
  double accuracy = -1;      ///< share of held-out bytes that are the most likely one; negative: not measured here
};

/// What the run was and what it gave.
struct Curve {
  std::map<std::string, std::string> facts;  ///< in the first lines of the file, as "# name: value"
  std::vector<Point> points;

  const std::string& fact(const std::string& name) const {
    const auto found = facts.find(name);
    if (found == facts.end()) throw std::runtime_error("a curve has no line '# " + name + ": …'");
    return found->second;
  }
  double number(const std::string& name) const { return std::strtod(fact(name).c_str(), nullptr); }

  std::string to_csv() const {
    std::string text;
    for (const auto& [name, value] : facts) text += "# " + name + ": " + value + "\n";
    text += "step,seconds,training_loss,held_out_loss,held_out_accuracy\n";
    for (const Point& point : points) {
      text += support::format("%lld,%.3f,%.9g,%.9g,", static_cast<long long>(point.step), point.seconds,
                              point.training_loss, point.held_out);
      if (point.accuracy >= 0) text += support::format("%.6f", point.accuracy);
      text += '\n';
    }
    return text;
  }

  /// Throws std::runtime_error for a text that to_csv() did not write.
  static Curve from_csv(const std::string& text) {
    Curve curve;
    std::istringstream lines(text);
    bool header = false;
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("# ")) {
        const auto colon = line.find(": ");
        if (colon == std::string::npos) throw std::runtime_error("not a curve: '" + line + "'");
        curve.facts[line.substr(2, colon - 2)] = line.substr(colon + 2);
      } else if (!header) {
        header = true;
      } else {
        curve.points.push_back(point_of(line));
      }
    }
    return curve;
  }

  static Curve read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    if (!file) throw std::runtime_error(path.string() + ": cannot be read");
    try {
      return from_csv(text.str());
    } catch (const std::runtime_error& problem) {
      throw std::runtime_error(path.string() + ": " + problem.what());
    }
  }

 private:
  static Point point_of(const std::string& line) {
    Point point;
    long long step = 0;
    const int count = std::sscanf(line.c_str(), "%lld,%lf,%lf,%lf,%lf", &step, &point.seconds, &point.training_loss,
                                  &point.held_out, &point.accuracy);
    if (count < 4) throw std::runtime_error("not a curve: '" + line + "'");
    point.step = step;
    return point;
  }
};

/// Where `curve` falls below `loss` for good measure: at two evaluations in a row. Interpolated between the last evaluation
/// above and the first below; none if it does not.
inline std::optional<double> steps_to(const Curve& curve, double loss) {
  const auto& points = curve.points;
  for (std::size_t i = 1; i < points.size(); ++i) {
    const bool last = i + 1 == points.size();
    if (points[i].held_out > loss || last || points[i + 1].held_out > loss) continue;
    const double above = points[i - 1].held_out - loss, below = loss - points[i].held_out;
    const double part = above > 0 ? above / (above + below) : 0;
    return static_cast<double>(points[i - 1].step) + part * static_cast<double>(points[i].step - points[i - 1].step);
  }
  return std::nullopt;
}

/// How many times fewer steps `curve` needs than `reference` to come to the loss that `reference` ends at.
inline std::optional<double> speed_up(const Curve& curve, const Curve& reference) {
  const auto steps = steps_to(curve, reference.points.back().held_out);
  if (!steps || *steps <= 0) return std::nullopt;
  return static_cast<double>(reference.points.back().step) / *steps;
}

}  // namespace paper
