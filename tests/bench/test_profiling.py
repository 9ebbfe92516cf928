import threading

from bench import profiling

ENGINE = """
def commit(): return sorted(range(10))
def wait(): pass
def run():
    for _ in range(7): commit()
    wait()
"""


def test_tells_per_thread_what_our_functions_and_the_last_calls_took():
    ours: dict = {}
    exec(compile(ENGINE, "/anywhere/lodestream/engine.py", "exec"), ours)
    others: dict = {}  # wherever this file itself lies
    exec(compile("def run(): return sum([1])", "/anywhere/else.py", "exec"), others)
    threads = profiling.ThreadProfiles("wall")
    threads.start()
    for target, name in ((ours["run"], "gold.activity"), (others["run"], "not ours")):
        thread = threading.Thread(target=target, name=name)
        thread.start()
        thread.join()
    threads.stop()
    lines = threads.report(total_s=1e-9).splitlines()
    assert lines[2].startswith("gold.activity: ")
    assert sum("lodestream/engine.py:2 commit" in line and line.split()[2] == "7" for line in lines) == 2
    assert any("built-in method builtins.sorted" in line for line in lines)
    assert not any("wait" in line or "not ours" in line for line in lines)
