"""Bodies are compressed only where that brings them to the backend sooner."""

import gzip

import pytest

from orionagent.logs.compression import Compression, compress, is_loopback

BODY = 1 << 20


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:3001", True),
        ("http://localhost/api/v1", True),
        ("http://[::1]:80", True),
        ("https://api.orion.dev", False),
        ("http://10.0.0.1", False),
        ("https://localhost.example.com", False),
    ],
)
def test_this_machine_is_known_by_its_addresses(url: str, here: bool) -> None:
    assert is_loopback(url) is here


def test_nothing_is_compressed_for_this_machine_or_for_one_packet() -> None:
    assert not Compression("http://127.0.0.1").pays(BODY)
    assert not Compression("https://api.orion.dev").pays(1000)


def learn(compression: Compression, plain_s: float, packed_s: float) -> list[bool]:
    """Return the choices of 200 requests over a link where a body takes so long either way."""
    choices = []
    for _ in range(200):
        packed = compression.pays(BODY)
        compression.note(BODY, packed_s if packed else plain_s, packed=packed)
        choices.append(packed)
    return choices


def test_a_narrow_link_gets_compressed_bodies_and_a_wide_one_plain_ones() -> None:
    assert learn(Compression("https://api.orion.dev"), 1.0, 0.2).count(True) > 190
    assert learn(Compression("https://api.orion.dev"), 0.01, 0.03).count(True) < 10
    assert learn(Compression("https://api.orion.dev"), 1.0, 1.0).count(True) < 10


def test_a_link_that_changes_is_noticed() -> None:
    compression = Compression("https://api.orion.dev")
    learn(compression, 0.01, 0.03)
    assert learn(compression, 1.0, 0.2)[-20:].count(True) >= 19


def test_a_backend_that_refused_compression_is_not_asked_again() -> None:
    compression = Compression("https://api.orion.dev")
    compression.forbid()
    assert not compression.pays(BODY)


def test_what_is_compressed_unpacks_to_the_same() -> None:
    for body in (b"x" * 1000, b"line\n" * 200_000):
        packed, took_s = compress(body, lambda work: work())
        assert gzip.decompress(packed) == body
        assert took_s >= 0
