"""The report page in a real browser: seeking, cursor, keyboard, colours, and no errors in the console."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from extracting.own.footage import ShownScores, view
from extracting.video.config import Config
from vad.report.own_videos import (
    Threshold,
    answer_of,
    find_events,
    in_events,
    missing_packages,
    shown_snippets,
    write_answer,
    write_index,
)
from vad.scoring import ScoredVideo

selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium")
pytestmark = [
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="needs Debian's chromium and chromium-driver"),
    pytest.mark.skipif(bool(missing_packages()), reason=missing_packages()),
]
FPS, SNIPPETS = 16, 12  # a snippet lasts one second
SCORES = np.array([0.1, 0.1, 0.9, 0.8, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.1, 0.1], np.float32)
NAME = "<b id=injected>clip</b> & \"x\""
DARK, LIGHT = (21, 24, 27), (255, 255, 255)  # --page of pages/style.css


def write_reports(folder: Path) -> None:
    """Write a report with the video beside it, one that contains it, and the index."""
    film = folder / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (320, 240))
    for number in range(16 * SNIPPETS):
        frame = np.full((240, 320, 3), 60, np.uint8)
        cv2.circle(frame, (20 + number, 120), 30, (40, 160, 240), -1)
        writer.write(frame)
    writer.release()
    weights = {"image": np.linspace(0.4, 0.6, SNIPPETS), "event": np.linspace(0.6, 0.4, SNIPPETS)}
    scored = ScoredVideo(NAME, "", SCORES, weights, {}, np.zeros(16 * SNIPPETS))
    threshold = Threshold(0.5, "--threshold")
    events = find_events(SCORES, threshold)
    chosen = {k for group in shown_snippets(SCORES, events) for k in group}
    answers = []
    for name in ("beside", "embedded"):
        target = folder / name
        clip = target / "video.mp4"
        shown = ShownScores(SCORES, in_events(events, SNIPPETS), 0.5)
        footage = view(film, chosen, shown, Config(crops=(5,)), preview=clip)
        answer = answer_of(scored, footage.times, events, threshold, {"checkpoint": "a.pth"})
        write_answer(target, scored, answer, footage.times, events, footage.pictures, footage.event_maps, clip=clip,
                     embed=name == "embedded")  # fmt: skip
        answers.append(({**answer, "video": name}, SCORES))
    write_index(folder / "index.html", answers, {NAME: "the file is empty"})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a headless Chromium."""
    options = selenium.ChromeOptions()
    profile = tmp_path_factory.mktemp("profile")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--autoplay-policy=no-user-gesture-required")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of reports."""
    path = tmp_path_factory.mktemp("reports")
    write_reports(path)
    return path


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a report and runs scripts in it. No console error may be left at the end."""

    def open_page(name: str = "beside/report.html", width: int = 1200, scheme: str = "light") -> Callable[..., Any]:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get((folder / name).as_uri())
        if "report" in name:
            wait(lambda: browser.execute_script("return document.querySelector('video').readyState >= 2"))
        return browser.execute_script

    yield open_page
    assert browser.get_log("browser") == []


def wait(condition: Callable[[], Any], seconds: float = 15) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.05)


def state(script: Callable[..., Any]) -> tuple[float, float]:
    """Return the times of the video and of the cursor."""
    return tuple(script("return [document.querySelector('video').currentTime, chart.layout.shapes[0].x0]"))


def click_chart(browser: Any, script: Callable[..., Any], seconds: float, level: float) -> None:
    """Click into the curves at a time and a height (0 below, 1 above), with the mouse."""
    x, y = script("""
        chart.scrollIntoView();
        const area = chart.querySelector(".nsewdrag").getBoundingClientRect();
        return [area.left + area.width * arguments[0] / end, area.bottom - area.height * arguments[1]];
    """, seconds, level)  # fmt: skip
    mouse = {"x": x, "y": y, "button": "left", "clickCount": 1}
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **mouse})
        time.sleep(0.15)


@pytest.mark.parametrize("level", [0.1, 0.9])
def test_click_on_the_curves_seeks(page: Any, browser: Any, level: float) -> None:
    script = page()
    click_chart(browser, script, 5.1, level)
    wait(lambda: state(script) == pytest.approx((5, 5), abs=0.05))
    status = script("return document.getElementById('status').textContent")
    assert status == "5.0 s · score 0.100 · weight of image 0.491 · weight of event 0.509"


def test_cursor_follows_the_playing_video(page: Any) -> None:
    script = page()
    assert state(script) == (0, 0)
    script("video.play()")
    wait(lambda: state(script)[1] > 0.6)
    script("video.pause()")
    wait(lambda: abs(state(script)[0] - state(script)[1]) < 0.3)


def test_minutes_are_counted_as_the_player_does(page: Any) -> None:
    script = page()
    assert script("return [0, 59.9, 60, 346.2, 3605].map(clock)") == ["0:00", "0:59", "1:00", "5:46", "60:05"]


def test_list_and_pictures_jump_to_their_time(page: Any) -> None:
    script = page()
    assert script("return [...document.querySelectorAll('#events button')].map((b) => +b.dataset.time)") == [2, 7]
    script("document.querySelectorAll('#events button')[1].click()")
    wait(lambda: state(script) == pytest.approx((7, 7), abs=0.05))
    current = "return [...document.querySelectorAll('#events button')].map((b) => b.getAttribute('aria-current'))"
    assert script(current) == ["false", "true"]
    script("document.querySelector('#moments .peak').click()")
    wait(lambda: state(script) == pytest.approx((2, 2), abs=0.05))
    pictures = script("return [...document.querySelectorAll('#moments img')].map((i) => i.naturalWidth)")
    assert len(pictures) == 18 and min(pictures) == 320  # frame and event map of 8 snippets and another peak


def test_every_action_has_a_key(page: Any, browser: Any) -> None:
    script = page()
    keys = selenium.Keys
    chart = browser.find_element("id", "chart")
    chart.send_keys(keys.PAGE_DOWN)
    wait(lambda: state(script) == pytest.approx((2, 2), abs=0.05))
    for key, expected in (
        (keys.PAGE_DOWN, 7), (keys.PAGE_UP, 2), (keys.ARROW_RIGHT, 3), (keys.ARROW_LEFT, 2),
        (keys.END, 11), (keys.HOME, 0),
    ):  # fmt: skip
        chart.send_keys(key)
        wait(lambda expected=expected: state(script) == pytest.approx((expected, expected), abs=0.05))
    assert script("return chart.getAttribute('aria-valuetext')").startswith("0.0 s · score 0.100")
    chart.send_keys(" ")
    wait(lambda: not script("return video.paused"))
    order = "return [...document.querySelectorAll('button, #chart, video')].every((e) => e.tabIndex >= 0)"
    assert script(order)


@pytest.mark.parametrize(("scheme", "colour"), [("light", LIGHT), ("dark", DARK)])
@pytest.mark.parametrize("width", [1200, 400])
def test_page_is_light_or_dark_and_never_too_wide(page: Any, scheme: str, colour: Any, width: int) -> None:
    for name in ("beside/report.html", "index.html"):
        script = page(name, width, scheme)
        rgb = f"rgb({', '.join(map(str, colour))})"
        assert script("return getComputedStyle(document.body).backgroundColor") == rgb
        assert script("return document.documentElement.scrollWidth") <= width
        if "report" in name:
            hex_colour = "#{:02x}{:02x}{:02x}".format(*colour)
            assert script("return chart.layout.plot_bgcolor") == hex_colour


def test_embedded_report_needs_no_other_file(page: Any, folder: Path) -> None:
    assert not (folder / "embedded" / "video.mp4").exists()
    script = page("embedded/report.html")
    assert script("return video.duration") == pytest.approx(SNIPPETS, abs=0.2)
    loaded = script("return performance.getEntriesByType('resource').map((entry) => entry.name.slice(0, 5))")
    assert set(loaded) <= {"data:"}


def test_html_in_a_name_is_shown_as_text(page: Any) -> None:
    script = page()
    assert script("return document.getElementById('injected')") is None
    assert script("return document.querySelector('h1').textContent") == script("return document.title") == NAME
    script = page("index.html")
    assert script("return document.getElementById('injected')") is None
    assert f"{NAME}: the file is empty" in script("return document.body.innerText")
