#pragma once

#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

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

  std::string to_text() const {
    nlohmann::json points = nlohmann::json::array(), held_out = nlohmann::json::array();
    for (const Point& point : points_) points.push_back(to_json(point));
    for (const HeldOutPoint& point : held_out_) held_out.push_back({point.step, point.loss});
    return nlohmann::json{{"points", points},
                          {"held_out", held_out},
                          {"open", to_json(open_)},
                          {"sums", {steps_, tokens_, loss_sum_, open_seconds_, seconds_}}}
        .dump();
  }

  /// Throws nlohmann::json::exception, a std::exception, for a text not written by to_text().
  static History from_text(const std::string& text) {
    const auto json = nlohmann::json::parse(text);
    History history;
    for (const auto& point : json.at("points")) history.points_.push_back(from_json(point));
    for (const auto& point : json.at("held_out")) {
      history.held_out_.push_back({point.at(0).get<Index>(), point.at(1).get<double>()});
    }
    history.open_ = from_json(json.at("open"));
    const auto& sums = json.at("sums");
    history.steps_ = sums.at(0).get<Index>();
    history.tokens_ = sums.at(1).get<Index>();
    history.loss_sum_ = sums.at(2).get<double>();
    history.open_seconds_ = sums.at(3).get<double>();
    history.seconds_ = sums.at(4).get<double>();
    return history;
  }

 private:
  void close() {
    points_.push_back(std::exchange(open_, {}));
    steps_ = tokens_ = 0;
    loss_sum_ = open_seconds_ = 0;
  }

  static nlohmann::json to_json(const Point& point) {
    return {point.step, point.seconds, point.loss, point.tokens_per_second, point.load};
  }
  static Point from_json(const nlohmann::json& json) {
    return {json.at(0).get<Index>(), json.at(1).get<double>(), json.at(2).get<double>(), json.at(3).get<double>(),
            json.at(4).get<std::vector<std::vector<double>>>()};
  }

  std::vector<Point> points_;
  std::vector<HeldOutPoint> held_out_;
  Point open_;
  Index steps_ = 0, tokens_ = 0;            // in open_
  double loss_sum_ = 0, open_seconds_ = 0;  // in open_
  double seconds_ = 0;                      // of everything so far
};

}  // namespace quickstart
