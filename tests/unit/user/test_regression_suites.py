"""Programs with tests of their own, while every function of theirs and of their libraries is probed, and while some come and go: the results are the same.

CPython's regression tests are Debian's package libpython3.11-testsuite. SONDE_SUITES="test_os test_io" runs these modules of it, SONDE_SUITES=all those that
pass here without probes and take a minute at most.
"""

from __future__ import annotations

import os
import platform
import random
import re
import shutil
import subprocess
import xml.etree.ElementTree
from collections import Counter
from pathlib import Path

import pytest
from user_spawned import run_traced
from user_suites import Tracer, run

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="these probes are x86-64 code")

PYTHON = "/usr/bin/python3.11"
TESTS = Path("/usr/lib/python3.11/test")
WAIT = """
import runpy, sys
try:
    import _hashlib, _ssl  # so that libcrypto is there to be probed
except ImportError:
    pass
print("ready", flush=True)
sys.stdin.readline()
runpy.run_module("test", run_name="__main__")
"""
SHORT = ("test_exceptions", "test_generators", "test_struct", "test_thread", "test_wait4", "test_contextlib")
CRYPTO = ("test_hashlib", "test_hmac", *(["test_ssl"] if os.environ.get("SONDE_SUITES") else []))
MOST_S = 60.0
# What may end otherwise when the process is stopped again and again, as it does in a debugger (docs/design/0008-user-engine.md, "What cannot be had").
STOPPED = {
    "test_interrupted_write_unbuffered": "a write that waits, of which a part is done, ends with that part",
    "test_timeout": "epoll_wait begins its time again",
    "test_itimer_virtual": "it wants so much time of a CPU within so much time of the clock",
    "test_set_and_clear": "it wants to run within a quarter of a second",
}
Results = Counter[tuple[str, str]]


def everything(*files: str) -> str:
    """A script with two probes on every function of files."""
    return " ".join(f"uprobe:{file}:* {{ @e = count(); }} uretprobe:{file}:* {{ @r = count(); }}" for file in files)


def results(path: Path) -> Results:
    """How often each test ended in which way."""
    found: Results = Counter()
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        kinds = sorted(child.tag for child in case if child.tag in ("failure", "error", "skipped"))
        found[case.get("name") or "", " ".join(kinds) or "ok"] += 1
    return found


def run_modules(folder: Path, modules: list[str], tracer: Tracer | None = None) -> Results:
    """Run modules of CPython's tests in one process; return their results."""
    report = folder / "results.xml"
    report.unlink(missing_ok=True)
    words = [PYTHON, "-c", WAIT, "--junit-xml", str(report), "--tempdir", str(folder), *modules]
    outcome = run(words, folder, tracer)
    assert report.exists(), f"status {outcome.status}: {outcome.text[-3000:]}"
    return results(report)


def need_suite() -> None:
    if not Path(PYTHON).exists() or not (TESTS / "test_generators.py").exists():
        pytest.skip("needs CPython's regression tests (Debian package libpython3.11-testsuite)")


def compare(folder: Path, modules: list[str], tracer: Tracer) -> None:
    """Raise AssertionError where probes change a result."""
    bare = run_modules(folder, modules)
    assert sum(bare.values()) > 0
    probed = run_modules(folder, modules, tracer)
    assert tracer.rounds > 0 and tracer.hits > 0
    changed = [name for name, _ in [*(bare - probed), *(probed - bare)]]
    if tracer.comes_and_goes:
        changed = [name for name in changed if name.rpartition(".")[2] not in STOPPED]
    if changed and run_modules(folder, modules) != bare:
        pytest.skip(f"{' '.join(modules)}: two runs without probes differ")
    assert not changed, (bare - probed, probed - bare)


def test_cpython_with_every_function_probed(tmp_path: Path) -> None:
    need_suite()
    compare(tmp_path, list(SHORT), Tracer(everything(PYTHON, "libc")))


def test_cpython_while_probes_come_and_go(tmp_path: Path) -> None:
    need_suite()
    tracer = Tracer(everything(PYTHON, "libc"), some=200)
    compare(tmp_path, list(SHORT), tracer)
    assert tracer.rounds > 0


def test_libcrypto_with_every_function_probed(tmp_path: Path) -> None:
    """By the tests of its users."""
    need_suite()
    found = subprocess.run(
        [PYTHON, "-c", "import _ssl, _hashlib; print(open('/proc/self/maps').read())"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    files = sorted(set(re.findall(r"\s(/\S*/lib(?:crypto|ssl)\S*)", found)))
    if not files:
        pytest.skip("this Python has no OpenSSL")
    compare(tmp_path, list(CRYPTO), Tracer(everything(*files)))


def long_form() -> list[str]:
    """The modules that SONDE_SUITES asks for."""
    wanted = os.environ.get("SONDE_SUITES", "").split()
    return sorted(path.stem for path in TESTS.glob("test_*.py")) if wanted == ["all"] else wanted


@pytest.mark.parametrize("module", long_form())
@pytest.mark.timeout(900)
def test_module(module: str, tmp_path: Path) -> None:
    need_suite()
    try:
        run(
            [PYTHON, "-c", WAIT, "--junit-xml", str(tmp_path / "first.xml"), "--tempdir", str(tmp_path), module],
            tmp_path, limit_s=MOST_S,
        )  # fmt: skip
        first = results(tmp_path / "first.xml")
    except (OSError, xml.etree.ElementTree.ParseError):
        pytest.skip(f"{module} does not end within {MOST_S:.0f} s without probes")
    if not first or any("failure" in kind or "error" in kind for _, kind in first):
        pytest.skip(f"{module} does not pass without probes")
    compare(tmp_path, [module], Tracer(everything(PYTHON, "libc")))
    compare(tmp_path, [module], Tracer(everything(PYTHON, "libc"), some=300, seed=random.randrange(1 << 16)))


OPENSSL = ("sha1", "sha512", "aes-128-cbc", "rsa2048", "ecdsap256", "ecdhx25519", "ed25519")


def test_openssl_speed(tmp_path: Path) -> None:
    """How fast it is does not matter, but that it does the same and finds no error."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("needs openssl")
    libraries = re.findall(r"(/\S+lib(?:crypto|ssl)\S+) \(", subprocess.check_output(["ldd", openssl], text=True))
    command = [openssl, "speed", "-mr", "-seconds", "1", "-bytes", "1024", *OPENSSL]
    bare = subprocess.run(command, capture_output=True, text=True, check=True)
    done = run_traced(everything(*libraries), " ".join(command))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(steps(bare.stdout)) >= len(OPENSSL)
    assert steps(done.stdout) == steps(bare.stdout), done.stdout + done.stderr
    assert int(re.findall(r"@e: (\d+)", done.stdout)[0]) > 1000


def steps(text: str) -> list[str]:
    """What `openssl speed -mr` says that it has measured, without the numbers."""
    return [":".join(line.split(":")[:3]) for line in text.splitlines() if line.startswith("+F")]


CPLUSPLUS = r"""
#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <iomanip>
#include <iostream>
#include <list>
#include <locale>
#include <map>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <numeric>
#include <random>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

static std::string words(int seed) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<int> letter('a', 'z');
  std::string text;
  for (int i = 0; i < 2000; i++) text += i % 7 ? char(letter(engine)) : ' ';
  return text;
}

static long work(int seed) {
  std::string text = words(seed);
  std::map<std::string, int> counts;
  std::istringstream in(text);
  for (std::string word; in >> word;) counts[word]++;
  std::regex pattern("([aeiou])([^aeiou ]+)");
  long sum = std::distance(std::sregex_iterator(text.begin(), text.end(), pattern), std::sregex_iterator());
  std::ostringstream out;
  out.imbue(std::locale::classic());
  for (auto &[word, count] : counts) out << std::setw(12) << word << std::hex << count << std::fixed << std::setprecision(3) << count / 3.0;
  sum += std::hash<std::string>()(out.str()) & 0xffff;
  std::unordered_map<std::string, std::list<int>> lists;
  for (auto &[word, count] : counts) lists[word.substr(0, 1)].push_back(count);
  for (auto &[letter, list] : lists) sum += std::accumulate(list.begin(), list.end(), 0);
  try { std::stoi("none"); } catch (const std::invalid_argument &) { sum += 1; }
  try { std::vector<int>().at(3); } catch (const std::out_of_range &e) { sum += e.what()[0]; }
  try { std::rethrow_exception(std::make_exception_ptr(std::runtime_error("again"))); } catch (std::exception &e) { sum += e.what()[1]; }
  std::pmr::monotonic_buffer_resource pool;
  std::pmr::vector<std::pmr::string> kept(&pool);
  for (int i = 0; i < 100; i++) kept.emplace_back("a string that does not fit in place " + std::to_string(i));
  return sum + kept.size() + std::stod("2.5") * 2;
}

int main(int count, char **arguments) {
  int rounds = std::stoi(arguments[1]);
  std::string line;
  std::cout << "ready" << std::endl;
  std::getline(std::cin, line);
  for (int round = 0; round < rounds; round++) {
    std::vector<std::future<long>> parts;
    for (int i = 0; i < 4; i++) parts.push_back(std::async(std::launch::async, work, round * 4 + i));
    for (auto &part : parts) std::cout << part.get() << ' ';
    std::promise<int> promise;
    std::thread thrower([&] { try { throw round; } catch (...) { promise.set_exception(std::current_exception()); } });
    try { promise.get_future().get(); } catch (int caught) { std::cout << caught << '\n'; }
    thrower.join();
    auto path = std::filesystem::temp_directory_path() / ("sonde-suite-" + std::to_string(getpid()));
    { std::ofstream file(path); file << words(round); }
    std::cout << std::filesystem::file_size(path) << ' ' << std::filesystem::remove(path) << std::endl;
  }
}
"""


@pytest.mark.parametrize("some", [0, 2000])
def test_libstdcplusplus(some: int, tmp_path: Path) -> None:
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    program = str(tmp_path / "program")
    words = ["g++", "-std=c++17", "-O2", "-include", "unistd.h", "-x", "c++", "-", "-o", program, "-pthread"]
    subprocess.run(words, input=CPLUSPLUS, text=True, check=True)
    libraries = re.findall(r"(/\S+lib(?:stdc\+\+|gcc_s)\S+) \(", subprocess.check_output(["ldd", program], text=True))
    rounds = 200 if some else 40
    bare = run([program, str(rounds)], tmp_path)
    assert bare.status == 0 and bare.text.count("\n") == 2 * rounds
    tracer = Tracer(everything(program, *libraries), some=some)
    probed = run([program, str(rounds)], tmp_path, tracer)
    assert (probed.status, probed.text) == (bare.status, bare.text)
    assert tracer.hits > 0 and tracer.rounds > 0
