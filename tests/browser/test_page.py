"""The console's page in a real browser shows what devices send, as they send it, and passes orders on."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from tests.browser.chromium import Page
from tests.console.process import ConsoleProcess

pytestmark = pytest.mark.browser


def heartbeat(**fields: Any) -> dict[str, Any]:
    return {
        "hostname": "web-1",
        "agentVersion": "1.2.3",
        "bootId": "boot",
        "timestamp": "2026-01-02T03:04:05.000Z",
        "uptimeSeconds": 90_000,
        "cpu": {"percent": 42.0, "count": 4, "load1": 0.5},
        "memory": {"usedMb": 512, "totalMb": 2048, "percent": 25.0},
        "disk": {"usedGb": 10, "totalGb": 40, "percent": 25.0},
        "network": {"rxBytesPerSecond": 1500, "txBytesPerSecond": 300},
        "scripts": [
            {"name": "api", "source": "api", "state": "running", "pid": 4711, "restarts": 2, "memoryMb": 64.0},
            {"name": "worker", "source": "worker", "state": "crashed", "restarts": 5},
        ],
    } | fields


CRASH = {
    "id": "boot:1",
    "timestamp": "2026-01-02T03:04:05.000Z",
    "hostname": "web-1",
    "script": "worker",
    "source": "worker",
    "message": "worker exited with status 3",
    "cause": "exit",
    "exitCode": 3,
    "crashesInARow": 2,
    "lastLines": ["Traceback", "the very last line"],
}


@pytest.fixture
def console(root: Path) -> Iterator[ConsoleProcess]:
    with ConsoleProcess(root) as running:
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    with Page() as opened:
        yield opened
        assert opened.errors == []


def test_the_page_asks_for_its_token_and_refuses_a_wrong_one(console: ConsoleProcess) -> None:
    with Page() as page:
        page.open(console.url)
        page.type("input[name=token]", "wrong")
        page.click("form button")
        page.wait_for_text("cannot accept this token")
        page.type("input[name=token]", console.token)
        page.click("form button")
        page.wait_for_text("No server has reported yet")
        page.wait_for_text("live", "#link")


def test_what_was_there_and_what_arrives_are_shown(console: ConsoleProcess, page: Page) -> None:
    console.post("/api/v1/agent/heartbeat", heartbeat())
    console.post("/api/v1/agent/log", {"level": "info", "message": "from before", "source": "api"})
    page.open(f"{console.url}/#token={console.token}")
    page.wait_for_text("from before", ".log")
    assert page.evaluate("location.hash") == "#/"
    page.wait_for_text("42 %", "[data-server=web-1]")
    page.wait_for_text("partial", "[data-server=web-1]")
    assert page.evaluate("document.querySelectorAll('[data-server=web-1] svg path.stroke').length") >= 4
    page.wait_for_text("live", "#link")

    console.post("/api/v1/agent/heartbeat", heartbeat(cpu={"percent": 77.0}, hostname="web-1"))
    page.wait_for_text("77 %", "[data-server=web-1]")
    console.post("/api/v1/agent/log", {"level": "error", "message": "it <b>broke</b>", "source": "api"})
    page.wait_for_text("it <b>broke</b>", ".log .is-error")
    console.post("/api/v1/agent/alert", CRASH)
    page.wait_for_text("worker exited with status 3")
    page.wait_for_text("1", "#alert-count")
    console.post("/api/v1/agent/heartbeat", heartbeat(hostname="db-1"))
    page.wait_for_text("db-1", ".cards")


def test_a_script_is_restarted_from_the_servers_page(console: ConsoleProcess, page: Page) -> None:
    console.post("/api/v1/agent/heartbeat", heartbeat())
    page.open(f"{console.url}/#token={console.token}/server/web-1")
    page.wait_for_text("4711", "[data-script=api]")
    page.wait_for_text("live", "#link")
    assert page.evaluate("document.querySelectorAll('.plot').length") == 4
    assert page.evaluate("document.querySelector(\"[data-action='start:api']\").disabled") is True
    page.click("[data-action='restart:api']")
    page.wait_for_text("restart …", "[data-script=api]")
    (command,) = console.post("/api/v1/agent/heartbeat", heartbeat())["commands"]
    assert (command["type"], command["source"]) == ("restart", "api")
    console.post(f"/api/v1/agent/commands/{command['id']}/ack?hostname=web-1", {"ok": True})
    page.wait_for_text("restart api: done", "#toasts")
    page.wait_until("!document.querySelector(\"[data-action='restart:api']\").disabled")


def test_logs_are_filtered_and_followed(console: ConsoleProcess, page: Page) -> None:
    for level, source, message in (("info", "api", "alpha"), ("error", "worker", "beta"), ("warn", "api", "gamma")):
        console.post("/api/v1/agent/log", {"level": level, "source": source, "message": message})
    page.open(f"{console.url}/#token={console.token}/logs")
    page.wait_for_text("gamma", ".log")
    page.wait_for_text("live", "#link")
    page.click("button.level-error")
    page.wait_until("document.querySelectorAll('.entry').length === 1")
    page.wait_for_text("beta", ".log")
    for level in ("info", "error"):
        console.post("/api/v1/agent/log", {"level": level, "source": "api", "message": f"live {level}"})
    page.wait_for_text("live error", ".log")
    assert "live info" not in page.evaluate("document.querySelector('.log').innerText")
    page.click("button.level-error")
    page.wait_for_text("live info", ".log")
    page.type("input[type=search]", "GAMM")
    page.wait_until("document.querySelectorAll('.entry').length === 1")
    page.wait_for_text("gamma", ".log")


def test_alerts_show_the_last_lines_and_are_resolved(console: ConsoleProcess, page: Page) -> None:
    console.post("/api/v1/agent/alert", CRASH)
    page.open(f"{console.url}/#token={console.token}/alerts")
    page.wait_for_text("the very last line", "[data-alert] pre")
    page.wait_for_text("exit status 3", "[data-alert]")
    page.click("[data-alert] button")
    page.wait_for_text("Nothing is wrong.")
    assert console.get("/api/projects/local/alerts")[0]["status"] == "resolved"
    page.click("[data-status=resolved]")
    page.wait_for_text("resolved by operator", "[data-alert]")


def test_the_page_comes_back_by_itself_after_the_console_was_away(root: Path) -> None:
    with Page() as page:
        with ConsoleProcess(root) as console:
            page.open(f"{console.url}/#token={console.token}")
            page.wait_for_text("live", "#link")
            port = urlsplit(console.url).port
        page.wait_for_text("reconnecting", "#link")
        page.wait_for_text("The console has not answered since", "#lost")
        with ConsoleProcess(root, port=port or 0) as console:
            console.post("/api/v1/agent/log", {"level": "info", "message": "meanwhile"})
            page.wait_for_text("live", "#link")
            page.wait_for_text("meanwhile", ".log")
            assert page.evaluate("document.querySelector('#lost').hidden")


def test_many_servers_are_rows_with_the_troubled_ones_first_and_a_filter(console: ConsoleProcess, page: Page) -> None:
    well = [{"name": "api", "source": "api", "state": "running"}]
    for number in range(1, 12):
        console.post("/api/v1/agent/heartbeat", heartbeat(hostname=f"web-{number}", scripts=well))
    console.post("/api/v1/agent/heartbeat", heartbeat(hostname="zz-broken"))
    console.post("/api/v1/agent/heartbeat", heartbeat(hostname="zz-gone", scripts=well, stopping=True))
    page.open(f"{console.url}/#token={console.token}")
    rows = "[...document.querySelectorAll('.fleet tbody tr')].map((row) => row.dataset.server)"
    page.wait_until(f"{rows}.length === 13")
    assert page.evaluate(rows)[:4] == ["zz-gone", "zz-broken", "web-1", "web-2"]
    page.wait_for_text("1 offline", ".tiles")
    page.wait_for_text("1 crashed", ".tiles")
    page.type(".panel input[type=search]", "WORKER")
    page.wait_until(f"{rows}.join() === 'zz-broken'")


def test_a_heartbeat_takes_neither_focus_nor_selection_away(console: ConsoleProcess, page: Page) -> None:
    console.post("/api/v1/agent/heartbeat", heartbeat())
    page.open(f"{console.url}/#token={console.token}/server/web-1")
    page.wait_for_text("live", "#link")
    page.wait_for_text("4711", "[data-script=api]")
    page.evaluate("document.querySelector(\"[data-action='restart:api']\").focus()")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('[data-script=api] strong'))")
    scripts = [{"name": "api", "source": "api", "state": "running", "pid": 4712, "restarts": 3}]
    console.post("/api/v1/agent/heartbeat", heartbeat(scripts=scripts))
    page.wait_for_text("4712", "[data-script=api]")
    assert page.evaluate("document.activeElement.dataset.action") == "restart:api"
    assert page.evaluate("String(getSelection())") == "api"
    assert page.evaluate("document.querySelector('[data-script=worker]')") is None


def test_a_crash_loop_is_one_alert_with_a_count_and_is_resolved_at_once(console: ConsoleProcess, page: Page) -> None:
    lines = [f"line {number}" for number in range(20)]
    for number in range(5):
        console.post("/api/v1/agent/alert", CRASH | {"id": f"boot:{number}", "lastLines": lines})
    page.open(f"{console.url}/#token={console.token}/alerts")
    page.wait_for_text("5 times", "[data-alert]")
    assert page.evaluate("document.querySelectorAll('[data-alert]').length") == 1
    assert page.evaluate("document.querySelector('[data-alert] pre').innerText").split("\n") == lines[-5:]
    page.click("[data-alert] button.fold")
    page.wait_for_text("line 0", "[data-alert] pre")
    assert "null" not in page.evaluate("document.body.innerText")
    page.evaluate("[...document.querySelectorAll('button')].find((one) => one.innerText === 'Resolve all 5').click()")
    page.wait_for_text("Nothing is wrong.")
    assert {alert["status"] for alert in console.get("/api/projects/local/alerts")} == {"resolved"}


def test_reading_above_is_not_disturbed_by_what_arrives_below(console: ConsoleProcess, page: Page) -> None:
    for number in range(120):
        console.post("/api/v1/agent/log", {"level": "info", "source": "api", "message": f"entry {number}"})
    page.open(f"{console.url}/#token={console.token}/logs")
    page.wait_for_text("entry 119", ".log")
    page.wait_for_text("live", "#link")
    assert page.evaluate(
        "[document.querySelector('.log')].every((log) => log.scrollHeight - log.scrollTop - log.clientHeight < 24)"
    )
    page.evaluate("document.querySelector('.log').scrollTop = 0")
    page.wait_until("document.querySelector('.log').scrollTop === 0")
    for number in range(3):
        console.post("/api/v1/agent/log", {"level": "info", "source": "api", "message": f"late {number}"})
    page.wait_for_text("3 new", ".jump")
    assert page.evaluate("document.querySelector('.log').scrollTop") == 0
    page.click(".jump")
    page.wait_until("document.querySelector('.jump').hidden")


def test_what_is_no_longer_shown_can_be_read_upwards(console: ConsoleProcess, page: Page) -> None:
    lines = [
        {
            "level": "info",
            "source": "api",
            "message": f"entry {number}.",
            "timestamp": f"2026-03-0{1 if number < 450 else 2}T12:00:00Z",
        }
        for number in range(1200)
    ]
    reply = console.call("POST", "/api/v1/agent/logs", raw=b"\n".join(msgspec.json.encode(line) for line in lines))
    assert reply.json()["stored"] == 1200
    page.open(f"{console.url}/#token={console.token}/logs")
    page.wait_until("document.querySelectorAll('.entry').length === 500")
    page.wait_for_text("live", "#link")
    page.evaluate("document.querySelector('.log').scrollTop = 0")
    for shown in (1000, 1200):
        page.click(".older")
        page.wait_until(f"document.querySelectorAll('.entry').length === {shown}")
    page.wait_for_text("entry 0.", ".entry")
    texts = page.evaluate("[...document.querySelectorAll('.entry .text')].map((one) => one.innerText)")
    assert texts == [line["message"] for line in lines]
    assert page.evaluate("document.querySelectorAll('.note.day').length") == 2
    assert "March 1" in page.evaluate("document.querySelector('.note.day').innerText")
    page.click(".older")
    page.wait_until("document.querySelector('.older').hidden")


def test_filters_of_the_logs_are_in_the_address(console: ConsoleProcess, page: Page) -> None:
    for level, message in (("info", "alpha"), ("error", "beta"), ("fatal", "gamma")):
        console.post("/api/v1/agent/log", {"level": level, "source": "api", "message": message})
    page.open(f"{console.url}/#token={console.token}/logs?level=error,fatal")
    page.wait_until("document.querySelectorAll('.entry').length === 2")
    assert page.evaluate("document.querySelector('button.level-error').ariaPressed") == "true"
    page.click("button.level-fatal")
    page.wait_until("document.querySelectorAll('.entry').length === 1")
    assert page.evaluate("location.hash") == "#/logs?level=error"
    page.type("input[type=search]", "nowhere")
    page.wait_for_text("Nothing matches these filters.", ".log")


@pytest.mark.parametrize(
    "view", ["", "/server/a-host-with-quite-a-long-name-in.a.very.deep.example.org", "/logs", "/alerts"]
)
def test_a_phone_shows_every_page_without_scrolling_sideways(console: ConsoleProcess, page: Page, view: str) -> None:
    script = "an-application-whose-name-somebody-made-as-long-as-it-can-be"
    host = "a-host-with-quite-a-long-name-in.a.very.deep.example.org"
    scripts = [{"name": script, "source": script, "state": "crashed", "restarts": 12}]
    console.post("/api/projects", {"name": "other", "label": "A project with a label that goes on and on and on"})
    console.post("/api/v1/agent/heartbeat", heartbeat(hostname=host, scripts=scripts))
    console.post("/api/v1/agent/log", {"level": "error", "source": script, "message": "x" * 500})
    alert = CRASH | {"hostname": host, "script": script, "source": script, "lastLines": ["y" * 300]}
    console.post("/api/v1/agent/alert", alert)
    page.send("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    page.open(f"{console.url}/#token={console.token}{view}")
    page.wait_for_text(script if view else host)
    page.wait_for_text("live", "#link")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0


# Requests to one project wait for `release()`; `sockets` and `timers` are those that the page has opened.
WATCHED = """
window.sockets = []; window.timers = new Set(); window.held = 0;
const gate = new Promise((resolve) => { window.release = resolve; });
const [plainFetch, plainSet, plainClear] = [window.fetch, window.setInterval, window.clearInterval];
window.fetch = async (path, options) => {
  const reply = await plainFetch(path, options);
  if (path.startsWith("/api/projects/bee/")) { window.held += 1; await gate; }
  return reply;
};
window.WebSocket = class extends WebSocket { constructor(url) { super(url); sockets.push(this); } };
window.setInterval = (...all) => { const id = plainSet(...all); timers.add(id); return id; };
window.clearInterval = (id) => { timers.delete(id); plainClear(id); };
"""
OPEN_SOCKETS = "sockets.filter((one) => one.readyState <= WebSocket.OPEN).length"


def let_go(page: Page, console: ConsoleProcess) -> None:
    """Let the held requests go on, and return when a channel that follows on them would be open, too."""
    page.evaluate(f"""(async () => {{
        release();
        const headers = {{ Authorization: "Bearer {console.token}", "Content-Type": "application/json" }};
        for (const path of ["servers", "alerts"])
            await (await fetch("/api/projects/bee/" + path, {{ headers }})).text();
        const body = JSON.stringify({{ projectName: "bee" }});
        const {{ url }} = await (await fetch("/api/ws/create", {{ method: "POST", headers, body }})).json();
        const probe = new WebSocket(url);
        await new Promise((resolve) => {{ probe.onopen = resolve; }});
        const ended = new Promise((resolve) => {{ probe.onclose = resolve; }});
        probe.close();
        await ended;
    }})()""")


def choose(page: Page, project: str) -> None:
    page.evaluate(f"""(() => {{
        const picker = document.querySelector("#project");
        picker.value = "{project}";
        picker.dispatchEvent(new Event("change"));
    }})()""")


@pytest.fixture
def bee_held(console: ConsoleProcess, page: Page) -> dict[str, str]:
    """Open the page on a project beside `bee`, whose answers wait, and `sea`; return their device tokens."""
    tokens = {name: console.post("/api/projects", {"name": name, "label": name})["token"] for name in ("bee", "sea")}
    console.post("/api/v1/agent/heartbeat", heartbeat(hostname="sea-1"), token=tokens["sea"])
    page.send("Page.addScriptToEvaluateOnNewDocument", source=WATCHED)
    page.open(f"{console.url}/#token={console.token}")
    page.wait_for_text("live", "#link")
    choose(page, "bee")
    page.wait_until("held >= 2")
    return tokens


def test_a_project_that_was_left_before_it_was_read_leaves_nothing_behind(
    console: ConsoleProcess, page: Page, bee_held: dict[str, str]
) -> None:
    choose(page, "sea")
    page.wait_for_text("sea-1", ".cards")
    page.wait_for_text("live", "#link")
    let_go(page, console)
    assert page.evaluate(OPEN_SOCKETS) == 1
    assert page.evaluate("timers.size") == 2
    console.post("/api/v1/agent/log", {"level": "info", "message": "of the sea"}, token=bee_held["sea"])
    page.wait_for_text("of the sea", ".log")
    assert page.evaluate("document.querySelectorAll('.entry').length") == 1
    assert "sea-1" in page.evaluate("document.querySelector('.cards').innerText")


@pytest.mark.usefixtures("bee_held")
def test_signing_out_while_a_project_is_read_leaves_nothing_behind(console: ConsoleProcess, page: Page) -> None:
    page.click("#leave")
    page.wait_for_text("Enter the token", ".gate")
    let_go(page, console)
    assert page.evaluate(OPEN_SOCKETS) == 0
    assert page.evaluate("timers.size") == 0
    assert page.evaluate("document.querySelector('.gate .error')") is None
    page.evaluate("location.hash = '#/logs'")
    page.wait_until("location.hash === '#/logs'")
    assert page.evaluate("document.querySelector('input[name=token]') !== null")


@pytest.fixture
def waiting_command_line() -> Iterator[tuple[int, dict[str, list[str]], threading.Event]]:
    """Yield (port, the query that the browser came back with, an event for when it did)."""
    came: dict[str, list[str]] = {}
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        timeout = 2  # Chromium opens connections in advance and keeps them

        def do_GET(self) -> None:
            if urlsplit(self.path).path == "/callback":
                came.update(parse_qs(urlsplit(self.path).query))
                done.set()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(b"you can close this page")

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 (the library's name)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_address[1], came, done
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_command_line_signs_in_through_sign_up_and_confirmation(
    console: ConsoleProcess,
    page: Page,
    waiting_command_line: tuple[int, dict[str, list[str]], threading.Event],
) -> None:
    port, came, done = waiting_command_line
    begun = console.post("/api/auth/cli/init", {"callbackPort": port}, token="")
    page.open(begun["loginUrl"])
    page.wait_for_text("waits for you to sign in")
    page.evaluate("[...document.links].find((link) => link.text === 'Make an account').click()")
    for name, text in (
        ("firstName", "Ada"),
        ("lastName", "Lovelace"),
        ("pseudo", "ada"),
        ("email", "ada@example.org"),
        ("password", "correct horse"),
    ):
        page.type(f"input[name={name}]", text)
    page.click("form button")
    page.wait_for_text("asks to act as Ada Lovelace")
    page.click("#confirm")
    assert done.wait(30)
    page.wait_for_text("you can close this page")
    assert came["state"] == [begun["state"]]
    assert console.get("/api/auth/me", token=came["token"][0])["email"] == "ada@example.org"
