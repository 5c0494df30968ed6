// measure REPEATS COMMAND...: runs the command that many times and prints the median of its CPU seconds, which other
// work on the machine hardly affects, and its peak memory in MiB. Exits with 1 if the command fails.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

int main(int count, char** arguments) {
  if (count < 3) return std::fprintf(stderr, "usage: measure REPEATS COMMAND...\n"), 2;
  std::vector<double> seconds;
  double mebibytes = 0;
  for (int left = std::max(1, std::atoi(arguments[1])); left > 0; --left) {
    const pid_t child = fork();
    if (child == 0) {
      execvp(arguments[2], arguments + 2);
      std::perror(arguments[2]);
      _exit(127);
    }
    int status = 0;
    rusage usage{};
    if (child < 0 || wait4(child, &status, 0, &usage) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      std::fprintf(stderr, "%s failed\n", arguments[2]);
      return 1;
    }
    const auto in_seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
    };
    seconds.push_back(in_seconds(usage.ru_utime) + in_seconds(usage.ru_stime));
#if defined(__APPLE__)
    const double unit = 1024.0 * 1024.0;  // bytes
#else
    const double unit = 1024.0;  // KiB
#endif
    mebibytes = std::max(mebibytes, static_cast<double>(usage.ru_maxrss) / unit);
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2), seconds.end());
  std::printf("%.2f %.0f\n", seconds[seconds.size() / 2], mebibytes);
}
