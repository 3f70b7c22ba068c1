"""The system's Chromium, and a person who reads and clicks in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.models import User
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.factories import PASSWORD

PATIENCE = 20.0  # seconds
# Chromium talks to loopback only, whatever a page requests.
LOOPBACK_ONLY = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"


class Visitor:
    """A person at a screen of a certain width, who reads and clicks."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def sign_in(self, site: str, user: User) -> None:
        self.open(f"{site}/accounts/login/")
        self.fill(login=user.email, password=PASSWORD)
        self.click("Sign In")

    def fill(self, **fields: str) -> None:
        """Type into fields, by name, replacing what is in them."""
        for name, value in fields.items():
            field = self.driver.find_element(By.NAME, name)
            field.clear()
            field.send_keys(value)

    def click(self, words: str) -> None:
        """Click the link or button with this text, and wait for the page that follows."""
        called = f"normalize-space()='{words}' or @type='submit' and @value='{words}'"
        element = self.driver.find_element(
            By.XPATH, f"//main//*[self::button or self::a or self::input][{called}]"
        )
        page = self.driver.find_element(By.TAG_NAME, "html").id
        element.click()
        WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(
            lambda driver: (
                driver.find_element(By.TAG_NAME, "html").id != page
                and driver.execute_script("return document.readyState") == "complete"
            )
        )

    def find(self, selector: str, *, words: str = "") -> WebElement:
        """Wait for an element that a script of the page shows, with these words in it."""

        def shown(driver: webdriver.Chrome) -> WebElement | None:
            elements = driver.find_elements(By.CSS_SELECTOR, selector)
            return next((one for one in elements if one.is_displayed() and words in one.text), None)

        found = WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(
            shown, f"Nothing shows at {selector}."
        )
        assert found
        return found

    def until_reads(self, words: str) -> None:
        """Wait until a script of the page has written this."""
        WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(
            lambda _: words in self.reads, f"The page does not say: {words}"
        )

    @property
    def reads(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    @property
    def status(self) -> int:
        """The HTTP status of the page."""
        return int(
            self.driver.execute_script("return performance.getEntriesByType('navigation')[0].responseStatus")
        )

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Return what Chromium has logged since the last call, of its console ("browser") or the network
        ("performance").
        """
        entries: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return entries

    def complaints(self) -> list[str]:
        """Return what Chromium wrote on its console, such as what a policy refused."""
        return [entry["message"] for entry in self.log("browser")]

    def reaches(self, element: WebElement) -> bool:
        """Return whether everything is visible without scrolling sideways."""
        script = "return arguments[0].getBoundingClientRect().right <= innerWidth"
        return bool(self.driver.execute_script(script, element))

    @property
    def scrolls_sideways(self) -> bool:
        return bool(self.driver.execute_script("return document.documentElement.scrollWidth > innerWidth"))


@contextmanager
def visit(
    *, width: int, height: int, hosts: str = LOOPBACK_ONLY, insecure: bool = False
) -> Iterator[Visitor]:
    """Start a browser whose screen has this many CSS pixels, with Chromium's host resolver rules."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",  # CI runs as root in a container
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        f"--host-resolver-rules={hosts}",
    ):
        options.add_argument(argument)
    options.accept_insecure_certs = insecure
    # A window is never narrower than 500 pixels; a screen can be.
    screen = {"width": width, "height": height, "pixelRatio": 1.0, "mobile": width < 600}
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": screen})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or ""))
    try:
        yield Visitor(driver)
    finally:
        driver.quit()
