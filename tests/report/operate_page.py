"""Operates report pages in headless Chromium, with real keys and clicks through the DevTools pipe. operate_page.py CHROMIUM PAGE...
With --measure before CHROMIUM: size, first paint and printed pages of each."""

import base64, json, os, re, shutil, signal, subprocess, sys, tempfile, time


class Browser:
    def __init__(self, program):
        self.folder, self.rest, self.last, self.session, self.thrown = (
            tempfile.mkdtemp(),
            b"",
            0,
            None,
            [],
        )
        theirs, self.to = os.pipe()
        self.back, answers = os.pipe()

        def pipes():  # the browser reads from 3 and writes to 4
            a, b = os.dup(theirs), os.dup(answers)
            os.dup2(a, 3), os.dup2(b, 4)

        self.process = subprocess.Popen(
            [
                program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-pipe",
                "--user-data-dir=" + self.folder,
            ],
            preexec_fn=pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs), os.close(answers)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        self.call("Page.enable"), self.call("Runtime.enable")

    def read(self):
        while b"\0" not in self.rest:
            more = os.read(self.back, 1 << 20)
            assert more, "the browser has gone"
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(message)
        if message.get("method") == "Runtime.exceptionThrown":
            self.thrown.append(message["params"])
        return message

    def call(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params} | (
            {"sessionId": self.session} if self.session else {}
        )
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != self.last:
            pass
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def open(self, page, width, dark=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            media="",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.call("Page.navigate", url="file://" + os.path.abspath(page))
        while self.read().get("method") != "Page.loadEventFired":
            pass

    def js(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def key(self, key, code):
        text = {"Enter": "\r"}.get(key)
        self.call(
            "Input.dispatchKeyEvent",
            type="keyDown",
            key=key,
            code=key,
            windowsVirtualKeyCode=code,
            **({"text": text} if text else {}),
        )
        self.call(
            "Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code
        )

    def tab_to(self, selector):  # how many presses it took
        for presses in range(1, 400):
            self.key("Tab", 9)
            if self.js(f"document.activeElement.matches({selector!r})"):
                assert (
                    self.js("getComputedStyle(document.activeElement).outlineStyle") != "none"
                ), "the focus cannot be seen"
                return presses
        assert False, "Tab does not reach " + selector

    def enter(self):
        self.key("Enter", 13)

    def mouse(self, element, kinds, across=0.5):  # element: an expression
        self.js(element + ".scrollIntoView({block: 'center'})")
        x, y = self.js(
            f"(r => [r.left + r.width * {across}, r.top + r.height / 2])({element}.getBoundingClientRect())"
        )
        for kind in kinds:
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                **({} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}),
            )

    def click(self, element):
        self.mouse(element, ["mousePressed", "mouseReleased"])

    def close(self):
        self.process.terminate(), self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def figure(text):  # what stands in a cell, without what stands beside it; None = no value
    text = text.strip().replace(",", "").replace("≈", "").replace("∞", "inf")
    if text in ("–", ""):
        return None
    try:
        return float(text)
    except ValueError:
        return text


def column(b, header):
    cells = b.js(
        f"[...{header}.closest('table').tBodies[0].rows].map(r => r.cells[{header}.cellIndex].firstChild?.data ?? '')"
    )
    return [figure(c) for c in cells]


def is_sorted(values, up):
    known = [v for v in values if v is not None]
    if any(isinstance(v, str) for v in known):
        return  # as the reader's language sorts words
    assert values[len(known) :] == [None] * (len(values) - len(known)), (
        "no value comes last",
        values,
    )
    assert known == sorted(known, reverse=not up), (up, values)


def sorting(b):
    if not b.js("document.querySelector('article > .scroll > .data thead button') !== null"):
        return
    b.tab_to(".data thead button")
    focused = "document.activeElement.parentNode"
    for up in (True, False, True):
        b.enter()
        assert b.js(focused + ".getAttribute('aria-sort')") == ("ascending" if up else "descending")
        is_sorted(column(b, focused), up)
    seen = b.js("document.querySelectorAll('article > .scroll > .data thead th').length")
    assert seen > 3, seen
    for i in range(seen):  # of tables that stand on the page
        header = f"document.querySelectorAll('article > .scroll > .data thead th')[{i}]"
        before = sorted(map(str, column(b, header)))
        for _ in range(2):
            was = b.js(header + ".getAttribute('aria-sort')")
            b.click(header + ".querySelector('button')")
            up = was != "ascending"
            assert b.js(header + ".getAttribute('aria-sort')") == (
                "ascending" if up else "descending"
            ), i
            is_sorted(column(b, header), up)
        assert sorted(map(str, column(b, header))) == before, "sorting loses rows"
        assert (
            b.js(
                f"[...{header}.parentNode.children].filter(h => h.hasAttribute('aria-sort')).length"
            )
            == 1
        )


def data(b):  # of every figure, one key or click away
    assert b.js(
        "[...document.querySelectorAll('article')].every(a => !a.querySelector('svg.chart') || a.querySelectorAll(':scope > details > summary').length == 1)"
    )
    inner = "[...document.querySelectorAll('article details')].filter(d => !d.querySelector('details'))"
    shown = inner + "[{}].querySelector('table').checkVisibility()"
    folded = b.js(inner + ".map(d => d.querySelector('table') !== null)")
    assert folded and all(folded), folded
    assert not b.js(shown.format(0))
    b.js("document.activeElement.blur()")
    b.tab_to("summary")
    b.enter()
    assert b.js("document.activeElement.parentNode.open")
    b.enter()
    assert not b.js("document.activeElement.parentNode.open")
    for i in range(b.js("document.querySelectorAll('article summary').length")):
        b.click(f"document.querySelectorAll('article summary')[{i}]")
    for i in range(len(folded)):
        assert b.js(shown.format(i)), i


def figures(b):  # saved by a click, as SVG with its styles and as PNG
    if not b.js("document.querySelector('.saves button') !== null"):
        return
    b.js(
        "HTMLAnchorElement.prototype.click = function () { window.saved = [this.download, this.href] }"
    )
    visible = "[...document.querySelectorAll('.saves')].find(s => s.checkVisibility())"
    b.click(visible + ".children[0]")
    name, href = b.js("window.saved")
    assert name.endswith(".svg") and href.startswith("data:image/svg+xml"), name
    assert "fill%3A" in href and "xmlns" in href, href[:200]
    b.js("window.saved = null")
    b.click(visible + ".children[1]")
    for _ in range(100):
        if b.js("window.saved !== null"):
            break
        time.sleep(0.05)
    name, href = b.js("window.saved")
    assert name.endswith(".png") and href.startswith("data:image/png;base64,"), name


def first_screen(b):  # lights, the first map and the way to the findings, before anything is scrolled
    if not b.js("document.querySelector('.tiles') !== null"):
        return
    top = "document.querySelector('{}').getBoundingClientRect().top"
    assert b.js("document.querySelectorAll('.tile').length") >= 4
    assert b.js("[...document.querySelectorAll('.tile')].every(t => t.querySelector('.lamp') && t.querySelector('svg'))")
    assert b.js(top.format(".tiles")) < 400 and b.js(top.format("#t0")) < 700
    assert b.js("document.querySelectorAll('#findings > ol > li').length") <= 8
    assert b.js("[...document.querySelectorAll('a.more')].every(a => document.querySelector(a.hash))")
    assert b.js("(n => n.scrollWidth <= n.clientWidth)(document.querySelector('nav'))"), "the bar"


def text(b):  # layers by the keyboard, one expert by a click
    if not b.js("document.getElementById('layer') !== null"):
        return
    classes = "[...document.querySelectorAll('.tokens span')].map(s => s.className)"
    first = b.js(classes)
    b.js("document.getElementById('layer').focus()")
    b.key("ArrowDown", 40)
    assert b.js("document.getElementById('layer').value") == "1" and b.js(classes) != first
    b.click("document.querySelector('.experts button')")
    assert b.js("document.querySelector('.experts button').getAttribute('aria-pressed')") == "true"
    assert b.js(
        "[...document.querySelectorAll('.tokens span')].every(s => s.matches('.e0:not(.off), .off'))"
    )
    b.enter()  # the same button, by its key
    assert b.js("document.querySelectorAll('.tokens .off').length") == 0


def picture(b):  # the value under the pointer
    if not b.js("document.querySelector('svg[data-map] image') !== null"):
        return
    b.mouse("document.querySelector('svg[data-map] image')", ["mouseMoved"], across=0.01)
    said = b.js(
        "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"
    )
    svg = "document.querySelector('svg[data-map]')"
    keys, value = said.rsplit(": ", 1)
    *row, across = keys.split(" / ")
    table = b.js(
        f"(t => [...t.rows].map(r => [...r.cells].map(c => c.textContent.trim())))(document.getElementById({svg}.dataset.map))"
    )
    assert [r[table[0].index(across)] for r in table if r[: len(row)] == row] == [
        value.strip()
    ], said


def fits(b, page):
    for width in (1280, 390):
        for dark in (False, True):
            b.open(page, width, dark)
            assert b.js("document.documentElement.scrollWidth <= innerWidth"), (
                width,
                "the page scrolls sideways",
            )
            light = b.js(
                "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(c => c > 128)"
            )
            assert light != dark, (width, dark)
    b.open(page, 740)  # a sheet of paper
    b.call("Emulation.setEmulatedMedia", media="print")
    cut = b.js(
        "[...document.querySelectorAll('table, svg, p')].filter(e => !e.closest('details') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.closest('article')?.id ?? e.outerHTML.slice(0, 80))"
    )
    assert cut == [], ("cut on paper", cut)


def printed(b, page):  # sheets of paper
    b.open(page, 740)
    pdf = base64.b64decode(b.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))


def painted(b, page):  # milliseconds to the first contents
    b.open(page, 1280)
    for _ in range(200):
        at = b.js("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
        if at:
            return at
        time.sleep(0.02)
    assert False, "nothing is painted"


def readable(b):  # what a screen reader is told
    assert b.js("document.documentElement.lang") == "en"
    levels = b.js("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1, levels
    assert all(next_one - one <= 1 for one, next_one in zip(levels, levels[1:])), levels
    assert b.js(
        "[...document.querySelectorAll('table')].every(t => t.rows[0].querySelectorAll('th').length == t.rows[0].cells.length)"
    ), "a table without headings"
    nodes = b.call("Accessibility.getFullAXTree")["nodes"]
    of_roles = [n for n in nodes if n.get("role", {}).get("value") in ("image", "img", "button", "link", "region", "navigation", "combobox")]
    assert of_roles, "a page without figures, links and boxes"
    nameless = [n for n in of_roles if not n.get("ignored") and not n.get("name", {}).get("value")]
    assert nameless == [], nameless[:3]


def main(program, pages):
    browser = Browser(program)
    try:
        for path in pages:
            fits(browser, path)
            assert printed(browser, path) <= 10, (path, "takes more than ten sheets of paper")
            for act in (first_screen, readable, sorting, data, figures, text, picture):
                browser.open(path, 1280)
                act(browser)
            assert browser.thrown == [], browser.thrown
    finally:
        browser.close()


def measure(program, pages):  # --measure: the figures of docs/performance.md, the median of five
    browser = Browser(program)
    try:
        for path in pages:
            paints = sorted(painted(browser, path) for _ in range(5))
            print(
                f"{path}: {os.path.getsize(path) / 1e6:.2f} MB, first paint {paints[2]:.0f} ms ({paints[0]:.0f} to {paints[-1]:.0f}), "
                f"{printed(browser, path)} printed pages, {browser.js('document.documentElement.scrollHeight')} px high"
            )
    finally:
        browser.close()


if __name__ == "__main__":
    signal.alarm(300)
    if sys.argv[1] == "--measure":
        measure(sys.argv[2], sys.argv[3:])
    else:
        main(sys.argv[1], sys.argv[2:])
