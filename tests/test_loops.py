"""Step 3 wherever it is called: scripts, threads, running loops, uvloop; nothing is left behind."""

import contextvars
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from crawler.lanes import LaneExecutor
from crawler.steps import run_anywhere
from tests.crawls import ROOT, nothing_left_behind, run_python

HEADER = """
    import asyncio, sys, threading, warnings
    from crawler import execute_async_event_loop, get_data_asynchronous
    from crawler.demo.site import DemoSite
    from crawler.source.declared import open_source
    def step1(session, song_num, song_urls):
        song_urls.append((song_num, -song_num))
    expected = [(num, -num) for num in range(50)]
    def crawl():
        return sorted(execute_async_event_loop(range(50), function=step1, rate=0, connections=4))
    def crawl_source():
        source = open_source("genius", site.token, base_url=site.base_url)
        return len(execute_async_event_loop(range(1, 51), function=source, rate=0))
    def open_files():
        import os
        return len(os.listdir("/proc/self/fd"))
"""

CASES = {
    "script": """
        assert crawl() == expected
    """,
    "script-with-curl": """
        with DemoSite() as site:
            assert crawl_source() > 40
    """,
    "twice-in-a-row": """
        for _ in range(3):
            assert crawl() == expected
    """,
    "thread-without-a-loop": """
        got = []
        thread = threading.Thread(target=lambda: got.append(crawl()))
        thread.start(); thread.join()
        assert got == [expected]
    """,
    "twice-at-once": """
        got = []
        threads = [threading.Thread(target=lambda: got.append(crawl())) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert got == [expected] * 4
    """,
    "inside-a-running-loop": """
        async def main():
            assert crawl() == expected
            await asyncio.sleep(0)
            assert crawl() == expected
            return asyncio.current_task() is not None
        assert asyncio.run(main())
    """,
    "inside-a-running-loop-with-curl": """
        async def main():
            assert crawl_source() > 40
        with DemoSite() as site:
            asyncio.run(main())
    """,
    "beside-other-tasks-of-a-running-loop": """
        async def main():
            ticks = []
            async def tick():
                while True:
                    ticks.append(1)
                    await asyncio.sleep(0.001)
            ticking = asyncio.create_task(tick())
            await asyncio.sleep(0)
            assert crawl() == expected
            ticking.cancel()
            await asyncio.wait({ticking})
            assert len(ticks) > 1
        asyncio.run(main())
    """,
    "step-2-awaited": """
        async def main():
            results = []
            await get_data_asynchronous(range(50), results, function=step1, rate=0)
            assert sorted(results) == expected
            assert asyncio.all_tasks() == {asyncio.current_task()}
        asyncio.run(main())
    """,
    "step-2-in-a-loop-made-by-hand": """
        loop = asyncio.new_event_loop()
        results = []
        loop.run_until_complete(get_data_asynchronous(range(50), results, function=step1, rate=0))
        assert sorted(results) == expected
        loop.close()
    """,
    "under-uvloop": """
        import uvloop
        async def main():
            assert crawl() == expected
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    """,
    "step-2-under-uvloop": """
        import uvloop
        async def main():
            results = []
            await get_data_asynchronous(range(50), results, function=step1, rate=0)
            assert sorted(results) == expected
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    """,
    "an-append-that-raises": """
        class Full:
            def append(self, item):
                raise OverflowError("full")
        try:
            execute_async_event_loop(range(50), Full(), function=step1, rate=0)
        except OverflowError:
            pass
        else:
            raise AssertionError
    """,
}

FOOTER = """
    import gc, time
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == 1, threading.enumerate()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        print("nothing left")
"""


@pytest.mark.parametrize("case", CASES)
def test_F6_step_3_works_wherever_it_is_called(case):
    """Right results, no thread left, no warning where warnings are errors."""
    code = "".join(textwrap.dedent(part) for part in (HEADER, CASES[case], FOOTER))
    assert run_python(code) == "nothing left\n"


def test_F6_fifty_runs_leave_no_file_open():
    """Loops and connections are closed, also after a loop was made re-entrant."""
    code = textwrap.dedent(HEADER) + textwrap.dedent("""
        async def main():
            crawl()
        crawl(); asyncio.run(main())
        before = open_files()
        for _ in range(50):
            crawl()
        assert open_files() <= before, (open_files(), before)
    """)
    run_python(code)


SCRIPT = """
    import signal, sys, threading
    from crawler import execute_async_event_loop
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    def step1(session, song_num, song_urls):
        print("asked", flush=True)
        {busy}
        song_urls.append((song_num, 1))
    try:
        execute_async_event_loop(range(10_000), function=step1, rate=20)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("busy", ["pass", "threading.Event().wait()"])
def test_F2_ctrl_c_ends_a_script_promptly(busy):
    """One Ctrl-C: KeyboardInterrupt where step 3 was called, though a function is still at work."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT.format(busy=busy))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "asked\n"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 3
    assert out.endswith("interrupted\n")
    assert err == ""
    assert process.returncode == 0


def test_F2_ctrl_c_ends_a_script_that_waits_in_a_loop_it_cannot_patch():
    """Under uvloop the work has a thread of its own, which ends with the wait for it."""
    code = (
        SCRIPT.format(busy="pass")
        .replace(
            "execute_async_event_loop(range",
            "under_uvloop(lambda: execute_async_event_loop(range",
        )
        .replace("rate=20)", "rate=20))")
    )
    head = """
    import asyncio, uvloop
    async def main(call):
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        call()
    def under_uvloop(call):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main(call))
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "asked\n"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 3
    assert out.endswith("interrupted\n")
    assert err == ""


def test_what_a_coroutine_returns_and_raises_comes_through():
    """Values and exceptions pass, in a thread without a loop too."""

    async def give():
        return 5

    async def fail():
        raise KeyError("x")

    with nothing_left_behind():
        assert run_anywhere(give) == 5
        with pytest.raises(KeyError):
            run_anywhere(fail)


def test_an_error_passes_through_a_loop_made_re_entrant():
    """The caller's loop goes on afterwards."""
    code = """
        import asyncio
        from crawler.steps import run_anywhere
        async def fail():
            raise KeyError("x")
        async def main():
            try:
                run_anywhere(fail)
            except KeyError:
                await asyncio.sleep(0)
                print(len(asyncio.all_tasks()))
        asyncio.run(main())
    """
    assert run_python(code) == "1\n"


def test_H5_asyncio_works_as_before_after_a_crawl_inside_a_running_loop():
    """Timeouts, task groups and, from Python 3.12 on, loop factories are as they were."""
    code = textwrap.dedent(HEADER) + textwrap.dedent("""
        async def main():
            assert crawl() == expected
        asyncio.run(main())
        async def after():
            async with asyncio.timeout(5):
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(asyncio.sleep(0, "slept"))
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(5)
            except TimeoutError:
                return task.result()
        factory = dict(loop_factory=asyncio.new_event_loop) if sys.version_info >= (3, 12) else {}
        print(asyncio.run(after(), **factory))
    """)
    assert run_python(code) == "slept\n"


def test_lane_threads_see_the_callers_context_and_hand_over_errors():
    """Log labels follow the work; an exception is the future's."""
    label = contextvars.ContextVar("label", default="none")
    label.set("mine")
    executor = LaneExecutor()
    seen = executor.submit(label.get)
    broken = executor.submit(int, "x")
    assert seen.result(5) == "mine"
    assert isinstance(broken.exception(5), ValueError)
    executor.shutdown()
    assert not [thread for thread in threading.enumerate() if thread.name == "lane"]


def test_importing_the_package_makes_no_loop_and_no_thread():
    """Until somebody crawls, nothing runs, and asyncio is not patched."""
    code = """
        import threading, sys
        import crawler
        assert threading.active_count() == 1
        assert not {"nest_asyncio", "nest_asyncio2"} & set(sys.modules)
    """
    run_python(code)
