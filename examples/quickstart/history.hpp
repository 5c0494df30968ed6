#pragma once

#include <charconv>
#include <cstddef>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "moe_mamba/core/scalar.hpp"

/// The history of a training run, from which its report is made. It is stored in the checkpoint, so that an interrupted
/// run has a single report.
namespace quickstart {

using moe_mamba::Index;

/// A point of the curves: the steps since the previous one.
struct Point {
  Index step = 0;      ///< at its end
  double seconds = 0;  ///< of training so far
  double loss = 0;     ///< mean, in nats per byte
  double tokens_per_second = 0;
  std::vector<std::vector<double>> load;  ///< share of each expert, per mixture-of-experts layer
};

struct HeldOutPoint {
  Index step = 0;
  double loss = 0;  ///< in nats per byte
};

class History {
 public:
  const std::vector<Point>& points() const { return points_; }
  const std::vector<HeldOutPoint>& held_out() const { return held_out_; }
  double seconds() const { return seconds_; }
  /// The current point, to which steps are added until it is closed.
  const Point& open() const { return open_; }

  /// Adds a training step; visit_routers(visit) visits the load of its layers. Closes a point every `interval` steps.
  template <class VisitRouters>
  void add_step(Index step, Index interval, double loss, double seconds, Index tokens,
                const VisitRouters& visit_routers) {
    ++steps_;
    seconds_ += seconds;
    open_seconds_ += seconds;
    tokens_ += tokens;
    open_.step = step;
    open_.seconds = seconds_;
    loss_sum_ += loss;
    open_.loss = loss_sum_ / static_cast<double>(steps_);
    open_.tokens_per_second = static_cast<double>(tokens_) / open_seconds_;
    std::size_t layer = 0;
    visit_routers([&](const auto& router) {
      if (open_.load.size() <= layer) open_.load.emplace_back(router.load.size());
      double total = 0;
      for (const double count : router.load) total += count;
      for (std::size_t expert = 0; expert < router.load.size(); ++expert) {
        double& mean = open_.load[layer][expert];
        mean += (router.load[expert] / total - mean) / static_cast<double>(steps_);
      }
      ++layer;
    });
    if (step % interval == 0) close();
  }

  void add_held_out(Index step, double loss) { held_out_.push_back({step, loss}); }
  /// Adds time spent on something other than steps.
  void add_seconds(double seconds) { seconds_ += seconds; }

  /// Lines of a word and numbers, with as many digits as give each number back exactly. A point's loads follow it, a line per
  /// layer.
  std::string to_text() const {
    std::string text;
    for (const Point& point : points_) append_point(text += "point", point) += '\n';
    for (const HeldOutPoint& point : held_out_) append(text += "held_out", point.step, point.loss) += '\n';
    append_point(text += "open", open_) += '\n';
    append(text += "sums", steps_, tokens_, loss_sum_, open_seconds_, seconds_) += '\n';
    return text;
  }

  /// Throws std::runtime_error for a text not written by to_text().
  static History from_text(const std::string& text) {
    History history;
    Point* point = nullptr;  // the one whose loads come next
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      std::string_view rest = line;
      const std::string_view word = rest.substr(0, rest.find(' '));
      rest.remove_prefix(word.size());
      if (word == "point" || word == "open") {
        point = word == "open" ? &history.open_ : &history.points_.emplace_back();
        take(rest, point->step, point->seconds, point->loss, point->tokens_per_second);
      } else if (word == "load" && point != nullptr) {
        std::vector<double>& load = point->load.emplace_back();
        while (!rest.empty()) take(rest, load.emplace_back());
      } else if (word == "held_out") {
        HeldOutPoint& held_out = history.held_out_.emplace_back();
        take(rest, held_out.step, held_out.loss);
      } else if (word == "sums") {
        take(rest, history.steps_, history.tokens_, history.loss_sum_, history.open_seconds_, history.seconds_);
      }
    }
    // What could not be read is missing or zero.
    if (history.to_text() != text) {
      throw std::runtime_error(
          "the checkpoint's history is not one written by this program; use --fresh to start over");
    }
    return history;
  }

 private:
  void close() {
    points_.push_back(std::exchange(open_, {}));
    steps_ = tokens_ = 0;
    loss_sum_ = open_seconds_ = 0;
  }

  template <class... Numbers>
  static std::string& append(std::string& text, Numbers... numbers) {
    char digits[32];
    (text.append(1, ' ').append(digits, std::to_chars(digits, std::end(digits), numbers).ptr), ...);
    return text;
  }
  static std::string& append_point(std::string& text, const Point& point) {
    append(text, point.step, point.seconds, point.loss, point.tokens_per_second);
    for (const auto& load : point.load) {
      text += "\nload";
      for (const double part : load) append(text, part);
    }
    return text;
  }

  /// Reads numbers from the beginning of a text and removes them, or all of it at what is not a number.
  template <class... Numbers>
  static void take(std::string_view& text, Numbers&... numbers) {
    const auto take_one = [&](auto& number) {
      if (text.empty()) return;
      const auto [end, error] = std::from_chars(text.data() + 1, text.data() + text.size(), number);
      text.remove_prefix(error == std::errc{} ? static_cast<std::size_t>(end - text.data()) : text.size());
    };
    (take_one(numbers), ...);
  }

  std::vector<Point> points_;
  std::vector<HeldOutPoint> held_out_;
  Point open_;
  Index steps_ = 0, tokens_ = 0;            // in open_
  double loss_sum_ = 0, open_seconds_ = 0;  // in open_
  double seconds_ = 0;                      // of everything so far
};

}  // namespace quickstart
