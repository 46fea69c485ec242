"""What is tried again, how often, and which errors of a device link are transient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from ofa_profiler.base.retry import LinkErrors, retry
from ofa_profiler.errors import (
    DeviceError,
    OfaError,
    TransientDeviceError,
    TransientError,
    UploadInterrupted,
    UsageError,
)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


class Action:
    """Raises these errors one after the other, then succeeds."""

    def __init__(self, errors: Sequence[BaseException]) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def lost(remaining: int | None = None) -> TransientDeviceError:
    return TransientDeviceError("lost") if remaining is None else UploadInterrupted("lost", remaining)


def position(error: TransientError) -> float:
    return -error.remaining if isinstance(error, UploadInterrupted) else -math.inf


def test_transient_errors_are_followed_by_the_pauses_in_order(slept):
    action, reported = Action([lost(), lost()]), []
    assert retry(action, (1, 2, 3), before_retry=lambda error, progress: reported.append(str(error))) == "done"
    assert (slept, reported) == ([1, 2], ["lost", "lost"])


def test_without_progress_the_last_error_is_raised_after_the_last_pause(slept):
    action = Action([lost() for _ in range(9)])
    with pytest.raises(TransientDeviceError):
        retry(action, (1, 2))
    assert (slept, action.calls) == ([1, 2], 3)


@pytest.mark.parametrize("error", [DeviceError("no"), UsageError("no"), KeyboardInterrupt(), ValueError("no")])
def test_a_final_error_is_raised_at_once(slept, error):
    action = Action([error])
    with pytest.raises(type(error)):
        retry(action, (1, 2))
    assert (slept, action.calls) == ([], 1)


def test_progress_starts_the_pauses_again(slept):
    errors = [lost(900), lost(900), lost(), lost(500), lost(400), lost(), lost()]
    progress: list[bool] = []
    action = Action(errors)
    retry(action, (1, 2, 3), position=position, before_retry=lambda _, gained: progress.append(gained))
    assert slept == [1, 2, 3, 1, 1, 2, 3]
    assert progress == [True, False, False, True, True, False, False]


def test_an_action_that_has_not_begun_is_not_repeated(slept):
    action = Action([lost()])
    with pytest.raises(TransientDeviceError):
        retry(action, (1, 2, 3), position=position)
    assert (slept, action.calls) == ([], 1)


def test_the_number_of_attempts_can_be_limited(slept):
    action = Action([lost(remaining) for remaining in range(100, 0, -1)])
    with pytest.raises(UploadInterrupted):
        retry(action, (0,), position=position, max_attempts=5)
    assert action.calls == 5


# --- links ------------------------------------------------------------------------------------------------


def raised_by(link: LinkErrors, error: OfaError) -> type[BaseException]:
    with pytest.raises(OfaError) as caught, link.classified():
        raise error
    assert str(caught.value) == str(error)
    return caught.type


def test_a_device_that_never_answered_is_not_waited_for():
    link = LinkErrors(checksums=True)
    assert raised_by(link, lost()) is DeviceError
    link.was_connected = True
    assert raised_by(link, lost()) is TransientDeviceError
    assert raised_by(link, DeviceError("no")) is DeviceError


def test_without_checksums_a_final_error_must_occur_twice():
    link = LinkErrors(checksums=False)
    assert raised_by(link, DeviceError("no")) is DeviceError, "nothing was sent yet that could be damaged"
    link.was_connected = True
    assert raised_by(link, DeviceError("12 MB are free")) is TransientDeviceError
    assert raised_by(link, UsageError("unknown option")) is TransientDeviceError
    assert raised_by(link, DeviceError("13 MB are free")) is DeviceError
    assert raised_by(link, UsageError("unknown option")) is UsageError
    link.forget()
    assert raised_by(link, DeviceError("13 MB are free")) is TransientDeviceError


def test_nested_links_count_an_error_once():
    link = LinkErrors(checksums=False)
    link.was_connected = True

    def attempt() -> None:
        with link.classified(), link.classified():
            raise DeviceError("no")

    with pytest.raises(TransientDeviceError):
        attempt()
    with pytest.raises(DeviceError) as caught:
        attempt()
    assert caught.type is DeviceError
