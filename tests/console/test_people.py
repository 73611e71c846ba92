"""Signing up and in, the command line's sign-in, projects, sources, tokens: exact shapes and statuses."""

import pytest

from tests.console.process import ConsoleProcess

PEOPLE = iter(range(10_000))


def sign_up(console: ConsoleProcess) -> tuple[str, dict[str, str]]:
    """Return (token, form) of a fresh account."""
    number = next(PEOPLE)
    form = {
        "firstName": "Ada",
        "lastName": "Lovelace",
        "pseudo": f"ada{number}",
        "email": f"ada{number}@example.org",
        "password": "correct horse",
    }
    answer = console.post("/api/auth/register", form, token="", status=201)
    return answer["accessToken"], form


def test_an_account_is_made_and_signs_in_again(console: ConsoleProcess) -> None:
    token, form = sign_up(console)
    me = console.get("/api/auth/me", token=token)
    assert me["user"]["email"] == me["email"] == form["email"]
    assert me["user"]["first_name"] == "Ada"
    assert me["user"]["email_verified"] is True
    assert "password" not in str(me)
    credentials = {"email": form["email"].upper(), "password": form["password"]}
    again = console.call("POST", "/api/auth/login", credentials, token="stale")
    assert again.status_code == 200
    assert again.json()["user"]["pseudo"] == form["pseudo"]
    assert again.json()["accessToken"] != token


def test_a_wrong_password_and_an_unknown_address_look_the_same(console: ConsoleProcess) -> None:
    _, form = sign_up(console)
    answers = [
        console.call("POST", "/api/auth/login", {"email": email, "password": "wrong"}, token="")
        for email in (form["email"], "nobody@example.org")
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["error"]


def test_guessing_is_slowed_down(console: ConsoleProcess) -> None:
    _, form = sign_up(console)
    statuses = [
        console.call("POST", "/api/auth/login", {"email": form["email"], "password": "x"}, token="").status_code
        for _ in range(11)
    ]
    assert statuses == [401] * 10 + [429]


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"password": "short"}, 400, "8 characters"),
        ({"email": "nonsense"}, 400, "e-mail"),
        ({"pseudo": " "}, 400, "pseudo"),
        ({"firstName": 5}, 400, "firstName"),
    ],
)
def test_a_sign_up_that_cannot_be_says_why(
    console: ConsoleProcess, change: dict[str, object], status: int, word: str
) -> None:
    form = {"firstName": "A", "lastName": "B", "pseudo": "ab", "email": "ab@example.org", "password": "long enough"}
    answer = console.call("POST", "/api/auth/register", form | change, token="")
    assert answer.status_code == status
    assert word in answer.json()["error"]
    assert word in answer.json()["message"]


def test_a_taken_address_or_pseudo_is_a_conflict(console: ConsoleProcess) -> None:
    _, form = sign_up(console)
    for change, word in (({"pseudo": "free"}, "e-mail"), ({"email": "free@example.org"}, "pseudo")):
        answer = console.call("POST", "/api/auth/register", form | change, token="")
        assert answer.status_code == 409
        assert word in answer.json()["message"]


def test_a_command_line_signs_in_through_the_browser_once(console: ConsoleProcess) -> None:
    token, form = sign_up(console)
    begun = console.post("/api/auth/cli/init", {"callbackPort": 7777}, token="", status=200)
    assert begun["loginUrl"] == f"{console.url}/auth/cli?state={begun['state']}"
    confirmed = console.post("/api/auth/cli/confirm", {"state": begun["state"]}, token=token)
    assert confirmed["callbackPort"] == 7777
    assert console.get("/api/auth/me", token=confirmed["token"])["email"] == form["email"]
    again = console.call("POST", "/api/auth/cli/confirm", {"state": begun["state"]}, token=token)
    assert again.status_code == 410
    unknown = console.call("POST", "/api/auth/cli/confirm", {"state": "guess"}, token=token)
    assert unknown.status_code == 404
    nobody = console.call("POST", "/api/auth/cli/confirm", {"state": begun["state"]}, token="")
    assert nobody.status_code == 401


def test_a_project_with_source_and_token_is_set_up_as_the_wizard_does(console: ConsoleProcess) -> None:
    token, form = sign_up(console)
    name = f"shop-{form['pseudo']}"
    assert console.get("/api/projects", token=token) == []
    made = console.post("/api/projects", {"name": name, "label": "The shop"}, token=token, status=201)
    assert (made["name"], made["label"]) == (name, "The shop")
    assert made["token"]
    (listed,) = console.get("/api/projects", token=token)
    assert listed == {"id": made["id"], "name": name, "label": "The shop", "role": "owner"}
    source = {"name": "api_1", "environment": "prod", "description": "d"}
    assert console.post(f"/api/projects/{name}/sources", source, token=token) == {"name": "api_1"}
    taken = console.call("POST", f"/api/projects/{name}/sources", source, token=token)
    assert taken.status_code == 409
    assert "taken" in taken.json()["message"]
    assert console.get(f"/api/projects/{name}/sources", token=token) == {"sources": [source]}
    permissions = ["logs:write", "heartbeat:write", "performance:write", "commands:write", "commands:read"]
    sdk = console.post(
        f"/api/projects/{name}/tokens",
        {"name": "api_1 SDK", "permissions": permissions, "source": "api_1"},
        token=token,
    )
    assert sdk["source_name"] == "api_1"
    assert sdk["permissions"] == permissions
    (kept,) = [row for row in console.get(f"/api/projects/{name}/tokens", token=token)["tokens"] if row["source_name"]]
    assert "token" not in kept
    assert console.call("DELETE", f"/api/projects/{name}/tokens/{kept['id']}", token=token).status_code == 204
    refused = console.call("POST", "/api/v1/agent/log", {"level": "info", "message": "m"}, token=sdk["token"])
    assert refused.status_code == 401


@pytest.mark.parametrize("name", ["", "Shop", "a b", "-a", "new", "settings", "a" * 65, "é"])
def test_a_project_name_that_is_no_slug_is_refused(console: ConsoleProcess, name: str) -> None:
    answer = console.call("POST", "/api/projects", {"name": name, "label": "x"})
    assert answer.status_code == 400
    assert repr(name) in answer.json()["message"]


def test_a_stranger_sees_nothing_of_a_project(console: ConsoleProcess, project: tuple[str, str]) -> None:
    stranger, _ = sign_up(console)
    name, device = project
    for path in ("settings", "sources", "servers", "logs", "stats", "alerts", "alerts/rules", "tags", "tokens"):
        assert console.call("GET", f"/api/projects/{name}/{path}", token=stranger).status_code == 404
    assert console.call("POST", "/api/ws/create", {"projectName": name}, token=stranger).status_code == 404
    # A device's token is no person, and a person's token is no device.
    assert console.call("GET", f"/api/projects/{name}/logs", token=device).status_code == 401
    assert (
        console.call("POST", "/api/v1/agent/log", {"level": "info", "message": "m"}, token=stranger).status_code == 401
    )


def test_a_member_reads_and_does_not_manage(console: ConsoleProcess) -> None:
    owner, _ = sign_up(console)
    member, form = sign_up(console)
    name = f"team-{form['pseudo']}"
    console.post("/api/projects", {"name": name, "label": "", "memberEmails": [form["email"]]}, token=owner)
    settings = console.get(f"/api/projects/{name}/settings", token=member)
    assert (settings["ok"], settings["role"]) == (True, "member")
    assert "logs:read" in settings["effective_permissions"]
    source = {"name": "x", "environment": "dev"}
    assert console.call("POST", f"/api/projects/{name}/sources", source, token=member).status_code == 403
    members = console.get(f"/api/projects/{name}/members", token=member)["members"]
    assert [row["role"] for row in members] == ["owner", "member"]


def test_levels_switched_off_are_accepted_and_dropped(console: ConsoleProcess, project: tuple[str, str]) -> None:
    name, device = project
    changed = console.call("PATCH", f"/api/projects/{name}/settings", {"enabled_levels": ["info", "Audit "]})
    assert changed.json()["enabled_levels"] == ["info", "audit"]
    for level in ("info", "debug", "audit"):
        assert console.call("POST", "/api/v1/agent/log", {"level": level, "message": level}, token=device).ok
    assert [entry["level"] for entry in console.get(f"/api/projects/{name}/logs")] == ["info", "audit"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/auth/change-password"), ("GET", "/api/billing/plans"), ("DELETE", "/api/projects/local")],
)
def test_what_this_console_lacks_says_so_in_the_clients_shape(console: ConsoleProcess, method: str, path: str) -> None:
    answer = console.call(method, path, {} if method != "GET" else None)
    assert answer.status_code == 501
    assert answer.json()["error"]
    assert answer.json()["message"]


@pytest.mark.parametrize("path", ["/auth/cli?state=x", "/login", "/register", "/"])
def test_pages_are_served_with_a_policy_that_admits_no_foreign_script(console: ConsoleProcess, path: str) -> None:
    answer = console.call("GET", path, token="")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
