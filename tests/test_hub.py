from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from calib_ebm import hub


@pytest.fixture(autouse=True)
def ask_anew() -> Iterator[None]:
    hub.forget()
    yield
    hub.forget()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """A Hub that answers; the list of what it was asked."""
    requests: list[tuple[str, float]] = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            requests.append((url, timeout))

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    return requests


def fail(*_: Any, **__: Any) -> None:
    raise OSError("no route")


def test_a_hub_that_answers_is_asked_once_for_several_things(
    asked: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert hub.answers() and not hub.must_be_local("roberta-base")
    assert asked == [(constants.ENDPOINT, hub.PATIENCE)]
    now[0] += 2 * hub.REMEMBERED  # what was true a while ago may have changed
    assert hub.answers()
    assert len(asked) == 2


def test_a_hub_that_cannot_be_reached_leaves_this_machine(
    asked: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils.get_session", fail)
    assert not hub.answers() and hub.must_be_local("roberta-base")


def test_the_refused_network_of_the_tests_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits for an absent network"))
    assert not hub.answers()


def test_nobody_is_asked_about_a_folder(asked: list[tuple[str, float]], tmp_path: Path) -> None:
    assert hub.must_be_local(str(tmp_path))
    assert asked == []


def test_nobody_is_asked_when_told_to_stay_offline(
    asked: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.answers()
    assert asked == []
