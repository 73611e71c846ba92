"""What a newcomer sees: `orion demo` in a real browser."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Page
from tests.test_demo import RunningDemo

pytestmark = pytest.mark.browser

SEEN_S = 15.0
"""What the demo promises from the printed address to the last of the three; a claim, not a measure of speed."""


@pytest.fixture
def demo(root: Path) -> Iterator[RunningDemo]:
    found = RunningDemo(root)
    yield found
    if found.process.poll() is None:
        found.process.terminate()
        found.process.wait(60)


def test_the_page_shows_heartbeat_log_lines_and_a_crash_soon_after_the_address_is_printed(
    demo: RunningDemo, capsys: pytest.CaptureFixture[str]
) -> None:
    with Page() as page:
        address = demo.wait_for(r"^  open   (\S+)$")[1]
        printed = time.monotonic()
        page.open(address)
        page.wait_for_text("demo")
        page.wait_for_text("importer")
        page.open(re.sub(r"(#token=[^/]+).*", r"\1/logs", address))
        page.wait_for_text("order")
        page.open(re.sub(r"(#token=[^/]+).*", r"\1/alerts", address))
        page.wait_for_text("importer crashed")
        took_s = time.monotonic() - printed
        assert page.errors == []
    with capsys.disabled():
        print(f"\nheartbeat, lines and crash alert seen {took_s:.1f} s after the address was printed")
    assert took_s < SEEN_S
