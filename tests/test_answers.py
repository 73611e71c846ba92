"""What an answer of the backend means is decided without a network."""

import pytest

from orionagent.answers import clock_skew_s, excerpt, failure, retry_after_s
from orionagent.errors import BackendError, Permanent, Refused, Retryable, TooLarge, Unsupported

NOW_S = 1_700_000_000.0
NOW_DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
IN_A_MINUTE = "Tue, 14 Nov 2023 22:14:20 GMT"


def judge(status: int, body: bytes = b"", **headers: str) -> BackendError | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return failure(status, named, body, call="cannot send logs to https://x", token="secret", now_s=NOW_S)


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ((200, 201, 202, 204, 299), type(None)),
        ((301, 302, 304, 307, 308, 401, 403, 407), Refused),
        ((408, 429, 500, 502, 503, 504, 511, 599, 999, 100), Retryable),
        ((413,), TooLarge),
        ((404, 405, 415), Unsupported),
        ((400, 402, 409, 410, 422, 451), Permanent),
    ],
)
def test_every_status_says_what_to_do(statuses: tuple[int, ...], kind: type) -> None:
    for status in statuses:
        found = judge(status)
        assert type(found) is kind, status
        if found is not None:
            assert found.status == status
            assert str(status) in found.message


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("999999999", 3600.0),
        ("inf", 3600.0),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
        (IN_A_MINUTE, 60.0),
        ("Tue, 14 Nov 2023 22:14:20 -0000", 60.0),
        ("Tue, 14 Nov 2000 22:14:20 GMT", 0.0),
        ("Tue, 14 Nov 2999 22:14:20 GMT", 3600.0),
        ("Tue, 99 Nov 2023 99:99:99 GMT", None),
        ("Tue, 14 Nov 2023 22:14:20 +99999999", None),
    ],
)
def test_retry_after_is_taken_as_seconds_or_date_within_an_hour(value: str | None, wait_s: float | None) -> None:
    assert retry_after_s(value, None, NOW_S) == wait_s


def test_a_retry_after_date_counts_from_the_backends_own_clock() -> None:
    assert retry_after_s(IN_A_MINUTE, NOW_DATE, NOW_S + 5000) == 60.0
    assert retry_after_s(IN_A_MINUTE, "garbage", NOW_S + 20) == 40.0


def test_clock_skew_is_measured_from_the_date_and_unknown_without_one() -> None:
    assert clock_skew_s(NOW_DATE, NOW_S) == 0.5
    assert clock_skew_s(NOW_DATE, NOW_S - 3600) == 3600.5
    assert clock_skew_s("yesterday", NOW_S) is None
    assert clock_skew_s(None, NOW_S) is None


def test_an_excerpt_is_one_printable_line_without_the_token() -> None:
    hostile = b"a\x1b[31mred\r\n\x00 token secret, Bearer abc \xff\xe2\x80\xae" + b"x" * 5000
    found = excerpt(hostile, "secret")
    assert found.startswith(" (a [31mred token ***, Bearer *** ")
    assert "secret" not in found
    assert "abc" not in found
    assert len(found) < 200
    assert excerpt(b" \n ", "secret") == ""


def test_a_refused_token_is_named_as_such_and_not_shown() -> None:
    refused = judge(401, b'{"error": "bad token secret"}')
    assert refused is not None
    assert "orion setup --server" in refused.message
    assert "secret" not in refused.message


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"ok": false, "error": "no such token"}', " (no such token)"),
        (b'{"error": {"code": 7, "message": "expired"}}', " (expired)"),
        (b'{"message": "Bearer abc is unknown"}', " (Bearer *** is unknown)"),
        (b'{"detail": "secret is not yours"}', " (*** is not yours)"),
        (b'{"error": 5}', ' ({"error": 5})'),
        (b'{"error": ', ' ({"error":)'),
        (b"{" * 100_000, " (" + "{" * 160 + ")"),
        (b'["error"]', ' (["error"])'),
    ],
)
def test_an_excerpt_is_the_reason_that_a_json_answer_states(body: bytes, shown: str) -> None:
    assert excerpt(body, "secret") == shown
