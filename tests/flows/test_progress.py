import pytest

from flows import progress


def test_rate_and_time_left_are_those_of_the_count_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lines = [1000.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    report = progress.throttled(lambda line, share: lines.append(line), every=10)
    for kind, each in (("swap", 10), ("replace", 20)):
        for done in range(0, 101, 20):
            report(f"captions, {kind}", done, 100)
            clock[0] += each
    assert lines[:3] == [
        "0/100 captions, swap (starting)",
        "20/100 captions, swap (2.0/s, 40 s left)",
        "40/100 captions, swap (2.0/s, 30 s left)",
    ]
    assert lines[6:8] == ["0/100 captions, replace (starting)", "20/100 captions, replace (1.0/s, 80 s left)"]
    assert lines[-1] == "100/100 captions, replace (done)"
